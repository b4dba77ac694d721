from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from arabesque.manifests.errors import ArabesqueError, InputError
from arabesque.models.experiment import Stage
from arabesque.models.fitting import Fitting, epoch_seed, rate_factor
from arabesque.models.objective import ScoreRegression
from arabesque.models.prediction import predict
from arabesque.models.protocol import Cosine, Protocol, Steps
from arabesque.models.samples import Samples, StreamSegments, rows_of, stack_samples
from arabesque.models.scoring import ScorePrediction, SegmentBatch
from arabesque.models.splits import folds, hold_out, shuffled
from arabesque.models.standardization import Standardized
from arabesque.models.table import build_model

DIMS = {"a": 6, "b": 4}


def placed(values: np.ndarray) -> StreamSegments:
    return StreamSegments(values.astype(np.float32))


@pytest.fixture
def samples() -> Samples:
    rng = np.random.default_rng(0)
    videos = {
        f"v{number}": {stream: placed(rng.standard_normal((length, dim)) + 5) for stream, dim in DIMS.items()}
        for number, length in enumerate((3, 7, 5, 7, 4, 6, 9, 5, 3))
    }
    del videos["v8"]["b"]
    return stack_samples(videos, DIMS)


def fitting(samples: Samples, seed: int = 0, **settings: object) -> Fitting:
    protocol = Protocol.model_validate({"epochs": 4, "batch_size": 4, "learning_rate": 0.01, **settings})
    network = build_model("context-attention", DIMS, {"hidden_dim": 8}, seed)
    return Fitting(network, samples, objective(), torch.arange(9), Stage(protocol=protocol), seed)


def objective() -> ScoreRegression:
    return ScoreRegression(np.linspace(0, 1, 9), (0, 1), torch.device("cpu"))


def test_a_resumed_training_gives_the_same_weights(samples: Samples) -> None:
    through = fitting(samples)
    for _ in range(4):
        through.run_epoch()
    first = fitting(samples)
    first.run_epoch()
    first.run_epoch()
    torch.manual_seed(99)  # an unrelated global state
    second = fitting(samples, seed=0)
    second.load_state_dict(first.state_dict())
    while second.epoch < 4:
        second.run_epoch()
    assert second.losses == through.losses
    for name, value in through.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_training_does_not_change_the_global_generator(samples: Samples) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    fitting(samples).run_epoch()
    assert torch.equal(torch.rand(3), wanted)


def test_whole_samples_are_padded_with_zeros_and_masked(samples: Samples) -> None:
    batch = samples.whole(rows_of(samples, ["v0", "v6", "v8"]))
    assert batch.features["a"].shape == (3, 9, 6)
    assert batch.masks["a"].sum(1).tolist() == [3, 9, 3]
    assert batch.masks["b"].sum(1).tolist() == [3, 9, 0]
    assert not batch.features["a"][0, 3:].any()
    assert not batch.features["b"][2].any()


def test_crops_are_contiguous_aligned_and_reach_both_ends(samples: Samples) -> None:
    protocol = Protocol(epochs=1, crop=4)
    generator = torch.Generator().manual_seed(0)
    row = rows_of(samples, ["v1"])
    seen = set[int]()
    for _ in range(60):
        batch = samples.crop(row, protocol, generator)
        found = {}
        for stream in DIMS:
            assert batch.features[stream].shape[1] == 4
            whole = samples.features[stream][row[0], :7]
            found[stream] = [s for s in range(4) if torch.equal(whole[s : s + 4], batch.features[stream][0])]
        assert found["a"] == found["b"]
        seen.update(found["a"])
    assert seen == {0, 1, 2, 3}


def test_a_short_sample_is_padded_to_the_crop(samples: Samples) -> None:
    batch = samples.crop(rows_of(samples, ["v0"]), Protocol(epochs=1, crop={"a": 5}), torch.Generator())
    assert batch.features["a"].shape == (1, 5, 6)
    assert batch.masks["a"].tolist() == [[True, True, True, False, False]]
    assert batch.features["b"].shape == (1, 3, 4)


def test_a_crop_longer_than_all_samples_ends_in_padding(samples: Samples) -> None:
    batch = samples.crop(rows_of(samples, ["v6", "v8"]), Protocol(epochs=1, crop=12), torch.Generator())
    assert batch.masks["a"].sum(1).tolist() == [9, 3]
    assert not batch.features["a"][0, 9:].any()


class Witness(nn.Module):
    """Record the samples of each batch by their first value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[list[float]] = []

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        self.seen.append(batch.features["a"][:, 0, 0].tolist())
        return ScorePrediction(self.weight.expand(len(batch)))


def test_each_epoch_uses_every_sample_once_in_another_order(samples: Samples) -> None:
    witness = Witness()
    stage = Stage(protocol=Protocol(epochs=2, batch_size=4))
    training = Fitting(witness, samples, objective(), torch.arange(9), stage, 0)
    training.run_epoch()
    training.run_epoch()
    assert [len(batch) for batch in witness.seen] == [4, 5, 4, 5]  # the ninth sample joins the previous batch
    first, second = ([*witness.seen[at], *witness.seen[at + 1]] for at in (0, 2))
    assert sorted(first) == sorted(second) == sorted(samples.features["a"][:, 0, 0].tolist())
    assert first != second


def test_groups_of_equal_lengths_have_no_padding(samples: Samples) -> None:
    groups = list(samples.equal_lengths(torch.arange(9), most=1000))
    assert sorted(int(row) for group in groups for row in group) == list(range(9))
    for group in groups:
        batch = samples.whole(group)
        assert all(bool(mask.all()) or not bool(mask.any()) for mask in batch.masks.values())


def test_groups_of_similar_lengths_contain_all_rows(samples: Samples) -> None:
    groups = list(samples.like_lengths(torch.arange(9).flip(0), most=4))
    assert sorted(int(row) for group in groups for row in group) == list(range(9))
    assert [len(group) for group in groups] == [4, 4, 1]
    lengths = samples.lengths["a"][torch.cat(groups)].tolist()
    assert lengths == sorted(lengths)
    assert not list(samples.like_lengths(torch.tensor([], dtype=torch.int64)))


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("model", "streams"), [("context-attention", ["a", "b"]), ("ms-lstm", ["a"])])
def test_predictions_are_independent_of_the_batch(
    samples: Samples, model: str, streams: list[str], standardize: bool
) -> None:
    samples = samples.only(streams)
    network = build_model(model, samples.dims, {"hidden_dim": 8}, 0)
    if standardize:
        network = Standardized(network, samples.dims)
        network.learn(samples, torch.arange(9))
    together = predict(network, samples, torch.arange(9))
    alone = torch.cat([predict(network, samples, torch.tensor([row])) for row in range(9)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert bool(together.isfinite().all())


def test_statistics_are_those_of_the_training_videos(samples: Samples) -> None:
    rows = torch.tensor([0, 6])
    network = Standardized(build_model("context-attention", DIMS, {}, 0), DIMS)
    network.learn(samples, rows)
    segments = torch.cat([samples.features["a"][0, :3], samples.features["a"][6, :9]])
    learned = dict(network.named_buffers())
    torch.testing.assert_close(learned["mean_a"], segments.mean(0))
    torch.testing.assert_close(learned["deviation_a"], segments.std(0, correction=0))


def test_a_constant_feature_is_unchanged() -> None:
    samples = stack_samples(
        {"v": {"a": placed(np.full((4, 2), 3e-9))}, "w": {"a": placed(np.full((2, 2), 3e-9))}}, {"a": 2}
    )
    network = Standardized(build_model("context-attention", {"a": 2}, {}, 0), {"a": 2})
    network.learn(samples, torch.arange(2))
    learned = dict(network.named_buffers())
    assert learned["deviation_a"].tolist() == [1, 1]
    assert learned["mean_a"].tolist() == [0, 0]


def test_learning_rates_by_epoch() -> None:
    cosine = Protocol(epochs=100, schedule=Cosine(final_factor=0.01))
    wanted = [0.01 + 0.99 * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in (0, 50, 99)]
    assert [rate_factor(cosine, epoch) for epoch in (0, 50, 99)] == pytest.approx(wanted)
    steps = Protocol(epochs=100, schedule=Steps(at_epochs=(10, 50)))
    assert [rate_factor(steps, epoch) for epoch in (9, 10, 49, 50)] == pytest.approx([1, 0.1, 0.1, 0.01])
    from_end = Protocol(epochs=100, schedule=Steps(before_end=(90, 50)))
    assert [rate_factor(from_end, epoch) for epoch in (9, 10, 49, 50)] == pytest.approx([1, 0.1, 0.1, 0.01])
    with pytest.raises(ValueError, match="must be less than epochs 20"):
        Protocol(epochs=20, schedule=Steps(at_epochs=(10, 50)))


def test_parameter_groups_have_their_own_learning_rate(samples: Samples) -> None:
    slow = fitting(samples, rate_factors={"head": 1e-9}, optimizer="sgd", momentum=0.0)
    before = {name: value.clone() for name, value in slow.network.state_dict().items()}
    slow.run_epoch()
    for name, value in slow.network.state_dict().items():
        if not name.endswith("attention.2.bias"):  # cancelled by a softmax, hence without a gradient
            assert torch.allclose(value, before[name], atol=1e-7) == name.startswith("head"), name


def test_a_loss_that_is_not_finite_stops_the_training(samples: Samples) -> None:
    broken = fitting(samples)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(ArabesqueError, match="the loss is nan in epoch 1"):
        broken.run_epoch()


def test_every_epoch_has_its_own_seed() -> None:
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


def test_splits_without_copies_depend_only_on_ids() -> None:
    names = [f"v{number}" for number in range(37)]
    order = shuffled(names, seed=4)
    contents = {name: f"digest of {name}" for name in names[:20]}
    assert folds(names, 5, 4, contents) == folds(names, 5, 4) == [order[first::5] for first in range(5)]
    assert hold_out(names, 0.2, 4, contents) == hold_out(names, 0.2, 4) == (order[7:], order[:7])


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_videos_of_one_content_stay_together(copies: int) -> None:
    contents = {f"v{number}.{copy}": f"{number}" for number in range(12) for copy in range(copies)}
    for seed in range(5):
        training, unseen = hold_out(list(contents), 0.2, seed, contents)
        parts = folds(list(contents), 5, seed, contents)
        for part in [training, unseen, *parts]:
            assert all(name in part for name in contents if contents[name] in {contents[other] for other in part})
        assert sorted([*training, *unseen]) == sorted(contents)
        assert max(map(len, parts)) - min(map(len, parts)) <= copies
    with pytest.raises(InputError, match="too few different contents"):
        hold_out(["a", "b", "c"], 0.2, 0, dict.fromkeys("abc", "same"))
