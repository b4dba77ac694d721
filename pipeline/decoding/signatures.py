"""File formats by their first bytes, and the suffixes of video files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(text.split())


READ_SUFFIXES = _suffixes(
    ".3g2 .3gp .asf .avi .divx .dv .evo .f4v .flv .k3g .m2p .m2t .m2ts .m4v .mj2 .mk3d .mkv .mod .mov .mp4 .mpe .mpeg "
    ".mpg .mqv .mts .mxf .ogm .ogv .ogx .qt .tod .ts .vob .webm .wmv"
)
"""Suffixes of containers that the decoders open."""
UNREAD_SUFFIXES = _suffixes(
    ".264 .265 .amv .apng .av1 .avc .bik .braw .dvr-ms .gxf .h264 .h265 .hevc .ivf .m1v .m2v .mjpeg .mjpg .nsv .nut "
    ".obu .r3d .rm .rmvb .smk .swf .vc1 .wtv .xesc .y4m"
)
"""Suffixes of video formats that the decoders do not open. Such a file fails with a reason that names its format."""
SOMETIMES_VIDEO_SUFFIXES = frozenset([".gif", ".webp", ".ogg"])
"""Suffixes of images that may be animated, and of audio that may have video; see `is_moving`."""
OTHER_SUFFIXES = _suffixes(
    ".aac .ac3 .avif .bin .bmp .bz2 .c .cfg .cpp .csv .db .doc .docx .flac .gz .h .h5 .hdf5 .heic .html .ini .ipynb "
    ".jpeg .jpg .js .json .jsonl .lock .log .lrv .m3u .m3u8 .m4a .mat .md .md5 .mp3 .nfo .npy .npz .oga .onnx "
    ".opus .parquet .pdf .pickle .pkl .png .pt .pth .py .rst .rtf .safetensors .sh .srt .ssa .sub .svg .tar .tgz "
    ".thm .tif .tiff .toml .tsv .ttf .txt .vtt .wav .weba .wma .xls .xlsx .xml .xz .yaml .yml .zip .zst"
)
"""Suffixes of files that are not videos and are never opened. ``.lrv`` is the small copy that some cameras make of each
video."""
HEAD_BYTES = 2048
"""Number of first bytes that are read: an animated GIF file is marked after its header (13 bytes) and up to 768 bytes
of palette."""


@dataclass(frozen=True)
class Format:
    """A file format. ``is_video``: it may contain video, whether the decoders open it or not."""

    name: str
    is_video: bool = True


_SIGNATURES: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"\x1a\x45\xdf\xa3", Format("Matroska")),
    (4, b"ftyp", Format("MP4")),
    (4, b"moov", Format("MP4")),
    (0, b"FLV", Format("Flash video (FLV)")),
    (0, bytes.fromhex("3026b2758e66cf11"), Format("Windows Media (ASF)")),
    (0, b"OggS", Format("Ogg")),
    (0, bytes.fromhex("060e2b34020501010d0102"), Format("MXF")),
    (0, b"\x00\x00\x01\xba", Format("MPEG program stream")),
    (0, b".RMF", Format("RealMedia")),
    (0, b"nut/multimedia container", Format("NUT")),
    (0, bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), Format("Windows Recorded TV (WTV)")),
    (0, b"DKIF", Format("IVF")),
    (0, b"YUV4MPEG2", Format("YUV4MPEG2")),
    (0, b"\x00\x00\x01\xb3", Format("raw MPEG-1 or MPEG-2 video")),
    (0, b"\x00\x00\x00\x01", Format("raw H.264 or HEVC video")),
    (0, b"FWS", Format("Flash movie (SWF)")),
    (0, b"CWS", Format("Flash movie (SWF)")),
    (0, b"BIK", Format("Bink")),
    (0, b"SMK2", Format("Smacker")),
    (0, b"NSVf", Format("Nullsoft video")),
    (0, b"GIF8", Format("GIF", is_video=False)),
    (0, b"\x89PNG", Format("PNG", is_video=False)),
    (0, b"\xff\xd8\xff", Format("JPEG", is_video=False)),
    (0, b"#EXTM3U", Format("HLS playlist", is_video=False)),
    (0, b"ffconcat", Format("list of files (ffconcat)", is_video=False)),
    (0, b"v=0", Format("session description (SDP)", is_video=False)),
    (0, b"rtsptext", Format("RTSP address", is_video=False)),
    (0, b"RTSPtext", Format("RTSP address", is_video=False)),
    (0, b"rtsp://", Format("RTSP address", is_video=False)),
    (0, b"[playlist]", Format("playlist", is_video=False)),
    (0, b"[Reference]", Format("Windows Media address", is_video=False)),
    (0, b"<asx", Format("Windows Media address", is_video=False)),
    (0, b"%PDF", Format("PDF", is_video=False)),
    (0, b"PK\x03\x04", Format("ZIP archive", is_video=False)),
    (0, b"\x1f\x8b", Format("gzip archive", is_video=False)),
    (0, b"ID3", Format("MP3", is_video=False)),
    (0, b"fLaC", Format("FLAC", is_video=False)),
)
_OGG_VIDEO = b"\x80theora", b"OVP80", b"BBCD\0", b"\x01video"
"""First bytes of the first packets of Ogg's video streams: Theora, VP8, Dirac, and others of OGM."""
_RIFF = {b"AVI ": Format("AVI"), b"WEBP": Format("WebP", is_video=False), b"WAVE": Format("WAV", is_video=False)}


def format_of(head: bytes) -> Format | None:
    """Return the format of a file from its first `HEAD_BYTES`; None if the format is unknown."""
    if head[:4] in (b"RIFF", b"RIFX"):
        return _RIFF.get(head[8:12])
    for step, first in ((188, 0), (192, 4)):
        if all(head[at : at + 1] == b"G" for at in (first, first + step)):
            return Format("MPEG transport stream")
    for offset, signature, known in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return known
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return Format("SVG", is_video=False)
    if text.startswith((b"<!doctype html", b"<html")):
        return Format("web page", is_video=False)
    return None


def is_moving(head: bytes) -> bool:
    """Return whether a file of `SOMETIMES_VIDEO_SUFFIXES` has an animation or a video stream, from its first bytes."""
    if head[:4] == b"OggS":  # the file starts with the first packets of all streams
        return any(mark in head for mark in _OGG_VIDEO)
    if head[:4] == b"GIF8":
        return b"NETSCAPE2.0" in head or b"ANIMEXTS1.0" in head
    return head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file that is known to be a regular file."""
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)
