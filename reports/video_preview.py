"""Data of a video file for the report, read in one pass: thumbnails, motion energy, spectrogram and beats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..extractors.compiled_code import alone_on_first_use
from ..manifests.errors import DecodeError, InputError
from ..pipeline.decoding.decoder_pool import DecoderPool, DecoderProcess, FrameChunk
from ..pipeline.decoding.decoders import IndexMismatch
from ..pipeline.planning.metadata_cache import MetadataCache, open_metadata_cache
from ..pipeline.planning.sampling import nearest_frames
from ..pipeline.records import VideoFile, VideoMetadata
from ..pipeline.stages.decode import read_metadata
from .pictures import flow_picture

THUMBNAILS = 12
THUMBNAIL_PX = 96
"""Height of a thumbnail"""
ENERGY_FPS = 5.0
MAX_ENERGY_FRAMES = 1500
"""Number of frames for motion energy; in longer videos, it is measured between frames that are further apart"""
ENERGY_SIDE_PX = 96
"""Width of the gray pictures whose difference is the motion energy"""
LEAST_FLOW_PX = 0.5
"""Least flow with full color, in pixels of a thumbnail, for videos with very little motion"""
MIN_FLOW_PX = 16
"""Least width of thumbnails with flow"""
MAX_AUDIO_S = 600.0
"""Audio after this time is not analyzed"""
SPECTROGRAM_WIDTH, SPECTROGRAM_HEIGHT = 1000, 80


@dataclass(frozen=True, eq=False)
class VideoPreview:
    """Pictures and curves of one video."""

    metadata: VideoMetadata | None
    """None if the file cannot be read"""
    problem: str = ""
    """Reason why some or all pictures are missing"""
    thumbnail_times_s: NDArray[np.float64] | None = None
    sprite: bytes = b""
    """JPEG with all thumbnails next to each other"""
    flow: bytes = b""
    """JPEG of the same form with the optical flow from each of these frames to the next frame of the file, as color"""
    thumbnail_px: tuple[int, int] = (0, 0)
    """Width and height of one thumbnail"""
    energy_times_s: NDArray[np.float64] | None = None
    energy: NDArray[np.float64] | None = None
    """Mean absolute difference of successive gray pictures, 0 to 255"""
    spectrogram: bytes = b""
    """JPEG from the start of the video to ``audio_end_s``"""
    audio_end_s: float = 0.0
    beats_s: NDArray[np.float64] | None = None
    tempo_bpm: float = 0.0


def preview_videos(
    files: Sequence[VideoFile], num_decoders: int, on_done: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, VideoPreview]]:
    """Read each file once, several at a time, and yield its preview in the order of the files.

    A file that cannot be decoded yields a preview with its problem. Decoding runs in isolated processes.

    Args:
        files: Local files.
        num_decoders: Number of files that are read at the same time.
        on_done: Called with the number of finished files and the number of all files.
    """

    def preview(file: VideoFile) -> VideoPreview:
        try:
            path = file.local_path
        except InputError as error:
            return VideoPreview(None, str(error))
        with pool.decoder() as decoder:
            try:
                return _preview(decoder, cache, path)
            except DecodeError as error:
                return VideoPreview(None, str(error))

    with (
        open_metadata_cache("pyav") as cache,
        closing(DecoderPool(num_decoders)) as pool,
        ThreadPoolExecutor(num_decoders) as threads,
    ):
        # a limited number in advance, so that previews that wait for their pages do not fill the memory
        waiting = [threads.submit(preview, file) for file in files[: 2 * num_decoders]]
        for index, file in enumerate(files):
            made = waiting.pop(0).result()
            if index + 2 * num_decoders < len(files):
                waiting.append(threads.submit(preview, files[index + 2 * num_decoders]))
            if on_done is not None:
                on_done(index + 1, len(files))
            yield file.video_id, made


def _preview(decoder: DecoderProcess, cache: MetadataCache, path: Path) -> VideoPreview:
    try:
        return _read(decoder, read_metadata(decoder, cache, path), path)
    except IndexMismatch:
        return _read(decoder, read_metadata(decoder, cache, path, thorough=True), path)


def _read(decoder: DecoderProcess, metadata: VideoMetadata, path: Path) -> VideoPreview:
    import cv2

    times_s = metadata.frame_times_s
    count = int(min(MAX_ENERGY_FRAMES, max(THUMBNAILS, metadata.end_s * ENERGY_FPS)))
    regular = nearest_frames(times_s, np.linspace(0, metadata.end_s, count, endpoint=False))
    middles_s = (np.arange(THUMBNAILS) + 0.5) * metadata.end_s / THUMBNAILS
    shown = np.unique(regular[np.abs(times_s[regular][None] - middles_s[:, None]).argmin(axis=1)])
    height_px, width_px = metadata.display_px
    thumbnail_px = max(1, round(THUMBNAIL_PX * width_px / height_px)), THUMBNAIL_PX
    energy_px = ENERGY_SIDE_PX, max(1, round(ENERGY_SIDE_PX * height_px / width_px))
    thumbnails: dict[int, NDArray[np.uint8]] = {}
    flows: dict[int, NDArray[np.float32]] = {}
    wanted = np.unique(np.concatenate([regular, np.minimum(shown + 1, len(times_s) - 1)]))
    found: list[tuple[float, float]] = []
    before: NDArray[np.uint8] | None = None
    audio = _AudioAnalysis(metadata)
    problem = ""
    until_s = None if metadata.audio is None else min(metadata.end_s, MAX_AUDIO_S)
    try:
        for chunk in decoder.decode(path, metadata, wanted, audio_until_s=until_s):
            if not isinstance(chunk, FrameChunk):
                continue
            for index, frame in zip(chunk.indices.tolist(), chunk.frames, strict=True):
                if index - 1 in thumbnails and min(thumbnail_px) >= MIN_FLOW_PX:
                    flows[index - 1] = optical_flow(thumbnails[index - 1], resized(frame, thumbnail_px))
                if index in shown:
                    thumbnails[index] = resized(frame, thumbnail_px)
                if index not in regular:
                    continue
                gray = cv2.cvtColor(resized(frame, energy_px), cv2.COLOR_RGB2GRAY)
                if before is not None:
                    found.append((float(times_s[index]), float(np.mean(cv2.absdiff(gray, before)))))
                before = np.asarray(gray, np.uint8)
            if chunk.audio is not None:
                audio.add(chunk.audio.samples)
            chunk.release()
    except IndexMismatch:
        raise
    except DecodeError as error:
        problem = str(error)
    order = sorted(thumbnails)
    energy = np.array(found, np.float64).reshape(-1, 2)
    spectrogram, audio_end_s, beats_s, tempo_bpm = audio.finish()
    return VideoPreview(
        metadata=metadata,
        problem=problem,
        thumbnail_times_s=times_s[order] if order else None,
        sprite=_encoded(np.concatenate([thumbnails[index] for index in order], axis=1)) if order else b"",
        flow=flow_sprite([flows.get(index) for index in order], thumbnail_px),
        thumbnail_px=thumbnail_px,
        energy_times_s=energy[:, 0] if len(energy) else None,
        energy=energy[:, 1] if len(energy) else None,
        spectrogram=spectrogram,
        audio_end_s=audio_end_s,
        beats_s=beats_s,
        tempo_bpm=tempo_bpm,
    )


def optical_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return DIS flow ``[2, height, width]`` between two thumbnails, in their pixels."""
    import cv2

    grays = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (first, second)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = np.zeros((*grays[0].shape, 2), np.float32)
    return np.moveaxis(np.asarray(dis.calc(grays[0], grays[1], found), np.float32), -1, 0)


def flow_sprite(flows: Sequence[NDArray[np.float32] | None], size_px: tuple[int, int]) -> bytes:
    """Return the flows next to each other, with the same scale; gray for missing ones. Empty if all are missing."""
    found = [each for each in flows if each is not None]
    if not found:
        return b""
    largest = max(float(np.percentile(np.hypot(*each), 98)) for each in found)
    unknown = np.full((size_px[1], size_px[0], 3), 128, np.uint8)
    pictures = [unknown if each is None else flow_picture(each, max(largest, LEAST_FLOW_PX)) for each in flows]
    return _encoded(np.concatenate(pictures, axis=1))


def resized(frame: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a frame of another size (width, height), averaged over the area of each pixel."""
    import cv2

    return np.asarray(cv2.resize(frame, size_px, interpolation=cv2.INTER_AREA), np.uint8)


class _AudioAnalysis:
    """Collects the audio of a file as mono at the rate of `extractors.music`."""

    def __init__(self, metadata: VideoMetadata) -> None:
        from ..extractors.music import RATE_HZ

        self._track = metadata.audio
        self._parts: list[NDArray[np.float32]] = []
        self._resampler = None
        if self._track is not None and self._track.rate_hz != RATE_HZ:
            import soxr  # pyright: ignore[reportMissingTypeStubs]

            self._resampler = soxr.ResampleStream(self._track.rate_hz, RATE_HZ, 1, dtype="float32")

    def add(self, samples: NDArray[np.float32]) -> None:
        mono = np.ascontiguousarray(samples.mean(axis=0))
        self._parts.append(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    @alone_on_first_use("librosa.features")
    def finish(self) -> tuple[bytes, float, NDArray[np.float64] | None, float]:
        """Return spectrogram, end of the analyzed audio, beats and tempo."""
        if self._track is None or not self._parts:
            return b"", 0.0, None, 0.0
        import cv2
        import librosa

        from ..extractors.music import RATE_HZ, listen

        if self._resampler is not None:
            self._parts.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        sound = np.concatenate(self._parts)
        start = round(self._track.start_s * RATE_HZ)
        sound = np.pad(sound, (start, 0)) if start > 0 else sound[-start:]
        if len(sound) < RATE_HZ // 10:
            return b"", 0.0, None, 0.0
        end_s = len(sound) / RATE_HZ
        music = listen(sound)
        hop = max(512, len(sound) // SPECTROGRAM_WIDTH)
        mel = librosa.feature.melspectrogram(y=sound, sr=RATE_HZ, n_fft=2048, hop_length=hop, n_mels=SPECTROGRAM_HEIGHT)
        level = np.log10(np.maximum(mel, 1e-10) / max(float(mel.max()), 1e-10))
        loud = np.clip(level / 8 + 1, 0, 1)  # black is 80 dB below the maximum
        picture = cv2.applyColorMap((255 * loud[::-1]).astype(np.uint8), cv2.COLORMAP_MAGMA)
        picture = cv2.resize(picture, (SPECTROGRAM_WIDTH, SPECTROGRAM_HEIGHT), interpolation=cv2.INTER_AREA)
        rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
        return _encoded(rgb), end_s, np.asarray(music.beats_s, np.float64), music.tempo_bpm


def _encoded(rgb: NDArray[np.uint8]) -> bytes:
    """Return a JPEG."""
    import cv2

    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 78])[1].tobytes()
