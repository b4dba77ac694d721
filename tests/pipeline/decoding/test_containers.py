"""The supported containers, that reading one opens no other file, and the messages for other formats."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, write_clip
from decoding_checks import deliver

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.containers import FORMATS
from arabesque.pipeline.decoding.signatures import format_of, head_of, is_moving

PLAIN = {"options": {"g": "12", "b": "3M"}, "audio_codec": "mp2", "audio_rate_hz": 48000, "beeps_s": (0.4,)}
READ = {
    "a.mpg": ("mpeg", "MPEG program stream", {**PLAIN, "codec": "mpeg2video"}, {}),
    "b.MPEG": ("mpeg", "MPEG program stream", {**PLAIN, "codec": "mpeg1video"}, {}),
    "c.vob": ("mpeg", "MPEG program stream", {**PLAIN, "codec": "mpeg2video"}, {"format": "vob"}),
    "d.flv": ("flv", "Flash video (FLV)", {**PLAIN, "codec": "flv", "audio_codec": "aac"}, {}),
    "e.flv": ("flv", "Flash video (FLV)", {"beeps_s": (0.4,)}, {}),
    "f.f4v": ("mov", "MP4", {"beeps_s": (0.4,)}, {"format": "mp4"}),
    "g.WMV": ("asf", "Windows Media (ASF)", {**PLAIN, "codec": "wmv2"}, {"format": "asf"}),
    "h.asf": ("asf", "Windows Media (ASF)", {**PLAIN, "codec": "msmpeg4"}, {}),
    "i.ogv": ("ogg", "Ogg", {"codec": "libvpx", "options": {"cpu-used": "8"}}, {"format": "ogg"}),
    "o.ogg": ("ogg", "Ogg", {"codec": "libvpx", "options": {"cpu-used": "8"}}, {"format": "ogg"}),
    "j.mxf": ("mxf", "MXF", {**PLAIN, "codec": "mpeg2video", "audio_codec": "pcm_s16le"}, {}),
    "k.M2TS": ("mpegts", "MPEG transport stream", {**PLAIN, "codec": "libx264"}, {"format": "mpegts"}),
    "l.3gp": ("mov", "MP4", {**PLAIN, "codec": "mpeg4", "audio_codec": "aac"}, {}),
    "n.mp4": ("flv", "Flash video (FLV)", {"beeps_s": (0.4,)}, {"format": "flv"}),
}


def write_as(path: Path, clip: dict[str, Any], muxer: dict[str, str], num_frames: int = 30) -> Path:
    """Write a clip (`write_clip`) under a name that selects the format of the muxer."""
    suffixes = {"vob": ".vob", "mp4": ".mp4", "asf": ".asf", "ogg": ".ogv", "mpegts": ".ts", "flv": ".flv"}
    suffix = suffixes.get(muxer.get("format", ""), path.suffix.lower())
    written = write_clip(path.with_name(f"written{suffix}"), Clip(num_frames=num_frames, **clip))
    return written.rename(path)


@pytest.mark.parametrize("name", READ)
def test_every_frame_of_these_containers_is_read(pyav, tmp_path, name):
    container, format_name, clip, muxer = READ[name]
    path = write_as(tmp_path / name, clip, muxer)
    metadata = pyav.probe(path)
    assert metadata.container.startswith(container)
    assert deliver(pyav, path, metadata=metadata) == ([*range(30)], "")
    known = format_of(head_of(path))
    assert known is not None
    assert (known.name, known.is_video) == (format_name, True)
    assert (metadata.audio is not None) == ("beeps_s" in clip)
    if metadata.audio is not None:
        num_samples = sum(block.shape[1] for block in pyav.audio(path, metadata, 1.0))
        assert num_samples / metadata.audio.rate_hz == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", READ)
def test_reading_a_container_opens_that_file_alone(tmp_path, name):
    _, _, clip, muxer = READ[name]
    path = write_as(tmp_path / name, clip, muxer)
    opened: list[str] = []
    files: list[Any] = []

    def spy(url: str, flags: int, options: dict[str, str]) -> Any:
        opened.append(url)
        files.append(open(url, "rb"))  # noqa: SIM115 - closed below
        return files[-1]

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    with av.open(str(path), options=options, io_open=spy) as container:
        for _ in container.demux():
            pass
    for file in files:
        file.close()
    assert set(opened) == {str(path)}


def test_a_movie_that_refers_to_another_file_is_refused(pyav, tmp_path):
    """In QuickTime's reference movies, the file that an alias names exists in the same folder and is not read."""
    whole = write_clip(tmp_path / "whole.mp4", Clip(num_frames=30))
    path = tmp_path / "reference.mov"
    path.write_bytes(_with_alias(whole.read_bytes(), str(whole)))
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert sum(packet.size > 0 for packet in container.demux()) == 30  # an alias that FFmpeg could follow
    with pytest.raises(DecodeError, match="has no frame"):
        pyav.probe(path)


def _with_alias(content: bytes, target: str) -> bytes:
    """An MP4 file whose data reference is an alias to ``target``, and which ends with its index."""
    name = target.encode()
    record = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12)
    record += bytes([9]) + b"whole.mp4".ljust(63, b"\0") + bytes(36)
    record += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + b"\xff\xff\0\0"
    alias = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    at = content.index(b"url \0\0\0\x01") - 4
    changed = bytearray(content[:at] + alias + content[at + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = changed.rindex(box, 0, at) - 4
        (length,) = struct.unpack(">I", changed[place : place + 4])
        changed[place : place + 4] = struct.pack(">I", length + len(alias) - 12)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "session description"),
        (b"rtsptext\nrtsp://127.0.0.1:554/a.mp4\n", "RTSP address"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><image href="a.png"/></svg>', "SVG"),
        (b"ffconcat version 1.0\nfile whole.mp4\n", "ffconcat"),
        (b"#EXTM3U\n#EXTINF:1,\nwhole.mp4\n", "HLS playlist"),
        (b'<asx version="3.0"><entry><ref href="whole.mp4"/></entry></asx>', "Windows Media address"),
        (b".RMF\0\0\0\x12" + bytes(100), "RealMedia"),
        (b"GIF89a" + bytes(100), "is GIF"),
        (b"GIF89a" + bytes(20) + b"NETSCAPE2.0" + bytes(100), "is animated GIF"),
        (b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(100), "WebP"),
        (b"just text\n" * 40, "known format"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_other_files_with_a_video_suffix_are_reported_with_their_format(decoder, tmp_path, content, name, suffix):
    write_clip(tmp_path / "whole.mp4", Clip(num_frames=3))
    path = tmp_path / f"other.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=name):
        decoder.probe(path)


@pytest.mark.parametrize("name", ["d.flv", "g.WMV", "h.asf", "i.ogv", "j.mxf", "c.vob"])
def test_a_truncated_file_is_never_complete(pyav, tmp_path, name):
    _, _, clip, muxer = READ[name]
    path = write_as(tmp_path / name, clip, muxer, num_frames=75)
    content = path.read_bytes()
    for share in (0.3, 0.55, 0.8):
        path.write_bytes(content[: int(len(content) * share)])
        metadata = pyav.probe(path)
        numbers, complaint = deliver(pyav, path, metadata=metadata)
        assert numbers == [*range(len(numbers))]
        is_cut = metadata.declared_end_s is not None and metadata.declared_end_s - metadata.end_s > 1.5 / metadata.fps
        assert complaint or is_cut


def test_an_animated_gif_is_recognized_behind_its_palette(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(b"GIF89a" + bytes(7 + 768) + b"\x21\xff\x0bNETSCAPE2.0" + bytes(5000))
    assert is_moving(head_of(path))


def test_a_playlist_fails_like_other_unsupported_formats(pyav, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nb.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DecodeError, match=r"its format is HLS playlist, and MP4, MOV.* are read; convert the file"):
        pyav.probe(path)
