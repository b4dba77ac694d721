"""One training by one seed, from first weights to judged test videos; killed, it goes on from its last saved epoch."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import ModelCard, new_network, put_whole, save_checkpoint, to_json
from .experiment import Experiment
from .features import LabelledRoutines
from .fitting import Fitting, judge
from .metrics import spearman
from .pamfn import Pamfn
from .routines import rows_of
from .scoring import Solvable
from .splits import hold_out
from .standardising import Standardised

STATE = "training.pt"
RESULT = "result.json"
SAVE_EVERY_S = 20.0

Progress = Callable[[int, int], None]
"""Called with epochs done and to do."""


@dataclass(frozen=True)
class SeedResult:
    """What one seed came to, in score units."""

    seed: int
    selection: str
    epoch: int
    """Whose weights were chosen, counting from 1"""
    test: dict[str, float]
    """video_id → prediction by the chosen weights"""
    last: dict[str, float]
    """The same by the last epoch's weights"""
    history: tuple[float, ...]
    """Spearman's correlation, epoch by epoch, on the videos that the selection looks at"""


@dataclass(frozen=True, eq=False)
class Split:
    """Who trains and who is judged."""

    train: Tensor
    test: Tensor


class SeedRun:
    """Trains in ``folder``, which is this run's own; a finished run is read back instead of repeated."""

    def __init__(
        self, data: LabelledRoutines, split: Split, experiment: Experiment, card: ModelCard, folder: Path
    ) -> None:
        self.data = data
        self.split = split
        self.experiment = experiment
        self.card = card
        self.folder = folder
        self._digest = experiment.digest(
            card.seed,
            card.target,
            card.score_range,
            json.dumps(card.streams, sort_keys=True, default=str),
            list(data.routines.names(split.train)),
            list(data.routines.names(split.test)),
            data.scores.tolist(),
        )
        low, high = card.score_range
        self._fractions = torch.from_numpy((data.scores - low) / (high - low))

    def result(self, on_epoch: Progress | None = None) -> SeedResult:
        """The finished run's result, after whatever was left to do."""
        done = self.finished()
        if done is not None:
            return done
        network = new_network(self.card)
        self._begin(network, on_epoch)
        if isinstance(network, Solvable):
            return self._solved(network)
        result = self._trained(network, on_epoch)
        put_whole(self.folder / RESULT, to_json({"digest": self._digest, **asdict(result)}))
        (self.folder / STATE).unlink(missing_ok=True)
        return result

    def _begin(self, network: nn.Module, on_epoch: Progress | None) -> None:
        """What comes before the first epoch: features' statistics, and branches trained on their own."""
        if isinstance(network, Standardised):
            network.learn(self.data.routines, self.split.train)
        if self.experiment.branches is not None:
            assert isinstance(network, Pamfn)
            for stream in self.experiment.streams:
                branch = self._branch_run(stream)
                branch.result(on_epoch)
                state = torch.load(branch.folder / "model.pt", weights_only=True)
                network.branches[stream].load_state_dict(
                    {name.removeprefix("branch."): value for name, value in state.items()}
                )

    def _branch_run(self, stream: str) -> SeedRun:
        experiment = self.experiment.branch(stream)
        card = self.card.model_copy(
            update={
                "model": experiment.model,
                "settings": experiment.settings,
                "dims": {stream: self.card.dims[stream]},
                "streams": {stream: self.card.streams[stream]},
                "protocol": experiment.protocol,
            }
        )
        only = self.data.routines.only([stream])
        data = LabelledRoutines(only, self.data.scores, card.streams)
        return SeedRun(data, self.split, experiment, card, self.folder / f"branch-{stream}")

    def _solved(self, network: nn.Module) -> SeedResult:
        assert isinstance(network, Solvable)
        rows = self.split.train
        network.solve(self.data.routines.whole(rows), self._fractions[rows].float())
        test = self._predict(network)
        save_checkpoint(self.folder, network, self.card)
        result = SeedResult(self.card.seed, "solved", 1, test, test, ())
        put_whole(self.folder / RESULT, to_json({"digest": self._digest, **asdict(result)}))
        return result

    def _trained(self, network: nn.Module, on_epoch: Progress | None) -> SeedResult:
        protocol = self.experiment.protocol
        train, watched = self._watched()
        fitting = Fitting(network, self.data.routines, self._fractions, train, protocol, self.card.seed)
        best = _Best()
        self._resume(fitting, best)
        saved_at = time.monotonic()
        while fitting.epoch < protocol.epochs:
            fitting.run_epoch()
            if watched is not None:
                best.look(fitting, self._correlation(network, watched))
            if on_epoch is not None:
                on_epoch(fitting.epoch, protocol.epochs)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                self._save(fitting, best)
                saved_at = time.monotonic()
        last = self._predict(network)
        if best.network:
            network.load_state_dict(best.network)
        save_checkpoint(self.folder, network, self.card)
        epoch = best.epoch if best.network else fitting.epoch
        return SeedResult(self.card.seed, protocol.selection, epoch, self._predict(network), last, tuple(best.history))

    def _watched(self) -> tuple[Tensor, Tensor | None]:
        """Who trains, and whose correlation chooses the epoch."""
        protocol = self.experiment.protocol
        if protocol.selection == "last":
            return self.split.train, None
        if protocol.selection == "best-test":
            return self.split.train, self.split.test
        names = self.data.routines.names(self.split.train)
        rest, held = hold_out(names, protocol.validation_fraction, self.card.seed)
        return rows_of(self.data.routines, rest), rows_of(self.data.routines, held)

    def _correlation(self, network: nn.Module, rows: Tensor) -> float:
        predicted = judge(network, self.data.routines, rows).numpy()
        return spearman(predicted, self.data.scores[rows.numpy()])

    def _predict(self, network: nn.Module) -> dict[str, float]:
        low, high = self.card.score_range
        predicted = low + (high - low) * judge(network, self.data.routines, self.split.test).numpy()
        names = self.data.routines.names(self.split.test)
        return dict(zip(names, predicted.tolist(), strict=True))

    def finished(self) -> SeedResult | None:
        """The result that stands in the folder, if it is this run's; None where there is something left to do."""
        try:
            content = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.pop("digest", None) != self._digest:
            return None
        history = tuple(math.nan if value is None else value for value in content["history"])
        return SeedResult(**{**content, "history": history})

    def _save(self, fitting: Fitting, best: _Best) -> None:
        content = io.BytesIO()
        torch.save({"digest": self._digest, "fitting": fitting.state_dict(), "best": best.state_dict()}, content)
        put_whole(self.folder / STATE, content.getvalue())

    def _resume(self, fitting: Fitting, best: _Best) -> None:
        """From the last saved epoch of the same run; a state of other settings or data is not touched."""
        if not (self.folder / STATE).is_file():
            return
        state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        if state["digest"] == self._digest:
            fitting.load_state_dict(state["fitting"])
            best.load_state_dict(state["best"])


class _Best:
    """The weights of the epoch whose correlation was highest; the first of equals."""

    def __init__(self) -> None:
        self.epoch = 0
        self.value = -math.inf
        self.network: dict[str, Tensor] = {}
        self.history: list[float] = []

    def look(self, fitting: Fitting, value: float) -> None:
        self.history.append(value)
        if value > self.value or (not self.network and np.isnan(value)):
            self.epoch, self.value = fitting.epoch, -math.inf if np.isnan(value) else value
            self.network = {name: tensor.clone() for name, tensor in fitting.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def split_of(data: LabelledRoutines, train: Sequence[str], test: Sequence[str]) -> Split:
    """The videos of each list that are there."""
    known = set(data.routines.video_ids)
    return Split(
        rows_of(data.routines, [name for name in train if name in known]),
        rows_of(data.routines, [name for name in test if name in known]),
    )
