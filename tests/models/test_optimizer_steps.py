"""Gradient clipping, weight decay and momentum of one training step, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arabesque.models.experiment import Stage
from arabesque.models.fitting import Fitting
from arabesque.models.objective import ScoreRegression
from arabesque.models.protocol import Protocol
from arabesque.models.samples import StreamSegments, stack_samples
from arabesque.models.scoring import ScorePrediction, SegmentBatch

WANTED = torch.tensor([40.0, -30.0])


class Weights(nn.Module):
    """The prediction of a video is one of two weights: the gradient is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -1.0]))

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        return ScorePrediction(self.weight[batch.features["a"][:, 0, 0].long()])


def step(**fields: object) -> tuple[Tensor, Tensor]:
    """Return the gradient of the first step, and the weights after two epochs of one batch each."""
    videos = {f"v{row}": {"a": StreamSegments(np.full((1, 1), row, np.float32))} for row in range(2)}
    network = Weights()
    protocol = Protocol.model_validate({"epochs": 2, "learning_rate": 0.1, "optimizer": "sgd", "momentum": 0} | fields)
    samples = stack_samples(videos, {"a": 1})
    objective = ScoreRegression(WANTED.numpy().astype(float), (0.0, 1.0), samples.device)
    training = Fitting(network, samples, objective, torch.arange(2), Stage(protocol=protocol), 0)
    gradient = (network.weight - WANTED).detach()  # of the mean over two videos of squared errors
    for _ in range(protocol.epochs):
        training.run_epoch()
    return gradient, network.weight.detach()


def test_a_plain_step_follows_the_gradient() -> None:
    gradient, after = step(epochs=1)
    torch.testing.assert_close(after, torch.tensor([2.0, -1.0]) - 0.1 * gradient)


def test_gradients_are_scaled_to_the_maximum_norm() -> None:
    gradient, after = step(epochs=1, clip_norm=0.5)
    torch.testing.assert_close(after, torch.tensor([2.0, -1.0]) - 0.1 * 0.5 * gradient / gradient.norm())


def test_gradients_below_the_maximum_norm_are_not_scaled() -> None:
    torch.testing.assert_close(step(clip_norm=1000.0)[1], step()[1])


def test_weight_decay_of_sgd_is_added_to_the_gradient() -> None:
    gradient, after = step(epochs=1, weight_decay=0.3)
    before = torch.tensor([2.0, -1.0])
    torch.testing.assert_close(after, before - 0.1 * (gradient + 0.3 * before))


def test_momentum_of_sgd_keeps_the_previous_gradient() -> None:
    gradient, once = step(epochs=1, momentum=0.5)
    _, twice = step(epochs=2, momentum=0.5)
    torch.testing.assert_close(twice, once - 0.1 * (0.5 * gradient + (once - WANTED)))


@pytest.mark.parametrize(("optimizer", "decoupled"), [("adam", False), ("adamw", True)])
def test_weight_decay_of_adamw_is_separate_from_the_gradient(optimizer: str, decoupled: bool) -> None:
    """A first step of Adam has the size of the learning rate in each weight, for any gradient."""
    gradient, after = step(epochs=1, optimizer=optimizer, weight_decay=0.3)
    before = torch.tensor([2.0, -1.0])
    shrunk = before * (1 - 0.1 * 0.3) if decoupled else before
    torch.testing.assert_close(after, shrunk - 0.1 * gradient.sign(), atol=1e-5, rtol=0)
