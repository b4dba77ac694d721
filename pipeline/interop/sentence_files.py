"""Export of the sentences of text towers, and their rows, to one ``.npz`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError
from ..store.reader import FeatureStore
from .exporting import written_whole


def export_sentences(store: FeatureStore, out: Path, streams: Sequence[str] = (), *, force: bool = False) -> int:
    """Write the rows of sentences as ``STREAM``, ``float32 [sentences, dim]``, and the texts as ``STREAM.sentences``.

    Args:
        store: The store.
        out: A file, .npz.
        streams: Streams whose sentences are written; all by default.
        force: Replace an existing file.

    Returns:
        Number of sentences of all streams.

    Raises:
        InputError: The file has another suffix or exists, or the store has no sentences of these streams.
        StoreError: The file cannot be written.

    Example:
        >>> export_sentences(FeatureStore("features"), Path("sentences.csv"))
        Traceback (most recent call last):
            ...
        arabesque.manifests.errors.InputError: sentences.csv: does not end with .npz; give such a name
    """
    if out.suffix.lower() != ".npz":
        raise InputError(f"{out}: does not end with .npz; give such a name")
    if out.exists() and not force:
        raise InputError(f"{out}: already exists; --force overwrites it")
    arrays: dict[str, NDArray[Any]] = {}
    num_sentences = 0
    for stream in streams or store.streams:
        try:
            found = store.sentences(stream)
        except KeyError:
            continue
        arrays |= {stream: found.values, f"{stream}.sentences": np.array(found.sentences)}
        num_sentences += len(found.sentences)
    if not arrays:
        of = f" of {', '.join(streams)}" if streams else ""
        raise InputError(f"{store.path}: no sentences{of} to export; streams with settings.sentences store them")
    with written_whole(out) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return num_sentences
