"""Policies that select the active FusionNets at each time step (PAMFN, section IV-F3 and Table VII).

ranked    one draw of K: decision k enables nets 0 … k (the published model)
unranked  one draw of K: net k alone ("the decision is a one-hot vector")
free      all nets, without a PolicyNet ("enable all FusionNets … and remove the PolicyNet")
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Ordering = Literal["ranked", "unranked", "free"]

NEVER = -1e9  # added to an attention score; value of the released code


def choose(logits: Tensor, tau: Tensor | None) -> Tensor:
    """Return the one-hot decision at each time step for logits ``[samples, K, T]``, in the same shape.

    ``tau`` is the temperature of a straight-through Gumbel sample; None selects the most probable net.
    """
    if tau is None:
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).to(logits.dtype)
    soft = torch.softmax((logits + _gumbel(logits)) / tau, dim=1)
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard - soft.detach() + soft


def enabled(choice: Tensor, ordering: Ordering) -> Tensor:
    """Return the nets that a decision enables, ``bool [samples, K, T]``."""
    if ordering == "ranked":
        ranks = torch.arange(choice.shape[1], device=choice.device).view(1, -1, 1)
        return ranks <= choice.argmax(1, keepdim=True)
    return choice > 0.5


def last_enabled(choice: Tensor, ordering: Ordering) -> Tensor:
    """Return the highest index of the enabled nets, ``[samples, T]``."""
    ranks = torch.arange(choice.shape[1], device=choice.device).view(1, -1, 1)
    return (enabled(choice, ordering) * ranks).amax(1)


def attention_bias(choice: Tensor, ordering: Ordering) -> Tensor:
    """Return the bias on the attention scores of the nets, ``[samples, K, T]``, which is 0 for enabled nets.

    The value of the choice cancels out. Its gradient does not, so that the policy is trained.
    """
    return ~enabled(choice, ordering) * NEVER + (choice - choice.detach())


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()
