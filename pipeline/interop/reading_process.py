"""Parent side of the child process that parses untrusted feature files; `reading_child` is the child's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from ...manifests.errors import InputError, StoreError
from ..system.child_process import ChildLost, IsolatedChild
from ..system.typed_data import MalformedDataError
from .feature_arrays import FeatureArray
from .reading_messages import ANSWERS, LIMITS, Listed, Load, Loaded, ReadRequest, Refused

T = TypeVar("T", Listed, Loaded)

_LOG = logging.getLogger(__name__)

MAX_RESTARTS = 20
MAX_TOTAL_RATIO = 32
"""Maximal ratio of the size of all arrays to the size of their files."""
SMALL_TOTAL_BYTES = 2 << 30
"""Total array size that is always allowed."""


@dataclass(frozen=True)
class ReadLimits:
    """Limits of the child process, in addition to amounts that depend on the file size."""

    memory_bytes: int = 1 << 30
    """Plus four times the size of the largest file, because a pickle is loaded completely."""
    timeout_s: float = 120.0
    """Limit for one array or for the listing, plus one second per 4 MB of the largest file."""


@dataclass(frozen=True)
class SourceListing:
    """The arrays at a path."""

    format: str
    arrays: tuple[FeatureArray, ...]
    problems: tuple[str, ...]


class ReadingProcess:
    """Lists and loads the arrays at a path in a child process, which is restarted after a crash.

    Raises:
        InputError: The format cannot be detected.
        StoreError: No file can be read.
    """

    def __init__(
        self, path: Path, format: str | None, trust: bool, names: Mapping[str, str], limits: ReadLimits
    ) -> None:
        largest_bytes, self._total_bytes = _sizes(path)
        self._path = path
        self._request = ReadRequest(
            path,
            format,
            trust,
            dict(names),
            memory_bytes=None if trust else limits.memory_bytes + 4 * largest_bytes,
            timeout_s=None if trust else limits.timeout_s + largest_bytes / 4e6,
        )
        self._delivered: dict[int, int] = {}
        self._num_starts = 0
        self._is_closed = False
        self._child: IsolatedChild | None = None
        try:
            self._listed = self._start()
        except ChildLost as error:
            raise StoreError(f"{path}: the process that reads it {error}; get the file from another source") from error
        arrays = tuple(
            FeatureArray(
                video_id,
                stream,
                file,
                partial(self._load, number),
                member,
                load_times=partial(self._load, number, is_times=True) if has_times else None,
                resize=resize,
            )
            for number, (video_id, stream, file, member, has_times, resize) in enumerate(self._listed.arrays)
        )
        self.listing = SourceListing(self._listed.format, arrays, self._listed.problems)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_closed = True
        self._end()

    def _start(self) -> Listed:
        self._num_starts += 1
        self._child = IsolatedChild("arabesque.pipeline.interop.reading_child", self._request.timeout_s, LIMITS)
        try:
            return self._ask(self._request, Listed)
        except (InputError, StoreError):
            self._end()
            raise

    def _load(self, number: int, is_times: bool = False) -> NDArray[Any]:
        _, _, file, member, *_ = self._listed.arrays[number]
        name = f"{file}: {member}" if member else str(file)
        if self._is_closed:
            raise StoreError(f"{self._path}: the source is closed; open it again")
        try:
            if self._child is None:
                self._restart(name)
            values = self._ask(Load(number, is_times), Loaded).array()
        except (ChildLost, MalformedDataError) as error:
            self._end()
            lost = ChildLost.malformed(error) if isinstance(error, MalformedDataError) else error
            raise StoreError(f"{name}: the process that reads it {lost}; get the file from another source") from error
        if not is_times:
            self._delivered[number] = values.nbytes
        if sum(self._delivered.values()) > max(SMALL_TOTAL_BYTES, MAX_TOTAL_RATIO * self._total_bytes):
            raise StoreError(f"{name}: the arrays are more than {MAX_TOTAL_RATIO} times as large as the files")
        return values

    def _restart(self, name: str) -> None:
        if self._num_starts > MAX_RESTARTS:
            raise StoreError(f"{name}: not read; the reading process was ended {MAX_RESTARTS} times")
        _LOG.info("%s: starting another reading process", self._path)
        if self._start().arrays != self._listed.arrays:
            raise StoreError(f"{self._path}: changed while it was read; read it again")

    def _ask(self, request: ReadRequest | Load, kind: type[T]) -> T:
        """Return the answer. Raises `InputError` and `StoreError` as the child reports them, and `ChildLost`."""
        assert self._child is not None
        try:
            self._child.send(request)
            answer = self._child.receive(ANSWERS)
            if isinstance(answer, Refused):
                raise (InputError if answer.error == "usage" else StoreError)(answer.message)
            if not isinstance(answer, kind):
                raise ChildLost(f"sent {type(answer).__name__} instead of {kind.__name__} and was ended")
        except ChildLost:
            self._end()
            raise
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _sizes(path: Path) -> tuple[int, int]:
    """Return the sizes in bytes of the largest file and of all files at a path."""
    sizes = [0]
    for file in path.rglob("*") if path.is_dir() else [path]:
        try:
            sizes.append(file.stat().st_size)
        except OSError:
            continue
    return max(sizes), sum(sizes)
