"""What every decoder promises, and the table of them.

Probing looks at the container alone; the planner then asks for exact frame indices, and a decoder delivers exactly
those or says where and why it cannot:

    DecodeError           a video that cannot be read to its end; every frame before the break was delivered
    ├── IndexMismatch     nothing is damaged, but packets are not frames: probe ``thorough``, plan anew
    └── SoundBroken       every frame was delivered, the sound breaks off

To add one: a class that satisfies `Decoder`, a line in `BACKENDS`; the contract test in ``test_decoding.py`` finds it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError
from ..records import Probe
from .planes import Planes

BACKENDS = {
    "pyav": "arabesque.pipeline.decoding.pyav_backend:PyAvDecoder",
    "decord": "arabesque.pipeline.decoding.decord_backend:DecordDecoder",
}
"""Name → ``module:class``; the modules are imported in decoding processes only."""

_PACKAGES = {"pyav": "av", "decord": "decord"}

Picture = NDArray[np.uint8] | Planes
"""``[height, width, 3]``, RGB, or its planes; upright."""

MAX_GAP_S = 3600.0
"""A longer gap between two frames, or two stretches of sound, is taken for a damaged time stamp."""


class IndexMismatch(DecodeError):
    """The frames that come out are not the container's packets, though nothing is damaged."""


class SoundBroken(DecodeError):
    """Every frame was delivered, but the sound breaks off before its end."""


class Decoder(Protocol):
    """Built in a decoding process by `build_decoder`; used by one thread."""

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        """What the container says of its frames; ``thorough`` decodes them all to count them."""
        ...

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        """``(index, picture)`` for each of ``wanted`` (ascending), in one pass; planes only where they are welcome.

        A picture is valid until the next one is asked for. Raises `DecodeError` at the first frame that is
        missing, damaged, of another size or at another time than ``probe`` says, wanted or not.
        """
        ...

    def sound(self, path: Path, probe: Probe, until_s: float) -> Iterator[NDArray[np.float32]]:
        """The first audio stream from ``probe.audio.start_s`` on, as consecutive ``float32 [channels, samples]``.

        Gaps in the track are silence, overlaps are cut off; ends with the track or at ``until_s``.
        Raises `SoundBroken` after the last good sample where the track cannot be decoded to its end.
        """
        ...


def check_backend(backend: str) -> None:
    """Before any process starts: `ValueError` for an unknown name, `ArabesqueError` where the package is missing."""
    if backend not in BACKENDS and ":" not in backend:
        raise ValueError(f"decoder {backend!r} is none of {', '.join(BACKENDS)}")
    if backend in _PACKAGES and importlib.util.find_spec(_PACKAGES[backend]) is None:
        raise ArabesqueError(
            f"decoder {backend}: the package {_PACKAGES[backend]} is not installed (it has wheels for few platforms); "
            "use --decoder pyav"
        )


def build_decoder(backend: str, alive: Callable[[], None], *, planar: bool = False) -> Decoder:
    """``backend`` is a name of `BACKENDS` or ``module:class``.

    ``alive`` is called with every packet, so that a slow decoder can be told from one that hangs. ``planar``: pictures
    may come as planes.
    """
    module_name, _, class_name = BACKENDS.get(backend, backend).partition(":")
    try:
        made: Any = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise ArabesqueError(f"decoder {backend} does not load: {error}; use another one (--decoder pyav)") from error
    return made(alive, planar)
