from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.transforms import v2

from arabesque.extractors import athlete_search
from arabesque.extractors.athlete_search import crop_around
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.crops import cut_and_resize
from arabesque.extractors.geometry import apply_geometry
from arabesque.extractors.network import NetworkExtractor
from arabesque.extractors.person import Box
from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.resnet import RESNET_FRAME, load_resnet50
from arabesque.extractors.resnet_crop import ResNetCrop
from arabesque.manifests.errors import WeightsError
from arabesque.manifests.streams import Geometry, Size

CPU = torch.device("cpu")
SMALL = Geometry(steps=(Size(size_px=(64, 64)),))


def frames(count: int, height: int = 120, width: int = 160, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8))


def segment(images: Tensor) -> SegmentInput:
    return SegmentInput(index=0, start_s=0.0, end_s=1.0, frames=images)


def build_frame(weights: CheckpointFile | None = None, **settings: object) -> NetworkExtractor:
    resolved = RESNET_FRAME.Settings.model_validate(settings)
    return RESNET_FRAME(
        settings=resolved, weights={"network": weights or RandomWeights(0)}, device=CPU, precision="float32"
    )


@pytest.fixture
def build_crop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ResNetCrop]:
    """``build_crop(boxes, **settings)``: the detector answers with these boxes, in the order that it is asked."""

    def build(boxes: Sequence[Box | None], **settings: object) -> ResNetCrop:
        class Detector:
            def __init__(self, *_: object) -> None:
                self.boxes = iter(boxes)

            def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
                return [[box] if (box := next(self.boxes)) is not None else [] for _ in frames]

        monkeypatch.setattr(athlete_search, "load_detector", Detector)
        resolved = ResNetCrop.Settings.model_validate({"crop_geometry": SMALL} | settings)
        weights = {"network": RandomWeights(0), "detector": RandomWeights(0)}
        return ResNetCrop(settings=resolved, weights=weights, device=CPU, precision="float32")

    return build


def test_the_row_is_the_input_of_torchvisions_classifier(save_checkpoint: Callable[..., CheckpointFile]) -> None:
    """Against torchvision's own preset: resize to 256, crop 224², ImageNet statistics, the input of ``fc``."""
    torch.manual_seed(0)
    network = resnet50().eval()
    seen: list[Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = frames(1, 300, 400)
    preset = v2.Compose(
        [
            v2.Resize(256, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        network(preset(image))
    extractor = build_frame(save_checkpoint(network.state_dict(), "resnet-torchvision"))
    [row] = extractor.forward([extractor.prepare(segment(apply_geometry(image, extractor.frames.geometry)))])
    assert same(row, seen[0][0])


def test_a_segment_of_frames_is_their_mean() -> None:
    extractor = build_frame(geometry=SMALL)
    images = frames(5, 64, 64)
    one, two, _ = map(present, extractor.forward([images[:1], images[1:2], images[2:]]))
    [both] = extractor.forward([images[:2]])
    assert same(both, (one + two) / 2)
    assert not same(one, two)


@pytest.mark.parametrize("build", ["crop", "frame"])
def test_action_nets_forgotten_bias_is_a_constant_within_its_bound(
    build: str, build_crop: Callable[..., ResNetCrop]
) -> None:
    """ACTION-NET (docs/provenance.md): the default bias of Linear(2048, 2048), on every row of a run."""
    images = frames(2)

    def rows(seed: int | str) -> Tensor:
        if build == "frame":
            made = build_frame(geometry=SMALL, fc_bias_seed=seed).forward([*apply_geometry(images, SMALL).split(1)])
        else:
            made = rows_of(build_crop([None, None], fc_bias_seed=seed), images[:1], images[1:])
        return torch.stack([*map(present, made)])

    shift = rows(7) - rows("none")
    torch.manual_seed(7)
    expected = torch.nn.Linear(2048, 2048).bias.detach()
    torch.testing.assert_close(shift, expected.expand(2, -1), rtol=0, atol=1e-6)
    assert 0.021 < shift.abs().max() <= 2048**-0.5 + 1e-6
    assert (rows(8) - rows(7)).abs().max() > 0.01


def test_loading_is_strict_with_the_classifier_and_names_the_layout(
    save_checkpoint: Callable[..., CheckpointFile],
) -> None:
    state_dict = resnet50().state_dict()
    with pytest.raises(WeightsError, match="key layout 'resnet-other'; ResNet reads resnet-torchvision"):
        load_resnet50(save_checkpoint(state_dict, "resnet-other"))
    without = {name: value for name, value in state_dict.items() if not name.startswith("fc.")}
    with pytest.raises(WeightsError, match=r"2 missing \(fc\.bias, fc\.weight\)"):
        load_resnet50(save_checkpoint(without, "resnet-torchvision"))


def test_cuts_the_box_out_of_the_frame() -> None:
    shown = frames(1)

    def cut(box: Box, margin: float) -> torch.Tensor:
        crop = crop_around(shown, 0, box, margin)
        return cut_and_resize(shown, [crop], Geometry(steps=()))[0]

    frame = shown[0]
    assert torch.equal(cut(Box(10.4, 20.6, 50.6, 80.4), 0.0), frame[:, 21:80, 10:51])
    assert torch.equal(cut(Box(40, 20, 60, 60), 0.25), frame[:, 10:70, 35:65])
    assert torch.equal(cut(Box(0, 0, 160, 120), 1.0), frame)
    assert cut(Box(159.8, 119.8, 160, 120), 0.0).shape == (3, 1, 1)


def test_the_network_sees_the_crop_at_the_files_resolution(build_crop: Callable[..., ResNetCrop]) -> None:
    image = frames(1, 200, 300)
    extractor = build_crop([Box(30, 40, 130, 190)])
    assert extractor.frames.geometry.steps == ()
    [row] = rows_of(extractor, image)
    whole = build_frame(geometry=SMALL)
    [expected] = whole.forward([apply_geometry(image[..., 40:190, 30:130], SMALL)])
    assert torch.equal(present(row), present(expected))


def test_a_frame_without_a_person_is_whole_or_left_out(build_crop: Callable[..., ResNetCrop]) -> None:
    images = frames(2)
    [whole_frame] = build_frame(geometry=SMALL).forward([apply_geometry(images[1:], SMALL)])
    box = Box(10, 10, 60, 110)
    kept = rows_of(build_crop([box, None]), images[:1], images[1:])
    assert same(kept[1], whole_frame)
    dropped = rows_of(build_crop([box, None], no_person="drop"), images[:1], images[1:])
    assert same(dropped[0], kept[0])
    assert dropped[1] is None
    assert rows_of(build_crop([None], no_person="drop"), images[:1]) == [None]


def test_dropped_frames_do_not_enter_the_mean_of_a_segment(build_crop: Callable[..., ResNetCrop]) -> None:
    images, box = frames(3), Box(10, 10, 60, 110)
    [segment_row] = rows_of(build_crop([box, None, box], no_person="drop"), images)
    singles = rows_of(build_crop([box, box]), images[:1], images[2:])
    assert same(segment_row, torch.stack([*map(present, singles)]).mean(dim=0))


def test_crops_of_different_videos_share_a_batch(build_crop: Callable[..., ResNetCrop]) -> None:
    small, large = frames(1, 90, 70), frames(1, 200, 300, seed=1)
    boxes = [Box(5, 5, 60, 80), Box(100, 20, 200, 190)]
    together = rows_of(build_crop(boxes), small, large)
    [first], [second] = rows_of(build_crop(boxes[:1]), small), rows_of(build_crop(boxes[1:]), large)
    assert same(together[0], first)
    assert same(together[1], second)


@pytest.mark.parametrize(
    "settings", [{"no_person": "zeros"}, {"person_threshold": 1.5}, {"margin": -0.1}, {"threshold": 0.5}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ResNetCrop.Settings.model_validate(settings)


def rows_of(extractor: ResNetCrop, *segments: Tensor) -> list[Tensor | None]:
    """Return the row of each segment of frames, each treated as one video."""
    rows: list[Tensor | None] = []
    for images, part in zip(
        segments, extractor.forward([extractor.prepare(segment(images)) for images in segments]), strict=True
    ):
        video = extractor.start_video()
        video.add(0, present(part).numpy(), [number / 5 for number in range(len(images))])
        row = video.finish().features.get(0)
        rows.append(None if row is None else torch.from_numpy(row))
    return rows


def same(row: Tensor | None, expected: Tensor | None) -> bool:
    """Check equality within 1e-5 of the largest number, the effect of the batch size in float32."""
    return bool((present(row) - present(expected)).abs().max() <= 1e-5 * present(expected).abs().max())


def present(row: Tensor | None) -> Tensor:
    assert row is not None
    return row
