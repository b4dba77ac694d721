"""What a run does where its engine does not do what it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.runner import FailureWatch, outputs_of


class Stuck:
    """A pipeline that gives one item and then neither another nor an end; its stage fails meanwhile."""

    def __init__(self, watch: FailureWatch) -> None:
        self._watch = watch
        self._num_reads = 0

    def get_iterator(self, timeout: float) -> Iterator[str]:
        return self

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._num_reads += 1
        if self._num_reads == 1:
            return "item"
        if self._num_reads == 4:
            self._watch.error = StoreError("the disk is full")
        raise TimeoutError


def test_a_failed_stage_is_told_where_the_engine_gives_no_end():
    watch = FailureWatch(lambda: None)
    items = outputs_of(Stuck(watch), watch)
    assert next(items) == "item"
    with pytest.raises(StoreError, match="the disk is full"):
        next(items)
