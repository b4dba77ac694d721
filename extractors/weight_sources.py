"""The sources of a network's numbers: a verified file, a folder of transformers, or a seed. Does not import torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..manifests.errors import WeightsError
from .hub_snapshot import CheckpointFolder


@dataclass(frozen=True)
class CheckpointFile:
    """A verified file on disk that stands for one entry of ``weights.toml``."""

    name: str
    path: Path
    digest: str
    """SHA-256 of the file, hexadecimal: part of every key of a feature made with it."""
    layout: str
    """Which published key layout it has, e.g. ``i3d-hassony2``; see `arabesque.manifests.weights`."""
    trusted_pickle: bool = False
    """The file is a whole pickle (YOLO's are), and its digest is on the list of those we open."""

    def read(self) -> bytes:
        """Return the file's bytes, which have the digest; raises `WeightsError` for others, or for none.

        What is parsed or unpickled are these bytes, and not the file, which another process may write to.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"{self.path}: checkpoint {self.name} cannot be read ({error.strerror or error}); fetch or add it again"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.digest:
            raise WeightsError(
                f"{self.path}: checkpoint {self.name} has changed since it was verified: expected sha256 "
                f"{self.digest}, got sha256 {found}; fetch or add it again"
            )
        return content


@dataclass(frozen=True)
class RandomWeights:
    """Default initialization under a seed: for smoke runs and benchmarks, recorded in every key."""

    seed: int

    @property
    def digest(self) -> str:
        return f"random:{self.seed}"


Weights = CheckpointFile | CheckpointFolder | RandomWeights
