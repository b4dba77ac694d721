"""Audio has its true times in every container, and ends where it is damaged."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from clips import beep_times
from decoding_checks import MPEG4, VP9

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.containers import rejection
from arabesque.pipeline.decoding.decoders import Decoder
from arabesque.pipeline.records import Hole, VideoMetadata

BEEPS = [0.3, 1.1, 1.6]


def read_audio(decoder: Decoder, path: Path, until_s: float | None = None) -> tuple[np.ndarray, VideoMetadata]:
    metadata = decoder.probe(path)
    items = list(decoder.audio(path, metadata, metadata.end_s if until_s is None else until_s))
    return np.concatenate([item for item in items if not isinstance(item, Hole)], axis=1), metadata


@pytest.mark.parametrize(
    ("name", "clip", "tolerance_s"),
    [
        ("aac.mp4", {}, 0.002),
        ("aac.mkv", {}, 0.002),
        ("opus.webm", {**VP9, "audio_codec": "libopus", "audio_rate_hz": 48000}, 0.002),
        ("pcm.mkv", {"audio_codec": "pcm_s16le"}, 0.001),
        ("u8.avi", {**MPEG4, "audio_codec": "pcm_u8", "options": {}}, 0.001),
        ("float.mkv", {"audio_codec": "pcm_f32le"}, 0.001),
        # AVI has no place for the encoder's delay, of 1105 samples
        ("mp3.avi", {**MPEG4, "audio_codec": "libmp3lame", "options": {}}, 0.027),
    ],
)
def test_beeps_are_at_their_times(decoder, write, name, clip, tolerance_s):
    samples, metadata = read_audio(decoder, write(name, beeps_s=BEEPS, **clip))
    assert metadata.audio is not None
    assert samples.shape[0] == metadata.audio.channels == 1
    assert samples.dtype == np.float32
    assert 0.4 < np.abs(samples).max() < 0.75
    heard = [time_s + metadata.audio.start_s for time_s in beep_times(samples[0], metadata.audio.rate_hz)]
    assert heard == pytest.approx(BEEPS, abs=tolerance_s)
    assert samples.shape[1] / metadata.audio.rate_hz + metadata.audio.start_s == pytest.approx(2.0, abs=0.04)


VORBIS = {"audio_codec": "vorbis", "audio_layout": "stereo", "audio_options": {"strict": "experimental"}}
MP3, OPUS = {"audio_codec": "libmp3lame"}, {"audio_codec": "libopus", "audio_rate_hz": 48000}


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        *((f"aac.{container}", {}) for container in ("mp4", "mov", "mkv", "ts", "flv")),
        *((f"mp3.{container}", MP3) for container in ("mp4", "mkv", "ts", "flv")),
        *((f"opus.{container}", OPUS) for container in ("mp4", "mkv", "ts")),
        ("opus.webm", {**VP9, **OPUS}),
        ("opus at 24 kHz.webm", {**VP9, **OPUS, "audio_rate_hz": 24000}),
        ("vorbis.webm", {**VP9, **VORBIS}),
        *((f"vorbis.{container}", VORBIS) for container in ("mp4", "mkv")),
        *((f"ac3.{container}", {"audio_codec": "ac3"}) for container in ("mp4", "mkv", "ts")),
        ("mp2.ts", {"audio_codec": "mp2"}),
        ("flac.mkv", {"audio_codec": "flac"}),
        ("mp3.avi", {**MPEG4, **MP3}),
    ],
)
def test_audio_begins_at_the_first_sample_that_ffmpeg_decodes(decoder, write, name, clip):
    """Samples of the encoder's delay are neither returned nor replaced by silence, in every container."""
    path = write(name, beeps_s=[0.0, 0.3, 1.1], **clip)
    samples, metadata = read_audio(decoder, path, until_s=10.0)
    with av.open(path) as container:
        frames = list(container.decode(container.streams.audio[0]))
    plain = np.concatenate([frame.to_ndarray().reshape(len(samples), -1) for frame in frames], axis=1)
    scale = 1 if plain.dtype.kind == "f" else 2.0 ** (8 * plain.dtype.itemsize - 1)
    assert frames[0].pts is not None
    assert frames[0].time_base is not None
    assert metadata.audio is not None
    first_s = float(frames[0].pts * frames[0].time_base) - metadata.start_s
    assert metadata.audio.start_s == pytest.approx(first_s, abs=1e-6)
    np.testing.assert_array_equal(samples, (plain / scale).astype(np.float32))


def test_the_encoder_delay_is_not_part_of_an_equal_split(pyav, write):
    """The pre-skip of Opus, 312 samples, does not shift what follows it."""
    path = write("a.webm", beeps_s=[0.0, 0.5], **VP9, **OPUS)
    samples, metadata = read_audio(pyav, path)
    assert metadata.audio is not None
    assert metadata.audio.start_s == 0.0
    assert samples.shape[1] == 96000
    assert beep_times(samples[0], 48000) == pytest.approx([0.0, 0.5], abs=0.002)


def test_audio_reports_a_late_start_and_an_early_end(decoder, write):
    path = write("a.mkv", beeps_s=[1.0], audio_from_s=0.6, audio_until_s=1.5, audio_codec="pcm_s16le")
    samples, metadata = read_audio(decoder, path)
    assert metadata.audio is not None
    assert metadata.audio.start_s == pytest.approx(0.6, abs=0.001)
    assert samples.shape[1] / metadata.audio.rate_hz == pytest.approx(0.9, abs=0.001)
    assert beep_times(samples[0], metadata.audio.rate_hz) == pytest.approx([0.4], abs=0.001)


def test_audio_ends_at_the_requested_time(decoder, write):
    samples, metadata = read_audio(decoder, write("a.mp4", beeps_s=BEEPS), until_s=0.75)
    assert metadata.audio is not None
    assert samples.shape[1] == round(0.75 * metadata.audio.rate_hz)


def test_audio_times_are_relative_to_the_first_frame(decoder, write):
    times = range(10, 60)  # the video begins 0.4 s into the file
    samples, metadata = read_audio(decoder, write("a.mkv", times=times, beeps_s=[1.0], audio_codec="pcm_s16le"))
    assert metadata.audio is not None
    assert (metadata.frame_times_s[0], metadata.audio.start_s) == (0, pytest.approx(-0.4))
    heard = [time_s + metadata.audio.start_s for time_s in beep_times(samples[0], metadata.audio.rate_hz)]
    assert heard == pytest.approx([0.6], abs=0.001)


def test_gaps_in_the_track_are_silence_and_overlaps_are_cut(pyav, write):
    """Beeps at .3 and 1.6 s keep their times although packets between them are missing and others occur twice."""
    path = write("a.mkv", beeps_s=[0.3, 1.6], audio_codec="pcm_s16le", holes_s=[(0.5, 1.2)], repeats_s=[(1.3, 1.4)])
    samples, metadata = read_audio(pyav, path)
    assert metadata.audio is not None
    assert beep_times(samples[0], metadata.audio.rate_hz) == pytest.approx([0.3, 1.6], abs=0.002)
    assert samples.shape[1] / metadata.audio.rate_hz == pytest.approx(2.0, abs=0.001)


def test_a_video_without_an_audio_track_has_no_audio(decoder, write):
    path = write("a.mp4")
    metadata = decoder.probe(path)
    assert metadata.audio is None
    assert list(decoder.audio(path, metadata, metadata.end_s)) == []


def test_damaged_audio_ends_at_the_damage(pyav, write):
    path = write("a.mp4", beeps_s=[0.1, 0.2, 0.3, 1.1, 1.6], muxer={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    metadata = pyav.probe(path)
    assert metadata.audio is not None
    *samples, hole = pyav.audio(path, metadata, 2.0)
    assert isinstance(hole, Hole)
    assert re.match(r"the audio stops at \d\.\d\d s", hole.reason)
    assert hole.end_s == pytest.approx(2.0, abs=0.03)
    heard = beep_times(np.concatenate(samples, axis=1)[0], metadata.audio.rate_hz)
    assert heard[:3] == pytest.approx([0.1, 0.2, 0.3], abs=0.002)


@pytest.mark.parametrize("rate_hz", [1e9, 769e3, 12.0])
def test_an_implausible_sampling_rate_is_refused(pyav, write, rate_hz):
    path = write("a.mkv", num_frames=10, beeps_s=(), audio_codec="pcm_s16le", audio_rate_hz=44100)
    content = path.read_bytes()
    assert content.count(struct.pack(">d", 44100.0)) == 1
    path.write_bytes(content.replace(struct.pack(">d", 44100.0), struct.pack(">d", rate_hz)))
    with pytest.raises(DecodeError, match="Hz of audio"):
        pyav.probe(path)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (av.error.PermissionError(1, "Operation not permitted"), "'error -1, without a cause'"),
        (av.error.ArgumentError(22, "Invalid argument"), "'invalid argument'"),
        (av.error.InvalidDataError(1094995529, "Invalid data found"), "'invalid data found'"),
    ],
)
def test_the_error_of_ffmpeg_is_quoted_and_not_a_permission_error(error, text):
    assert rejection(error) == f"the decoder rejects a packet, and FFmpeg reports {text}"


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("pcm.mkv", {"audio_codec": "pcm_s16le"}),
        ("a.ts", {"audio_codec": "mp2"}),
        ("a.webm", {**VP9, "audio_codec": "libopus", "audio_rate_hz": 48000}),
        ("mp3.avi", {**MPEG4, "audio_codec": "libmp3lame"}),
    ],
)
def test_audio_continues_after_damage_with_a_hole(pyav, write, name, clip):
    """Each beep (one every 0.2 s) is at its time or in the hole, and no other stretch is silent."""
    beeps_s = [0.1 + 0.2 * number for number in range(20)]
    muxer = {"cluster_time_limit": "200"} if name == "a.webm" else {}
    path = write(name, num_frames=100, beeps_s=beeps_s, muxer=muxer, **clip)
    whole, metadata = read_audio(pyav, path)
    content = bytearray(path.read_bytes())
    place = int(0.5 * len(content)) // 188 * 188
    content[place : place + 40 * 188] = random.Random(0).randbytes(40 * 188)
    path.write_bytes(content)
    metadata = pyav.probe(path)
    assert metadata.audio is not None
    items = list(pyav.audio(path, metadata, 4.0))
    samples = np.concatenate([item for item in items if not isinstance(item, Hole)], axis=1)
    holes = [item for item in items if isinstance(item, Hole)]
    assert holes
    assert sum(hole.end_s - hole.start_s for hole in holes) < 2.5
    times_s = metadata.audio.start_s + np.arange(samples.shape[1]) / metadata.audio.rate_hz
    is_lost = np.zeros(len(times_s), bool)
    for hole in holes:
        is_lost |= (times_s >= hole.start_s) & (times_s < hole.end_s)
    length = min(samples.shape[1], whole.shape[1])
    differ = np.abs(samples[0, :length] - whole[0, :length]) > 1e-3
    assert not (differ & ~is_lost[:length]).any()
    assert times_s[-1] == pytest.approx(4.0, abs=0.06)
