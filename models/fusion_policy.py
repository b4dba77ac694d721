"""Which FusionNets are asked at each time: PAMFN's policy and two freer ones.

    ranked    one draw of K: choice k enables nets 0 … k (the published policy)
    unranked  one draw of K: net k alone
    free      K draws: each net is enabled or not

The paper's ablation names the last two without their code; they are our reading of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Ordering = Literal["ranked", "unranked", "free"]

NEVER = -1e9  # added to an attention score; the released code's own number


def choose(logits: Tensor, tau: Tensor | None, ordering: Ordering) -> Tensor:
    """``[routines, K, T]`` → choices of 0 and 1, of the same shape; one per time unless ``free``.

    ``tau``: temperature of a Gumbel sample, whose gradient is that of its soft version; None takes the likeliest.
    """
    if ordering == "free":
        return _choose_each(logits, tau)
    if tau is None:
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).to(logits.dtype)
    soft = torch.softmax((logits + _gumbel(logits)) / tau, dim=1)
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard - soft.detach() + soft


def enabled(choice: Tensor, ordering: Ordering) -> Tensor:
    """``bool [routines, K, T]``: the nets that a choice asks; the first one where it asks none."""
    if ordering == "ranked":
        ranks = torch.arange(choice.shape[1], device=choice.device).view(1, -1, 1)
        return ranks <= choice.argmax(1, keepdim=True)
    asked = choice > 0.5
    nobody = torch.zeros_like(asked)
    nobody[:, 0] = ~asked.any(1)
    return asked | nobody


def last_enabled(choice: Tensor, ordering: Ordering) -> Tensor:
    """``[routines, T]``: the highest index among the enabled nets."""
    ranks = torch.arange(choice.shape[1], device=choice.device).view(1, -1, 1)
    return (enabled(choice, ordering) * ranks).amax(1)


def attention_bias(choice: Tensor, ordering: Ordering) -> Tensor:
    """What is added to the nets' attention scores ``[routines, K, T]``: 0 for those that are enabled.

    The choice's own gradient passes through (its value is cancelled), so that the policy learns.
    """
    return ~enabled(choice, ordering) * NEVER + (choice - choice.detach())


def _choose_each(logits: Tensor, tau: Tensor | None) -> Tensor:
    if tau is None:
        return (logits > 0).to(logits.dtype)
    soft = torch.sigmoid((logits + _gumbel(logits) - _gumbel(logits)) / tau)
    return (soft > 0.5).to(soft.dtype) - soft.detach() + soft


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()
