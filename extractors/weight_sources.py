"""Sources of a network's weights: a verified file, a folder of transformers, or a seed. Does not import torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..manifests.errors import WeightsError
from .hub_snapshot import CheckpointFolder


@dataclass(frozen=True)
class CheckpointFile:
    """A verified file on disk for one entry of ``weights.toml``."""

    name: str
    path: Path
    digest: str
    """SHA-256 of the file, hexadecimal; part of the key of every feature that is computed with it"""
    layout: str
    """Published key layout, e.g. ``i3d-hassony2``; see `arabesque.manifests.weights`"""
    trusted_pickle: bool = False
    """Whether the file is a whole pickle, as YOLO's, whose digest is on the list of trusted ones"""

    def read(self) -> bytes:
        """Return the file's bytes after verifying their digest.

        Callers parse these bytes instead of opening the file again, which another process may have changed.

        Raises:
            WeightsError: The file cannot be read, or has another digest.
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
    """Default initialization with a seed, for smoke tests and benchmarks; recorded in every key."""

    seed: int

    @property
    def digest(self) -> str:
        return f"random:{self.seed}"


Weights = CheckpointFile | CheckpointFolder | RandomWeights
