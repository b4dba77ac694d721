"""What every row of the extractor table promises, tried out on the smallest segments that it takes.

A new extractor is found by itself; it needs an entry in `CASES` only if 16 frames and a second of sound do not suit it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.geometry import apply_geometry
from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.protocol import AudioNeed, Extractor, FrameNeed, SegmentInput
from arabesque.extractors.table import EXTRACTORS, TAKE_BLANK_FRAMES, build, extractor_class, resolve
from arabesque.manifests.errors import ManifestError
from arabesque.manifests.streams import Precision, Record, Sampling, StreamSpec

CPU = torch.device("cpu")
FPS = 25
NOT_SETTINGS = {"self", "weights", "device", "precision", "variant"}


@dataclass(frozen=True)
class Case:
    frames: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variant: str = ""


CASES = {
    "i3d_rgb": Case(frames=9),
    "i3d_flow": Case(frames=9),
    "video_swin_b": Case(frames=2),
    "resnet_frame": Case(frames=1),
    "resnet_crop": Case(frames=1),
    "ast": Case(settings={"input_frames": "all"}),
    "pytorchvideo": Case(frames=4, settings={"geometry": {"steps": [{"size_px": [64, 64]}]}}, variant=":x3d_xs"),
}


@dataclass(frozen=True, eq=False)
class Tried:
    """An extractor that saw three segments in one batch."""

    spec: StreamSpec
    extractor: Extractor
    segments: Sequence[SegmentInput]
    rows: Sequence[Tensor]


def spec_of(family: str, precision: Precision = "float32") -> StreamSpec:
    case = CASES.get(family, Case())
    return StreamSpec(
        extractor=family + case.variant,
        sampling=Sampling(
            fps="native", frames_per_segment=case.frames, frames_per_step=case.frames, remainder="drop-tail"
        ),
        weights=dict.fromkeys(extractor_class(family).weight_roles, "any"),
        precision=precision,
        settings=dict(case.settings),
    )


def build_random(spec: StreamSpec, seed: int = 0) -> Extractor:
    return build(spec, {role: RandomWeights(seed) for role in spec.weights}, CPU)


@pytest.fixture(scope="module", params=EXTRACTORS)
def tried(request: pytest.FixtureRequest) -> Tried:
    spec = resolve(spec_of(request.param))
    extractor = build_random(spec)
    segments = segments_for(extractor, spec.sampling.frames_per_segment)
    return Tried(spec, extractor, segments, present(extractor.forward(prepare_all(extractor, segments))))


def segments_for(extractor: Extractor, num_frames: int) -> list[SegmentInput]:
    """Three pieces of one short routine; the last has no frame after it, as at the end of a video."""
    video, sound = routine(3 * num_frames), music(max(num_frames, FPS) / FPS)
    segments: list[SegmentInput] = []
    for index in range(3):
        start, stop = index * num_frames, (index + 1) * num_frames
        with_next = extractor.frames is not None and extractor.frames.next_frame and index < 2
        shown = range(start, stop + with_next)
        segments.append(
            SegmentInput(
                index=index,
                start_s=start / FPS,
                end_s=stop / FPS,
                frames=apply_geometry(video[list(shown)], extractor.frames.geometry) if extractor.frames else None,
                frame_times_s=tuple(number / FPS for number in shown) if extractor.frames else (),
                waveform=sound(index, extractor.audio.rate_hz) if extractor.audio else None,
                has_next_frame=with_next,
            )
        )
    return segments


def routine(num_frames: int) -> Tensor:
    """``uint8 [time, 3, 96, 128]``: a bright figure runs and jumps in a grainy hall, over which the camera pans."""
    hall = np.random.default_rng(0).integers(30, 110, (96, 128, 3), np.uint8)
    video = np.stack([np.roll(hall, number, axis=1) for number in range(num_frames)])
    for number, frame in enumerate(video):
        left, top = 10 + 3 * number % 90, 40 - round(15 * abs(np.sin(number / 3)))
        frame[top : top + 40, left : left + 14] = (250, 220, 40 + 5 * number % 200)
    return torch.from_numpy(video).permute(0, 3, 1, 2)


def music(duration_s: float) -> Any:
    def sound(index: int, rate_hz: int) -> Tensor:
        times_s = np.arange(round(duration_s * rate_hz)) / rate_hz
        beat = np.exp(-8 * (times_s * (2 + index) % 1.0))
        return torch.from_numpy((0.4 * beat * np.sin(2 * np.pi * 220 * (index + 1) * times_s)).astype(np.float32))

    return sound


def prepare_all(extractor: Extractor, segments: Sequence[SegmentInput]) -> list[Any]:
    return [extractor.prepare(segment) for segment in segments]


def present(rows: Sequence[Tensor | None]) -> list[Tensor]:
    kept = [row for row in rows if row is not None]
    assert len(kept) == len(rows)
    return kept


def difference(one: Tensor, other: Tensor) -> float:
    """Largest, as a share of the largest number."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("family", EXTRACTORS)
def test_settings_are_a_closed_frozen_record_and_the_constructors_keywords(family: str) -> None:
    extractor = extractor_class(family)
    settings = extractor.Settings()
    assert issubclass(extractor.Settings, Record)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(type(settings).model_fields)), None)
    with pytest.raises(ManifestError, match=r"settings\.no_such_setting"):
        resolve(spec_of(family).model_copy(update={"settings": {"no_such_setting": 1}}))
    keywords = inspect.signature(extractor).parameters
    assert set(keywords) - NOT_SETTINGS == set(extractor.Settings.model_fields)
    assert {"weights", "device", "precision"} <= set(keywords)


@pytest.mark.parametrize("family", EXTRACTORS)
def test_a_resolved_spec_is_plain_complete_and_stays_as_it_is(family: str) -> None:
    resolved = resolve(spec_of(family))
    assert set(resolved.settings) == set(extractor_class(family).Settings.model_fields)
    assert resolve(resolved) == resolved
    assert resolve(StreamSpec.model_validate(json.loads(resolved.model_dump_json()))) == resolved


@pytest.mark.parametrize("family", EXTRACTORS)
def test_weights_are_asked_for_by_role(family: str) -> None:
    with pytest.raises(ManifestError, match="weights must name"):
        resolve(spec_of(family).model_copy(update={"weights": {"no_such_role": "any"}}))


def test_says_what_it_needs_and_gives(tried: Tried) -> None:
    extractor = tried.extractor
    assert isinstance(extractor.version, int)
    assert extractor.version >= 1
    assert isinstance(extractor.weight_roles, tuple)
    assert isinstance(extractor.frames, FrameNeed | None)
    assert isinstance(extractor.audio, AudioNeed | None)
    assert extractor.frames is not None or extractor.audio is not None
    assert isinstance(extractor.dim, int)
    assert extractor.dim >= 1
    assert isinstance(extractor.batch_size, int)
    assert extractor.batch_size >= 1


def test_every_segment_has_a_finite_float32_row(tried: Tried) -> None:
    for row in tried.rows:
        assert row.dtype == torch.float32
        assert row.shape == (tried.extractor.dim,)
        assert row.isfinite().all()


def test_rows_are_in_order_and_the_same_alone(tried: Tried) -> None:
    for segment, row in zip(tried.segments, tried.rows, strict=True):
        [alone] = present(tried.extractor.forward([tried.extractor.prepare(segment)]))
        assert difference(alone, row) <= TOLERANCES["float32"]
    for one, other in combinations(tried.rows, 2):
        assert difference(one, other) > 10 * TOLERANCES["float32"]


def test_prepares_in_several_threads_and_leaves_its_input_alone(tried: Tried) -> None:
    before = [[x.clone() for x in (segment.frames, segment.waveform) if x is not None] for segment in tried.segments]
    with ThreadPoolExecutor(2) as threads:
        prepared = list(threads.map(tried.extractor.prepare, [*tried.segments, *tried.segments]))
    rows = present(tried.extractor.forward([prepared[0], prepared[4], prepared[2]]))
    assert all(torch.equal(row, expected) for row, expected in zip(rows, tried.rows, strict=True))
    for segment, tensors in zip(tried.segments, before, strict=True):
        now = [x for x in (segment.frames, segment.waveform) if x is not None]
        assert all(torch.equal(x, was) for x, was in zip(now, tensors, strict=True))


def test_the_seed_decides_random_weights(tried: Tried) -> None:
    if not tried.spec.weights:
        pytest.skip("has no weights")
    prepared = tried.extractor.prepare(tried.segments[0])
    [again], [other] = (present(build_random(tried.spec, seed).forward([prepared])) for seed in (0, 1))
    assert difference(again, tried.rows[0]) <= TOLERANCES["float32"]
    assert difference(other, tried.rows[0]) > 10 * TOLERANCES["float32"]


@pytest.mark.parametrize(
    "precision",
    ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)],  # minutes on a CPU without half-precision units
)
def test_half_precision_gives_float32_rows_within_its_tolerance(tried: Tried, precision: Precision) -> None:
    if not tried.spec.weights:
        pytest.skip("has no network")
    extractor = build_random(tried.spec.model_copy(update={"precision": precision}))
    prepared = prepare_all(extractor, tried.segments)
    together = present(extractor.forward(prepared))
    [alone] = present(extractor.forward(prepared[1:2]))
    assert alone.dtype == torch.float32
    assert difference(alone, together[1]) <= TOLERANCES[precision]
    assert 0 < difference(together[1], tried.rows[1]) <= TOLERANCES[precision]


@pytest.mark.parametrize("family", EXTRACTORS)
def test_blank_frames_are_taken_or_refused(family: str) -> None:
    """An extractor that does not make them zero would see black pictures."""
    sampling = Sampling(
        fps=5,
        frames_per_segment=16,
        frames_per_step=16,
        remainder="drop-tail",
        frame_choice="integer-stride",
        zero_last_frame=True,
    )
    spec = spec_of(family).model_copy(update={"sampling": sampling})
    if family in TAKE_BLANK_FRAMES:
        assert resolve(spec).sampling == sampling
    else:
        with pytest.raises(ManifestError, match="knows no blank frames"):
            resolve(spec)
