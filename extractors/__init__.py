"""COMPUTE: frozen networks and signal features. The code here processes tensors, not videos, files or runs.

    protocol.py      the contract of every extractor, as data that the pipeline follows
    table.py         the table of extractors; each is imported when it is first used
    checkpoints.py   builds a frozen network from a checkpoint file or a seed
    geometry.py      resize, crop and normalize, on any device

The other files are extractors and their parts.
"""
