"""PAMFN's policies as defined in section IV-F3 of the paper."""

from __future__ import annotations

import pytest
import torch

from arabesque.models.fusion_policy import Ordering, attention_bias, choose, enabled
from arabesque.models.pamfn import Pamfn, PamfnSettings
from arabesque.models.scoring import SegmentBatch


def test_ranked_enables_all_nets_up_to_the_decision() -> None:
    choice = choose(torch.tensor([[[0.0], [5.0], [1.0], [2.0]]]), None)
    assert choice.flatten().tolist() == [0, 1, 0, 0]
    assert enabled(choice, "ranked").flatten().tolist() == [True, True, False, False]
    assert enabled(choice, "unranked").flatten().tolist() == [False, True, False, False]
    assert (attention_bias(choice, "ranked").flatten() == 0).tolist() == [True, True, False, False]


def test_gumbel_samples_have_the_frequencies_of_the_softmax() -> None:
    """Gumbel-max draws net k with probability softmax(logits)[k], at any temperature."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = choose(logits.view(1, 4, 1).expand(20_000, 4, 1), torch.tensor(3.0)).mean(0).flatten()
    torch.testing.assert_close(drawn, torch.softmax(logits, 0), atol=0.015, rtol=0)


def test_the_gradient_of_a_sample_is_that_of_its_soft_version() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(1, 3, 1, requires_grad=True)
    choose(logits, torch.tensor(1.0))[0, 0].sum().backward()
    gradient = logits.grad
    assert gradient is not None
    assert gradient[0, 0] > 0
    assert gradient.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_free_uses_every_net_and_has_no_policy(training: bool) -> None:
    """Every net influences the score in each forward pass, and no random decision is drawn."""
    torch.manual_seed(0)
    network = build("free").train(training)
    assert not [name for name, _ in network.named_parameters() if "policy" in name or name == "tau"]
    batch = SegmentBatch({"a": torch.randn(2, 8, 6), "b": torch.randn(2, 8, 5)}, dict.fromkeys("ab", ones()))
    torch.manual_seed(1)
    score, last = network.fuse(batch)
    torch.manual_seed(1)
    again, _ = network.fuse(batch)
    torch.testing.assert_close(score, again)
    assert all((stage == 2).all() for stage in last)
    score.sum().backward()
    for stage in (network.stage1, network.stage2, network.stage3):
        for net in stage.f_fusion.ffn:
            assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_the_other_policies_have_a_policy_net() -> None:
    for ordering in ("ranked", "unranked"):
        names = [name for name, _ in build(ordering).named_parameters()]
        assert "tau" in names
        assert sum("f_fusion.policy" in name for name in names) == 6


def build(ordering: Ordering) -> Pamfn:
    no_dropout = {"fc_dropout": 0.0, "feature_dropout": 0.0, "branch_dropout": 0.0}
    return Pamfn({"a": 6, "b": 5}, PamfnSettings(num_nets=3, ordering=ordering, **no_dropout))


def ones() -> torch.Tensor:
    return torch.ones(2, 8, dtype=torch.bool)
