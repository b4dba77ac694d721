"""``arabesque score`` from raw video to score, on synthetic clips and a small recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from clips import Clip, write_clip
from typer.testing import CliRunner, Result

from arabesque.cli.demo_videos.routines import write_routines
from arabesque.cli.main import commands
from arabesque.manifests.errors import ArabesqueError, InputError, UsageError, WeightsError
from arabesque.manifests.recipes import Recipe, parse_recipe
from arabesque.models.checkpoints import to_json_with_digest
from arabesque.models.evaluation import LabeledFeatures, evaluate
from arabesque.models.training import train_and_evaluate
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.store.reader import FeatureStore

TINY = """
name = "tiny"
summary = "movement and rhythm in segments of one second"
[sampling]
fps = {fps}
frames_per_segment = 12
frames_per_step = 12
remainder = "drop-tail"
[streams.motion]
extractor = "motion"
settings = {{ short_side_px = 64 }}
[streams.rhythm]
extractor = "rhythm"
settings = {{ short_side_px = 64 }}
"""


def tiny(fps: int = 12) -> Recipe:
    return parse_recipe(TINY.format(fps=fps), "tiny.toml")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``videos/``, ``features/`` and ``model/``, trained on eight clips of two seconds."""
    root = tmp_path_factory.mktemp("trained")
    write_routines(root / "videos", 8, duration_s=2.2)
    for _ in Extraction(root / "videos", tiny(), root / "features"):
        pass
    train_and_evaluate(root / "features", root / "videos" / "labels.csv", root / "model", epochs=2)
    return root


def call(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(commands, ["score", *map(str, words)])


def scores_of(result: Result) -> dict[str, dict]:
    return {Path(each["video"]).stem: each for each in json.loads(result.stdout)["videos"]}


def test_raw_videos_are_extracted_and_scored(trained: Path, tmp_path: Path) -> None:
    clips = [trained / "videos" / f"routine_00{number}.mp4" for number in (1, 4)]
    given = (*clips, "--model", trained / "model", "--store", tmp_path / "new", "--threads", 1)
    result = call(*given, "--json")
    assert result.exit_code == 0, result.output
    known = evaluate(trained / "model", LabeledFeatures(trained / "features", trained / "videos" / "labels.csv")).scores
    found = scores_of(result)
    assert set(found) == {"routine_001", "routine_004"}
    for name, video in found.items():
        assert video["score"] == pytest.approx(known[name][1], abs=1e-4)
        for stream in ("motion", "rhythm"):
            mine = [segment for segment in video["segments"] if segment["streams"] == [stream]]
            assert [(segment["start_s"], segment["end_s"]) for segment in mine] == [(0, 1), (1, 2)]
            assert sum(segment["attention"] for segment in mine) == pytest.approx(1)

    before = sorted(path.name for path in (tmp_path / "new").rglob("*.parquet"))
    shown = call(*given, "--segments", 1)
    assert sorted(path.name for path in (tmp_path / "new").rglob("*.parquet")) == before
    assert f"{found['routine_001']['score']:.2f}" in shown.stdout
    assert "share of the model's attention" in shown.stdout
    assert "points that the score loses" in shown.stdout
    assert "(in the training set)" in shown.stdout
    best = max(found["routine_001"]["segments"], key=lambda segment: abs(segment["effect"]))
    assert found["routine_001"]["segments"].index(best) == found["routine_001"]["foremost"][0]
    assert set(found["routine_001"]["stream_effects"]) == {"motion", "rhythm"}
    assert f"00:0{best['start_s']:.0f}–00:0{best['end_s']:.0f} {best['streams'][0]}" in shown.stdout


def test_features_of_the_store_are_used(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arabesque.cli.progress.show_run", None)  # a run would fail
    result = call(trained / "videos", "--model", trained / "model", "--store", trained / "features", "--json")
    assert result.exit_code == 0, result.exception
    assert len(scores_of(result)) == 8


def test_broken_and_partial_videos_are_reported_and_the_others_scored(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"junk")
    write_clip(tmp_path / "whole.avi", Clip(num_frames=100, codec="mpeg4", options={}))
    whole = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: int(0.7 * len(whole))])
    given = (tmp_path, "--model", trained / "model", "--store", tmp_path / "new", "--threads", 1, "--json")
    result = call(*given)
    assert result.exit_code == 3
    found = scores_of(result)
    assert set(found) == {"whole"}
    assert found["whole"]["without"] == ["rhythm"]
    assert not found["whole"]["trained_on"]
    reasons = json.loads(result.stdout)["not_scored"]
    assert reasons["junk"].startswith("failed: ")
    assert reasons["cut"].startswith("partial: ")
    assert reasons["cut"].endswith("--partial scores the part that decodes")
    assert "not scored: 'junk': failed: " in result.stderr
    asked = call(*given, "--partial")
    assert asked.exit_code == 3
    assert set(scores_of(asked)) == {"whole", "cut"}


def refusal(result: Result, kind: type[ArabesqueError]) -> str:
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def test_features_of_another_recipe_are_refused(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for _ in Extraction(trained / "videos" / "routine_000.mp4", tiny(fps=6), other):
        pass
    rows = FeatureStore(other).keys("motion")
    result = call(trained / "videos", "--model", trained / "model", "--store", other)
    assert "'motion' was made with" in (message := refusal(result, WeightsError))
    assert "(sampling.fps is 6" in message
    assert "was 12" in message
    assert FeatureStore(other).keys("motion") == rows


def test_another_file_with_the_same_id_is_refused(trained: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "routine_000.mp4", Clip(num_frames=40))
    given = (tmp_path / "routine_000.mp4", "--model", trained / "model")
    result = call(*given, "--store", trained / "features")
    assert "'routine_000' is of " in refusal(result, InputError)
    assert call(*given, "--threads", 1).exit_code == 0
    assert (trained / "model" / "features").is_dir()


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        (None, "was trained on imported features"),
        (
            {"name": "tiny", "summary": "", "streams": {"motion": {"magic": 1}}},
            "recipe of its training is invalid: streams.motion",
        ),
    ],
)
def test_a_model_with_an_unusable_recipe(trained: Path, tmp_path: Path, recipe: object, complaint: str) -> None:
    for name in ("model.pt", "model.json"):
        (tmp_path / name).write_bytes((trained / "model" / name).read_bytes())
    card = json.loads((tmp_path / "model.json").read_text())
    del card["sha256"]
    (tmp_path / "model.json").write_bytes(to_json_with_digest(card | {"recipe": recipe}))
    assert complaint in refusal(call(trained / "videos", "--model", tmp_path), UsageError)


def test_a_run_may_extract_some_streams_only(trained: Path, tmp_path: Path) -> None:
    def extract(**chosen: list[str]) -> FeatureStore:
        for _ in Extraction(trained / "videos" / "routine_000.mp4", tiny(), tmp_path / "new", **chosen):
            pass
        return FeatureStore(tmp_path / "new")

    some = extract(streams=["motion"])
    assert some.streams == ("motion",)
    assert set(some.manifest["recipe"]["streams"]) == {"motion", "rhythm"}
    key = some["routine_000"]["motion"].key
    whole = extract()
    assert set(whole["routine_000"]) == {"motion", "rhythm"}
    assert whole["routine_000"]["motion"].key == key
    assert key == FeatureStore(trained / "features")["routine_000"]["motion"].key


def test_clips_and_lists_are_scored(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(
        "path,id,start_s,end_s\nroutine_001.mp4,first,0,1.1\nroutine_004.mp4,second,1,2.2\n"
    )
    given = ("--model", trained / "model", "--store", tmp_path / "new", "--threads", 1, "--json")
    result = call(trained / "videos", "--clips", tmp_path / "clips.csv", *given)
    assert result.exit_code == 0, result.output
    scored = {each["video_id"]: each for each in json.loads(result.stdout)["videos"]}
    assert set(scored) == {"first", "second"}
    assert all([segment["end_s"] for segment in each["segments"]] == [1, 1] for each in scored.values())

    (tmp_path / "list.txt").write_text(f"{trained}/videos/routine_001.mp4\n{trained}/videos/routine_004.mp4\n")
    features = ("--store", trained / "features")
    result = call("--list", tmp_path / "list.txt", "--exclude", "*_004*", *given[:2], *features, *given[4:])
    assert result.exit_code == 0, result.output
    assert set(scores_of(result)) == {"routine_001"}
    assert "no videos are given" in refusal(call(*given), InputError)
