"""Contract of scoring models (`arabesque.models.scoring`), as checks on random features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from arabesque.manifests.errors import ConfigError, InputError
from arabesque.manifests.import_paths import class_path
from arabesque.models.scoring import ScorePrediction, SegmentBatch, Solvable
from arabesque.models.table import build_model, model_class, resolve_settings

DIMS = {"vst": 12, "i3d_flow": 10, "ast": 6}
"""Streams and dims of the random features; a model with one stream gets the first."""
LENGTHS = (9, 12, 6, 11)
"""Number of segments of each of the four samples."""


class ModelContract:
    """The checks of one scoring model. Each method whose name starts with ``check_`` raises AssertionError.

    Args:
        model: The model's name as on the command line, an import path such as ``mypackage:MyModel``, or the class.
        settings: Settings that differ from the defaults.
        dims: Stream → dim of the random features.
    """

    def __init__(
        self,
        model: str | type[nn.Module],
        *,
        settings: Mapping[str, Any] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        self.name = model if isinstance(model, str) else class_path(model)
        self.settings = dict(settings or {})
        one_stream = bool(model_class(self.name).one_stream)
        self.dims = dict(dims or (dict([next(iter(DIMS.items()))]) if one_stream else DIMS))

    def build(self, seed: int = 0) -> nn.Module:
        return build_model(self.name, self.dims, self.settings, seed=seed)

    @cached_property
    def trained(self) -> nn.Module:
        """A network after three training steps on `batch`, in evaluation mode."""
        return _trained_a_little(self.build(), self.batch())

    def batch(self, seed: int = 0) -> SegmentBatch:
        """Four samples of 9, 12, 6 and 11 segments, on one time grid."""
        return random_batch(self.dims, dict.fromkeys(self.dims, LENGTHS), seed=seed)

    def check_scores_are_finite_and_one_per_sample(self) -> None:
        """Each sample of a batch has a finite float32 score, and scores differ between samples."""
        batch = self.batch()
        prediction = self.trained(batch)
        _require(isinstance(prediction, ScorePrediction), "the result is not a ScorePrediction")
        _require(prediction.score.shape == (len(LENGTHS),), f"the score has shape {tuple(prediction.score.shape)}")
        _require(prediction.score.dtype == torch.float32, f"the score is {prediction.score.dtype}")
        _require(prediction.penalty.shape == (), "the penalty is not a scalar")
        _require(bool(prediction.score.isfinite().all()), "a score is not finite")
        _require(bool(prediction.score.std() > 0), "all samples have the same score")
        for stream, weights in prediction.importance.items():
            _require(weights.shape == batch.masks[stream].shape, f"the importance of {stream} has another shape")

    def check_padding_does_not_change_scores(self) -> None:
        """A sample has the same score alone and in a batch of longer samples."""
        batch = self.batch()
        with torch.inference_mode():
            together = self.trained(batch).score
            for row, length in enumerate(LENGTHS):
                alone = self.trained(_rows(batch, [row], length)).score
                torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)

    def check_padding_does_not_change_training(self) -> None:
        """Two trainings that differ only in padding give the same network, including running statistics.

        The check uses double precision, because BatchNorm over a constant amplifies rounding errors.
        """
        batch = _double(self.batch())
        longer = SegmentBatch(
            {stream: nn.functional.pad(values, (0, 0, 0, 5)) for stream, values in batch.features.items()},
            {stream: nn.functional.pad(mask, (0, 5)) for stream, mask in batch.masks.items()},
        )
        one, other = (_without_dropout(self.build()).double() for _ in range(2))
        # constant noise: the number of random numbers depends on the padding
        with mock.patch.object(torch.Tensor, "exponential_", lambda noise: noise.fill_(1)):
            _trained_a_little(one, batch)
            _trained_a_little(other, longer)
        for (key, value), twin in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(value, twin, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")

    def check_every_parameter_learns(self) -> None:
        """Each parameter receives a gradient from at least one of twenty batches.

        Exceptions are biases, which a softmax or a normalization may cancel, and parameters with ``is_idle``.
        """
        network = self.build()
        _trained_a_little(network, self.batch()).train()  # some parameters begin at zero, where gradients vanish
        is_idle: Callable[[str], bool] = getattr(network, "is_idle", lambda parameter: False)
        unseen = {
            key
            for key, parameter in network.named_parameters()
            if parameter.requires_grad and not key.endswith(".bias") and not is_idle(key)
        }
        for seed in range(20):  # a ReLU may be 0 for a whole batch, and a policy may use one of six networks only
            torch.manual_seed(seed)
            network.zero_grad()
            prediction = network(self.batch(seed))
            if not prediction.score.requires_grad:
                _require(isinstance(network, Solvable), "the score has no gradient, and the model cannot be solved")
                return
            wanted = torch.tensor([0.1, 0.9, 0.3, 0.5])
            ((prediction.score - wanted).square().sum() + prediction.penalty).backward()
            unseen -= {key for key, each in network.named_parameters() if each.grad is not None and each.grad.any()}
            if not unseen:
                return
        raise AssertionError(f"parameters without a gradient: {', '.join(sorted(unseen))}")

    def check_a_stream_may_be_missing(self) -> None:
        """Samples without a stream have a finite score, which does not depend on the values of that stream."""
        if len(self.dims) == 1:
            return
        first, *_, last = self.dims
        lengths = dict.fromkeys(self.dims, LENGTHS) | {last: (LENGTHS[0], 0, LENGTHS[2], 0)}
        batch = random_batch(self.dims, lengths)
        longest = batch.masks[first].shape[1]
        batch = SegmentBatch(
            {s: nn.functional.pad(v, (0, 0, 0, longest - v.shape[1])) for s, v in batch.features.items()},
            {s: nn.functional.pad(m, (0, longest - m.shape[1])) for s, m in batch.masks.items()},
        )
        network = _trained_a_little(self.build(), batch)
        _require(bool(network(batch).score.isfinite().all()), "a score is not finite where a stream is missing")
        for key, value in network.state_dict().items():
            _require(bool(value.isfinite().all()), f"{key} is not finite after training without a stream")
        loud = dict(batch.features)
        loud[last] = torch.where(batch.masks[last].any(1)[:, None, None], loud[last], 100.0)
        torch.testing.assert_close(network(SegmentBatch(loud, batch.masks)).score, network(batch).score)

    def check_order_matters_as_stated(self) -> None:
        """The order of segments changes the score if and only if ``order_invariant`` is False."""
        stated = getattr(self.build(), "order_invariant", None)
        _require(isinstance(stated, bool), "order_invariant is neither True nor False")
        batch = _double(self.batch())
        network = _trained_a_little(self.build().double(), batch)
        order = [3, 0, 1, 2, 6, 5, 4, 11, 7, 9, 8, 10]
        shuffled = SegmentBatch(
            {stream: values[1:2, order] for stream, values in batch.features.items()},
            {stream: mask[1:2] for stream, mask in batch.masks.items()},
        )
        same = torch.allclose(network(shuffled).score, network(batch).score[1:2], atol=1e-12, rtol=1e-9)
        _require(same == stated, f"order_invariant is {stated}, but shuffled segments show {same}")

    def check_masked_segments_do_not_count(self) -> None:
        """Values of masked segments between others, e.g. of an excluded replay, do not change the score."""
        batch = self.batch()
        masks = {stream: mask.clone() for stream, mask in batch.masks.items()}
        for mask in masks.values():
            mask[:, 1:3] = False
            mask[:, 4] = False
        network = _trained_a_little(self.build(), SegmentBatch(batch.features, masks))
        loud = {
            stream: torch.where(masks[stream].unsqueeze(-1), values, 100.0) for stream, values in batch.features.items()
        }
        quiet = {stream: values * masks[stream].unsqueeze(-1) for stream, values in batch.features.items()}
        scores = [network(SegmentBatch(values, masks)).score for values in (quiet, loud)]
        torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-5)
        _require(bool(scores[0].isfinite().all()), "a score is not finite where segments are masked")
        if getattr(network, "order_invariant", False):
            without = [place for place in range(max(LENGTHS)) if place not in (1, 2, 4)]
            removed = network(
                SegmentBatch(
                    {stream: values[:, without] for stream, values in quiet.items()},
                    {stream: mask[:, without] for stream, mask in masks.items()},
                )
            )
            torch.testing.assert_close(removed.score, scores[0], atol=1e-5, rtol=1e-5)

    def check_evaluation_is_repeatable(self) -> None:
        """A trained model gives the same batch the same scores."""
        batch = self.batch()
        _require(torch.equal(self.trained(batch).score, self.trained(batch).score), "two evaluations differ")

    def check_the_seed_decides_the_weights(self) -> None:
        """Initial weights depend on the seed and on nothing else."""
        first, again, other = (self.build(seed).state_dict() for seed in (3, 3, 4))
        same = all(torch.equal(value, again[key]) for key, value in first.items())
        _require(same, "initial weights depend on more than the seed")
        if list(self.build().parameters()):
            differ = any(not torch.equal(value, other[key]) for key, value in first.items())
            _require(differ, "initial weights ignore the seed")

    def check_settings_are_complete_and_checked(self) -> None:
        """Resolved settings are complete, and unknown ones are refused."""
        resolved = resolve_settings(self.name, self.settings)
        _require(resolve_settings(self.name, resolved) == resolved, "resolved settings change when they are resolved")
        try:
            resolve_settings(self.name, {"no_such_setting": 1})
        except ConfigError as error:
            expected = f"scoring model {self.name}: settings.no_such_setting"
            _require(expected in str(error), f"an unknown setting is refused for another reason: {error}")
        else:
            raise AssertionError("an unknown setting is accepted")

    def check_a_model_of_one_stream_refuses_several(self) -> None:
        """A model with ``one_stream`` is not built for several streams."""
        if not model_class(self.name).one_stream:
            return
        try:
            build_model(self.name, DIMS, {}, seed=0)
        except InputError as error:
            expected = f"{self.name} reads one stream, not vst, i3d_flow, ast"
            _require(expected in str(error), f"several streams are refused for another reason: {error}")
        else:
            raise AssertionError("a model of one stream accepts several")


MODEL_CHECKS = tuple(name for name in vars(ModelContract) if name.startswith("check_"))
"""The names of the checks, in order."""


def check_model(
    model: str | type[nn.Module],
    *,
    settings: Mapping[str, Any] | None = None,
    dims: Mapping[str, int] | None = None,
) -> None:
    """Check that a scoring model satisfies `arabesque.models.scoring.ScoringModel`.

    The checks train the model for three steps on random features of four samples: scores are finite, padding and
    missing streams do not change them, every parameter gets a gradient, and the seed determines the initial weights.

    Args:
        model: The model's name as on the command line, an import path such as ``mypackage:MyModel``, or the class.
        settings: Settings that differ from the defaults.
        dims: Stream → dim of the random features; by default three streams, or one for a model with ``one_stream``.

    Raises:
        AssertionError: A check fails; the message states which.
        InputError: The model is not known.
        ConfigError: A setting is wrong, or the class cannot be imported or lacks a part of the protocol.

    Example:
        >>> from arabesque.testing import check_model
        >>> check_model("gdlt")
    """
    contract = ModelContract(model, settings=settings, dims=dims)
    for check in MODEL_CHECKS:
        getattr(contract, check)()


def random_batch(dims: Mapping[str, int], lengths: Mapping[str, Sequence[int]], *, seed: int = 0) -> SegmentBatch:
    """Return random features, padded with zeros and with a mask that is False in the padding.

    Args:
        dims: Stream → dim.
        lengths: Stream → segments of each sample.
        seed: Determines the features.
    """
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for stream, dim in dims.items():
        longest = max([1, *lengths[stream]])
        masks[stream] = torch.arange(longest) < torch.tensor(list(lengths[stream]))[:, None]
        drawn = torch.randn(len(lengths[stream]), longest, dim, generator=generator)
        features[stream] = drawn * masks[stream].unsqueeze(-1)
    return SegmentBatch(features, masks)


def _require(condition: bool, message: str) -> None:
    """Raise if the condition is False, also under ``python -O``, which removes assert statements."""
    if not condition:
        raise AssertionError(message)


def _trained_a_little(network: nn.Module, batch: SegmentBatch) -> nn.Module:
    """Train for three steps, because initial weights are often zero and running statistics have no effect yet."""
    wanted = torch.tensor([0.2, 0.8, 0.4, 0.6]).to(next(iter(batch.features.values())))
    if isinstance(network, Solvable):
        network.solve(_thrice(batch), wanted.repeat(3))
        return network.eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    torch.manual_seed(0)
    for _ in range(3):
        prediction = network(batch)
        optimizer.zero_grad()
        (nn.functional.mse_loss(prediction.score, wanted) + prediction.penalty).backward()
        optimizer.step()
    return network.eval()


def _thrice(batch: SegmentBatch) -> SegmentBatch:
    """Return twelve samples, the number that a cross-validation inside the training videos needs."""
    return SegmentBatch(
        {stream: torch.cat([values, 1.1 * values, 0.9 * values]) for stream, values in batch.features.items()},
        {stream: mask.repeat(3, 1) for stream, mask in batch.masks.items()},
    )


def _rows(batch: SegmentBatch, chosen: list[int], length: int) -> SegmentBatch:
    return SegmentBatch(
        {stream: values[chosen, :length] for stream, values in batch.features.items()},
        {stream: mask[chosen, :length] for stream, mask in batch.masks.items()},
    )


def _double(batch: SegmentBatch) -> SegmentBatch:
    return SegmentBatch({stream: values.double() for stream, values in batch.features.items()}, batch.masks)


def _without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return network
