"""The pages of comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reports_page import Page
from store_rows import new_store, row, written
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError
from arabesque.pipeline.interop.feature_comparison import compare_features
from arabesque.pipeline.interop.row_distances import nearest_offsets
from arabesque.reports.comparison import write_comparison, write_table_page


def test_the_page_shows_where_two_stores_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal((12, 4)).astype(np.float32) for name in ("<b>same", "late", "parted")}
    other = dict(values)
    other["late"] = np.concatenate([rng.standard_normal((1, 4)).astype(np.float32), values["late"][:-1]])
    other["parted"] = values["parted"] + np.where(np.arange(12) >= 7, 1.0, 0.0)[:, None] * rng.standard_normal((12, 4))
    for side, features in (("a", values), ("b", other)):
        rows = [row(name, features=each.astype(np.float32)) for name, each in features.items()]
        written(new_store(tmp_path / side), *rows)
    result = CliRunner().invoke(
        commands, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--report", str(tmp_path / "out")]
    )
    assert result.exit_code == 3, result.output
    assert f"report: {tmp_path / 'out' / 'index.html'}" in result.stdout
    page = Page(tmp_path / "out" / "index.html")
    assert "Different features" in page.text
    assert "<b>same" in page.text
    assert "11 of 12 segments of A are most like the segment +1 of B" in page.text
    (parted,) = (line for line in page.path.read_text().split("<tr>") if '"row">parted</th>' in line)
    assert '<td class="n">8</td>' in parted
    assert len([attrs for attrs in page.all("svg") if attrs.get("role") == "img"]) == 3


def test_offsets_of_the_most_similar_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 3))
    assert nearest_offsets(rows, rows) == (0,) * 6
    assert nearest_offsets(rows, rows[2:])[2:] == (-2,) * 4
    assert nearest_offsets(np.ones((3, 2)), np.ones((3, 2))) == (0, 0, 0)
    assert nearest_offsets(rows[:0], rows) == ()


def test_many_pairs_are_cut_into_pages(tmp_path: Path) -> None:
    rows = [row(f"v{index:03d}") for index in range(101)]
    for side in ("a", "b"):
        written(new_store(tmp_path / side), *rows)
    result = compare_features(tmp_path / "a", tmp_path / "b")
    write_comparison(result, "a", "b", tmp_path / "out")
    assert "The same features" in (tmp_path / "out" / "index-2.html").read_text()
    with pytest.raises(InputError, match="is not empty and not a report"):
        write_comparison(result, "a", "b", tmp_path / "a")


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", json.dumps({"rows": [{"name": "x"}], "source": "", "ours": ""})]
)
def test_a_file_that_is_not_a_table(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "table.json").write_text(content)
    with pytest.raises(InputError, match=r"table\.json"):
        write_table_page(tmp_path / "table.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_of_a_table_with_undefined_correlations(tmp_path: Path) -> None:
    """A model that predicts the same score for all videos has NaN as its correlation, which is null in JSON."""
    undefined = {"value": None, "low": None, "high": None}
    reports = {
        "best_test": {"by_seed": [None, 0.5], "interval": {"low": None, "high": None}, "num_test": 9},
        "last": {"by_seed": [None], "interval": {"low": None, "high": None}, "num_test": 9},
    }
    gains = [{"gain": 0.04, "permuted": 0.1}, {"gain": 0.06, "permuted": 0.1}]
    cell = {"published": None, **reports, "cross_validated": [None], "gains": gains}
    compared = {
        "differences": [{"first": "MS-LSTM", "second": "GDLT", "test": undefined, "verdict": "undefined"}],
        "averages": [{"title": "the 2 rows", "rows": ["a", "b"], "test": undefined, "cross_validated": None}],
    }
    content = {
        "source": "Table 2",
        "ours": "two seeds",
        "rows": [{"name": "MS-LSTM", "cells": {"TES": cell}}],
        "comparisons": {"TES": compared},
    }
    (tmp_path / "table.json").write_text(json.dumps(content))
    page = Page(write_table_page(tmp_path / "table.json", tmp_path / "out"))
    # the lead, two results, their cross-validation, a difference, its verdict, an average
    assert page.text.count("undefined") == 7
    assert "0.050" in page.text
    assert "0.100" in page.text
