"""Networks with the numbers of the golden arrays, which are the same on every machine, under published key names."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden_state_dict(name: str) -> dict[str, Tensor]:
    """The state dict that ``golden/NAME.json`` describes; ``num_batches_tracked`` counters are zero."""
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    return {
        key: torch.zeros((), dtype=torch.int64)
        if key.endswith("num_batches_tracked")
        else torch.from_numpy(seeded_array(key, tuple(shape), spec["seed"]))
        for key, shape in spec["entries"].items()
    }


def golden_arrays(name: str) -> dict[str, NDArray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def seeded_array(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return an array that depends on name, shape and seed only; the golden arrays were computed with these."""
    rng = np.random.Generator(np.random.Philox(key=(seed << 32) | zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    draws = np.asarray(rng.standard_normal(shape))
    if name.endswith("running_mean"):
        return (0.1 * draws).astype(np.float32)
    if len(shape) <= 1:
        return (float(name.endswith("weight")) + 0.1 * draws).astype(np.float32)
    return (draws / math.sqrt(max(1, math.prod(shape[1:])))).astype(np.float32)


def sha256_of(path: Path) -> str:
    """Return the digest of a file, which is compared when a `CheckpointFile` is read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
