"""Figures of the papers, for models on seeded weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reports_example import DIMS, HOSTILE
from typer.testing import CliRunner, Result

from arabesque.cli.main import commands
from arabesque.models.checkpoints import ModelCard, new_network, save_checkpoint
from arabesque.models.protocol import Protocol
from arabesque.models.published_tables import load_table
from arabesque.models.table import resolve_settings
from arabesque.pipeline.store.manifest import read_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.reports.pages import page_name
from arabesque.reports.report import write_report
from arabesque.reports.score_data import score_store


def call(*words: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(commands, ["figures", *map(str, words)])


@pytest.fixture(scope="module")
def pamfn(example, tmp_path_factory) -> Path:
    """A PAMFN of three networks."""
    folder = tmp_path_factory.mktemp("pamfn")
    card = ModelCard(
        model="pamfn",
        settings=resolve_settings("pamfn", {"num_nets": 3}),
        dims=DIMS,
        streams=read_manifest(example.store)["streams"],
        target="score",
        score_range=(0, 25),
        protocol=Protocol(epochs=1),
        seed=1,
        trained_on=(),
        made_with={},
    )
    save_checkpoint(folder, new_network(card), card)
    return folder


def drawn(result: Result) -> set[str]:
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert all(path.stat().st_size > 1000 for path in paths)
    return {path.name for path in paths}


def test_figures_of_action_net(example, tmp_path: Path) -> None:
    result = call(example.model, example.store, "--videos", example.videos, "--video", HOSTILE, "--out", tmp_path)
    page = page_name(HOSTILE)
    assert drawn(result) == {f"action-net-{number}-{page}.svg" for number in (4, 5, 6)}
    assert "<script" not in (tmp_path / f"action-net-4-{page}.svg").read_text()


def test_figures_of_pamfn(example, pamfn: Path, tmp_path: Path) -> None:
    rows = [
        {"name": row.name, "cells": {"Ball": {"last": {"by_seed": [0.7, 0.71 + index / 100]}}}}
        for index, row in enumerate(load_table("pamfn-figure-6").rows)
    ]
    (tmp_path / "table.json").write_text(json.dumps({"rows": rows}))
    given = ("--videos", example.videos, "--video", HOSTILE, "--table", tmp_path / "table.json", "--format", "png")
    page = page_name(HOSTILE)
    single = {f"pamfn-{number}-{page}.png" for number in (7, 8, 9)}
    assert (
        drawn(call(pamfn, example.store, *given, "--out", tmp_path / "out")) == {"pamfn-5.png", "pamfn-6.png"} | single
    )


def test_the_report_shows_decisions_and_weights(example, pamfn: Path, tmp_path: Path) -> None:
    scores = score_store(pamfn, FeatureStore(example.store))
    shares = scores.decision_frequencies()
    assert set(shares) == {1, 2, 3}
    assert all(np.isclose(each.sum(), 1) and len(each) == 3 for each in shares.values())
    write_report(FeatureStore(example.store, partial=True), tmp_path / "out", model=pamfn)
    assert "Decisions of the PolicyNet" in (tmp_path / "out" / "scores.html").read_text()
    page = (tmp_path / "out" / "videos" / f"{page_name('club/routine_3')}.html").read_text()
    assert "modalities (MSFD)" in page
    assert "stage 2: " in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "gif"), "is not one of svg, png, pdf"),
        (("--video", "missing"), "has no score in this store"),
        (("--table", "missing.json"), "missing.json: the file does not exist"),
    ],
)
def test_wrong_arguments(example, pamfn: Path, tmp_path: Path, words: tuple[str, str], message: str) -> None:
    result = call(pamfn, example.store, *words, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert message in str(result.exception) + result.output


def test_a_model_without_such_values(example, tmp_path: Path) -> None:
    card = ModelCard(
        model="pooled-svr",
        settings=resolve_settings("pooled-svr", {}),
        dims={"motion": 222},
        streams={"motion": read_manifest(example.store)["streams"]["motion"]},
        target="score",
        score_range=(0, 25),
        protocol=Protocol(epochs=1),
        seed=1,
        trained_on=(),
        made_with={},
    )
    save_checkpoint(tmp_path / "svr", new_network(card), card)
    result = call(tmp_path / "svr", example.store, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "no figure was drawn" in result.stderr
