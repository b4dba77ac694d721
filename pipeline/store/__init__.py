"""The feature store: Hive-partitioned Parquet that is its own ledger.

    reader.py            `FeatureStore`: videos, streams, features with their time grid, outcomes
    aligned_samples.py   several streams on one grid, for PyTorch
    streamed_samples.py  the same for stores larger than memory, split among ranks
    writer.py            `StoreWriter`: rows, outcomes and the journal of unfinished rows, in whole shards
    compaction.py        few large shards of what counts; rows of other settings out of the way
    index.py             the one rule for which row counts
    ends.py              how everything ended, in columns: what planning goes by
    verifying.py         is every byte and row as it was written? and repairing.py, where it is not
    neighbours.py        who else is at work, on a disk and where there are no locks
    claims.py            which of several runs has a video in hand
    folders.py           what all of it stands on: atomic_files.py on a disk, object_folder.py at a URL

The rest are the parts: shards and their reading and writing, the manifest, writers' locks, the journal.
"""

from .aligned_samples import AlignedSamples, collate_padded
from .reader import FeatureStore, StreamFeatures

__all__ = ["AlignedSamples", "FeatureStore", "StreamFeatures", "collate_padded"]
