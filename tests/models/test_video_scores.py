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
from arabesque.models.prediction import predict
from arabesque.models.protocol import Protocol
from arabesque.models.recipe_differences import describe_differences
from arabesque.models.samples import StreamSegments, stack_samples
from arabesque.models.scoring import Solvable
from arabesque.models.table import model_class, resolve_settings
from arabesque.models.video_scores import Segment, VideoScore, score_videos
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("narrow")
Learnable = Callable[..., tuple[Path, Path]]


def card_of(
    model: str, settings: Mapping[str, Any], dims: Mapping[str, int], *, standardize: bool = False
) -> ModelCard:
    return ModelCard(
        model=model,
        settings=resolve_settings(model, settings),
        dims=dict(dims),
        streams={},
        target="score",
        score_range=(0, 20),
        protocol=Protocol(epochs=1, standardize=standardize),
        seed=0,
        trained_on=(),
        made_with={},
    )


def score_one(store: Path, card: ModelCard, network: torch.nn.Module | None = None) -> VideoScore:
    opened = FeatureStore(store)
    found = read_store(opened, tuple(card.dims), one_grid=model_class(card.model).one_grid, only=["routine_000"])
    (score,) = score_videos(network or new_network(card), card, found, opened, found.videos)
    return score


def test_occlusion_of_a_linear_model_on_an_average(learnable: Learnable) -> None:
    """The expected values of a linear model on an average follow by hand calculation."""
    store, _ = learnable(1)
    card = card_of("pooled-svr", {}, {"motion": 120})
    network = new_network(card)
    assert isinstance(network, PooledSvr)
    weight = np.random.default_rng(0).standard_normal(120) / 100
    network.weight.copy_(torch.from_numpy(weight))
    found = score_one(store, card, network)
    points = 20 * (FeatureStore(store)["routine_000"]["motion"].values.astype(np.float64) @ weight)
    assert found.score == pytest.approx(points.mean(), abs=1e-4)
    wanted = [points.mean() - np.delete(points, index).mean() for index in range(len(points))]
    assert [segment.effect for segment in found.segments] == pytest.approx(wanted, abs=1e-4)
    assert (found.stream_effects, found.attention_agreement) == ({}, None)
    assert [segment.start_s for segment in found.segments] == pytest.approx(1.28 * np.arange(len(points)))
    assert found.foremost(1)[0] == found.segments[int(np.argmax(np.abs(wanted)))]


@pytest.mark.parametrize("standardize", [False, True])
def test_attention_is_reported_with_the_effects(learnable: Learnable, standardize: bool) -> None:
    store, _ = learnable(1)
    dims = {"motion": 120, "rhythm": 40}
    card = card_of("context-attention", {"hidden_dim": 8}, dims, standardize=standardize)
    found = score_one(store, card)
    assert {segment.streams for segment in found.segments} == {("motion",), ("rhythm",)}
    for stream in dims:
        mine = [segment for segment in found.segments if segment.streams == (stream,)]
        assert sum(segment.attention or 0 for segment in mine) == pytest.approx(1)
        assert found.uniform_share(mine[0]) == 1 / len(mine)
    assert found.attention_agreement is not None
    assert -1 <= found.attention_agreement <= 1


@pytest.mark.parametrize("model", ["context-attention", "gdlt", "pamfn", "kernel-regression"])
def test_the_foremost_segment_is_the_one_whose_removal_changes_the_score_most(learnable: Learnable, model: str) -> None:
    store, labels = learnable(12)
    opened = FeatureStore(store)
    dims = {"motion": 120} if model_class(model).one_stream else {"motion": 120, "rhythm": 40}
    card = card_of(model, {"hidden_dim": 8} if model == "context-attention" else {}, dims)
    network = new_network(card)
    features = read_store(opened, tuple(dims), one_grid=model_class(model).one_grid)
    if isinstance(network, Solvable):
        scores = np.loadtxt(labels, delimiter=",", skiprows=1, usecols=1)
        samples = features.stacked(tuple(sorted(features.videos)))
        network.solve(samples.whole(torch.arange(len(samples))), torch.from_numpy(scores / 20))
    video_id = "routine_000"
    (found,) = score_videos(network, card, features, opened, [video_id])
    first, video = found.foremost(1)[0], features.videos[video_id]
    changes: dict[tuple[tuple[str, ...], float], float] = {}
    for segment in found.segments:
        index = int(np.flatnonzero(opened[video_id][segment.streams[0]].start_s == segment.start_s)[0])
        shorter = {name: part.without(index) if name in segment.streams else part for name, part in video.items()}
        alone = stack_samples({"": shorter}, dims)
        lost = found.score - 20 * float(predict(network, alone, torch.arange(1))[0])
        assert segment.effect == pytest.approx(lost, abs=1e-4)
        changes[segment.streams, segment.start_s] = abs(lost)
    assert changes[first.streams, first.start_s] == pytest.approx(max(changes.values()), abs=1e-4)
    for stream, effect in found.stream_effects.items():
        rest = {name: part for name, part in video.items() if name != stream}
        if model_class(model).one_grid:
            rest = {**video, stream: StreamSegments.absent(len(video[stream]))}
        alone = stack_samples({"": rest}, dims)
        assert effect == pytest.approx(found.score - 20 * float(predict(network, alone, torch.arange(1))[0]), abs=1e-4)
    assert found.stream_effects.keys() == (set(dims) if len(dims) > 1 else set())


def scored(*effects: float) -> VideoScore:
    segments = tuple(Segment(("a",), index, index + 1, effect) for index, effect in enumerate(effects))
    return VideoScore("v", 1.0, segments)


def test_a_segment_stands_out_only_if_its_effect_is_significant() -> None:
    (first,) = scored(0.1, -0.1, 0.12, 0.09, -2.0, 0.11).outstanding
    assert first.effect == -2.0
    assert not scored(0.1, -0.1, 0.12, 0.09, -0.2, 0.11).outstanding
    draws = np.random.default_rng(0).standard_normal((400, 12))
    assert 0.02 < np.mean([bool(scored(*row).outstanding) for row in draws]) < 0.15


@pytest.mark.parametrize(("model", "together"), [("lstm", False), ("pamfn", True), ("pamfn-highlights", True)])
def test_streams_that_share_a_grid_share_their_segments(learnable: Learnable, model: str, together: bool) -> None:
    store, _ = learnable(1, silent=1)
    dims = {"motion": 120, "rhythm": 40}
    found = score_one(store, card_of(model, {}, dims))
    assert found.without == ("rhythm",)
    assert {segment.streams for segment in found.segments} == {tuple(dims) if together else ("motion",)}
    assert any(abs(segment.effect or 0) > 1e-6 for segment in found.segments)
    assert found.stream_effects == {}


def test_a_single_segment_has_no_effect(tmp_path: Path) -> None:
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("routine_000", segments=1))
    found = score_one(tmp_path, card_of("lstm", {}, {"vst": 4}))
    assert [segment.effect for segment in found.segments] == [None]
    assert not found.outstanding


def test_removing_a_segment_closes_the_gap() -> None:
    placed = StreamSegments(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([True, False, True]))
    shorter = placed.without(1)
    assert shorter.values.tolist() == [[0, 1], [4, 5]]
    assert shorter.present is not None
    assert shorter.present.tolist() == [True, True]
    assert len(StreamSegments.absent(3).without(0)) == 2


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
def test_differences_are_described_by_setting(trained: Any, found: Any, told: str) -> None:
    message = describe_differences("vst", trained[0], found[0], trained[1], found[1])
    assert message.startswith(told)
    assert bool(message) == bool(told)
    assert message.endswith("and 1 more") == ("sampling.a" in told)
