"""A record of how often the test videos of a data set were scored.

A result on test videos is unbiased only if earlier results on them did not influence any choice. Each command that
scores them adds a line to ``test-openings.jsonl`` in the folder of its results; reports state the count.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..manifests.errors import StoreError

RECORD = "test-openings.jsonl"


@dataclass(frozen=True)
class Opening:
    """One scoring of test videos."""

    dataset: str
    target: str
    what: str
    """The scored model and its settings"""
    time: str
    """UTC, ISO 8601"""


def record_opening(folder: Path, dataset: str, target: str, what: str) -> int:
    """Add a line to the record of the folder; return how often test videos of this target were scored, including now.

    Raises:
        StoreError: The record cannot be read or written.
    """
    opening = Opening(dataset, target, what, datetime.now(UTC).isoformat(timespec="seconds"))
    path = folder / RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a single write of a short line in append mode, so that lines of parallel commands are not mixed
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (json.dumps(asdict(opening), ensure_ascii=False) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another --out or make room") from error
    return sum(each.dataset == dataset and each.target == target for each in openings(folder))


def openings(folder: Path) -> list[Opening]:
    """Return the record of the folder, oldest first; an empty list without a record.

    Raises:
        StoreError: The record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return []
    found: list[Opening] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Opening(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path}, line {number}: not a line of this record ({error}); restore it") from error
    return found
