"""Clips with excluded stretches: segments never touch them, times are kept, and masked segments are padding."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.models.features import read_store
from arabesque.models.samples import stack_samples
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.planning.discovery import Inputs
from arabesque.pipeline.records import Outcome, VideoFile, fragment_of, state_of
from arabesque.pipeline.store.aligned_dataset import AlignedDataset, collate_padded
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore

FPS = 10
START_S, END_S = 2.0, 12.0
EXCLUDED_S = ((4.5, 6.0), (8.0, 8.4))
KEPT_S = ((2.0, 4.5), (6.0, 8.0), (8.4, 12.0))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    spec = Clip(num_frames=150, width_px=64, height_px=48, fps=Fraction(FPS), beeps_s=(5.0, 9.5))
    return write_clip(tmp_path_factory.mktemp("recording") / "recording.mp4", spec)


def clip(path, name="a", start_s=START_S, end_s=END_S, **facts):
    return VideoFile(name, path, state_of(path), path.name, str(path.parent), start_s=start_s, end_s=end_s, **facts)


def run_of(out, *files, recipe=RECIPE, **options):
    return Extraction([], parse_recipe(recipe, "known.toml"), out, inputs=Inputs(tuple(files), {}, 0), **options)


def extract(out, *files, **options):
    events = list(run_of(out, *files, **options))
    return {(event.video_id, event.stream): event for event in events if isinstance(event, Outcome)}


@pytest.mark.parametrize(
    ("fps", "remainder"),
    [("native", "drop-tail"), (5, "pad-last"), (4, "drop-both"), (7.3, "pad-last"), (5, "pad-both")],
)
def test_cut_stretches_leave_the_segments_of_the_remaining_ones(recording, tmp_path, fps, remainder):
    """Each remaining stretch gives the rows of a separate clip, at its times in the whole clip."""
    recipe = RECIPE.replace('fps = "native"', f"fps = {fps!r}".replace("'", '"')).replace("drop-tail", remainder)
    parts = [clip(recording, f"part{at}", *kept_s) for at, kept_s in enumerate(KEPT_S)]
    extract(tmp_path / "out", clip(recording, excluded_s=EXCLUDED_S), *parts, recipe=recipe, streams=["numbers"])
    store = FeatureStore(tmp_path / "out")
    found = store["a"]["numbers"]
    expected = [store[part.video_id]["numbers"] for part in parts if part.video_id in store]
    assert np.array_equal(found.values, np.concatenate([each.values for each in expected]))
    for edges in ("start_s", "end_s"):
        in_file_s = np.concatenate([getattr(each, edges) + each.source_offset_s for each in expected])
        assert getattr(found, edges) + found.source_offset_s == pytest.approx(in_file_s, abs=1e-9)
    assert check_store(tmp_path / "out").findings == []


def test_masked_stretches_leave_the_grid_of_the_whole_clip(recording, tmp_path):
    outcomes = extract(tmp_path / "out", clip(recording, excluded_s=EXCLUDED_S, exclude="mask"), clip(recording, "b"))
    store = FeatureStore(tmp_path / "out")
    for stream in ("numbers", "loudness"):
        masked, whole = store["a"][stream], store["b"][stream]
        # 12 segments of 0.8 s from 2.0 s on: those that overlap 4.5–6.0 s or 8.0–8.4 s
        assert [at for at in range(12) if at not in (3, 4, 7)] == np.flatnonzero(masked.with_masked().present).tolist()
        assert masked.masked_s.tolist() == [
            pytest.approx([2.4, 3.2]),
            pytest.approx([3.2, 4.0]),
            pytest.approx([5.6, 6.4]),
        ]
        assert np.array_equal(masked.with_masked().start_s, whole.start_s)
        assert np.array_equal(masked.with_masked().end_s, whole.end_s)
        kept = masked.with_masked().present
        assert np.array_equal(masked.values, whole.values[kept])
        assert not masked.with_masked().values[~kept].any()
        assert outcomes["a", stream].kind == "done"
        assert outcomes["a", stream].reason == "3 of 12 segments are masked"
    assert check_store(tmp_path / "out").findings == []


def test_no_sound_of_an_excluded_stretch_is_in_a_row(recording, tmp_path):
    clips = [clip(recording, how, excluded_s=EXCLUDED_S, exclude=how) for how in ("cut", "mask")]
    extract(tmp_path / "out", *clips, clip(recording, "whole"), streams=["loudness"])
    store = FeatureStore(tmp_path / "out")
    loud = {name: (store[name]["loudness"].values > 0.1).any(axis=1).sum() for name in ("cut", "mask", "whole")}
    assert loud == {"cut": 1, "mask": 1, "whole": 2}  # one of the two beeps is in an excluded stretch


def test_excluded_stretches_are_part_of_the_key(recording, tmp_path):
    cut = clip(recording, excluded_s=EXCLUDED_S)
    outcomes = extract(tmp_path / "out", cut)
    assert fragment_of(outcomes["a", "numbers"].content_digest) == "#t=2,12&cut=4.5,6,8,8.4"
    assert run_of(tmp_path / "out", cut).remaining == []
    for changed in (
        replace(cut, exclude="mask"),
        replace(cut, excluded_s=EXCLUDED_S[:1]),
        replace(cut, excluded_s=()),
    ):
        assert [file.video_id for file in run_of(tmp_path / "out", changed).remaining] == ["a"]
    whole = VideoFile("w", recording, excluded_s=((1.0, 2.0),))
    assert (whole.is_clip, whole.fragment) == (True, "#t=0&cut=1,2")


@pytest.mark.parametrize(
    ("excluded_s", "exclude", "kind", "reason"),
    [
        (((2.0, 11.8),), "cut", "empty", "the stretches that are not excluded, of at most 0.20 s at its own rate"),
        (((2.1, 12.0),), "mask", "empty", "each of its 12 segments touches an excluded stretch"),
        (((30.0, 40.0),), "cut", "done", ""),
    ],
)
def test_a_clip_without_remaining_frames_is_empty(recording, tmp_path, excluded_s, exclude, kind, reason):
    outcomes = extract(tmp_path / "out", clip(recording, excluded_s=excluded_s, exclude=exclude))
    for outcome in outcomes.values():
        assert outcome.kind == kind
        assert outcome.reason.startswith(reason)


def test_training_reads_masked_segments_as_padding(recording, tmp_path):
    masked = clip(recording, excluded_s=EXCLUDED_S, exclude="mask")
    extract(tmp_path / "out", masked, clip(recording, "b", 2.0, 16.0))
    store = FeatureStore(tmp_path / "out")
    hidden = [3, 4, 7]
    samples = AlignedDataset(store, ["numbers", "loudness"])
    sample = samples[0]
    for mask in (sample["valid"], *sample["masks"].values()):
        assert np.flatnonzero(~mask.numpy()).tolist() == hidden
    assert not sample["numbers"][hidden].any()
    batch = collate_padded([samples[0], samples[1]])
    assert batch["num_segments"].tolist() == [12, len(samples[1]["valid"])]
    assert np.flatnonzero(~batch["valid"][0].numpy()).tolist() == [*hidden, *range(12, batch["valid"].shape[1])]
    for one_grid in (False, True):
        read = read_store(store, one_grid=one_grid)
        stacked = stack_samples(read.videos, read.dims)
        assert stacked.lengths["loudness"].tolist() == batch["num_segments"].tolist()
        for present in stacked.present.values():
            assert np.flatnonzero(~present[0, :12].numpy()).tolist() == hidden


def test_a_stream_on_another_grid_is_masked_where_the_reference_is(recording, tmp_path):
    recipe = RECIPE.replace(
        'extractor = "known_extractors:Loudness"',
        'extractor = "known_extractors:Loudness"\n'
        'sampling = { fps = "native", frames_per_segment = 8, frames_per_step = 2, remainder = "drop-tail" }',
    )
    extract(tmp_path / "out", clip(recording, excluded_s=((4.5, 4.6),), exclude="mask"), recipe=recipe)
    sample = AlignedDataset(FeatureStore(tmp_path / "out"), ["numbers", "loudness"])[0]
    assert np.flatnonzero(~sample["masks"]["numbers"].numpy()).tolist() == [3]
    assert np.flatnonzero(~sample["masks"]["loudness"].numpy()).tolist() == [3]
    assert not sample["loudness"][3].any()
