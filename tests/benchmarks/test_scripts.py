"""Every script of benchmarks/ prints and draws its stored figures; the slow tests run the measurements."""

from __future__ import annotations

import importlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"
DOCS = BENCHMARKS.parent / "docs"
CHARTS = DOCS / "charts"
PAGE = (DOCS / "measurements.md").read_text(encoding="utf-8")
REDRAWN = sorted({path.stem for path in RESULTS.glob("*.json")} & {path.stem for path in BENCHMARKS.glob("*.py")})
SMALL = {
    "decoding": ["--frames", "12", "--rounds", "1"],
    "networks": ["--only", "resnet50", "--repeats", "1"],
    "engines": ["--only", "resnet50", "--rounds", "1"],
    "object_storage": ["--videos", "20", "--shards", "2", "--latency-ms", "0"],
    "planning": ["--videos", "30", "--done", "20"],
    "shots_cost": ["--seconds", "4", "--rounds", "1"],
    "batches_at_once": ["--stream", "resnet_frame", "--rounds", "1"],
    "prediction": ["--stream", "resnet_frame", "--rounds", "1"],
    "scheduling": ["--videos", "2000"],
    "start_up": ["--repeats", "1"],
    "training_readers": ["--videos", "8"],
    "optical_flow": ["--pairs", "2", "--size", "64", "96", "--methods", "dis", "tvl1", "--repeats", "1", "--golden"],
    "memory": ["--times", "1", "--allowances", "512MiB", "--recipe-allowances"],
}


@pytest.fixture
def script(monkeypatch):
    """Return the module of a script; scripts can import each other as when they are run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str):
        return importlib.import_module(name)

    before, threads = set(sys.modules), torch.get_num_threads()
    yield load
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def size_px(path: Path) -> tuple[int, int]:
    start = path.read_bytes()[:24]
    assert start.startswith(b"\x89PNG")
    return struct.unpack(">II", start[16:])


@pytest.mark.parametrize("name", REDRAWN)
def test_figures_written_by_a_script_are_printed_and_drawn_again(script, name, tmp_path, capsys):
    before = ["--before", str(RESULTS / "planning_before.json")] if name == "planning" else []
    written = RESULTS / f"{name}.json"
    script(name).main(["--redraw", str(written), *before, "--chart", str(tmp_path / "chart.png")])
    assert len(capsys.readouterr().out.splitlines()) > 3
    width_px, height_px = size_px(tmp_path / "chart.png")
    shown = CHARTS / f"{name}.png"
    assert (width_px, height_px) == (size_px(shown) if shown.exists() else (880, height_px))
    assert (tmp_path / "chart.png").stat().st_size < 60_000


def test_whole_runs_are_drawn_from_what_bench_wrote(script, tmp_path, capsys):
    reports = [str(RESULTS / f"bench_{recipe}.json") for recipe in ("starter", "gdlt", "everything")]
    charts = [tmp_path / "whole_runs.png", tmp_path / "one_pass.png"]
    script("whole_runs").main([*reports, "--chart", str(charts[0]), "--one-pass", str(charts[1])])
    told = capsys.readouterr().out
    assert "`everything`" in told
    assert "one pass" in told
    assert all(size_px(chart) == size_px(CHARTS / chart.name) for chart in charts)


def test_the_tables_of_the_manual_are_those_of_the_figures(script):
    assert script("readme_tables").written(PAGE) == PAGE


@pytest.mark.parametrize("tables", [0, 2])
def test_a_table_that_the_page_has_not_once_is_an_error(script, tables: int):
    page = "| other |\n|---|\n\n" + "| speed | x |\n|---|---|\n| 1 | 2 |\n\n" * tables
    with pytest.raises(ValueError, match=f"has {tables} tables with the titles"):
        script("readme_tables").with_table(page, ["| speed | x |"])


def test_every_figure_has_its_circumstances():
    for path in RESULTS.glob("*.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts = facts.get("circumstances", facts)
        assert facts["date"], path
        assert facts["processor"], path


def test_the_manual_shows_every_chart_and_no_other():
    shown = set(re.findall(r"\]\(charts/(\w+\.png)\)", PAGE))
    assert shown == {path.name for path in CHARTS.glob("*")}
    assert all((CHARTS / name).stat().st_size < 60_000 for name in shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_script_measures(name, tmp_path):
    files = ["--json", str(tmp_path / "found.json"), "--chart", str(tmp_path / "chart.png")]
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALL[name], *files]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    assert json.loads((tmp_path / "found.json").read_text())["command"]
    assert min(size_px(tmp_path / "chart.png")) > 100
