"""The pages of a report, read by an HTML parser."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest
import torch
from reports_example import REASON
from reports_page import Page
from store_rows import new_store, row, written
from typer.testing import CliRunner, Result

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError
from arabesque.models.video_scores import MEASURES
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.reports.charts import histogram, number, ticks
from arabesque.reports.pages import clock, page_name, page_names, relative_link
from arabesque.reports.report import write_report
from arabesque.reports.store_data import read_store_data
from arabesque.reports.video_preview import flow_sprite, optical_flow

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def call(*words: object) -> Result:
    return CliRunner().invoke(commands, ["report", *map(str, words)])


@pytest.fixture(scope="module")
def made(example, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "made"
    result = call(
        example.store,
        *("--videos", example.videos, "--model", example.model, "--labels", example.labels, "--out", out),
    )
    assert result.exit_code == 0, result.output
    assert f"report: {out / 'index.html'}" in result.stdout
    return out


def test_pages_are_valid_and_every_link_leads_to_a_file(made: Path) -> None:
    pages = sorted(made.rglob("*.html"))
    assert len(pages) == 2 + 11
    for path in pages:
        page = Page(path)
        links = [attrs.get("href") for name in ("a", "link") for attrs in page.all(name)]
        links += [attrs.get("src") for name in ("img", "script", "video") for attrs in page.all(name)]
        for link in filter(None, links):
            parts = urlsplit(link)
            assert parts.scheme in ("", "data"), link  # neither a server nor a network
            if not parts.scheme and parts.path:
                assert (path.parent / unquote(parts.path)).exists(), f"{path.name}: {link}"
        assert all("alt" in attrs for attrs in page.all("img"))
        assert all(attrs.get("aria-label") for attrs in page.all("svg") if attrs.get("role") == "img")
        assert page.all("html")[0]["lang"] == "en"


def test_hostile_names_and_reasons_stay_text(made: Path, example) -> None:
    for path in made.rglob("*.html"):
        page = Page(path)
        scripts = [attrs for attrs in page.all("script") if "src" not in attrs]
        assert [attrs.get("type") for attrs in scripts] in ([], ["application/json"])
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert not any("onerror" in (attrs.get("src") or "") for attrs in page.all("img"))
    index = Page(made / "index.html")
    for name in example.ids:
        assert name in index.text
    assert REASON in index.text
    assert "<script>alert" not in (made / "assets" / "videos.js").read_text()


def test_the_store_page_shows_what_is_worth_checking(made: Path) -> None:
    text = re.sub(r"\s+", " ", Page(made / "index.html").text)
    assert "11 videos" in text
    assert "club/routine_0 = club/routine_1" in text
    assert "16.0% cannot be decoded" in text
    assert "the video has no audio track" in text
    assert "3 of the 14 videos of the latest run have no outcome yet" in text
    assert "25 per second × 1" in text


def test_the_page_of_a_video(made: Path, example) -> None:
    name = page_name(example.ids[0])
    page = Page(made / "videos" / f"{name}.html")
    (video,) = page.all("video")
    source = made / "videos" / unquote(video["src"] or "")
    assert source.resolve() == example.videos / f"{example.ids[0]}.mp4"
    starts = [attrs["data-t"] for attrs in page.all("button") if "segment" in (attrs.get("class") or "").split()]
    assert starts == ["0.0", "1.28", "0.0", "1.28"]
    for title in ("frames", "flow", "motion energy", "sound", "effect on the score", "attention"):
        assert f"<span>{title}</span>" in page.path.read_text()
    assert len(page.all("option")) == 222 + 62
    hole = Page(made / "videos" / f"{page_name('club/routine_6')}.html")
    assert any(attrs.get("class") == "hole" for attrs in hole.all("span"))


def test_the_flow_row_shows_direction_and_speed_below_each_frame() -> None:
    """A texture moves to the right between two thumbnails, then stands still; the last frame has no next one."""
    still = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    moved = np.roll(still, 3, axis=1)
    flows = [optical_flow(still, moved), optical_flow(still, still), None]
    sprite = cv2.imdecode(np.frombuffer(flow_sprite(flows, (144, 96)), np.uint8), cv2.IMREAD_COLOR)
    assert sprite.shape == (96, 3 * 144, 3)
    blue, green, red = np.median(sprite[20:-20, 20:124].reshape(-1, 3), axis=0)
    assert red > 200 and green < 80 and blue < 80  # noqa: PT018 - the color of "to the right"
    assert sprite[:, 144 + 10 : 288 - 10].min() > 230
    assert abs(int(sprite[48, 360].mean()) - 128) < 4
    assert flow_sprite([None, None], (144, 96)) == b""


def test_scores_have_the_numbers_of_the_score_command(made: Path, example) -> None:
    from arabesque.models.checkpoints import load_checkpoint
    from arabesque.models.features import read_store
    from arabesque.models.video_scores import score_videos

    network, card = load_checkpoint(example.model)
    store = FeatureStore(example.store)
    features = read_store(store, tuple(card.dims))
    name = "club/routine_3"
    (score,) = score_videos(network, card, features, store, [name])
    text = (made / "videos" / f"{page_name(name)}.html").read_text()
    shown = re.findall(
        r'data-t="([\d.]+)">[^<]*</button></th><td>(\w+)</td><td class="n"><span class="\w*">(\S+?)</span>', text
    )
    wanted = [(f"{one.start_s}", one.streams[0], f"{one.effect:+.3f}") for one in score.foremost(12)]
    assert [(f"{float(at)}", stream, effect) for at, stream, effect in shown] == wanted
    scores = Page(made / "scores.html").text
    assert f"{score.score:.2f}" in scores
    assert "Rank correlation of attention and absolute effect" in scores
    assert "not in the training set" in scores
    assert set(MEASURES) == {"effect", "attention"}


def test_a_store_alone_needs_no_videos(example, tmp_path: Path) -> None:
    result = write_report(FeatureStore(example.store, partial=True), tmp_path / "out")
    assert (result.num_videos, result.num_read, result.problems) == (11, 0, ())
    page = Page(tmp_path / "out" / "videos" / f"{page_name(example.ids[0])}.html")
    assert page.all("video") == []
    assert not (tmp_path / "out" / "scores.html").exists()


def test_an_earlier_report_is_replaced_and_other_files_are_kept(example, tmp_path: Path) -> None:
    out = tmp_path / "out"
    store = FeatureStore(example.store, partial=True)
    write_report(store, out)
    stale = out / "videos" / f"{page_name('removed')}.html"
    stale.write_text("")
    (out / "videos" / "notes.html").write_text("")
    write_report(store, out)
    assert not stale.exists()
    assert (out / "videos" / "notes.html").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="is not empty and not a report"):
        write_report(store, tmp_path / "full")


def test_videos_that_cannot_be_read_are_reported(example, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    result = call(example.store, "--videos", tmp_path / "broken.mp4", "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "broken.mp4" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing",), "does not exist"),
        (("{videos}",), "is not a feature store"),
        (("{store}", "--model", "{videos}"), "has no model.json"),
        (("{store}", "--videos", "{videos}/none"), "none"),
        (("{store}", "--labels", "{videos}/none.csv"), "none.csv"),
    ],
)
def test_wrong_arguments(example, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    given = [word.format(store=example.store, videos=example.videos) for word in words]
    result = call(*given, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert message in str(result.exception) + result.output
    assert not (tmp_path / "out").exists()


def test_near_duplicates_and_outliers_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [row(f"v{index:02d}", features=rng.standard_normal((20, 4)).astype(np.float32)) for index in range(30)]
    copied = rows[4].features + 0.001 * rng.standard_normal((20, 4)).astype(np.float32)
    rows += [row("copy", features=copied), row("far", features=rows[5].features + 30)]
    written(new_store(tmp_path), *rows)
    data = read_store_data(FeatureStore(tmp_path, partial=True))
    assert [pair[:2] for pair in data.near_duplicates][:1] == [("copy", "v04")]
    assert data.outliers[0].video_id == "far"


def test_formats() -> None:
    assert [clock(value) for value in (0, 65, 65.26, 7265)] == ["0:00", "1:05", "1:05.3", "2:01:05"]
    assert [number(value) for value in (0, 30, 0.25, 1234.5, 1e-7, float("nan"))] == [
        *("0", "30", "0.25", "1,234", "1.0e-07", "–")
    ]
    assert ticks(0, 9, 4) == [0, 2.5, 5, 7.5]
    assert page_names("index", 201, 100) == ["index.html", "index-2.html", "index-3.html"]
    assert page_name("a/b") != page_name("a_b")
    assert len(page_name("x" * 5000)) < 80
    assert relative_link(Path("/a/ü b/v.mp4"), Path("/a/report/videos")) == "../../%C3%BC%20b/v.mp4"


@pytest.mark.slow
@pytest.mark.parametrize("values", [[25.0, 25.0, 25.000000000000004], [0.0], [1e9, 1e9 + 1e-6], [-3.0, -3.0]])
def test_values_that_are_equal_up_to_rounding_are_one_bar(values):
    assert histogram(values, "Frame rates", "frames per second").count("<rect") == 1


@pytest.mark.parametrize("num_videos", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_list_of_many_videos_is_small(tmp_path: Path, num_videos: int) -> None:
    rows = [row(f"club_{index % 7}/competition/routine_{index:04d}") for index in range(num_videos)]
    written(new_store(tmp_path / "store"), *rows)
    write_report(FeatureStore(tmp_path / "store", partial=True), tmp_path / "out")
    lists = sorted((tmp_path / "out").glob("index*.html"))
    assert len(lists) == num_videos // 100
    assert max(path.stat().st_size for path in lists) < 2_000_000
    assert len(list((tmp_path / "out" / "videos").glob("*.html"))) == num_videos
