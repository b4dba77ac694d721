"""Detectors of transformers, on shrunk networks with random numbers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from arabesque.extractors.checkpoints import CheckpointFile
from arabesque.extractors.detectors import load_detector
from arabesque.extractors.hub_snapshot import CheckpointFolder
from arabesque.manifests.errors import ConfigError, WeightsError

CPU = torch.device("cpu")
NAMES = {0: "person", 1: "dog", 2: "bicycle"}
HEADS = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "num_queries": 12,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "id2label": NAMES,
}


def rt_detr() -> Any:
    transformers: Any = import_module("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    channels = {"encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32, 32, 32]}
    return transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(backbone_config=backbone, **channels, **HEADS)
    )


def d_fine() -> Any:
    transformers: Any = import_module("transformers")
    backbone = transformers.HGNetV2Config(
        embedding_size=8, hidden_sizes=[16, 16, 16, 32], stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16], stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 16, 32], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    channels = {"encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32, 32, 32]}
    return transformers.DFineForObjectDetection(transformers.DFineConfig(backbone_config=backbone, **channels, **HEADS))


def saved(network: Any, folder: Path, side_px: int = 64) -> CheckpointFolder:
    from transformers import RTDetrImageProcessor

    network.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": side_px, "width": side_px}).save_pretrained(folder)
    return CheckpointFolder("a/b", folder).with_digest()


@pytest.mark.parametrize("make", [d_fine, rt_detr])
def test_people_are_those_that_transformers_own_pipeline_finds(make: Callable[[], Any], tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForObjectDetection
    from transformers import pipeline as transformers_pipeline

    torch.manual_seed(3)
    checkpoint = saved(make(), tmp_path)
    frames = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((90, 140), (140, 90), (90, 140))]
    found = load_detector("transformers", checkpoint, CPU, threshold=0.0).people(frames)
    theirs: Any = transformers_pipeline(
        "object-detection",
        model=AutoModelForObjectDetection.from_pretrained(tmp_path),
        image_processor=AutoImageProcessor.from_pretrained(tmp_path),
    )
    for frame, boxes in zip(frames, found, strict=True):
        detections = theirs(Image.fromarray(frame.permute(1, 2, 0).numpy()), threshold=0.0)
        expected = [each for each in detections if each["label"] == "person"]
        scores = [box.confidence for box in boxes]
        assert scores == sorted(scores, reverse=True)
        assert 0 < len(boxes) <= len(expected)  # boxes outside of the frame are dropped
        for box in boxes:
            nearest = min(expected, key=lambda each: abs(each["score"] - box.confidence))
            assert nearest["score"] == pytest.approx(box.confidence, abs=1e-5)
            height, width = frame.shape[1:]
            for edge, name, limit in (
                (box.left, "xmin", width),
                (box.top, "ymin", height),
                (box.right, "xmax", width),
                (box.bottom, "ymax", height),
            ):
                assert edge == pytest.approx(min(max(nearest["box"][name], 0), limit), abs=1.01)  # theirs is truncated


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    file = CheckpointFile("yolov8n", tmp_path / "yolov8n.pt", "0" * 64, "ultralytics-yolo", True)
    with pytest.raises(
        WeightsError, match=r"yolov8n is a file of layout ultralytics-yolo; detector = \"transformers\""
    ):
        load_detector("transformers", file, CPU, 0.25)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "unheard"}')
    with pytest.raises(ConfigError, match="does not implement model type 'unheard'"):
        load_detector("transformers", CheckpointFolder("a/b", tmp_path / "other"), CPU, 0.25)


def test_a_detector_without_people_is_refused(tmp_path: Path) -> None:
    network = d_fine()
    network.config.id2label = {0: "cat", 1: "dog", 2: "bicycle"}
    with pytest.raises(WeightsError, match="checkpoint a/b has no class 'person'"):
        load_detector("transformers", saved(network, tmp_path), CPU, 0.25)
