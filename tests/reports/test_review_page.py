"""The review page of `arabesque cut` in a headless Chromium: keyboard, narrow screens, and the corrected table."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser_visit import Visit, artifacts
from clips import Clip, write_clip

from arabesque.models.broadcast.edits import Edit, clips_csv
from arabesque.models.broadcast.review import review_page
from arabesque.models.broadcast.routines import Edge, Routine
from arabesque.models.broadcast.shots import Shot
from arabesque.pipeline.planning.clip_table import read_clips

KINDS = ("no-athlete", "action", "replay", "action", "close-up")


@pytest.fixture(scope="module")
def review(tmp_path_factory) -> Path:
    """Five shots of 2 s; a routine from 2 to 8 s with a replay in it, and an empty recording."""
    folder = tmp_path_factory.mktemp("review")
    name = 'cup, "final" <b>.mp4'
    write_clip(folder / name, Clip(num_frames=40))
    shots = [
        Shot(at, 2.0 * at, 2.0 * at + 2, 50 * at, "cut" if at else "start", 30.0, kind, f"reason {at}")
        for at, kind in enumerate(KINDS)
    ]
    routine = Routine(Edge(2.0, 0.9, "music begins"), Edge(8.0, 0.6, "music ends"), (1, 3), ((4.0, 6.0),), (2.0, 8.0))
    pictures: Any = SimpleNamespace(picture_near=lambda time_s: np.full((27, 48, 3), 20 * time_s, np.uint8))
    edits = [
        Edit(Path(name).stem, str(folder / name), pictures, tuple(shots), (routine,)),
        Edit("nothing", str(folder / "nothing.mp4"), None, note="it has no frames"),
    ]
    (folder / "clips.csv").write_text(clips_csv(edits, folder, "mask"), encoding="utf-8")
    (folder / "clips.html").write_text(review_page(edits, folder, "mask", "clips.csv"), encoding="utf-8")
    return folder


def download(visit: Visit, path: Path) -> Path:
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download the corrected table").click()
    assert started.value.suggested_filename == "clips.csv"
    started.value.save_as(path)
    return path


@pytest.mark.parametrize(
    ("width", "times", "num_pictures"), [(1280, [f"0:{s:02}" for s in range(10)], 5), (390, ["0:00", "0:05"], 3)]
)
def test_the_page_fits_and_its_table_is_that_of_the_command(
    browser, review, tmp_path, width, times, num_pictures
) -> None:
    visit = Visit(browser, review / "clips.html", width=width)
    visit.page.locator("summary").click()
    visit.page.screenshot(path=artifacts(tmp_path) / f"review-{width}.png", full_page=True)
    assert visit.page.locator(".times span").all_inner_texts() == times
    assert visit.page.locator(".film img").count() == num_pictures
    saved = download(visit, tmp_path / "clips.csv")
    assert saved.read_text(encoding="utf-8") == (review / "clips.csv").read_text(encoding="utf-8")
    assert visit.page.locator(".note").inner_text() == "it has no frames"
    visit.check()
    visit.page.context.close()


def test_the_keyboard_corrects_the_table_and_extract_reads_it(browser, review) -> None:
    visit = Visit(browser, review / "clips.html")
    page = visit.page
    end = page.get_by_role("slider", name="end of")
    end.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert end.get_attribute("aria-valuenow") == "6.96"
    start = page.get_by_label("start_s")
    start.fill("2.5")
    start.press("Enter")
    page.locator("summary").press("Enter")
    replay = page.get_by_label("use shot at 0:04.00")
    replay.press("Space")  # the replay is part of the routine
    first = page.locator(".shot").nth(1)
    first.press("Enter")  # the first shot of action is not
    saved = download(visit, review / "corrected.csv")
    (clip,) = read_clips(saved).videos
    assert (clip.start_s, clip.end_s, clip.exclude) == (2.5, 6.96, "mask")
    assert clip.excluded_s == ((2.5, 4.0),)
    with saved.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["start_confidence"], row["start_evidence"]) == ("1.0", "start set by hand")
    assert row["num_action_shots"] == "2"  # the replay and the shot after it
    page.get_by_label("keep ").uncheck()
    assert page.locator("#count").inner_text() == "0 routines"
    visit.check()
    page.context.close()


def test_a_handle_is_dragged(browser, review, tmp_path) -> None:
    visit = Visit(browser, review / "clips.html")
    page = visit.page
    bar = page.locator(".bar").bounding_box()
    handle = page.get_by_role("slider", name="start of").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(bar["x"] + 0.3 * bar["width"], bar["y"] + 5, steps=4)
    page.mouse.up()
    assert float(page.get_by_label("start_s").input_value()) == pytest.approx(3.0, abs=0.05)
    visit.check()
    page.context.close()
