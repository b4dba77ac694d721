"""Folders of frames are videos like any other."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from clips import picture
from known_extractors import RECIPE

from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.manifests.errors import InputError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.selection import InputSelection, find_inputs
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.weights.cache import open_cache

SHARED = Path(__file__).resolve().parents[3] / "shared"
NETWORK = """
name = "network"
summary = "a network on frames"
[sampling]
fps = "native"
frames_per_segment = 8
frames_per_step = 8
remainder = "drop-tail"
[streams.network]
extractor = "EXTRACTOR"
weights = { network = "WEIGHTS" }
settings = SETTINGS
"""


def write_image(path, pixels, quality=2):
    """Write one image; ``quality`` is FFmpeg's ``-q:v`` of a JPEG, of which 1 is the best."""
    is_png = path.suffix == ".png"
    codec = av.CodecContext.create("png" if is_png else "mjpeg", "w")
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24" if is_png else "yuvj420p", Fraction(1, 25)
    if not is_png:
        codec.qmin = codec.qmax = quality
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = frame if is_png else frame.reformat(format=codec.pix_fmt, dst_colorspace="ITU601")  # JPEG has no other
    path.write_bytes(bytes([*codec.encode(frame), *codec.encode(None)][0]))


def write_frames(folder, numbers, suffix=".jpg", size=(96, 128), padding=0):
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(numbers):
        write_image(folder / f"{place + 1:0{padding}d}{suffix}", picture(number, *size))


def write_frames_of(video, folder, suffix, count=None):
    """Write the frames of a video, as a data set ships them."""
    folder.mkdir(parents=True)
    with av.open(video) as container:
        for number, frame in enumerate(islice(container.decode(video=0), count)):
            matrix = "ITU709" if frame.colorspace == av.video.reformatter.Colorspace.ITU709 else "ITU601"
            pixels = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
            write_image(folder / f"{number + 1}{suffix}", pixels)


def extract(place, out, rate=25.0, recipe=RECIPE, **options):
    inputs = find_inputs(InputSelection((place,), frame_rate=rate, **options))
    run = Extraction([place], parse_recipe(recipe, "known.toml"), out, inputs=inputs, options=RunOptions())
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


def network_of(extractor, weights, settings="{}"):
    return NETWORK.replace("EXTRACTOR", extractor).replace("WEIGHTS", weights).replace("SETTINGS", settings)


def cosine(a, b):
    return np.sum(a * b, axis=1, dtype=np.float64) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def compare_with_video(out, video_id):
    """Check that the folders ``jpg`` and ``png`` have the segments and features of the video."""
    store = FeatureStore(out)
    video, lossless, jpeg = (store[name]["network"] for name in (video_id, "png", "jpg"))
    for found in (lossless, jpeg):
        assert np.allclose(found.start_s, video.start_s, atol=1e-3)
        assert np.allclose(found.end_s, video.end_s, atol=1e-3)
    assert cosine(lossless.values, video.values).min() >= 0.999999
    assert cosine(jpeg.values, video.values).min() >= 0.999
    others = np.linalg.norm(video.values[1:] - video.values[:-1], axis=1)
    assert np.linalg.norm(jpeg.values - video.values, axis=1).max() < 0.5 * others.min()


def test_a_network_on_a_folder_has_the_features_of_the_video(tmp_path):
    write_moving_texture(tmp_path / "video.mp4", duration_s=1.0, width_px=96, height_px=64)
    for name in ("jpg", "png"):
        write_frames_of(tmp_path / "video.mp4", tmp_path / "frames" / name, f".{name}")
    recipe = network_of("pytorchvideo:x3d_xs", "random:0", "{ geometry = { steps = [{ size_px = [64, 64] }] } }")
    for place in ("video.mp4", "frames"):
        extract(tmp_path / place, tmp_path / "out", recipe=recipe)
    compare_with_video(tmp_path / "out", "video")


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
@pytest.mark.parametrize(
    ("name", "rate"), [("gymnast_394x496_60fps_silent.mp4", 60.0), ("skating_720x1280_portrait.mp4", 30000 / 1001)]
)
def test_i3d_on_a_folder_has_the_features_of_the_real_video(tmp_path, monkeypatch, name, rate):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    file = SHARED / "weights" / "i3d_rgb_kinetics400_fp16.pt"
    open_cache().add("i3d_rgb_k400_fp16", file)
    for kind in ("jpg", "png"):
        write_frames_of(SHARED / "videos" / name, tmp_path / "frames" / kind, f".{kind}", 32)
    (tmp_path / "clips.csv").write_text(f"path,id,start_s,end_s\n{SHARED / 'videos' / name},video,0,{32 / rate:.4f}\n")
    recipe = network_of("i3d_rgb", "i3d_rgb_k400_fp16").replace("= 8", "= 16")
    extract(tmp_path / "frames", tmp_path / "out", rate, recipe)
    inputs = find_inputs(InputSelection(clips=tmp_path / "clips.csv"))
    list(Extraction([], parse_recipe(recipe, "known.toml"), tmp_path / "out", inputs=inputs, options=RunOptions()))
    compare_with_video(tmp_path / "out", "video")
