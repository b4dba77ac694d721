"""The bytes of a file are never passed to rare decoders."""

from __future__ import annotations

import av
import numpy as np
import pytest
from clips import Clip, write_clip
from misbehaving_decoders import pictures

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.codecs import AUDIO_DECODERS, VIDEO_DECODERS
from arabesque.pipeline.decoding.decoders import build_decoder


@pytest.mark.parametrize("codec", ["asv1", "snow"])
def test_a_rare_video_codec_is_refused_by_name(tmp_path, codec):
    path = write_clip(tmp_path / "a.avi", Clip(num_frames=5, codec=codec, options={}))
    with pytest.raises(DecodeError, match=f"its video codec, {codec}, is not accepted"):
        build_decoder("pyav", lambda: None).probe(path)


def test_a_rare_audio_codec_is_refused_by_name(tmp_path):
    path = write_clip(tmp_path / "a.mkv", Clip(num_frames=5, beeps_s=[0.1], audio_codec="tta"))
    with pytest.raises(DecodeError, match="its audio codec, tta, is not accepted"):
        build_decoder("pyav", lambda: None).probe(path)


def test_decord_which_opens_every_stream_refuses_a_rare_one_that_was_not_chosen(tmp_path):
    pytest.importorskip("decord")
    path = tmp_path / "two.avi"
    with av.open(str(path), "w") as container:
        good, rare = (container.add_stream(codec, rate=25) for codec in ("mpeg4", "asv1"))
        for stream in (good, rare):
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 40 * number, np.uint8))
            frame.pts = number
            for stream in (good, rare):
                container.mux(stream.encode(frame))
        container.mux([*good.encode(None), *rare.encode(None)])
    decoder = build_decoder("decord", lambda: None)
    metadata = decoder.probe(path)
    assert metadata.codec == "mpeg4"
    assert [
        index for index, _ in pictures(build_decoder("pyav", lambda: None).frames(path, metadata, np.arange(5)))
    ] == [*range(5)]
    with pytest.raises(DecodeError, match="its video codec, asv1"):
        next(decoder.frames(path, metadata, np.arange(5)))


def test_accepted_decoders_exist():
    """A misspelled name would exclude all files of a codec."""
    unknown = (VIDEO_DECODERS | AUDIO_DECODERS) - av.codecs_available
    assert unknown <= {"libopencore_amrnb", "libopencore_amrwb", "libdav1d", "libvpx", "libvpx-vp9", "libopus", "vvc"}
