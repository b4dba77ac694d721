"""The pages in a headless Chromium. Skipped where no browser is found; ``REQUIRE_BROWSER=1`` makes that an error.

Screenshots are written to ``$BROWSER_ARTIFACTS``, or to the temporary folder of the test.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from browser_visit import Visit, artifacts
from store_rows import new_store, row, written

from arabesque.models.labels import read_labels
from arabesque.pipeline.interop.feature_comparison import compare_features
from arabesque.pipeline.planning.discovery import required_videos
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.reports.comparison import write_comparison, write_table_page
from arabesque.reports.pages import page_name
from arabesque.reports.report import write_report


@pytest.fixture(scope="module")
def made(example, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("browser") / "report"
    labels = read_labels(example.labels)
    store = FeatureStore(example.store, partial=True)
    write_report(store, out, videos=required_videos([example.videos]), model=example.model, labels=labels)
    return out


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_load_without_errors_or_requests(browser, made, example, tmp_path, width: int, scheme: str) -> None:
    pages = {
        "store": made / "index.html",
        "scores": made / "scores.html",
        "video": made / "videos" / f"{page_name(example.ids[0])}.html",
        "hole": made / "videos" / f"{page_name('club/routine_6')}.html",
    }
    for name, path in pages.items():
        visit = Visit(browser, path, width=width, scheme=scheme)
        visit.page.screenshot(path=artifacts(tmp_path) / f"{name}-{width}-{scheme}.png", full_page=True)
        visit.check()
        visit.page.context.close()


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> dict[str, Path]:
    """A comparison of two stores with an equal, a shifted and a different video; and a reproduced table."""
    folder, rng = tmp_path_factory.mktemp("compared"), np.random.default_rng(0)
    values = {
        name: rng.standard_normal((24, 4)).astype(np.float32) for name in ("club/same", "club/late", "parted" * 9)
    }
    other = {
        "club/same": values["club/same"],
        "club/late": np.roll(values["club/late"], 1, axis=0),
        "parted" * 9: values["parted" * 9] + np.where(np.arange(24) >= 7, 1, 0)[:, None].astype(np.float32),
    }
    for side, features in (("a", values), ("b", other)):
        written(new_store(folder / side), *(row(name, features=each) for name, each in features.items()))
    result = compare_features(folder / "a", folder / "b")
    seeds = {"by_seed": [0.61, 0.66, 0.64], "interval": {"low": 0.52, "high": 0.73}, "num_test": 100}
    cells = {
        name: {"published": 0.7, "best_test": seeds, "last": seeds | {"by_seed": [0.5]}} for name in ("TES", "PCS")
    }
    rows = [{"name": "GDLT", "note": "a note", "cells": cells}, {"name": "MAST", "not_run": "no weights", "cells": {}}]
    test = {"value": 0.021, "low": -0.03, "high": 0.08}
    compared = {
        "differences": [{"first": "GDLT", "second": "MS-LSTM", "test": test, "verdict": "no difference"}],
        "averages": [
            {"title": "the 2 rows, 3 seeds", "rows": ["GDLT", "MS-LSTM"], "test": test, "cross_validated": 0.6}
        ],
    }
    content = {
        "source": "Table 2 of a paper",
        "ours": "mean of three seeds",
        "rows": rows,
        "comparisons": {"TES": compared},
    }
    table = folder / "table.json"
    table.write_text(json.dumps(content))
    return {
        "comparison": write_comparison(result, str(folder / "a"), str(folder / "b"), folder / "pages"),
        "table": write_table_page(table, folder / "table"),
    }


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_comparisons_load_without_errors_or_requests(browser, compared, tmp_path, width: int, scheme: str) -> None:
    for name, path in compared.items():
        visit = Visit(browser, path, width=width, scheme=scheme)
        visit.page.screenshot(path=artifacts(tmp_path) / f"{name}-{width}-{scheme}.png", full_page=True)
        visit.check()
        visit.page.context.close()


def test_a_click_on_a_segment_seeks_the_video(browser, made, example) -> None:
    visit = Visit(browser, made / "videos" / f"{page_name(example.ids[0])}.html")
    page = visit.page
    page.wait_for_function("document.querySelector('video').readyState >= 1")
    seeked = "() => new Promise(done => document.querySelector('video').addEventListener('seeked', done, {once: true}))"
    with page.expect_event("console", lambda message: message.text == "seeked"):
        page.evaluate(f"({seeked})().then(() => console.log('seeked')) && undefined")
        page.locator(".segment").nth(1).click()
    assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(1.28, abs=0.05)
    assert "segment 2 of 2" in page.locator(".here").inner_text()
    track = page.locator(".row.energy .track")
    box = track.bounding_box()
    track.click(position={"x": box["width"] / 2, "y": 10})
    duration_s = float(page.locator(".player").get_attribute("data-duration"))
    page.wait_for_function(f"Math.abs(document.querySelector('video').currentTime - {duration_s / 2}) < 0.1")
    visit.check()
    page.context.close()


def test_the_keyboard_reaches_segments_and_features(browser, made, example) -> None:
    visit = Visit(browser, made / "videos" / f"{page_name('club/routine_3')}.html")
    page = visit.page
    first = page.locator(".segment").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("motion, segment 3 of 5")
    page.keyboard.press("Enter")
    assert page.locator(".position").inner_text() == "0:02.6"
    before = page.locator(".feature-curve").first.inner_html()
    page.locator("select.feature").first.select_option("100")
    assert page.locator(".feature-curve").first.inner_html() != before
    visit.check()
    page.context.close()


def test_the_search_finds_videos_and_hostile_names_stay_text(browser, made, example) -> None:
    visit = Visit(browser, made / "index.html")
    page = visit.page
    page.locator("#search input").fill("script")
    assert page.locator("#found a").all_inner_texts() == [example.ids[0]]
    page.locator("select.color-mode").select_option("folder")
    page.locator("#found a").click()
    page.wait_for_load_state("load")
    assert page.locator("h1").inner_text() == example.ids[0]
    visit.check()
    page.context.close()
