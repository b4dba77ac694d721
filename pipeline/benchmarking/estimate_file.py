"""Save an estimate in the user's cache, so that its run can report the estimate's error."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ...manifests.errors import InputError
from ..extraction import Extraction
from ..records import state_of
from ..system.user_cache import user_cache
from .estimate import Estimate
from .resources import PeakMemory, peaks_of_past


@dataclass(frozen=True)
class Actual:
    """Measured time, memory and disk space of a run."""

    time_s: float
    memory: PeakMemory
    disk_bytes: int | None
    """Growth of its store; None on object storage."""


def save_estimate(run: Extraction, estimate: Estimate) -> None:
    """Save the estimate for a run of the same command with the same remaining videos, if the cache can be written."""
    with suppress(OSError, InputError):  # InputError: the user has no home folder
        path = _path_for(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(estimate.model_dump_json(indent=2) + "\n", encoding="utf-8")


def pop_estimate(run: Extraction) -> Estimate | None:
    """Return the saved estimate of this run and delete it, since a resumed run has less to do.

    Returns:
        The estimate; None if there is none, or if another version of arabesque wrote it.
    """
    try:
        path = _path_for(run)
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return Estimate.model_validate_json(text)
    except (OSError, InputError, ValidationError):
        return None


def measure_run(run: Extraction, time_s: float, disk_before_bytes: int | None) -> Actual:
    """Return what a run took that has ended in this process."""
    after = store_bytes(run)
    grown = None if after is None or disk_before_bytes is None else after - disk_before_bytes
    return Actual(time_s, peaks_of_past(run.options.device), grown)


def store_bytes(run: Extraction) -> int | None:
    """Return the size of all shards of the run's store; None on object storage."""
    if not isinstance(run.out, Path):
        return None
    states = (state_of(path) for path in run.out.rglob("*.parquet"))
    return sum(state.size_bytes for state in states if state is not None)  # None: another run has merged the shard


def _path_for(run: Extraction) -> Path:
    """Return a path whose name identifies the run: its store, remaining videos, settings and options."""
    options = run.options
    identity = {
        "out": str(run.out.resolve() if isinstance(run.out, Path) else run.out),
        "remaining": [(file.video_id, str(file.path)) for file in run.remaining],
        "settings": run.settings_digests,
        "options": [str(options.device), options.decoder, options.num_decoders, options.num_cpu_threads],
        "float16": options.float16,
        "one worker": run.executor is None,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return user_cache() / "estimates" / f"{digest[:32]}.json"
