"""Golden numbers, and the seeded weights of the networks that computed them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from seeded_networks import seeded_array, sha256_of
from torch import Tensor

from arabesque.extractors.checkpoints import CheckpointFile

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared"


@dataclass(frozen=True)
class Golden:
    """Outputs of a published network with seeded weights; ``note`` describes the input."""

    note: str
    state_dict: dict[str, Tensor]
    """The weights, under their published names"""
    arrays: dict[str, NDArray]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """``golden(name)``: tests/golden/NAME.json and .npz, with the state dict that the first describes."""

    @lru_cache(maxsize=2)  # drawing the numbers of a network takes seconds
    def read(name: str) -> Golden:
        spec = json.loads((GOLDEN / f"{name}.json").read_text())
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return Golden(spec["note"], seeded_state_dict(spec["entries"], spec["seed"]), dict(arrays))

    return read


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> Iterator[Callable[..., CheckpointFile]]:
    """``save_checkpoint(content, layout)`` writes a file like a download; it is removed when the test ends."""
    paths: list[Path] = []

    def save(content: object, layout: str, name: str = "seeded") -> CheckpointFile:
        path = tmp_path / f"{name}-{len(paths)}.pth"
        torch.save(content, path)
        paths.append(path)
        return CheckpointFile(name=name, path=path, digest=sha256_of(path), layout=layout)

    yield save
    for path in paths:
        path.unlink()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared with real clips and weights, which not every checkout has."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    return SHARED


def seeded_state_dict(entries: Mapping[str, list[int]], seed: int) -> dict[str, Tensor]:
    """Return the same numbers on every machine for given keys and shapes; ``num_batches_tracked`` counters are zero."""
    return {
        name: torch.zeros((), dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(seeded_array(name, tuple(shape), seed))
        for name, shape in entries.items()
    }
