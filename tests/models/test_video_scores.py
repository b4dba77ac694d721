from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_rows import new_store, row

from arabesque.models.checkpoints import ModelCard, new_network
from arabesque.models.features import read_store
from arabesque.models.pooled_svr import PooledSvr
from arabesque.models.protocol import Protocol
from arabesque.models.recipe_differences import tell_differences
from arabesque.models.routines import Placed
from arabesque.models.table import model_class, resolve_settings
from arabesque.models.video_scores import VideoScore, score_videos
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

Learnable = Callable[..., tuple[Path, Path]]


def card_of(
    model: str, settings: Mapping[str, Any], dims: Mapping[str, int], *, standardise: bool = False
) -> ModelCard:
    return ModelCard(
        model=model,
        settings=resolve_settings(model, settings),
        dims=dict(dims),
        streams={},
        target="score",
        score_range=(0, 20),
        protocol=Protocol(epochs=1, standardise=standardise),
        seed=0,
        trained_on=(),
        made_with={},
    )


def score_one(store: Path, card: ModelCard, network: torch.nn.Module | None = None) -> VideoScore:
    opened = FeatureStore(store)
    found = read_store(opened, tuple(card.dims), one_grid=model_class(card.model).one_grid, only=["routine_000"])
    (score,) = score_videos(network or new_network(card), card, found, opened, found.videos)
    return score


def test_leaving_a_segment_out_of_an_average(learnable: Learnable) -> None:
    """Of a linear model on an average, all of it can be worked out by hand."""
    store, _ = learnable(1)
    card = card_of("pooled-svr", {}, {"motion": 120})
    network = new_network(card)
    assert isinstance(network, PooledSvr)
    weight = np.random.default_rng(0).standard_normal(120) / 100
    network.weight.copy_(torch.from_numpy(weight))
    found = score_one(store, card, network)
    points = 20 * (FeatureStore(store)["routine_000"]["motion"].values.astype(np.float64) @ weight)
    assert (found.measure, found.score) == ("occlusion", pytest.approx(points.mean(), abs=1e-4))
    wanted = [points.mean() - np.delete(points, index).mean() for index in range(len(points))]
    assert [segment.importance for segment in found.segments] == pytest.approx(wanted, abs=1e-4)
    assert [segment.start_s for segment in found.segments] == pytest.approx(1.28 * np.arange(len(points)))
    assert found.foremost(1)[0] == found.segments[int(np.argmax(np.abs(wanted)))]


@pytest.mark.parametrize("standardise", [False, True])
def test_attention_where_a_model_has_it(learnable: Learnable, standardise: bool) -> None:
    store, _ = learnable(1)
    dims = {"motion": 120, "rhythm": 40}
    found = score_one(store, card_of("context-attention", {"hidden_dim": 8}, dims, standardise=standardise))
    assert found.measure == "attention"
    assert {segment.streams for segment in found.segments} == {("motion",), ("rhythm",)}
    for stream in dims:
        assert sum(s.importance for s in found.segments if s.streams == (stream,)) == pytest.approx(1)


@pytest.mark.parametrize(("model", "together"), [("lstm", False), ("pamfn", True), ("pamfn-highlights", True)])
def test_streams_that_share_a_grid_share_their_segments(learnable: Learnable, model: str, together: bool) -> None:
    store, _ = learnable(1, silent=1)
    dims = {"motion": 120, "rhythm": 40}
    found = score_one(store, card_of(model, {}, dims))
    assert found.without == ("rhythm",)
    assert {segment.streams for segment in found.segments} == {tuple(dims) if together else ("motion",)}
    assert any(abs(segment.importance) > 1e-6 for segment in found.segments)


def test_a_lone_segment_cannot_be_left_out(tmp_path: Path) -> None:
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("routine_000", segments=1))
    assert score_one(tmp_path, card_of("lstm", {}, {"vst": 4})).segments == ()


def test_cutting_a_segment_out_closes_the_gap() -> None:
    placed = Placed(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([True, False, True]))
    shorter = placed.without(1)
    assert shorter.values.tolist() == [[0, 1], [4, 5]]
    assert shorter.present is not None
    assert shorter.present.tolist() == [True, True]
    assert len(Placed.absent(3).without(0)) == 2


def recipe(**sampling: object) -> dict[str, Any]:
    return {"name": "tiny", "streams": {"vst": {"sampling": sampling, "geometry": [{"op": "resize", "height": 224}]}}}


@pytest.mark.parametrize(
    ("trained", "found", "told"),
    [
        (
            ({}, recipe(fps=25)),
            ({}, recipe(fps=12, step=3)),
            "sampling.fps is 12, was 25; sampling.step is 3, was not set",
        ),
        (({"weights": {"net": "a"}}, None), ({"weights": {"net": "b"}}, None), "weights.net is b, was a"),
        (({"extractor_version": 1}, recipe(fps=1)), ({"extractor_version": 2}, None), "extractor_version is 2, was 1"),
        (({}, recipe(fps=25)), ({}, None), ""),
        (({}, recipe(a=1, b=1, c=1, d=1, e=1)), ({}, recipe()), "sampling.a is not set, was 1; "),
    ],
)
def test_differences_are_told_setting_by_setting(trained: Any, found: Any, told: str) -> None:
    message = tell_differences("vst", trained[0], found[0], trained[1], found[1])
    assert message.startswith(told)
    assert bool(message) == bool(told)
    assert message.endswith("and 1 more") == ("sampling.a" in told)
