"""`arabesque shots` and `arabesque cut` on a drawn broadcast, and on inputs that have nothing to cut."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from json_documentation import problems_of
from typer.testing import CliRunner

from arabesque.cli.demo_videos.broadcast import Broadcast, Programme, write_broadcast
from arabesque.cli.demo_videos.routines import encode
from arabesque.cli.main import commands
from arabesque.manifests.errors import ArabesqueError, ConfigError, InputError
from arabesque.manifests.shot_rules import load_shot_rules


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> Broadcast:
    folder = tmp_path_factory.mktemp("broadcast")
    return write_broadcast(folder / "cup, final.mp4", 31, Programme(routine_s=9.0))


@pytest.fixture(scope="module")
def clips(broadcast: Broadcast) -> Path:
    out = broadcast.path.parent / "clips.csv"
    run("cut", broadcast.path, "--out", out, "--excluded", "mask")
    return out


def test_shots_are_those_that_were_drawn(broadcast: Broadcast, clips: Path) -> None:
    folder = clips.with_name("clips-shots")
    assert f"{len(broadcast.shots)} shots" in run("shots", broadcast.path, "--out", folder)
    assert problems_of("shots", json.loads(run("shots", broadcast.path, "--out", folder, "--json"))) == []
    rows = table(folder / "shots.csv")
    assert [row["kind"] for row in rows] == [shot.kind for shot in broadcast.shots]
    for row, shot in zip(rows, broadcast.shots, strict=True):
        allowed = 1 if shot.enters_by == "cut" else 10
        assert abs(int(row["first_frame"]) - shot.start_frame) <= allowed
        assert row["reason"]


def test_a_routine_becomes_a_clip(broadcast: Broadcast, clips: Path) -> None:
    (row,) = table(clips)
    printed = json.loads(run("cut", broadcast.path, "--out", clips, "--excluded", "mask", "--json"))
    assert problems_of("cut", printed) == []
    assert printed["videos"][0]["routines"][0]["id"] == row["id"]
    assert table(clips) == [row]
    ((start_s, end_s),) = broadcast.routines_s
    assert list(row)[:4] == ["path", "id", "start_s", "end_s"]
    assert row["path"] == broadcast.path.name  # relative to the table
    assert row["id"] == "cup, final/routine_1"
    assert float(row["start_s"]) == pytest.approx(start_s, abs=0.5)
    assert float(row["end_s"]) == pytest.approx(end_s, abs=0.5)
    assert row["exclude"] == "mask"
    assert "music begins" in row["start_evidence"]
    inside = [shot for shot in broadcast.shots if shot.content == "crowd" and start_s < shot.start_frame / 25 < end_s]
    stretches = [tuple(map(float, each.split("-"))) for each in row["excluded_s"].split(";") if each]
    assert stretches == [pytest.approx((shot.start_frame / 25, shot.end_frame / 25), abs=0.05) for shot in inside]


def test_the_review_page_holds_all_data_and_loads_nothing(clips: Path) -> None:
    page = clips.with_suffix(".html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found.group(1))
    assert data["file_name"] == "clips.csv"
    (recording,) = data["recordings"]
    assert recording["routines"][0]["id"] == "cup, final/routine_1"
    assert all(shot["picture"].startswith("data:image/jpeg") for shot in recording["shots"])
    assert not re.search(r'(src|href)="?https?:', page)


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    write_clip(tmp_path / "<img src=x onerror=alert(1)>,\"'.mp4", Clip(num_frames=30))
    run("cut", tmp_path, "--out", tmp_path / "clips.csv", status=3)
    assert "<img src=x" not in (tmp_path / "clips.html").read_text(encoding="utf-8")


def test_a_still_picture_without_sound_has_no_routine(tmp_path: Path) -> None:
    picture = np.full((64, 64, 3), 90, np.uint8)
    encode(tmp_path / "still.mp4", (picture for _ in range(150)), None, (64, 64))
    said = run("cut", tmp_path / "still.mp4", "--out", tmp_path / "clips.csv", status=3)
    assert "no routine: no shot shows action (1 no-athlete)" in said
    assert table(tmp_path / "clips.csv") == []


def test_people_need_the_checkpoint_of_the_detector(broadcast: Broadcast, tmp_path: Path) -> None:
    with pytest.raises(ArabesqueError, match="checkpoint yolov8n"):
        run("shots", broadcast.path, "--out", tmp_path / "shots", "--people")


def test_a_file_that_cannot_be_opened_as_a_video_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    write_clip(tmp_path / "good.mp4", Clip(num_frames=30))
    said = run("shots", tmp_path, "--out", tmp_path / "shots", status=3)
    assert "broken: 0 shots: failed:" in said
    assert re.search(r"good: \d+ shots", said)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("shots", "absent.mp4", "--out", "OUT"), InputError, "absent.mp4: no such folder or file"),
        (("cut", "VIDEO", "--out", "OUT/clips.csv", "--rules", "absent.toml"), ConfigError, "absent.toml"),
    ],
)
def test_wrong_inputs_are_errors(
    arguments: tuple[str, ...], error: type[ArabesqueError], says: str, broadcast: Broadcast, tmp_path: Path
) -> None:
    given = [each.replace("OUT", str(tmp_path)).replace("VIDEO", str(broadcast.path)) for each in arguments]
    with pytest.raises(error, match=says):
        run(*given)


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--method", "magic"), "content nor transnet"), (("--excluded", "all"), "not cut, mask or keep")],
)
def test_wrong_options_are_usage_errors(
    options: tuple[str, ...], says: str, broadcast: Broadcast, tmp_path: Path
) -> None:
    assert says in run("cut", broadcast.path, "--out", tmp_path / "clips.csv", *options, status=2)


def test_wrong_rules_name_the_file(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[boundaries]\ncut_leest = 3\n")
    with pytest.raises(ConfigError, match=r"rules.toml: .*cut_leest"):
        load_shot_rules(rules)
