from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from arabesque.manifests.errors import ArabesqueError
from arabesque.models.fitting import Fitting, epoch_seed, judge, rate_factor
from arabesque.models.protocol import Cosine, Protocol, Steps
from arabesque.models.routines import Placed, Routines, rows_of, stack_routines
from arabesque.models.scoring import Judgement, SegmentBatch
from arabesque.models.splits import folds, hold_out
from arabesque.models.standardising import Standardised
from arabesque.models.table import build_model

DIMS = {"a": 6, "b": 4}


def placed(values: np.ndarray) -> Placed:
    return Placed(values.astype(np.float32))


@pytest.fixture
def routines() -> Routines:
    rng = np.random.default_rng(0)
    videos = {
        f"v{number}": {stream: placed(rng.standard_normal((length, dim)) + 5) for stream, dim in DIMS.items()}
        for number, length in enumerate((3, 7, 5, 7, 4, 6, 9, 5, 3))
    }
    del videos["v8"]["b"]
    return stack_routines(videos, DIMS)


def fitting(routines: Routines, seed: int = 0, **settings: object) -> Fitting:
    protocol = Protocol.model_validate({"epochs": 4, "batch_size": 4, "learning_rate": 0.01, **settings})
    network = build_model("context-attention", DIMS, {"hidden_dim": 8}, seed)
    return Fitting(network, routines, torch.linspace(0, 1, 9), torch.arange(9), protocol, seed)


def test_a_resumed_training_ends_in_the_same_weights(routines: Routines) -> None:
    through = fitting(routines)
    for _ in range(4):
        through.run_epoch()
    first = fitting(routines)
    first.run_epoch()
    first.run_epoch()
    torch.manual_seed(99)  # whatever happened outside
    second = fitting(routines, seed=0)
    second.load_state_dict(first.state_dict())
    while second.epoch < 4:
        second.run_epoch()
    assert second.losses == through.losses
    for name, value in through.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_training_leaves_the_global_generator_alone(routines: Routines) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    fitting(routines).run_epoch()
    assert torch.equal(torch.rand(3), wanted)


def test_whole_routines_are_padded_with_zeros_and_masked(routines: Routines) -> None:
    batch = routines.whole(rows_of(routines, ["v0", "v6", "v8"]))
    assert batch.features["a"].shape == (3, 9, 6)
    assert batch.masks["a"].sum(1).tolist() == [3, 9, 3]
    assert batch.masks["b"].sum(1).tolist() == [3, 9, 0]
    assert not batch.features["a"][0, 3:].any()
    assert not batch.features["b"][2].any()


def test_crops_are_contiguous_aligned_and_reach_both_ends(routines: Routines) -> None:
    protocol = Protocol(epochs=1, crop=4)
    generator = torch.Generator().manual_seed(0)
    row = rows_of(routines, ["v1"])
    seen = set[int]()
    for _ in range(60):
        batch = routines.crop(row, protocol, generator)
        found = {}
        for stream in DIMS:
            assert batch.features[stream].shape[1] == 4
            whole = routines.features[stream][row[0], :7]
            found[stream] = [s for s in range(4) if torch.equal(whole[s : s + 4], batch.features[stream][0])]
        assert found["a"] == found["b"]
        seen.update(found["a"])
    assert seen == {0, 1, 2, 3}


def test_a_short_routine_is_padded_to_the_crop(routines: Routines) -> None:
    batch = routines.crop(rows_of(routines, ["v0"]), Protocol(epochs=1, crop={"a": 5}), torch.Generator())
    assert batch.features["a"].shape == (1, 5, 6)
    assert batch.masks["a"].tolist() == [[True, True, True, False, False]]
    assert batch.features["b"].shape == (1, 3, 4)


def test_a_crop_longer_than_any_routine_is_padding_at_its_end(routines: Routines) -> None:
    batch = routines.crop(rows_of(routines, ["v6", "v8"]), Protocol(epochs=1, crop=12), torch.Generator())
    assert batch.masks["a"].sum(1).tolist() == [9, 3]
    assert not batch.features["a"][0, 9:].any()


class Witness(nn.Module):
    """Notes which routines it is shown, by their first number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[list[float]] = []

    def forward(self, batch: SegmentBatch) -> Judgement:
        self.seen.append(batch.features["a"][:, 0, 0].tolist())
        return Judgement(self.weight.expand(len(batch)))


def test_each_epoch_shows_every_routine_once_in_another_order(routines: Routines) -> None:
    witness = Witness()
    training = Fitting(witness, routines, torch.linspace(0, 1, 9), torch.arange(9), Protocol(epochs=2, batch_size=4), 0)
    training.run_epoch()
    training.run_epoch()
    assert [len(batch) for batch in witness.seen] == [4, 5, 4, 5]  # the ninth joins the batch before it
    first, second = ([*witness.seen[at], *witness.seen[at + 1]] for at in (0, 2))
    assert sorted(first) == sorted(second) == sorted(routines.features["a"][:, 0, 0].tolist())
    assert first != second


def test_equal_lengths_need_no_padding(routines: Routines) -> None:
    groups = list(routines.equal_lengths(torch.arange(9), most=1000))
    assert sorted(int(row) for group in groups for row in group) == list(range(9))
    for group in groups:
        batch = routines.whole(group)
        assert all(bool(mask.all()) or not bool(mask.any()) for mask in batch.masks.values())


def test_like_lengths_are_few_groups_of_all_rows(routines: Routines) -> None:
    groups = list(routines.like_lengths(torch.arange(9).flip(0), most=4))
    assert sorted(int(row) for group in groups for row in group) == list(range(9))
    assert [len(group) for group in groups] == [4, 4, 1]
    lengths = routines.lengths["a"][torch.cat(groups)].tolist()
    assert lengths == sorted(lengths)
    assert not list(routines.like_lengths(torch.tensor([], dtype=torch.int64)))


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize(("model", "streams"), [("context-attention", ["a", "b"]), ("ms-lstm", ["a"])])
def test_judging_does_not_depend_on_company(
    routines: Routines, model: str, streams: list[str], standardise: bool
) -> None:
    routines = routines.only(streams)
    network = build_model(model, routines.dims, {"hidden_dim": 8}, 0)
    if standardise:
        network = Standardised(network, routines.dims)
        network.learn(routines, torch.arange(9))
    together = judge(network, routines, torch.arange(9))
    alone = torch.cat([judge(network, routines, torch.tensor([row])) for row in range(9)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert bool(together.isfinite().all())


def test_statistics_are_the_training_videos_own(routines: Routines) -> None:
    rows = torch.tensor([0, 6])
    network = Standardised(build_model("context-attention", DIMS, {}, 0), DIMS)
    network.learn(routines, rows)
    segments = torch.cat([routines.features["a"][0, :3], routines.features["a"][6, :9]])
    learnt = dict(network.named_buffers())
    torch.testing.assert_close(learnt["mean_a"], segments.mean(0))
    torch.testing.assert_close(learnt["deviation_a"], segments.std(0, correction=0))


def test_a_feature_that_never_varies_is_left_alone() -> None:
    routines = stack_routines(
        {"v": {"a": placed(np.full((4, 2), 3e-9))}, "w": {"a": placed(np.full((2, 2), 3e-9))}}, {"a": 2}
    )
    network = Standardised(build_model("context-attention", {"a": 2}, {}, 0), {"a": 2})
    network.learn(routines, torch.arange(2))
    learnt = dict(network.named_buffers())
    assert learnt["deviation_a"].tolist() == [1, 1]
    assert learnt["mean_a"].tolist() == [0, 0]


def test_rates_over_the_epochs() -> None:
    cosine = Protocol(epochs=100, schedule=Cosine(final_factor=0.01))
    wanted = [0.01 + 0.99 * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in (0, 50, 99)]
    assert [rate_factor(cosine, epoch) for epoch in (0, 50, 99)] == pytest.approx(wanted)
    steps = Protocol(epochs=100, schedule=Steps(at_epochs=(10, 50)))
    assert [rate_factor(steps, epoch) for epoch in (9, 10, 49, 50)] == pytest.approx([1, 0.1, 0.1, 0.01])
    with pytest.raises(ValueError, match="must lie below epochs 20"):
        Protocol(epochs=20, schedule=Steps(at_epochs=(10, 50)))


def test_a_group_of_parameters_may_learn_slower(routines: Routines) -> None:
    slow = fitting(routines, rate_factors={"head": 1e-9}, optimiser="sgd", momentum=0.0)
    before = {name: value.clone() for name, value in slow.network.state_dict().items()}
    slow.run_epoch()
    for name, value in slow.network.state_dict().items():
        if not name.endswith("attention.2.bias"):  # a softmax never sees it, so it has no gradient at any rate
            assert torch.allclose(value, before[name], atol=1e-7) == name.startswith("head"), name


def test_a_loss_that_is_no_number_stops_the_training(routines: Routines) -> None:
    broken = fitting(routines)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(ArabesqueError, match="the loss is nan in epoch 1"):
        broken.run_epoch()


def test_every_epoch_draws_its_own_numbers() -> None:
    assert len({epoch_seed(seed, epoch) for seed in range(5) for epoch in range(50)}) == 250


def test_splits_follow_ids_not_order() -> None:
    names = [f"v{number}" for number in range(23)]
    parts = folds(names, 5, seed=1)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert {len(part) for part in parts} == {4, 5}
    assert folds(names[::-1], 5, seed=1) == parts
    assert folds(names, 5, seed=2) != parts
    training, unseen = hold_out(names, 0.2, seed=1)
    assert (len(training), len(unseen)) == (18, 5)
    assert not set(training) & set(unseen)
    with pytest.raises(ValueError, match="5 folds of 3 videos"):
        folds(names[:3], 5, seed=0)
