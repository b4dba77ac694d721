"""WHAT: declarative TOML, and the frozen records that read it.

    streams.py    what one stream asks for and gives: sampling, geometry, normalisation, settings
    recipes.py    recipes/*.toml: which streams a method needs
    weights.py    weights.toml: every checkpoint, its address, digest, licence and key layout
    datasets.py   datasets/*.toml: label files, score ranges and splits
    errors.py     what can go wrong in the world, as one small tree

Imports nothing of ours, and of others only pydantic.
"""
