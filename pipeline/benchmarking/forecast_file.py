"""Keeps a forecast until its run can say how far off it was: in the user's cache, where no run relies on anything."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..extraction import Extraction
from ..records import state_of
from ..user_cache import user_cache
from .forecast import Forecast
from .resources import PeakMemory, peaks_of_past


@dataclass(frozen=True)
class Actual:
    """What a run took."""

    time_s: float
    memory: PeakMemory
    disk_bytes: int | None
    """What its store grew by; None on object storage."""


def keep_forecast(run: Extraction, forecast: Forecast) -> None:
    """For the run of the same command with the same work left to do. A cache that cannot be written keeps none."""
    with suppress(OSError, RuntimeError):  # RuntimeError: a process of nobody's has no home
        path = _place(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(forecast.model_dump_json(indent=2) + "\n", encoding="utf-8")


def take_forecast(run: Extraction) -> Forecast | None:
    """The forecast that was kept for this run, which then forgets it: a run that goes on has less to do.

    None where there is none, and where another version of arabesque wrote it.
    """
    try:
        path = _place(run)
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return Forecast.model_validate_json(text)
    except (OSError, RuntimeError, ValidationError):
        return None


def what_it_took(run: Extraction, time_s: float, disk_before_bytes: int | None) -> Actual:
    """Once the run has ended in this process."""
    after = store_bytes(run)
    grown = None if after is None or disk_before_bytes is None else after - disk_before_bytes
    return Actual(time_s, peaks_of_past(run.options.device), grown)


def store_bytes(run: Extraction) -> int | None:
    """What stands in the run's store."""
    if not isinstance(run.out, Path):
        return None
    states = (state_of(path) for path in run.out.rglob("*.parquet"))
    return sum(state.size_bytes for state in states if state is not None)  # None: merged meanwhile, by another run


def _place(run: Extraction) -> Path:
    """Named by all that makes a run the same one: its store, what it owes, its settings and how it is carried out."""
    options = run.options
    identity = {
        "out": str(run.out.resolve() if isinstance(run.out, Path) else run.out),
        "pending": [(file.video_id, str(file.path)) for file in run.pending],
        "settings": run.settings_digests,
        "options": [str(options.device), options.decoder, options.num_decoders, options.num_cpu_threads],
        "float16": options.float16,
        "one worker": run.executor is None,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return user_cache() / "forecasts" / f"{digest[:32]}.json"
