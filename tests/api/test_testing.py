"""`arabesque.testing` accepts classes that satisfy the contract and names the check that fails."""

from __future__ import annotations

import doctest
import inspect
from typing import ClassVar

import pytest
import torch

from arabesque.extractors.protocol import FrameNeed
from arabesque.manifests.streams import Geometry, Record
from arabesque.models.scoring import ScorePrediction
from arabesque.testing import check_extractor, check_model


class Brightness:
    """The mean brightness of each color; satisfies the contract."""

    class Settings(Record):
        gain: float = 1.0

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ()
    dim = 3
    frames = FrameNeed(Geometry(steps=()))
    audio = None
    batch_size = 4

    def __init__(self, *, settings, weights, device, precision):
        self._gain = settings.gain

    @staticmethod
    def feature_names() -> tuple[str, ...]:
        return ("red", "green", "blue")

    def prepare(self, segment):
        return segment.frames.float().mean(dim=(0, 2, 3)) * self._gain

    def forward(self, prepared):
        return list(prepared)


class DependsOnItsBatch(Brightness):
    def forward(self, prepared):
        return [row - sum(prepared) / len(prepared) for row in prepared]


class ChangesItsInput(Brightness):
    def prepare(self, segment):
        row = super().prepare(segment)
        segment.frames.bitwise_xor_(255)
        return row


class IsNotFinite(Brightness):
    def forward(self, prepared):
        return [row / 0 for row in prepared]


class IsDouble(Brightness):
    def forward(self, prepared):
        return [row.double() for row in prepared]


class LacksANameForAFeature(Brightness):
    @staticmethod
    def feature_names():
        return ("red", "green")


class IsTheSameForAllSegments(Brightness):
    def forward(self, prepared):
        return [torch.ones(3) for _ in prepared]


class LeavesSegmentsOut(Brightness):
    def forward(self, prepared):
        return [None for _ in prepared]


class HasAnotherKeyword(Brightness):
    def __init__(self, *, settings, weights, device, precision, more=1):
        super().__init__(settings=settings, weights=weights, device=device, precision=precision)


def test_an_extractor_that_keeps_the_contract_is_accepted():
    check_extractor(Brightness)


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        (DependsOnItsBatch, "another row in a batch"),
        (ChangesItsInput, "changes the segment|another row|rows differ"),
        (IsNotFinite, "not finite"),
        (IsDouble, "float64"),
        (LacksANameForAFeature, "feature_names"),
        (IsTheSameForAllSegments, "two segments have the same row"),
        (LeavesSegmentsOut, "a segment has no row"),
        (HasAnotherKeyword, "keywords are not device, precision, settings, weights"),
    ],
)
def test_a_broken_promise_is_named(tried, reason):
    with pytest.raises(AssertionError, match=reason):
        check_extractor(tried)


class MeanOfSegments(torch.nn.Module):
    """A linear function of the mean segment of each stream; satisfies the contract."""

    class Settings(Record):
        pass

    one_stream = False
    one_grid = False
    order_invariant = True

    def __init__(self, dims, settings):
        super().__init__()
        self.layers = torch.nn.ModuleDict({stream: torch.nn.Linear(dim, 1) for stream, dim in dims.items()})

    def mean(self, values, mask):
        return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, batch):
        means = {stream: self.mean(values, batch.masks[stream]) for stream, values in batch.features.items()}
        return ScorePrediction(sum(self.layers[stream](mean)[:, 0] for stream, mean in means.items()))


class ReadsPadding(MeanOfSegments):
    def mean(self, values, mask):
        return values.mean(1)


class HasADeadLayer(MeanOfSegments):
    def __init__(self, dims, settings):
        super().__init__(dims, settings)
        self.dead = torch.nn.Linear(2, 2)


class DependsOnTime(MeanOfSegments):
    def mean(self, values, mask):
        return super().mean(values * torch.arange(values.shape[1])[:, None], mask)


class IsRandom(MeanOfSegments):
    def forward(self, batch):
        prediction = super().forward(batch)
        return ScorePrediction(prediction.score + torch.rand(len(batch)))


def test_a_model_that_keeps_the_contract_is_accepted():
    check_model(MeanOfSegments)


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        (ReadsPadding, "not close"),
        (HasADeadLayer, "without a gradient: dead.weight"),
        (DependsOnTime, "order_invariant is True"),
        (IsRandom, "not close|evaluations differ"),
    ],
)
def test_a_broken_promise_of_a_model_is_named(tried, reason):
    with pytest.raises(AssertionError, match=reason):
        check_model(tried)


@pytest.mark.parametrize("function", [check_extractor, check_model])
def test_the_examples_give_the_shown_output(function):
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(function) or "", {}, function.__name__, None, 0)
    report: list[str] = []
    failed, attempted = doctest.DocTestRunner().run(test, out=report.append)
    assert attempted
    assert not failed, "".join(report)
