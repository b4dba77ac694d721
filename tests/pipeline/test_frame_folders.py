"""Folders of frames are videos like any other."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import picture
from known_extractors import RECIPE

from arabesque.manifests.errors import InputError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.selection import InputSelection, find_inputs
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.reader import FeatureStore


def write_frames(folder, numbers, suffix=".jpg", size=(96, 128), padding=0):
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(numbers):
        codec = av.CodecContext.create("png" if suffix == ".png" else "mjpeg", "w")
        codec.width, codec.height, codec.pix_fmt = size[1], size[0], "rgb24" if suffix == ".png" else "yuvj420p"
        codec.time_base = Fraction(1, 25)
        frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format=codec.pix_fmt)
        packets = [*codec.encode(frame), *codec.encode(None)]
        (folder / f"{place + 1:0{padding}d}{suffix}").write_bytes(bytes(packets[0]))


def extract(place, out, rate=25.0, **options):
    inputs = find_inputs(InputSelection((place,), frame_rate=rate, **options))
    run = Extraction([place], parse_recipe(RECIPE, "known.toml"), out, inputs=inputs, options=RunOptions())
    found = {one.video_id: one for one in run if isinstance(one, Outcome) and one.stream == "numbers"}
    return run, found


def numbers_in(out, video_id):
    return FeatureStore(out)[video_id]["numbers"].values.ravel().astype(int).tolist()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_frames_come_in_natural_order_with_the_given_rate(tmp_path, suffix):
    write_frames(tmp_path / "frames" / "day1" / "dive.3", range(20, 36), suffix)
    _, found = extract(tmp_path / "frames", tmp_path / "out")
    assert {name: one.kind for name, one in found.items()} == {"day1/dive.3": "done"}
    assert numbers_in(tmp_path / "out", "day1/dive.3") == list(range(20, 36))
    features = FeatureStore(tmp_path / "out")["day1/dive.3"]["numbers"]
    assert features.end_s.tolist() == [8 / 25, 16 / 25]
    assert features.content_digest.endswith("#fps=25")


def test_a_folder_is_done_until_an_image_or_the_rate_changes(tmp_path):
    folder = tmp_path / "frames" / "a"
    write_frames(folder, range(8))
    extract(folder, tmp_path / "out")
    run, _ = extract(folder, tmp_path / "out")
    assert run.remaining == []
    assert [file.video_id for file in run.inputs.videos] == ["a"]
    run, found = extract(folder, tmp_path / "out", rate=30.0)
    assert [file.video_id for file in run.remaining] == ["a"]
    assert found["a"].kind == "done"
    (folder / "1.jpg").write_bytes((folder / "2.jpg").read_bytes())
    run, _ = extract(folder, tmp_path / "out", rate=30.0)
    assert [file.video_id for file in run.remaining] == ["a"]
    assert numbers_in(tmp_path / "out", "a") == [1, 1, 2, 3, 4, 5, 6, 7]


def test_a_broken_image_is_a_hole_and_other_wrong_folders_fail(tmp_path):
    write_frames(tmp_path / "frames" / "broken", range(16))
    (tmp_path / "frames" / "broken" / "3.jpg").write_bytes(b"\xff\xd8 no image")
    write_frames(tmp_path / "frames" / "mixed", range(8))
    write_frames(tmp_path / "frames" / "mixed" / "other", range(1), size=(48, 64))
    (tmp_path / "frames" / "mixed" / "other" / "1.jpg").rename(tmp_path / "frames" / "mixed" / "9.jpg")
    (tmp_path / "frames" / "empty").mkdir()
    (tmp_path / "frames" / "mixed" / "other").rmdir()
    write_frames(tmp_path / "frames" / "noise", range(1))
    (tmp_path / "frames" / "noise" / "1.jpg").write_bytes(b"noise")
    _, found = extract(tmp_path / "frames", tmp_path / "out")
    kinds = {name: one.kind for name, one in found.items()}
    assert kinds == {"broken": "partial", "mixed": "failed", "empty": "failed", "noise": "failed"}
    assert numbers_in_partial(tmp_path / "out") == list(range(8, 16))
    assert "frame 2 (3.jpg) cannot be decoded" in found["broken"].reason
    assert "changes from 128×96 (1.jpg) to 64×48 (9.jpg)" in found["mixed"].reason
    assert "has no .jpg or .png images" in found["empty"].reason
    assert "no image can be read" in found["noise"].reason


def numbers_in_partial(out):
    return FeatureStore(out, partial=True)["broken"]["numbers"].values.ravel().astype(int).tolist()


def test_a_clip_of_a_folder(tmp_path):
    write_frames(tmp_path / "frames" / "a", range(30))
    (tmp_path / "clips.csv").write_text("path,id,start_s,end_s\nframes/a,x,0.4,0.72\nframes/a,y,0.72,\n")
    inputs = find_inputs(InputSelection(clips=tmp_path / "clips.csv", frame_rate=25))
    list(Extraction([], parse_recipe(RECIPE, "known.toml"), tmp_path / "out", inputs=inputs, options=RunOptions()))
    assert numbers_in(tmp_path / "out", "x") == list(range(10, 18))
    assert numbers_in(tmp_path / "out", "y") == list(range(18, 26))


def test_a_missing_or_wrong_rate(tmp_path):
    write_frames(tmp_path / "frames" / "a", range(2))
    with pytest.raises(InputError, match=r"but 2 images; for folders of frames, give their rate \(--frame-rate 25\)"):
        find_inputs(InputSelection((tmp_path / "frames",)))
    for rate in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="is not between 0 and 1000"):
            find_inputs(InputSelection((tmp_path / "frames",), frame_rate=rate))
