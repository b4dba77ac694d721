"""Train one network in one stage, epoch by epoch, with a state from which a killed training can resume."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import ArabesqueError
from .experiment import Stage
from .objective import Objective
from .prediction import seeded
from .protocol import Constant, Cosine, Protocol
from .samples import Samples
from .standardization import without_standardization
from .stream_subsets import drop_streams


class Fitting:
    """A stage in progress. Call `run_epoch` until `epoch` is the number of epochs of the protocol.

    Random numbers of an epoch depend only on ``(seed, epoch)``. Therefore the state consists of weights, optimizer
    state and epoch, and a resumed training computes the same weights as an uninterrupted one on the same device.
    """

    def __init__(
        self, network: nn.Module, samples: Samples, objective: Objective, rows: Tensor, stage: Stage, seed: int
    ) -> None:
        """Prepare a stage.

        Args:
            network: The network to train, on the device of the samples.
            samples: Features of all videos.
            objective: Loss of a batch.
            rows: Indices of the training videos.
            stage: Protocol and frozen modules.
            seed: Seed of batches, crops and dropout.
        """
        self.network = network
        self.epoch = 0
        self.losses: list[float] = []
        """Mean loss of each epoch."""
        self._samples = samples
        self._objective = objective
        self._rows = rows
        self._stage = stage
        self._protocol = stage.protocol
        self._seed = seed
        self._frozen = [without_standardization(network).get_submodule(name) for name in stage.frozen]
        self._learning = _learning_parameters(network, self._frozen)
        self._optimizer = _optimizer(self._learning, stage.protocol)

    def run_epoch(self) -> float:
        """Train one epoch and return the mean loss."""
        protocol = self._protocol
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_rate"] * rate_factor(protocol, self.epoch)
        device = self._samples.device
        losses: list[Tensor] = []
        sizes: list[int] = []
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self.epoch))
        with seeded(epoch_seed(self._seed, self.epoch), device), self._gradients_of_learning_parameters():
            self.network.train()
            if self._stage.frozen_mode == "evaluation":
                for module in self._frozen:
                    module.eval()
            for rows in _batches(self._rows, protocol.batch_size, generator):
                batch = self._samples.crop(rows, protocol, generator)
                if protocol.stream_dropout:
                    batch = drop_streams(batch, protocol.stream_dropout, generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bfloat16"):
                    prediction = self.network(batch)
                loss = self._objective.loss(prediction, batch, rows) + prediction.penalty.float()
                self._optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                if protocol.clip_norm is not None:
                    nn.utils.clip_grad_norm_(self._learning.values(), protocol.clip_norm)
                self._optimizer.step()
                losses.append(loss.detach())
                sizes.append(len(rows))
        return self._finish_epoch(losses, sizes)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last epoch, for parameters without a factor"""
        return self._protocol.learning_rate * rate_factor(self._protocol, max(0, self.epoch - 1))

    def _finish_epoch(self, losses: list[Tensor], sizes: list[int]) -> float:
        """Record the mean loss. The host waits for the device only here, once per epoch."""
        self.epoch += 1
        values = torch.stack(losses).cpu().numpy().tolist()
        for value in values:
            if not math.isfinite(value):
                raise ArabesqueError(
                    f"the loss is {value} in epoch {self.epoch}; lower the learning rate, or standardize the features"
                )
        total = sum(value * size for value, size in zip(values, sizes, strict=True))
        self.losses.append(total / len(self._rows))
        return self.losses[-1]

    @contextmanager
    def _gradients_of_learning_parameters(self) -> Generator[None, None, None]:
        """Compute no gradients of frozen parameters within the block."""
        frozen = [each for module in self._frozen for each in module.parameters() if each.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`."""
        return {
            "epoch": self.epoch,
            "losses": list(self.losses),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state of `state_dict`."""
        self.epoch = int(state["epoch"])
        self.losses = [float(loss) for loss in state["losses"]]
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])


@contextmanager
def cpu_threads(count: int) -> Generator[None, None, None]:
    """Set the number of PyTorch's CPU threads within the block.

    One thread is fastest for small networks, whose operations are shorter than the synchronization of threads: with two
    threads on a busy machine, training was 20 times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rate_factor(protocol: Protocol, epoch: int) -> float:
    """Return the factor on the learning rate in this epoch, counted from 0."""
    schedule = protocol.schedule
    if isinstance(schedule, Constant):
        return 1.0
    if isinstance(schedule, Cosine):
        falling = (1 + math.cos(math.pi * epoch / protocol.epochs)) / 2
        return schedule.final_factor + (1 - schedule.final_factor) * falling
    return schedule.factor ** schedule.count(epoch, protocol.epochs)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a 64-bit seed for one epoch, independent of those of other seeds and epochs."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of all rows in random order.

    A last batch of one row is added to the previous batch, because BatchNorm needs two rows. With a batch size of 1,
    BatchNorm computes its statistics over the segments of one video.
    """
    shuffled = rows[torch.randperm(len(rows), generator=generator)]
    parts = list(torch.split(shuffled, size))
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def _learning_parameters(network: nn.Module, frozen: list[nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters outside of the frozen modules by their names in the unwrapped network."""
    excluded = {id(parameter) for module in frozen for parameter in module.parameters()}
    return {
        name: parameter
        for name, parameter in without_standardization(network).named_parameters()
        if parameter.requires_grad and id(parameter) not in excluded
    }


def _optimizer(parameters: dict[str, nn.Parameter], protocol: Protocol) -> torch.optim.Optimizer:
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        factors = (factor for prefix, factor in protocol.rate_factors.items() if name.startswith(prefix))
        groups.setdefault(next(factors, 1.0), []).append(parameter)
    by_rate = [
        {"params": members, "lr": protocol.learning_rate * factor, "base_rate": protocol.learning_rate * factor}
        for factor, members in groups.items()
    ]
    decay = protocol.weight_decay
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(by_rate, lr=protocol.learning_rate, momentum=protocol.momentum, weight_decay=decay)
    kind = torch.optim.Adam if protocol.optimizer == "adam" else torch.optim.AdamW
    return kind(by_rate, lr=protocol.learning_rate, weight_decay=decay)
