"""`compare` on features of the same videos with settings that differ in one field."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from straight_line import Glance

from arabesque.cli.demo_videos.routines import write_routines
from arabesque.extractors import i3d_flow
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.interop.comparing import Verdict, compared, paired, verdicts
from arabesque.pipeline.interop.feature_files import opened
from arabesque.pipeline.interop.stored_settings import setting_differences
from arabesque.pipeline.options import RunOptions

CLIPS = """
name = "clips"
summary = "a small network on short clips"
[streams.clips]
extractor = "pytorchvideo:x3d_xs"
weights = { network = "x3d_xs_k400" }
sampling = { fps = "native", frames_per_segment = 16, frames_per_step = 16, remainder = "drop-tail" }
settings.geometry.steps = [{ size_px = [64, 64] }]
"""
FLOW = """
name = "flow"
summary = "what I3D is given of optical flow"
[streams.clips]
extractor = "i3d_flow"
weights = { network = "i3d_flow_k400" }
sampling = { fps = "native", frames_per_segment = 16, frames_per_step = 16, remainder = "drop-tail" }
settings.geometry = { steps = [], gray = true }
settings.flow_geometry.steps = [{ center_crop_px = [160, 224] }]
"""
NUM_VIDEOS = 4
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 14 segments and 13 remaining frames."""
    folder = tmp_path_factory.mktemp("videos")
    write_routines(folder, NUM_VIDEOS, duration_s=9.48)
    return folder


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    def run(recipe: str, folder: Path = videos, **options: Any) -> Path:
        out = tmp_path_factory.mktemp("runs") / "out"
        list(Extraction(folder, parse_recipe(recipe, "r.toml"), out, weights="random:0", options=RunOptions(**options)))
        return out

    return run


@pytest.fixture(scope="module")
def clips(run: Run) -> Path:
    return run(CLIPS)


def compare(a: Path, b: Path) -> tuple[Verdict, list[str]]:
    """Return the verdict, and the settings that differ between the stores."""
    with opened(a) as side_a, opened(b) as side_b:
        pairs = paired(side_a.arrays, side_b.arrays).pairs
        [verdict] = verdicts(pairs, list(compared(pairs, 1e-4)), 1e-4)
    return verdict, [str(each) for each in setting_differences(side_a.settings["clips"], side_b.settings["clips"])]


OTHER_STATISTICS = "settings.normalization = { mean = [0.6, 0.6, 0.6], std = [0.4, 0.4, 0.4] }\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "cause", "setting"),
    [
        ('fps = "native"', "fps = 12.5", "frame-rate", "sampling.fps: native (A), 12.5 (B)"),
        ("= 16", "= 8", "frame-rate", "sampling.frames_per_segment: 16 (A), 8 (B)"),
        ("drop-tail", "drop-both", "remainder", "sampling.remainder: drop-tail (A), drop-both (B)"),
        ("drop-tail", "pad-last", "remainder", "sampling.remainder: drop-tail (A), pad-last (B)"),
        ("settings.", OTHER_STATISTICS + "settings.", "normalization", "normalization.std: "),
        ("weights", 'precision = "bfloat16"\nweights', "arithmetic", "precision: float32 (A), bfloat16 (B)"),
    ],
)
def test_a_changed_setting_is_found(old: str, new: str, cause: str, setting: str, clips: Path, run: Run) -> None:
    verdict, settings = compare(clips, run(CLIPS.replace(old, new)))
    assert verdict.num_different == verdict.num_videos == NUM_VIDEOS
    assert verdict.explanation.cause == cause, verdict
    assert any(each.startswith(setting) for each in settings)


@pytest.mark.slow
def test_half_precision_is_diagnosed_without_blaming_a_setting(clips: Path, run: Run) -> None:
    verdict, settings = compare(clips, run(CLIPS, float16=True))
    assert (verdict.explanation.cause, verdict.num_different, settings) == ("float16", NUM_VIDEOS, [])


@pytest.mark.slow
def test_videos_without_their_first_segment_are_a_segment_early(clips: Path, videos: Path, run: Run) -> None:
    """Encoded once more, so that no row is equal."""
    shortened = videos.parent / "shortened"
    shortened.mkdir(exist_ok=True)
    for video in videos.glob("*.mp4"):
        with av.open(video) as original, av.open(shortened / video.name, "w") as copy:
            stream = copy.add_stream("libx264", rate=25)
            stream.width, stream.height = original.streams.video[0].width, original.streams.video[0].height
            for number, frame in enumerate(original.decode(video=0)):
                frame.pts, frame.time_base = number - 16, Fraction(1, 25)
                if number >= 16:
                    copy.mux(stream.encode(frame))
            copy.mux(stream.encode(None))
    verdict, settings = compare(clips, run(CLIPS, shortened))
    assert verdict.explanation.sentence.startswith("A is 1 segment late"), verdict
    assert settings == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "cause", "told"),
    [
        ("video-features", "constant-offset", "flow whose zero is 128 of 255"),
        ("denseflow8", "arithmetic", "8-bit flow"),
    ],
)
def test_flow_in_8_bits_is_diagnosed(
    form: str, cause: str, told: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs of I3D differ: video_features' levels are half a level off, denseflow's are rounded to even."""
    monkeypatch.setattr(i3d_flow, "load_i3d", lambda *_, **__: Glance())
    verdict, settings = compare(run(FLOW), run(FLOW + f'settings.quantization.form = "{form}"\n'))
    assert verdict.explanation.cause == cause, verdict
    assert told in verdict.explanation.sentence
    assert f"quantization.form: clamp20 (A), {form} (B)" in settings
