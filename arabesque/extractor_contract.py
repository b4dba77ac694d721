"""Contract of extractors (`arabesque.extractors.protocol`), as checks on small generated segments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from threading import Barrier
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.geometry import apply_geometry
from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.protocol import AudioNeed, Extractor, FrameNeed, SegmentInput, Shared, VideoParts, shape_of
from arabesque.extractors.table import build, extractor_kind, resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.import_paths import class_path
from arabesque.manifests.streams import Precision, Record, Sampling, StreamSpec

FPS = 25
HEIGHT_PX, WIDTH_PX = 96, 128
_KEYWORDS = {"settings", "weights", "device", "precision"}


class ExtractorContract:
    """The checks of one extractor. Each method whose name starts with ``check_`` raises AssertionError.

    Args:
        extractor: The extractor's name as in a recipe, an import path such as ``mypackage.mine:MyExtractor``, or the
            class.
        num_frames: Frames of a segment: the fewest that the extractor takes, so that the checks are fast.
        settings: Settings that differ from the defaults.
        any_aspect_settings: Settings with which frames keep their aspect ratio, if that depends on settings.
    """

    def __init__(
        self,
        extractor: str | type,
        *,
        num_frames: int = 16,
        settings: Mapping[str, Any] | None = None,
        any_aspect_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = extractor if isinstance(extractor, str) else class_path(extractor)
        self.kind = extractor_kind(self.name)
        self._any_aspect_settings = any_aspect_settings or {}
        self.spec = StreamSpec(
            extractor=self.name,
            sampling=Sampling(
                fps="native", frames_per_segment=num_frames, frames_per_step=num_frames, remainder="drop-tail"
            ),
            weights=dict.fromkeys(self.kind.weight_roles, "any"),
            settings=dict(settings or {}),
        )

    @cached_property
    def resolved(self) -> StreamSpec:
        return resolve(self.spec)

    @cached_property
    def extractor(self) -> Extractor:
        return _build(self.resolved)

    @cached_property
    def segments(self) -> list[SegmentInput]:
        return _segments_for(self.extractor, self.resolved.sampling.frames_per_segment)

    @cached_property
    def segments_of_two_frame_sizes(self) -> tuple[Extractor, list[SegmentInput]]:
        """An extractor with ``any_aspect_settings``, and segments of a landscape, a portrait, a landscape video."""
        spec, extractor = self.resolved, self.extractor
        if self._any_aspect_settings:
            spec = resolve(spec.model_copy(update={"settings": spec.settings | dict(self._any_aspect_settings)}))
            extractor = _build(spec)
        landscape, _, last = _segments_for(extractor, spec.sampling.frames_per_segment)
        assert landscape.frames is not None
        portrait = replace(landscape, frames=landscape.frames.transpose(-1, -2).contiguous(), shared=Shared())
        return extractor, [landscape, portrait, last]

    @cached_property
    def rows(self) -> list[Tensor]:
        """The rows of the three segments, computed in one batch."""
        return _rows(self.extractor, [self.extractor.prepare(segment) for segment in self.segments])

    def check_settings_are_a_closed_frozen_record(self) -> None:
        """`Settings` is a frozen `Record` without unknown fields, and an extractor is made from an instance of it."""
        record = self.kind.Settings
        _require(issubclass(record, Record), "Settings is not a subclass of Record")
        settings = record()
        try:
            setattr(settings, next(iter(record.model_fields), "no_such_setting"), None)
        except ValidationError as error:
            _require("frozen" in str(error), "Settings is not frozen")
        else:
            raise AssertionError("Settings is not frozen")
        unknown = self.spec.model_copy(update={"settings": {"no_such_setting": 1}})
        _require_refused(unknown, "settings.no_such_setting", "an unknown setting is accepted")
        keywords = set(inspect.signature(self.kind).parameters)
        _require(keywords == _KEYWORDS, f"the constructor's keywords are not {', '.join(sorted(_KEYWORDS))}")

    def check_a_resolved_spec_is_complete(self) -> None:
        """A resolved spec has every setting, survives JSON, and does not change when it is resolved again."""
        resolved = self.resolved
        _require(set(resolved.settings) == set(self.kind.Settings.model_fields), "a resolved spec lacks settings")
        _require(resolve(resolved) == resolved, "a resolved spec changes when it is resolved again")
        read_again = StreamSpec.model_validate(json.loads(resolved.model_dump_json()))
        _require(resolve(read_again) == resolved, "a resolved spec changes when it is stored as JSON")

    def check_weights_are_named_by_role(self) -> None:
        """A recipe with checkpoints for unknown roles is refused."""
        wrong = self.spec.model_copy(update={"weights": {"no_such_role": "any"}})
        _require_refused(wrong, "weights must name", "a checkpoint for an unknown role is accepted")

    def check_blank_frames_are_taken_or_refused(self) -> None:
        """Blank frames (`Sampling.zero_last_frame`) are refused unless ``takes_blank_frames``: they are not black."""
        num_frames = max(self.spec.sampling.frames_per_segment, 2)
        sampling = Sampling(
            fps=5,
            frames_per_segment=num_frames,
            frames_per_step=num_frames,
            remainder="drop-tail",
            frame_choice="integer-stride",
            zero_last_frame=True,
        )
        spec = self.spec.model_copy(update={"sampling": sampling})
        if getattr(self.kind, "takes_blank_frames", False):
            _require(resolve(spec).sampling == sampling, "the sampling changes when the spec is resolved")
        else:
            _require_refused(spec, "takes no blank frames", "blank frames are accepted")

    def check_attributes(self) -> None:
        """``version``, ``weight_roles``, ``frames``, ``audio``, ``dim`` and ``batch_size`` have their types."""
        extractor = self.extractor
        _require(isinstance(self.kind.version, int) and self.kind.version >= 1, "version is not a positive integer")
        _require(isinstance(self.kind.weight_roles, tuple), "weight_roles is not a tuple")
        _require(isinstance(extractor.frames, FrameNeed | None), "frames is neither a FrameNeed nor None")
        _require(isinstance(extractor.audio, AudioNeed | None), "audio is neither an AudioNeed nor None")
        _require(extractor.frames is not None or extractor.audio is not None, "neither frames nor audio are needed")
        _require(isinstance(extractor.dim, int) and extractor.dim >= 1, "dim is not a positive integer")
        _require(isinstance(extractor.batch_size, int) and extractor.batch_size >= 1, "batch_size is not positive")

    def check_rows_are_finite_float32(self) -> None:
        """Every segment has a row of finite float32 numbers."""
        for row in self.rows:
            _require(row.dtype == torch.float32, f"a row is {row.dtype}")
            _require(row.shape == shape_of(self.extractor), f"a row has shape {tuple(row.shape)}")
            _require(bool(row.isfinite().all()), "a row has numbers that are not finite")

    def check_names_match_the_row(self) -> None:
        """``feature_names()``, if defined, has a unique name for each number of a row."""
        names = getattr(self.kind, "feature_names", None)
        if names is not None:
            _require(len(set(names())) == self.extractor.dim, "feature_names are not as many as dim, or repeat")

    def check_rows_are_in_order_and_the_same_alone(self) -> None:
        """A segment has the same row alone and in a batch, and different segments have different rows."""
        for segment, row in zip(self.segments, self.rows, strict=True):
            [alone] = _rows(self.extractor, [self.extractor.prepare(segment)])
            _require(_difference(alone, row) <= TOLERANCES["float32"], "a segment has another row in a batch")
        for one, other in combinations(self.rows, 2):
            _require(_difference(one, other) > 10 * TOLERANCES["float32"], "two segments have the same row")

    def check_a_batch_may_hold_two_frame_sizes(self) -> None:
        """A landscape and a portrait video share a batch."""
        if self.extractor.frames is None:
            return
        extractor, segments = self.segments_of_two_frame_sizes
        prepared = [extractor.prepare(segment) for segment in segments]
        for item, row in zip(prepared, _rows(extractor, prepared), strict=True):
            [alone] = _rows(extractor, [item])
            _require(_difference(alone, row) <= TOLERANCES["float32"], "a row depends on the frame sizes of its batch")

    def check_prepare_runs_in_threads_and_keeps_its_input(self) -> None:
        """`prepare` runs in several threads at once and does not change a segment."""
        before = [[tensor.clone() for tensor in _tensors(segment)] for segment in self.segments]
        with ThreadPoolExecutor(2) as threads:
            prepared = list(threads.map(self.extractor.prepare, [*self.segments, *self.segments]))
        rows = _rows(self.extractor, [prepared[0], prepared[4], prepared[2]])
        same = all(torch.equal(row, expected) for row, expected in zip(rows, self.rows, strict=True))
        _require(same, "rows differ when segments are prepared in two threads")
        for segment, tensors in zip(self.segments, before, strict=True):
            kept = all(torch.equal(now, was) for now, was in zip(_tensors(segment), tensors, strict=True))
            _require(kept, "prepare changes the segment that it is given")

    def check_forward_runs_in_threads_if_it_claims_to(self) -> None:
        """With ``forwards_concurrently``, batches that two threads compute at the same time have their usual rows."""
        if not getattr(self.extractor, "forwards_concurrently", False):
            return
        items = [self.extractor.prepare(segment) for segment in (self.segments[0], self.segments[2])]
        together = Barrier(2)

        def rows_of(item: Any) -> list[Tensor]:
            together.wait()
            return _rows(self.extractor, [item])

        with ThreadPoolExecutor(2) as threads:
            rows = [row for [row] in threads.map(rows_of, items)]
        for row, expected in zip(rows, (self.rows[0], self.rows[2]), strict=True):
            _require(_difference(row, expected) <= TOLERANCES["float32"], "rows differ when two threads call forward")

    def check_the_seed_decides_random_weights(self) -> None:
        """Random weights of one seed give the same row, those of another seed a different one."""
        if not self.resolved.weights:
            return
        prepared = self.extractor.prepare(self.segments[0])
        [again], [other] = (_rows(_build(self.resolved, seed), [prepared]) for seed in (0, 1))
        _require(_difference(again, self.rows[0]) <= TOLERANCES["float32"], "random weights depend on more than a seed")
        _require(_difference(other, self.rows[0]) > 10 * TOLERANCES["float32"], "random weights ignore their seed")

    def check_half_precision(self, precision: Precision = "bfloat16") -> None:
        """A network in half precision gives float32 rows within the tolerance of the precision."""
        if not self.resolved.weights:
            return
        extractor = _build(self.resolved.model_copy(update={"precision": precision}))
        prepared = [extractor.prepare(segment) for segment in self.segments]
        together = _rows(extractor, prepared)
        [alone] = _rows(extractor, prepared[1:2])
        _require(alone.dtype == torch.float32, f"a row is {alone.dtype} in {precision}")
        _require(_difference(alone, together[1]) <= TOLERANCES[precision], "a segment has another row in a batch")
        error = _difference(together[1], self.rows[1])
        _require(0 < error <= TOLERANCES[precision], f"{precision} changes a row by {error:.1e}")


EXTRACTOR_CHECKS = tuple(name for name in vars(ExtractorContract) if name.startswith("check_"))
"""The names of the checks, in order."""


def check_extractor(
    extractor: str | type,
    *,
    num_frames: int = 16,
    settings: Mapping[str, Any] | None = None,
    any_aspect_settings: Mapping[str, Any] | None = None,
) -> None:
    """Check that an extractor satisfies `arabesque.extractors.protocol.Extractor`.

    The checks run on the CPU with random weights and three generated segments: settings and checkpoints are validated,
    rows are finite, and the batch, the frame sizes in it, threads and precision change them by at most the tolerances
    of `arabesque.extractors.precision`.

    Args:
        extractor: The extractor's name as in a recipe, an import path such as ``mypackage.mine:MyExtractor``, or the
            class.
        num_frames: Frames of a segment: the fewest that the extractor takes, so that the checks are fast.
        settings: Settings that differ from the defaults.
        any_aspect_settings: Settings with which frames keep their aspect ratio, if that depends on settings.

    Raises:
        AssertionError: A check fails; the message states which.
        ConfigError: The extractor is not known, or its class lacks a part of the protocol.

    Example:
        >>> from arabesque.testing import check_extractor
        >>> check_extractor("motion")
    """
    contract = ExtractorContract(
        extractor, num_frames=num_frames, settings=settings, any_aspect_settings=any_aspect_settings
    )
    for check in EXTRACTOR_CHECKS:
        getattr(contract, check)()


def _require(condition: bool, message: str) -> None:
    """Raise if the condition is False, also under ``python -O``, which removes assert statements."""
    if not condition:
        raise AssertionError(message)


def _require_refused(spec: StreamSpec, reason: str, message: str) -> None:
    try:
        resolve(spec)
    except ConfigError as error:
        _require(reason in str(error), f"{message.partition(' is ')[0]}: refused for another reason: {error}")
        return
    raise AssertionError(message)


def _build(spec: StreamSpec, seed: int = 0) -> Extractor:
    return build(spec, {role: RandomWeights(seed) for role in spec.weights}, torch.device("cpu"))


def _segments_for(extractor: Extractor, num_frames: int) -> list[SegmentInput]:
    """Return three segments of a short routine; the last has no next frame, as at the end of a video."""
    video = _routine(3 * num_frames)
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
                waveform=_music(index, max(num_frames, FPS) / FPS, extractor.audio.rate_hz)
                if extractor.audio
                else None,
                has_next_frame=with_next,
            )
        )
    return segments


def _routine(num_frames: int) -> Tensor:
    """Return uint8 ``[time, 3, 96, 128]``: a bright figure runs and jumps before a grainy, panning background."""
    hall = np.random.default_rng(0).integers(30, 110, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    video = np.stack([np.roll(hall, number, axis=1) for number in range(num_frames)])
    for number, frame in enumerate(video):
        left, top = 10 + 3 * number % 90, 40 - round(15 * abs(np.sin(number / 3)))
        frame[top : top + 40, left : left + 14] = (250, 220, 40 + 5 * number % 200)
    return torch.from_numpy(video).permute(0, 3, 1, 2)


def _music(index: int, duration_s: float, rate_hz: int) -> Tensor:
    """Return float32 ``[samples]``: a tone with a beat; both differ between segments."""
    times_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    beat = np.exp(-8 * (times_s * (2 + index) % 1.0))
    return torch.from_numpy((0.4 * beat * np.sin(2 * np.pi * 220 * (index + 1) * times_s)).astype(np.float32))


def _tensors(segment: SegmentInput) -> list[Tensor]:
    return [tensor for tensor in (segment.frames, segment.waveform) if tensor is not None]


def _rows(extractor: Extractor, prepared: Sequence[Any]) -> list[Tensor]:
    """Return the row of each prepared segment. If `forward` returns parts, each segment is treated as one video."""
    rows = extractor.forward(prepared)
    start_video: Callable[[], VideoParts] | None = getattr(extractor, "start_video", None)
    kept: list[Tensor] = []
    for row in rows:
        _require(row is not None, "a segment has no row")
        assert row is not None
        if start_video is not None:
            video, part = start_video(), row.numpy()
            video.add(0, part, [number / FPS for number in range(int(part[1]))])
            features = video.finish().features
            _require(0 in features, "a segment has no row")
            row = torch.from_numpy(features[0])
        kept.append(row)
    _require(len(kept) == len(prepared), "the numbers of rows and of segments differ")
    return kept


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference ÷ the largest absolute value of ``other``."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))
