"""COMPUTE: frozen networks and signal features. Knows tensors, not videos, files or runs.

    protocol.py      the contract of every extractor, as data that the pipeline follows
    table.py         the one table of extractors, imports deferred
    checkpoints.py   from a checkpoint file, or a seed, to a frozen network
    geometry.py      resize, crop, normalize: on any device, once

Everything else is an extractor, or a part of one.
"""
