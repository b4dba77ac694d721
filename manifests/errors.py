"""What can go wrong in the world, as one small tree.

    ArabesqueError            anything below; the command line prints it as one line
    ├── ManifestError         a recipe, weights or label file that cannot be read or obeyed
    ├── WeightsError          a checkpoint that is missing, altered, or does not fit its network
    ├── DecodeError           a video that cannot be read to its end
    │   └── TransientDecodeError   ... this time: a decoder ran out of time, memory or life
    └── StoreError            a feature store that is damaged, foreign, or cannot be written

A caller's mistake is a ``ValueError``. Every message names the thing, the value and the way out.
"""

from __future__ import annotations


class ArabesqueError(Exception):
    """Base of everything that the outside world does to us."""


class ManifestError(ArabesqueError):
    """A recipe, weights or label file that cannot be read or obeyed."""


class WeightsError(ArabesqueError):
    """A checkpoint that is missing, altered, or does not fit its network."""


class DecodeError(ArabesqueError):
    """A video that cannot be read to its end; the bytes are to blame, another try changes nothing."""


class TransientDecodeError(DecodeError):
    """A decoder that crashed, hung or outgrew its memory; another try may go better."""


class StoreError(ArabesqueError):
    """A feature store that is damaged, belongs to other settings, or cannot be written."""
