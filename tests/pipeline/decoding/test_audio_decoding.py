"""Sound comes at its true time, whatever the container, and ends where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import beep_times
from decoding_checks import MPEG4, VP9

from arabesque.pipeline.decoding.decoders import Decoder, SoundBroken
from arabesque.pipeline.records import Probe

BEEPS = [0.3, 1.1, 1.6]


def hear(decoder: Decoder, path: Path, until_s: float | None = None) -> tuple[np.ndarray, Probe]:
    probe = decoder.probe(path)
    blocks = list(decoder.sound(path, probe, probe.end_s if until_s is None else until_s))
    return np.concatenate(blocks, axis=1), probe


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
def test_beeps_sound_when_they_should(decoder, write, name, clip, tolerance_s):
    samples, probe = hear(decoder, write(name, beeps_s=BEEPS, **clip))
    assert probe.audio is not None
    assert samples.shape[0] == probe.audio.channels == 1
    assert samples.dtype == np.float32
    assert 0.4 < np.abs(samples).max() < 0.75
    heard = [time_s + probe.audio.start_s for time_s in beep_times(samples[0], probe.audio.rate_hz)]
    assert heard == pytest.approx(BEEPS, abs=tolerance_s)
    assert samples.shape[1] / probe.audio.rate_hz + probe.audio.start_s == pytest.approx(2.0, abs=0.04)


def test_sound_that_begins_late_and_ends_early_says_so(decoder, write):
    path = write("a.mkv", beeps_s=[1.0], audio_from_s=0.6, audio_until_s=1.5, audio_codec="pcm_s16le")
    samples, probe = hear(decoder, path)
    assert probe.audio is not None
    assert probe.audio.start_s == pytest.approx(0.6, abs=0.001)
    assert samples.shape[1] / probe.audio.rate_hz == pytest.approx(0.9, abs=0.001)
    assert beep_times(samples[0], probe.audio.rate_hz) == pytest.approx([0.4], abs=0.001)


def test_sound_comes_no_further_than_asked_for(decoder, write):
    samples, probe = hear(decoder, write("a.mp4", beeps_s=BEEPS), until_s=0.75)
    assert probe.audio is not None
    assert samples.shape[1] == round(0.75 * probe.audio.rate_hz)


def test_sound_is_relative_to_the_first_frame(decoder, write):
    times = range(10, 60)  # the video begins 0.4 s into the file
    samples, probe = hear(decoder, write("a.mkv", times=times, beeps_s=[1.0], audio_codec="pcm_s16le"))
    assert probe.audio is not None
    assert (probe.frame_times_s[0], probe.audio.start_s) == (0, pytest.approx(-0.4))
    heard = [time_s + probe.audio.start_s for time_s in beep_times(samples[0], probe.audio.rate_hz)]
    assert heard == pytest.approx([0.6], abs=0.001)


def test_gaps_in_the_track_are_silence_and_overlaps_are_cut(pyav, write):
    """Beeps at .3 and 1.6 keep their times though the packets between are gone, and others come twice."""
    path = write("a.mkv", beeps_s=[0.3, 1.6], audio_codec="pcm_s16le", holes_s=[(0.5, 1.2)], repeats_s=[(1.3, 1.4)])
    samples, probe = hear(pyav, path)
    assert probe.audio is not None
    assert beep_times(samples[0], probe.audio.rate_hz) == pytest.approx([0.3, 1.6], abs=0.002)
    assert samples.shape[1] / probe.audio.rate_hz == pytest.approx(2.0, abs=0.001)


def test_a_video_without_sound_has_none(decoder, write):
    path = write("a.mp4")
    probe = decoder.probe(path)
    assert probe.audio is None
    assert list(decoder.sound(path, probe, probe.end_s)) == []


def test_damaged_sound_ends_at_the_damage(pyav, write):
    path = write("a.mp4", beeps_s=[0.1, 0.2, 0.3, 1.1, 1.6], muxer={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    probe = pyav.probe(path)
    assert probe.audio is not None
    samples: list[np.ndarray] = []
    with pytest.raises(SoundBroken, match=r"the sound breaks off at \d\.\d\d s"):
        samples.extend(pyav.sound(path, probe, 2.0))
    heard = beep_times(np.concatenate(samples, axis=1)[0], probe.audio.rate_hz)
    assert heard[:3] == pytest.approx([0.1, 0.2, 0.3], abs=0.002)
