"""From a checkpoint file, or a seed, to a frozen network. Nothing here unpickles arbitrary objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..manifests.errors import WeightsError
from .onednn_layers import with_onednn

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


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


@dataclass(frozen=True)
class RandomWeights:
    """Default initialisation under a seed: for smoke runs and benchmarks, recorded in every key."""

    seed: int

    @property
    def digest(self) -> str:
        return f"random:{self.seed}"


Weights = CheckpointFile | RandomWeights


def read_state_dict(checkpoint: CheckpointFile) -> StateDict:
    """All tensors of a file, floating ones as float32, out of whatever ``state_dict`` wrapper they came in.

    Raises `WeightsError` for a file that is not a state dict or that would run code to be read.
    """
    try:
        content = _read(checkpoint.path)
    except Exception as error:  # torch tells of a forged pickle by whatever its own code stumbles over
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} is not a plain state dict "
            f"({reason}); fetch it again or add another file for {checkpoint.name}"
        ) from error
    for wrapper in ("state_dict", "model", "model_state"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{checkpoint.path}: checkpoint {checkpoint.name} holds something other than named tensors")
    return {name: value.float() if value.is_floating_point() else value for name, value in content.items()}


def _read(path: Path) -> object:
    """safetensors by their suffix, everything else as PyTorch writes it."""
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def load_network(
    factory: Callable[[], Network],
    weights: Weights,
    to_our_keys: Callable[[StateDict, str], StateDict],
) -> Network:
    """A network in eval mode, without gradients, filled with the checkpoint's numbers or seeded at random.

    ``to_our_keys(state_dict, layout)`` renames a published layout to the network's own keys.
    """
    if isinstance(weights, RandomWeights):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed)
            network = factory()
    else:
        network = factory()
        fill(network, to_our_keys(read_state_dict(weights), weights.layout), weights)
    return with_onednn(network.eval().requires_grad_(False))


def fill(network: nn.Module, state_dict: StateDict, source: CheckpointFile) -> None:
    """Copies every tensor into its place; raises `WeightsError` with a report where keys or shapes differ.

    Files older than PyTorch 0.4.1 (2018) lack the counters ``num_batches_tracked``, which inference never reads.
    """
    wanted = network.state_dict()
    counters = {name: value for name, value in wanted.items() if name.endswith(".num_batches_tracked")}
    state_dict = counters | state_dict
    missing = sorted(wanted.keys() - state_dict.keys())
    unexpected = sorted(state_dict.keys() - wanted.keys())
    misshapen = [
        f"{name} is {list(state_dict[name].shape)}, not {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state_dict.keys())
        if state_dict[name].shape != wanted[name].shape
    ]
    findings = [
        f"{len(names)} {title} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if findings:
        raise WeightsError(
            f"{source.path}: checkpoint {source.name} (layout {source.layout}) does not fit its network: "
            f"{'; '.join(findings)}; check that the file is the one that `arabesque weights list` names"
        )
    network.load_state_dict(state_dict)
