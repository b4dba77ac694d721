"""Training one network by one protocol, an epoch at a time, so that a killed training goes on where it stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import ArabesqueError
from .protocol import Constant, Cosine, Protocol
from .routines import Routines
from .scoring import Judgement


class Fitting:
    """A training in progress. `run_epoch` until `epoch` reaches the protocol's epochs.

    All that is random in an epoch follows from ``(seed, epoch)``; so weights, optimiser state and the epoch's number
    are the whole state, and a resumed training ends in the same weights as an uninterrupted one.
    """

    def __init__(
        self, network: nn.Module, routines: Routines, fractions: Tensor, rows: Tensor, protocol: Protocol, seed: int
    ) -> None:
        """``fractions``: the score of every video of ``routines`` as a fraction of the range; trains on ``rows``."""
        self.network = network
        self.epoch = 0
        self.losses: list[float] = []
        """Mean loss of each epoch."""
        self._routines = routines
        self._fractions = fractions.float()
        self._rows = rows
        self._protocol = protocol
        self._seed = seed
        self._optimiser = _optimiser(network, protocol)

    def run_epoch(self) -> float:
        """One pass over the training videos; returns the mean loss."""
        protocol = self._protocol
        for group in self._optimiser.param_groups:
            group["lr"] = group["base_rate"] * rate_factor(protocol, self.epoch)
        total = 0.0
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self.epoch))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(epoch_seed(self._seed, self.epoch))
            self.network.train()
            for rows in _batches(self._rows, protocol.batch_size, generator):
                batch = self._routines.crop(rows, protocol, generator)
                with torch.autocast("cpu", torch.bfloat16, enabled=protocol.precision == "bfloat16"):
                    judgement = self.network(batch)
                total += self._step(judgement, self._fractions[rows]) * len(rows)
        self.epoch += 1
        self.losses.append(total / len(self._rows))
        return self.losses[-1]

    def _step(self, judgement: Judgement, wanted: Tensor) -> float:
        loss = nn.functional.mse_loss(judgement.score.float(), wanted) + judgement.penalty.float()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self._protocol.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._protocol.clip_norm)
        self._optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ArabesqueError(
                f"the loss is {value} in epoch {self.epoch + 1}; lower the learning rate, or standardise the features"
            )
        return value

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "losses": list(self.losses),
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])
        self.losses = [float(loss) for loss in state["losses"]]
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """PyTorch computes on so many threads within the block.

    One is best for small networks, whose operations end before a second thread is awake: on a busy machine two threads
    that wait for each other were 20 times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def judge(network: nn.Module, routines: Routines, rows: Tensor) -> Tensor:
    """``float64 [rows]``: fractions of the range, each routine seen whole.

    Without padding, too, but for a network with ``masks_padding``, which would take long for many small batches.
    A model that samples in evaluation (PAMFN's ``stochastic``) draws the same numbers every time.
    """
    network.eval()
    scores = torch.empty(len(routines), dtype=torch.float64)
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grouped = routines.like_lengths if getattr(network, "masks_padding", False) else routines.equal_lengths
        for group in grouped(rows):
            scores[group] = network(routines.whole(group)).score.double()
    return scores[rows]


def rate_factor(protocol: Protocol, epoch: int) -> float:
    """What the learning rate is multiplied by in this epoch, the first being 0."""
    schedule = protocol.schedule
    if isinstance(schedule, Constant):
        return 1.0
    if isinstance(schedule, Cosine):
        falling = (1 + math.cos(math.pi * epoch / protocol.epochs)) / 2
        return schedule.final_factor + (1 - schedule.final_factor) * falling
    return schedule.factor ** sum(epoch >= step for step in schedule.at_epochs)


def epoch_seed(seed: int, epoch: int) -> int:
    """A 64-bit seed for one epoch, unlike those of neighbouring seeds and epochs."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """All rows in random order; a single one left over joins the batch before, for BatchNorm's sake."""
    shuffled = rows[torch.randperm(len(rows), generator=generator)]
    parts = list(shuffled.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def _optimiser(network: nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_factor_of(name, protocol), []).append(parameter)
    parameters = [
        {"params": members, "lr": protocol.learning_rate * factor, "base_rate": protocol.learning_rate * factor}
        for factor, members in groups.items()
    ]
    decay = protocol.weight_decay
    if protocol.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=protocol.learning_rate, momentum=protocol.momentum, weight_decay=decay)
    kind = torch.optim.Adam if protocol.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=protocol.learning_rate, weight_decay=decay)


def _factor_of(name: str, protocol: Protocol) -> float:
    name = name.removeprefix("network.")  # the wrapper that standardises is no part of a parameter's published name
    return next((factor for prefix, factor in protocol.rate_factors.items() if name.startswith(prefix)), 1.0)
