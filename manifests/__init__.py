"""Declarative TOML files and the frozen records that read them.

    streams.py    settings of one stream: sampling, geometry, normalization, extractor
    recipes.py    recipes/*.toml: the streams of a method
    weights.py    weights.toml: every checkpoint with its address, digest, license and key layout
    datasets.py   datasets/*.toml: label files, score ranges and splits
    label_files.py    label files of data sets
    untrusted_*.py    readers of .npy, pickle and torch files that run no code
    validation.py     one-line validation messages
    errors.py     the exceptions
    urls.py       parts of URLs, and URLs without credentials

The only dependency outside the standard library is pydantic; NumPy is imported when arrays are read.
"""
