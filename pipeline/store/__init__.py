"""Feature store: a Hive-partitioned Parquet dataset that is its own index of completed work.

    reader.py             `FeatureStore`: videos, streams, features with their time grid, outcomes
    aligned_dataset.py    several streams on one time grid, for PyTorch
    streaming_dataset.py  samples from stores larger than memory, split among ranks
    store.py              `Store`: opened once in a run, passed to everything that reads or writes
    writer.py             `StoreWriter`: rows, outcomes and the write-ahead log, in whole shards
    boxes.py              the side table of person boxes
    index.py              the rule that determines which rows count
    outcomes.py           the outcome of every (video, stream), in columns, and those of concurrent runs
    shard_stamp.py        detects any changed byte of a shard and restores small damage
    files/                storage on a local disk and on object storage
    concurrency/          writer locks, claims of videos, coordination
    maintenance/          compaction, verification, repair

The other files read and write shards, the manifest, and the write-ahead log.
"""

from .aligned_dataset import AlignedDataset, collate_padded
from .reader import FeatureStore
from .stream_features import StreamFeatures

__all__ = ["AlignedDataset", "FeatureStore", "StreamFeatures", "collate_padded"]
