"""Random access to rows: each shard is opened once, and a row is read by one read operation.

The values of a row of format 1.1 are consecutive bytes of its shard: the pages of ``features`` are neither compressed
nor encoded, and each row group has one of them (docs/store-format.md). Their position follows from the footer and the
lengths of the rows, so that no Parquet code runs for a row. Rows of earlier shards are decoded by row group.

The checksum of each row is verified when a process first reads it. If it does not match, the row is read again by
`read_rows`, which also verifies the pages and reports the damage.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import FeatureRow
from .files.storage import RangedFile, Storage
from .shard_reading import ShardTable, read_rows, read_shard_table
from .shard_writing import checksum

MAX_OPEN = 256
"""Maximal number of open shards of one store. Each has a file descriptor and the columns other than features, some kB
per row."""
MAX_GAP_BYTES = 256 << 10
"""Rows with a smaller gap between them are read from object storage by one request."""


class OpenShards:
    """The open shards of one store. The least recently used one is closed first. Threads must not share this object.

    Args:
        storage: The store's files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: OrderedDict[str, _OpenShard] = OrderedDict()

    def rows(self, shard: str, numbers: Sequence[int]) -> Iterator[tuple[int, FeatureRow]]:
        """Yield (number, row) of a shard, ascending by number.

        Raises:
            FileNotFoundError: The shard was merged before it was opened.
            StoreError: A row is damaged.
        """
        yield from self._opened(shard).rows(sorted(set(numbers)))

    def close(self) -> None:
        """Close all shards."""
        while self._open:
            self._open.popitem()[1].file.close()

    def _opened(self, name: str) -> _OpenShard:
        shard = self._open.get(name)
        if shard is None:
            table = read_shard_table(self._storage, name)
            shard = _OpenShard(self._storage, name, table, self._storage.ranged(name), np.zeros(len(table.rows), bool))
            self._open[name] = shard
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].file.close()
        self._open.move_to_end(name)
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {"_storage": self._storage, "_open": OrderedDict[str, _OpenShard]()}


@dataclass(eq=False)
class _OpenShard:
    storage: Storage
    name: str
    table: ShardTable
    file: RangedFile
    verified: NDArray[np.bool_]

    def rows(self, numbers: Sequence[int]) -> Iterator[tuple[int, FeatureRow]]:
        direct = [number for number in numbers if self.table.places[number] >= 0]
        found: dict[int, FeatureRow] = {}
        for values, number in zip(self._values(direct), direct, strict=True):
            row = self._row(number, values)
            if row is not None:
                found[number] = row
        others = [number for number in numbers if number not in found]
        if others:
            found |= {number: stored.row for number, stored in read_rows(self.storage, self.name, others)}
        yield from ((number, found.pop(number)) for number in numbers)

    def _values(self, numbers: Sequence[int]) -> list[NDArray[Any]]:
        """Read the values of rows, each in its shape."""
        table, arrays = self.table, list[NDArray[Any]]()
        pieces: list[tuple[int, NDArray[np.uint8]]] = []
        for number in numbers:
            array = np.empty(table.shapes[number], table.dtype)
            arrays.append(array)
            pieces.append((int(table.places[number]), array.reshape(-1).view(np.uint8)))
        self.file.read_into(pieces, MAX_GAP_BYTES)
        return arrays

    def _row(self, number: int, values: NDArray[Any]) -> FeatureRow | None:
        """Return a row; None if its checksum does not match."""
        facts = self.table.rows[number]
        if not self.verified[number]:
            if checksum(values, facts.start_s, facts.end_s) != facts.checksum:
                return None
            self.verified[number] = True
        return FeatureRow(
            video_id=facts.video_id,
            stream=facts.stream,
            key=facts.key,
            content_digest=facts.content_digest,
            settings_digest=facts.settings_digest,
            outcome=facts.outcome,
            features=values.astype(np.float32, copy=False),
            start_s=facts.start_s.copy(),
            end_s=facts.end_s.copy(),
            provenance=json.loads(facts.provenance),
        )
