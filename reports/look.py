"""`arabesque look`: a contact sheet with the input of each stream of a recipe for a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from torch import Tensor

from ..extractors.compiled_code import alone_on_first_use
from ..extractors.protocol import SegmentInput, VideoParts
from ..extractors.table import extractor_kind
from ..extractors.weight_sources import RandomWeights, Weights
from ..manifests.optional_packages import require_package
from ..manifests.recipes import Recipe, named_weights
from ..manifests.streams import StreamSpec
from ..pipeline.digests import settings_digest
from ..pipeline.items import Notice, Stream
from ..pipeline.records import one_line
from ..pipeline.segment_inputs import read_segments
from ..pipeline.streams import build_streams, weight_digests
from ..pipeline.weights.cache import is_random, open_cache, resolve_weights
from .pictures import (
    Picture,
    data_address,
    flow_picture,
    labeled,
    png_bytes,
    resized,
    rows_of,
    side_by_side,
    spectrogram_picture,
    text_picture,
    waveform_picture,
    with_boxes,
    with_key_points,
)

FRAMES_PER_CLIP = 5
"""Number of frames of a clip that are drawn."""
FRAME_PX, INPUT_PX = 240, 128
"""Heights of drawn frames and of drawn network inputs."""
SHEET_WIDTH_PX = 1500


@dataclass(frozen=True)
class Panel:
    """Pictures of one kind."""

    title: str
    pictures: list[Picture] = field(default_factory=list[Picture])
    labels: list[str] = field(default_factory=list[str])

    def add(self, picture: Picture, label: str) -> None:
        self.pictures.append(picture)
        self.labels.append(label)


@dataclass(frozen=True)
class StreamView:
    """Pictures of the input of one stream."""

    name: str
    lines: list[str]
    panels: list[Panel]


@dataclass(frozen=True)
class Sheet:
    """A contact sheet."""

    title: str
    lines: list[str]
    views: list[StreamView]

    def png(self) -> bytes:
        """Return the sheet as a PNG picture."""
        parts = [text_picture([self.title], SHEET_WIDTH_PX, 22)]
        if self.lines:
            parts.append(text_picture(self.lines, SHEET_WIDTH_PX))
        for view in self.views:
            parts += [text_picture([view.name], SHEET_WIDTH_PX, 19), text_picture(view.lines, SHEET_WIDTH_PX)]
            for panel in view.panels:
                parts.append(text_picture([panel.title], SHEET_WIDTH_PX, 13))
                pairs = zip(panel.pictures, panel.labels, strict=True)
                parts.append(rows_of([labeled(picture, label) for picture, label in pairs], SHEET_WIDTH_PX))
        return png_bytes(np.concatenate(parts))

    def html(self) -> str:
        """Return the sheet as one HTML page with embedded pictures."""
        folder = Path(__file__).resolve().parent / "templates"
        templates = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
        return templates.get_template("look.html").render(sheet=self, address=data_address)


class InputRecorder:
    """Replaces the network of a stream: stores pictures of its input, and returns the number of each input."""

    def __init__(self, device: torch.device, dim: int, draw: Callable[[Tensor], list[Picture]]) -> None:
        self.device = device
        self.inputs: list[list[Picture]] = []
        self.shapes: dict[str, None] = {}
        self._dim, self._draw = dim, draw

    def rows(
        self, items: Sequence[Tensor], to_input: Callable[[Tensor], Tensor], most: int | None = None
    ) -> list[Tensor]:
        """See `NetworkRunner.rows`."""
        rows: list[Tensor] = []
        for item in items:
            network_input = to_input(item[None].to(self.device))[0].float().cpu()
            self.shapes[" × ".join(map(str, network_input.shape))] = None
            rows.append(torch.full((self._dim,), float(len(self.inputs))))
            self.inputs.append(self._draw(network_input))
        return rows


def look_at(
    path: Path,
    recipe: Recipe,
    names: Sequence[str],
    override: str | None,
    device: torch.device,
    num_segments: int = 8,
    decoder: str = "pyav",
) -> Sheet:
    """Draw the input of streams for a video, without writing a store and without running networks.

    Only detectors, networks of key points and optical flow are run.

    Args:
        path: A video file.
        recipe: The resolved recipe.
        names: Streams of the recipe.
        override: ``random:SEED`` for random weights instead of all checkpoints.
        device: Device of detectors and optical flow.
        num_segments: Number of evenly spaced segments that are drawn. Streams that follow an athlete read all segments.
        decoder: Name of the decoder backend.

    Raises:
        DecodeError: The video cannot be read.
        MissingPackageError: The package matplotlib, whose font labels the pictures, is not installed.
        WeightsError: A checkpoint of a detector or of optical flow is missing.
    """
    require_package("matplotlib", "look")
    specs = {name: recipe.streams[name] for name in names}
    weights = _weights(recipe, specs, override)
    digests = {name: settings_digest(spec, weight_digests(weights[name]), 1) for name, spec in specs.items()}
    streams = build_streams(specs, weights, digests, device)
    viewers = {each.name: _Viewer(each, device, num_segments) for each in streams}
    lines: list[str] = []
    for item in read_segments(path, streams, lambda stream, count: viewers[stream.name].choose(count), device, decoder):
        if isinstance(item, Notice):
            lines.append(item.text)
        else:
            viewers[item.stream.name].see(item.segment)
    return Sheet(f"{one_line(path.name)} · recipe {recipe.name}", lines, [viewer.view() for viewer in viewers.values()])


def roles_to_show(recipe: Recipe, names: Sequence[str], override: str | None) -> dict[str, StreamSpec]:
    """Return the streams with only the checkpoints that `look_at` reads, of detectors, key points and flow."""
    names_of = named_weights(recipe, {name: recipe.streams[name] for name in names}, override)
    shown: dict[str, StreamSpec] = {}
    for name, roles in names_of.items():
        spec = recipe.streams[name]
        with_network = getattr(extractor_kind(spec.extractor), "shows_network", False)
        kept = {role: known for role, known in roles.items() if with_network or role != "network"}
        shown[name] = spec.model_copy(update={"weights": kept})
    return shown


def _weights(recipe: Recipe, specs: Mapping[str, StreamSpec], override: str | None) -> dict[str, dict[str, Weights]]:
    """Return the weights of the streams. Networks whose output is not shown get random weights."""
    cache = open_cache(recipe.weights)
    found: dict[str, dict[str, Weights]] = {}
    for stream, spec in roles_to_show(recipe, list(specs), override).items():
        others = {role: RandomWeights(0) for role in specs[stream].weights if role not in spec.weights}
        found[stream] = {**others, **resolve_weights(spec.weights, cache=cache)}
    return found


class _Viewer:
    """Collects the pictures of one stream."""

    def __init__(self, stream: Stream, device: torch.device, num_segments: int) -> None:
        self._stream = stream
        self._num_segments = num_segments
        self._drawn: list[int] = []
        self._num_read = 0
        self._extractor: Any = stream.extractor
        self._video: VideoParts | None = None
        if hasattr(self._extractor, "start_video"):
            self._video = self._extractor.start_video()
        self._recorder = InputRecorder(device, self._extractor.dim, self._draw_input)
        if hasattr(self._extractor, "runner"):
            self._extractor.runner = self._recorder
        self._frames: dict[int, tuple[float, Picture]] = {}
        self._times: dict[int, tuple[float, float]] = {}
        self._panels: dict[str, Panel] = {}

    def choose(self, count: int) -> Sequence[int]:
        """Return the segments to read. The drawn ones are evenly spaced."""
        self._drawn = _evenly(count, self._num_segments)
        return range(count) if self._video is not None else self._drawn

    def see(self, segment: SegmentInput) -> None:
        """Process one segment."""
        self._num_read += 1
        self._times[segment.index] = segment.start_s, segment.end_s
        label = f"{segment.start_s:.2f} s"
        first_input = len(self._recorder.inputs)
        prepared = self._extractor.prepare(segment)
        [row] = self._extractor.forward([prepared])
        if segment.index in self._drawn:
            if segment.frames is not None:
                frame = _as_picture(segment.frames[0])
                self._frames[segment.index] = segment.frame_times_s[0], resized(frame, min(FRAME_PX, len(frame)))
            self._see_signals(segment, row, label)
        if self._video is not None and row is not None:
            times_s = segment.frame_times_s[: len(segment.frame_times_s) - segment.has_next_frame]
            self._video.add(segment.index, row.cpu().numpy(), times_s)
        elif segment.index in self._drawn:
            for pictures in self._recorder.inputs[first_input:]:
                self._panel("network input").add(side_by_side(pictures), label)

    def view(self) -> StreamView:
        """Return the pictures."""
        spec, lines = self._stream.spec, list[str]()
        sampling = spec.sampling
        rate = "every frame" if sampling.fps == "native" else f"{sampling.fps:g} frames per second"
        named = "" if spec.extractor == self._stream.name else f"{spec.extractor}: "
        lines.append(
            f"{named}{rate}, {sampling.frames_per_segment} per segment every {sampling.frames_per_step}; "
            f"{self._num_read} segments read, {len(self._drawn)} drawn"
        )
        if self._recorder.shapes:
            lines.append(f"network input: {', '.join(self._recorder.shapes)}")
        panels = dict(self._panels)
        frames = Panel("frames as the stream receives them")
        if self._video is not None:
            finished = self._video.finish()
            boxes = finished.boxes
            crops = Panel("network input: the athlete, or the whole frame if none was found")
            if boxes is not None:
                frames = Panel("frames: athletes with their track and confidence, other people with thin lines")
                lines.append(
                    f"an athlete was found in {boxes.num_frames_with_person} of {boxes.num_frames} frames "
                    f"({boxes.num_frames_with_person / boxes.num_frames:.0%})"
                )
                for index, (time_s, picture) in self._frames.items():
                    found = bool((boxes.chosen & (boxes.time_s == time_s)).any())
                    name = f"{time_s:.2f} s" + ("" if found else ", no athlete")
                    drawn = with_boxes(picture, boxes, time_s)
                    row = finished.features.get(index)
                    if row is not None and self._stream.spec.extractor == "key_points":
                        drawn = with_key_points(drawn, row)
                    frames.add(drawn, name)
                    number = -1.0 if row is None or not self._recorder.inputs else float(row[0])
                    if number >= 0 and number.is_integer():
                        crops.add(self._recorder.inputs[int(number)][0], name)
            panels = {crops.title: crops, **panels}
        else:
            for time_s, picture in self._frames.values():
                frames.add(picture, f"{time_s:.2f} s")
        ordered = [panel for panel in (frames, *panels.values()) if panel.pictures]
        return StreamView(self._stream.name, lines, ordered)

    def _panel(self, title: str) -> Panel:
        return self._panels.setdefault(title, Panel(title))

    def _see_signals(self, segment: SegmentInput, row: Tensor | None, label: str) -> None:
        """Draw flow, boxes of motion and spectrograms of streams without a network."""
        name = self._stream.spec.extractor
        if name == "motion" and segment.frames is not None:
            self._see_motion(segment, label)
        if name == "optical_flow" and row is not None:
            field = row.cpu().numpy().reshape(2, *self._stream.spec.settings["grid"])
            self._panel("flow, mean of the segment").add(resized(flow_picture(field), FRAME_PX // 2), label)
        if segment.waveform is not None:
            samples = segment.waveform.cpu().numpy()
            self._panel("audio").add(waveform_picture(samples, (64, 256)), f"{label}, {len(samples)} samples")
            if not hasattr(self._extractor, "runner"):
                self._see_sound(samples, label)

    def _see_motion(self, segment: SegmentInput, label: str) -> None:
        from ..extractors.athlete_motion import athlete_in

        motion = athlete_in(segment)
        if not len(motion.own):
            return
        middle = len(motion.own) // 2
        flow = np.moveaxis(motion.own[middle] * motion.evidence[middle][..., None], -1, 0)
        picture = resized(flow_picture(flow), FRAME_PX // 2)
        self._panel("flow of the athlete, without the camera's motion; middle of the segment").add(picture, label)

    @alone_on_first_use("librosa.features")
    def _see_sound(self, samples: NDArray[np.float32], label: str) -> None:
        import librosa

        from ..extractors.music import RATE_HZ, listen

        mel = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_mels=64, hop_length=512)
        picture = spectrogram_picture(np.log10(np.maximum(mel, 1e-8)).T)
        for beat_s in np.asarray(listen(samples).beats_s, np.float64).tolist():
            column = round(beat_s * RATE_HZ / max(len(samples), 1) * picture.shape[1])
            if 0 <= column < picture.shape[1]:
                picture[:, column] = (255, 255, 255)
        self._panel("spectrogram, beats white").add(picture, label)

    def _draw_input(self, values: Tensor) -> list[Picture]:
        """Draw one input of a network: a picture, a clip, flow, or a spectrogram."""
        array = values.numpy()
        if array.ndim == 4 and array.shape[0] not in (2, 3):
            array = np.moveaxis(array, 1, 0)
        if array.ndim == 4:
            frames = [array[:, place] for place in _evenly(array.shape[1], FRAMES_PER_CLIP)]
        else:
            frames = [array[0]] if array.ndim == 3 and array.shape[0] == 1 else [array]
        if frames[0].ndim == 3 and frames[0].shape[0] == 2:
            return [resized(flow_picture(frame, 1.0), INPUT_PX) for frame in frames]
        if frames[0].ndim == 3 and frames[0].shape[0] == 3:
            return [resized(self._denormalized(frame), min(INPUT_PX, frame.shape[1])) for frame in frames]
        if frames[0].ndim == 2:
            return [spectrogram_picture(frames[0])]
        return [waveform_picture(np.ravel(frames[0]))]

    def _denormalized(self, frame: NDArray[np.floating]) -> Picture:
        """Return the picture before normalization (mean, std); without a normalization, scale to the extremes."""
        known = self._stream.spec.settings.get("normalization")
        if known:
            mean, std = (np.array(known[name], np.float32)[:, None, None] for name in ("mean", "std"))
            levels = (frame * std + mean) * 255
        else:
            levels = (frame - frame.min()) / max(float(frame.max() - frame.min()), 1e-6) * 255
        return np.moveaxis(np.clip(levels.round(), 0, 255), 0, -1).astype(np.uint8)


def _evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced indices below ``count``."""
    if count <= most:
        return list(range(count))
    return sorted({round(number * (count - 1) / max(most - 1, 1)) for number in range(most)})


def _as_picture(frame: Tensor) -> Picture:
    """Convert ``uint8 [channels, height, width]`` to RGB."""
    array = np.moveaxis(frame.cpu().numpy(), 0, -1)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def has_only_random_weights(recipe: Recipe, names: Sequence[str], override: str | None) -> list[str]:
    """Return ``stream.role`` of the random weights that affect the sheet."""
    shown = roles_to_show(recipe, names, override)
    return [
        f"{stream}.{role}" for stream, spec in shown.items() for role, name in spec.weights.items() if is_random(name)
    ]
