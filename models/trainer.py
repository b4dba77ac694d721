"""Train one model with one seed, stage by stage. A killed training can resume at its last saved epoch."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import ConfigError, WeightsError
from .checkpoints import (
    ModelCard,
    from_json_with_digest,
    load_checkpoint,
    new_network,
    save_checkpoint,
    to_json_with_digest,
    write_atomically,
)
from .experiment import Experiment, PartStage, Stage
from .features import LabeledSamples
from .fitting import Fitting
from .metric_log import LogFormat, open_log
from .objective import Objective, ScoreRegression
from .protocol import Protocol
from .samples import rows_of
from .scoring import CrossValidating, Solvable
from .splits import duplicates, hold_out
from .standardization import Standardized, without_standardization
from .table import code_of

STATE = "training.pt"
RESULT = "result.json"
CROSS_VALIDATION = "cross-validation.json"
EPOCHS = "epochs.npy"
"""Predictions of the test videos after each epoch of ``best-test``, ``float64 [epochs, videos]``, in score units"""
SAVE_EVERY_S = 20.0

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of finished epochs and the total number of epochs of a stage."""


@dataclass(frozen=True)
class SeedResult:
    """Result of one seed, in score units."""

    seed: int
    selection: str
    epoch: int
    """Epoch of the selected weights in the last stage, counted from 1"""
    test: dict[str, Any]
    """video_id → prediction with the selected weights"""
    last: dict[str, Any]
    """video_id → prediction with the weights of the last epoch"""
    history: tuple[float, ...]
    """Quality after each epoch of the last stage on the videos that select the epoch, e.g. Spearman's correlation"""


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of the training and the test videos."""

    train: Tensor
    test: Tensor


class Trainer:
    """Trains one network with one seed: runs the stages of an experiment, selects epochs, predicts the test videos.

    The network is trained on the device of the features (`LabeledSamples.to`).

    Args:
        data: Features and scores.
        split: Training and test videos.
        experiment: Model, settings and stages.
        card: Description that is saved with the model, including the seed.
        folder: Folder for state, model and result, which no other trainer may use. None: no files are written, and an
            interrupted training starts again.
        objective: Objective of the training; None for `ScoreRegression` on the scores of the data.
        log: Format of the curves that are written to the folder: loss, learning rate and metric of each epoch.

    Example:
        >>> trainer = Trainer(data, split, experiment, card, Path("model/seed-0"))  # doctest: +SKIP
        >>> trainer.result().test  # doctest: +SKIP
        {'Ball_001': 14.2, 'Ball_007': 12.9}
    """

    def __init__(
        self,
        data: LabeledSamples,
        split: Split,
        experiment: Experiment,
        card: ModelCard,
        folder: Path | None,
        *,
        objective: Objective | None = None,
        log: LogFormat | None = None,
    ) -> None:
        self.data = data
        self.split = split
        self.experiment = experiment
        self.card = card
        self.folder = folder
        self._log: LogFormat | None = log
        self._digest = experiment.digest(
            card.seed,
            card.target,
            card.score_range,
            json.dumps(card.streams, sort_keys=True, default=str),
            list(data.samples.names(split.train)),
            list(data.samples.names(split.test)),
            data.scores.tolist(),
            *duplicates(data.samples.video_ids, data.contents),
            *code_of(experiment.model).values(),
            *([] if objective is None else [objective.metric, objective.targets.cpu().numpy().tolist()]),
            *(repr(scores.tolist()) for scores in data.others.values() if experiment.settings.get("others_weight")),
        )
        self._objective = objective or ScoreRegression(data.scores, card.score_range, data.samples.device)

    def result(self, on_epoch: Progress | None = None) -> SeedResult:
        """Return the result, from disk or after training the remaining epochs, and write it to the folder.

        Args:
            on_epoch: Progress callback; it counts each stage separately.

        Raises:
            ConfigError: A stage names a module that the network does not have.
            ArabesqueError: The loss is not finite.
            StoreError: A file cannot be written.
        """
        done = self.finished()
        if done is not None:
            if self.folder is not None:  # a run that was killed after writing the result did not remove its state
                (self.folder / STATE).unlink(missing_ok=True)
            return done
        network, result = self.fit(on_epoch)
        if self.folder is not None:
            # removed first: if the run is killed before the new result is written, the next run repeats this step
            (self.folder / RESULT).unlink(missing_ok=True)
            save_checkpoint(self.folder, network, self.card)
            write_atomically(self.folder / RESULT, to_json_with_digest({"digest": self._digest, **asdict(result)}))
            (self.folder / STATE).unlink(missing_ok=True)
        return result

    def fit(self, on_epoch: Progress | None = None) -> tuple[nn.Module, SeedResult]:
        """Train the remaining epochs and return the network with the selected weights, and the result."""
        network = new_network(self.card).to(self.data.samples.device)
        self._check_modules(network)
        if isinstance(network, Standardized):
            network.learn(self.data.samples, self.split.train)
        if isinstance(network, Solvable):
            return network, self._solve(network)
        saved = self._saved_state()
        best = _Best()
        for number, stage in enumerate(self.experiment.stages):
            if saved is not None and number < saved["stage"]:
                continue  # the saved network includes the weights of these stages
            if isinstance(stage, PartStage):
                self._copy_parts(network, stage, on_epoch)
                continue
            if best.network:
                network.load_state_dict(best.network)
            best = self._run_stage(network, number, stage, saved, on_epoch)
        last = self._objective.predict(network, self.data.samples, self.split.test)
        if best.network:
            network.load_state_dict(best.network)
        test = self._objective.predict(network, self.data.samples, self.split.test)
        selection = self.experiment.protocol.selection
        return network, SeedResult(self.card.seed, selection, best.epoch, test, last, tuple(best.history))

    def _check_modules(self, network: nn.Module) -> None:
        """Raise `ConfigError` before the first epoch if a stage names a module that the network does not have."""
        modules: Any = without_standardization(network)
        known: set[str] = {name for name, _ in modules.named_modules()}
        for number, stage in enumerate(self.experiment.stages, start=1):
            if isinstance(stage, Stage):
                wanted = stage.frozen
            else:
                wanted = tuple(stage.module_for(stream) for stream in self.experiment.streams)
            for name in wanted:
                if name not in known:
                    parts = sorted({".".join(each.split(".")[:2]) for each in known if each})
                    raise ConfigError(
                        f"{self.experiment.model}: stage {number} names the module {name!r}, but the network only has "
                        f"{', '.join(parts)}"
                    )

    def _copy_parts(self, network: nn.Module, stage: PartStage, on_epoch: Progress | None) -> None:
        """Train the other model of the stage on each stream, and copy its weights into the network."""
        for stream in self.experiment.streams:
            trained = without_standardization(self._part_trainer(stage, stream).network(on_epoch))
            part = without_standardization(network).get_submodule(stage.module_for(stream))
            try:
                part.load_state_dict(trained.get_submodule(stage.copy_from).state_dict())
            except (AttributeError, RuntimeError) as error:
                raise ConfigError(
                    f"{self.experiment.model}: the weights of {stage.copy_from or 'all'} of {stage.model} do not fit "
                    f"{stage.copy_to} ({str(error).splitlines()[-1].strip()})"
                ) from error

    def network(self, on_epoch: Progress | None = None) -> nn.Module:
        """Return the network with the selected weights, from disk or after training the remaining epochs."""
        if self.folder is None:
            return self.fit(on_epoch)[0]
        self.result(on_epoch)
        return load_checkpoint(self.folder)[0].to(self.data.samples.device)

    def _part_trainer(self, stage: PartStage, stream: str) -> Trainer:
        experiment = self.experiment.part(stage, stream)
        card = self.card.model_copy(
            update={
                "model": experiment.model,
                "settings": experiment.settings,
                "dims": {stream: self.card.dims[stream]},
                "streams": {stream: self.card.streams[stream]},
                "protocol": experiment.protocol,
            }
        )
        only = self.data.samples.only([stream])
        data = LabeledSamples(only, self.data.scores, card.streams, contents=self.data.contents)
        folder = None if self.folder is None else self.folder / f"{stage.copy_to.partition('.')[0]}-{stream}"
        return Trainer(data, self.split, experiment, card, folder, objective=self._objective, log=self._log)

    def _solve(self, network: nn.Module) -> SeedResult:
        rows = self.split.train
        batch = self.data.samples.whole(rows)
        targets = self._objective.targets[rows.to(self._objective.targets.device)]
        if isinstance(network, CrossValidating):
            names = self.data.samples.names(rows)
            contents = [self.data.contents.get(name, name) for name in names]
            others = {name: torch.as_tensor(scores)[rows.cpu()] for name, scores in self.data.others.items()}
            network.solve(batch, targets, [contents.index(content) for content in contents], others)
            self._write_cross_validation(network, names)
        else:
            assert isinstance(network, Solvable)
            network.solve(batch, targets)
        test = self._objective.predict(network, self.data.samples, self.split.test)
        return SeedResult(self.card.seed, "solved", 1, test, test, ())

    def _write_cross_validation(self, network: CrossValidating, names: Sequence[str]) -> None:
        """Write all configurations with their cross-validated correlation, and the held-out predictions."""
        found = network.cross_validation
        if found is None or self.folder is None:
            return
        low, high = self.card.score_range
        held_out = {name: low + (high - low) * value for name, value in zip(names, found.held_out, strict=True)}
        content = to_json_with_digest({**asdict(found), "held_out": held_out})
        write_atomically(self.folder / CROSS_VALIDATION, content)

    def _run_stage(
        self, network: nn.Module, number: int, stage: Stage, saved: dict[str, Any] | None, on_epoch: Progress | None
    ) -> _Best:
        """Train the network in one stage. Afterwards it has the weights of the last epoch."""
        train, watched = self._selection_rows(stage.protocol)
        fitting = Fitting(network, self.data.samples, self._objective, train, stage, self.card.seed)
        best = _Best()
        if saved is not None and saved["stage"] == number:
            fitting.load_state_dict(saved["fitting"])
            best.load_state_dict(saved["best"])
        log = open_log(self._log, self.folder)
        if log is not None:
            log.start(number + 1, fitting.epoch)
        saved_at = time.monotonic()
        while fitting.epoch < stage.protocol.epochs:
            metrics = {"loss": fitting.run_epoch(), "learning_rate": fitting.learning_rate}
            if watched is not None:
                predictions = self._objective.predict(network, self.data.samples, watched)
                metrics[self._objective.metric] = self._objective.quality(predictions, watched)
                best.update(fitting, metrics[self._objective.metric])
                if stage.protocol.selection == "best-test":
                    best.predictions.append([score for score in predictions.values() if isinstance(score, float)])
            if log is not None:
                log.write(number + 1, fitting.epoch, metrics)
            if on_epoch is not None:
                on_epoch(fitting.epoch, stage.protocol.epochs)
            if self.folder is not None and time.monotonic() - saved_at > SAVE_EVERY_S:
                self._save(self.folder, number, fitting, best)
                saved_at = time.monotonic()
        if log is not None:
            log.close()
        if not best.network:
            best.epoch = fitting.epoch
        if best.predictions and self.folder is not None:
            content = io.BytesIO()
            np.save(content, np.array(best.predictions))
            write_atomically(self.folder / EPOCHS, content.getvalue())
        return best

    def _selection_rows(self, protocol: Protocol) -> tuple[Tensor, Tensor | None]:
        """Return the training rows and the rows that select the epoch."""
        if protocol.selection == "last":
            return self.split.train, None
        if protocol.selection == "best-test":
            return self.split.train, self.split.test
        names = self.data.samples.names(self.split.train)
        rest, held = hold_out(names, protocol.validation_fraction, self.card.seed, self.data.contents)
        return rows_of(self.data.samples, rest), rows_of(self.data.samples, held)

    def finished(self) -> SeedResult | None:
        """Return the result in the folder if result and model are complete and belong to this run, otherwise None."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / RESULT).read_bytes()
            _, card = load_checkpoint(self.folder)
            # format 2 has no digests in models and results
            found = json.loads(content) if card.unverified else from_json_with_digest(content, RESULT)
        except (OSError, ValueError, WeightsError):
            return None
        if found.pop("digest", None) != self._digest:
            return None
        found["history"] = tuple(math.nan if value is None else float(value) for value in found["history"])
        return SeedResult(**found)

    def _save(self, folder: Path, stage: int, fitting: Fitting, best: _Best) -> None:
        content = io.BytesIO()
        state = {"stage": stage, "fitting": fitting.state_dict(), "best": best.state_dict()}
        torch.save({"digest": self._digest, **state}, content)
        data = content.getvalue()
        write_atomically(folder / STATE, hashlib.sha256(data).digest() + data)

    def _saved_state(self) -> dict[str, Any] | None:
        """Return the last saved state of this run; None without a state, or for a state of other settings or data."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / STATE).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            _log.warning(
                "%s: is damaged or was written by another version; training starts at epoch 1", self.folder / STATE
            )
            return None
        state = torch.load(io.BytesIO(content), map_location=self.data.samples.device, weights_only=True)
        return state if state["digest"] == self._digest and "stage" in state else None


class _Best:
    """The weights of the first epoch with the highest quality."""

    def __init__(self) -> None:
        self.epoch = 0
        self.value = -math.inf
        self.network: dict[str, Tensor] = {}
        self.history: list[float] = []
        self.predictions: list[list[float]] = []
        """Scores of the test videos after each epoch, if they select the epoch"""

    def update(self, fitting: Fitting, value: float) -> None:
        self.history.append(value)
        if value > self.value or (not self.network and np.isnan(value)):
            self.epoch, self.value = fitting.epoch, -math.inf if np.isnan(value) else value
            self.network = {name: tensor.clone() for name, tensor in fitting.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def epoch_predictions(folder: Path) -> np.ndarray:
    """Return the predictions of the test videos after each epoch, ``[epochs, videos]``, of a run with ``best-test``."""
    return np.load(folder / EPOCHS, allow_pickle=False)


def read_cross_validation(folder: Path) -> dict[str, Any] | None:
    """Return the `CrossValidation` of the model of a finished run, with ``held_out`` by video_id, in score units.

    The result is None for a model without one.
    """
    path = folder / CROSS_VALIDATION
    return from_json_with_digest(path.read_bytes(), path.name) if path.is_file() else None


def split_of(data: LabeledSamples, train: Sequence[str], test: Sequence[str]) -> Split:
    """Return the rows of the listed videos. Videos without features are ignored."""
    known = set(data.samples.video_ids)
    return Split(
        rows_of(data.samples, [name for name in train if name in known]),
        rows_of(data.samples, [name for name in test if name in known]),
    )
