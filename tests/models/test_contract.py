"""What every scoring model of the table promises; a new one is found by its line in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from arabesque.manifests.errors import ManifestError
from arabesque.models.scoring import Judgement, SegmentBatch, Solvable
from arabesque.models.table import MODELS, build_model, model_class, resolve_settings

RandomBatch = Callable[..., SegmentBatch]
DIMS = {"vst": 12, "i3d_flow": 10, "ast": 6}
ONE = {"vst": 12}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "context-attention": [{}, {"adjacency": "feature"}],
    "late-fusion": [{"combination": how} for how in ("average", "concatenation", "weighted", "attention")],
    "pamfn": [{"ordering": how} for how in ("ranked", "unranked", "free")] + [{"frozen": ["vst"]}],
    "pamfn-highlights": [{}, {"ordering": "free"}],
    "pooled-svr": [{}, {"pooling": "max"}],
    "ms-lstm": [{}, {"bounded": True, "hidden_dim": 16}],
    "msaf": [{}, {"lowest_attention": 0.1}],
}
CASES = [(name, settings) for name in sorted(MODELS) for settings in VARIANTS.get(name, [{}])]
UNBOUNDED = {("pooled-svr", ""), ("ms-lstm", "")}


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], dict[str, int]]:
    name, settings = request.param
    return name, settings, dims_of(name)


def dims_of(name: str) -> dict[str, int]:
    """Three streams, or one for the models that read one."""
    return ONE if model_class(name).one_stream else DIMS


def batch_of(dims: dict[str, int], random_batch: RandomBatch, seed: int = 0) -> SegmentBatch:
    """Four routines of 9, 12, 6 and 11 segments, on one time grid."""
    return random_batch(dims, {stream: [9, 12, 6, 11] for stream in dims}, seed=seed)


def trained_a_little(network: nn.Module, batch: SegmentBatch) -> nn.Module:
    """Off its initial values, where much is zero and normalisation does nothing."""
    wanted = torch.tensor([0.2, 0.8, 0.4, 0.6]).to(next(iter(batch.features.values())))
    if isinstance(network, Solvable):
        network.solve(thrice(batch), wanted.repeat(3))
        return network.eval()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    torch.manual_seed(0)
    for _ in range(3):
        judgement = network(batch)
        optimiser.zero_grad()
        (nn.functional.mse_loss(judgement.score, wanted) + judgement.penalty).backward()
        optimiser.step()
    return network.eval()


def thrice(batch: SegmentBatch) -> SegmentBatch:
    """Twelve routines: as many as a cross-validation within the training videos needs."""
    return SegmentBatch(
        {stream: torch.cat([values, 1.1 * values, 0.9 * values]) for stream, values in batch.features.items()},
        {stream: mask.repeat(3, 1) for stream, mask in batch.masks.items()},
    )


def rows(batch: SegmentBatch, chosen: list[int], length: int) -> SegmentBatch:
    return SegmentBatch(
        {stream: values[chosen, :length] for stream, values in batch.features.items()},
        {stream: mask[chosen, :length] for stream, mask in batch.masks.items()},
    )


def test_scores_are_finite_and_one_per_routine(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    batch = batch_of(dims, random_batch)
    network = trained_a_little(build_model(name, dims, settings, seed=0), batch)
    judgement = network(batch)
    assert isinstance(judgement, Judgement)
    assert judgement.score.shape == (4,)
    assert judgement.score.dtype == torch.float32
    assert judgement.penalty.shape == ()
    assert bool(judgement.score.isfinite().all())
    assert judgement.score.std() > 0
    for stream, weights in judgement.importance.items():
        assert weights.shape == batch.masks[stream].shape


def test_padding_changes_nothing(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    batch = batch_of(dims, random_batch)
    network = trained_a_little(build_model(name, dims, settings, seed=0), batch)
    with torch.inference_mode():
        together = network(batch).score
        for row, length in enumerate((9, 12, 6, 11)):
            alone = network(rows(batch, [row], length)).score
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing_in_training(
    case: Any, random_batch: RandomBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running statistics included: two trainings that differ in padding only end in the same network.

    In double precision, since BatchNorm over PAMFN's constant start blows rounding errors up.
    """
    name, settings, dims = case
    batch = precise(batch_of(dims, random_batch))
    longer = SegmentBatch(
        {stream: nn.functional.pad(values, (0, 0, 0, 5)) for stream, values in batch.features.items()},
        {stream: nn.functional.pad(mask, (0, 5)) for stream, mask in batch.masks.items()},
    )
    one, other = (without_dropout(build_model(name, dims, settings, seed=0)).double() for _ in range(2))
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda noise: noise.fill_(1))  # as many draws as segments
    trained_a_little(one, batch)
    trained_a_little(other, longer)
    for (key, value), twin in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, twin, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def precise(batch: SegmentBatch) -> SegmentBatch:
    return SegmentBatch({stream: values.double() for stream, values in batch.features.items()}, batch.masks)


def without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return network


def test_every_parameter_learns(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    network = build_model(name, dims, settings, seed=0)
    frozen = tuple(f"branches.{stream}." for stream in settings.get("frozen", []))
    trained_a_little(network, batch_of(dims, random_batch)).train()  # some begin at zero, where nothing follows
    unseen = {
        key
        for key, parameter in network.named_parameters()
        if parameter.requires_grad and not any(map(key.startswith, frozen)) and not harmless(name, key, settings)
    }
    for seed in range(20):  # a ReLU may be shut once, and a policy ask one of six nets alone
        torch.manual_seed(seed)
        network.zero_grad()
        judgement = network(batch_of(dims, random_batch, seed=seed))
        if not judgement.score.requires_grad:
            assert isinstance(network, Solvable)
            return
        ((judgement.score - torch.tensor([0.1, 0.9, 0.3, 0.5])).square().sum() + judgement.penalty).backward()
        unseen -= {key for key, each in network.named_parameters() if each.grad is not None and bool(each.grad.any())}
        if not unseen:
            break
    assert not unseen


def harmless(name: str, key: str, settings: dict[str, Any]) -> bool:
    """Biases that a softmax or a BatchNorm cancels, and what PAMFN's design leaves without a gradient.

    Its mixed branch starts from zeros, which no weight can change; its branches' heads are not asked; and where one
    net alone is asked, attention has no choice.
    """
    if not name.startswith("pamfn") or name == "pamfn-branch":
        return key.endswith(".bias")
    lone = settings.get("ordering") == "unranked" and (".proj2." in key or "fusion_f.linear_layers" in key)
    return key.endswith(".bias") or ".fc." in key or key in PAMFN_START or lone


PAMFN_START = {"stage1.conv.0.weight", "stage1.short_cut.0.weight"}


def test_a_stream_may_be_missing(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    if len(dims) == 1:
        pytest.skip("reads one stream")
    batch = random_batch(dims, {"vst": [9, 12, 6, 11], "i3d_flow": [9, 12, 6, 11], "ast": [9, 0, 6, 0]})
    length = max(mask.shape[1] for mask in batch.masks.values())
    batch = SegmentBatch(
        {s: nn.functional.pad(v, (0, 0, 0, length - v.shape[1])) for s, v in batch.features.items()},
        {s: nn.functional.pad(m, (0, length - m.shape[1])) for s, m in batch.masks.items()},
    )
    network = trained_a_little(build_model(name, dims, settings, seed=0), batch)
    assert bool(network(batch).score.isfinite().all())
    for key, value in network.state_dict().items():
        assert bool(value.isfinite().all()), key
    # the zeros that stand for a missing stream are not read
    loud = dict(batch.features)
    loud["ast"] = torch.where(batch.masks["ast"].any(1)[:, None, None], loud["ast"], 100.0)
    torch.testing.assert_close(network(SegmentBatch(loud, batch.masks)).score, network(batch).score)


def test_order_matters_only_where_time_does(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    batch = precise(batch_of(dims, random_batch))
    network = trained_a_little(build_model(name, dims, settings, seed=0).double(), batch)
    order = [3, 0, 1, 2, 6, 5, 4, 11, 7, 9, 8, 10]
    shuffled = SegmentBatch(
        {stream: values[1:2, order] for stream, values in batch.features.items()},
        {stream: mask[1:2] for stream, mask in batch.masks.items()},
    )
    same = torch.allclose(network(shuffled).score, network(batch).score[1:2], atol=1e-12, rtol=1e-9)
    timeless = name in ("gdlt", "joint-va", "pooled-svr") or settings.get("adjacency") == "feature"
    assert same == timeless


def test_evaluation_repeats_itself(case: Any, random_batch: RandomBatch) -> None:
    name, settings, dims = case
    batch = batch_of(dims, random_batch)
    network = trained_a_little(build_model(name, dims, settings, seed=0), batch)
    assert torch.equal(network(batch).score, network(batch).score)


def test_the_seed_decides_the_weights(case: Any) -> None:
    name, settings, dims = case
    first, again = (build_model(name, dims, settings, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    if list(model_class(name)(dims).parameters()):
        other = build_model(name, dims, settings, seed=4).state_dict()
        assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_settings_are_complete_and_checked(case: Any) -> None:
    name, settings, _ = case
    resolved = resolve_settings(name, settings)
    assert resolve_settings(name, resolved) == resolved
    with pytest.raises(ManifestError, match=rf"scoring model {name}: settings\.dropuot"):
        resolve_settings(name, {"dropuot": 0.5})


@pytest.mark.parametrize("name", sorted(MODELS))
def test_one_stream_means_one(name: str) -> None:
    if model_class(name).one_stream:
        with pytest.raises(ManifestError, match=f"{name} reads one stream, not vst, i3d_flow, ast"):
            build_model(name, DIMS, {}, seed=0)


def test_a_name_that_is_not_in_the_table() -> None:
    with pytest.raises(ManifestError, match="'gdtl' is not known; did you mean gdlt"):
        build_model("gdtl", ONE, {}, seed=0)
