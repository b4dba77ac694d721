"""Sentences that the text tower of a stream's network has embedded. Their rows are in the store's manifest.

They are stored once, because a recipe has the same sentences for all videos.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from .manifest import StreamEntry


@dataclass(frozen=True, eq=False)
class SentenceRows:
    """The sentences of a stream, and one embedding for each.

    Attributes:
        sentences: The sentences in the settings of the recipe, in order.
        values: ``float32 [sentences, dim]``: the embeddings of the text tower, not scaled to unit length.
    """

    sentences: tuple[str, ...]
    values: NDArray[np.float32]


def sentence_entry(sentences: Sequence[str], values: NDArray[np.float32]) -> dict[str, Any]:
    """Return the fields of `StreamEntry` for sentences and their rows, ``float32 [sentences, dim]``."""
    text = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {"sentences": list(sentences), "sentence_rows": text}


def read_sentences(entry: StreamEntry, where: str) -> SentenceRows:
    """Return the sentences of a stream.

    Args:
        entry: The stream in the manifest.
        where: The manifest's path, for error messages.

    Raises:
        StoreError: The rows are damaged.
    """
    try:
        numbers = np.frombuffer(base64.b64decode(entry.sentence_rows, validate=True), "<f4").astype(np.float32)
        values = numbers.reshape(len(entry.sentences), -1)
    except ValueError as error:
        raise StoreError(
            f"{where}: the rows of {len(entry.sentences)} sentences are damaged; extract the stream into a new folder"
        ) from error
    return SentenceRows(tuple(entry.sentences), values)
