"""Build a frozen network from a checkpoint file or a seed. Arbitrary objects are never unpickled."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..manifests.errors import WeightsError
from .hub_snapshot import CheckpointFolder
from .onednn_layers import with_onednn
from .weight_sources import CheckpointFile, RandomWeights, Weights

__all__ = [
    "CheckpointFile",
    "Layouts",
    "Network",
    "RandomWeights",
    "StateDict",
    "Weights",
    "fill",
    "load_network",
    "read_state_dict",
    "renamed",
    "unchanged",
]

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
Layouts = Mapping[str, Callable[[StateDict], StateDict]]
"""Published key layout → function that renames its tensors to those of the network."""


def read_state_dict(checkpoint: CheckpointFile) -> StateDict:
    """Return all tensors of a file, with floating-point tensors as float32.

    The tensors may be inside a wrapper such as ``{"state_dict": ...}``.

    Raises:
        WeightsError: The file is not a state dict, or reading it would run code.
    """
    file = checkpoint.read()
    try:
        content = _parsed(file, checkpoint.path.suffix)
    except Exception as error:  # torch raises errors of many types for a forged pickle
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
            # torch's message advises to open the file anyway
            reason = "it contains pickled objects other than tensors, which may run any code"
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} is not a plain state dict "
            f"({reason}); fetch it again or add another file for {checkpoint.name}"
        ) from error
    tensors: Mapping[str, Any] = cast("Mapping[str, Any]", content) if isinstance(content, Mapping) else {}
    for wrapper in ("state_dict", "model", "model_state", "module"):
        if isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} contains values that are not named tensors"
        )
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _parsed(content: bytes, suffix: str) -> object:
    """Parse a safetensors file, recognized by its suffix, or a file written by PyTorch."""
    if suffix != ".safetensors":
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def load_network(
    factory: Callable[[], Network],
    weights: Weights,
    layouts: Layouts,
) -> Network:
    """Return a network in eval mode, without gradients, with the weights of a checkpoint or random ones.

    Args:
        factory: Builds the network.
        weights: A checkpoint, or a seed.
        layouts: The key layouts that the network reads.

    Raises:
        WeightsError: The checkpoint has another layout, or its tensors do not fit.
    """
    if isinstance(weights, RandomWeights):
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(weights.seed)  # pyright: ignore[reportUnknownMemberType]
            network = factory()
    else:
        network = factory()
        if isinstance(weights, CheckpointFolder):
            raise WeightsError(
                f"checkpoint {weights.name} is a folder of transformers; {type(network).__name__} reads files"
            )
        if weights.layout not in layouts:
            raise WeightsError(
                f"checkpoint {weights.name} has the key layout {weights.layout!r}; {type(network).__name__} reads "
                f"{', '.join(sorted(layouts))}; name another checkpoint, or correct its layout in the manifest"
            )
        fill(network, layouts[weights.layout](read_state_dict(weights)), weights)
    return with_onednn(network.eval().requires_grad_(False))


def unchanged(state_dict: StateDict) -> StateDict:
    """Return the tensors of a file that has the network's own keys."""
    return state_dict


def renamed(state_dict: StateDict, patterns: Sequence[tuple[str, str]]) -> StateDict:
    """Replace regular expressions in all keys, in order."""
    return {reduce(lambda name, pair: re.sub(*pair, name), patterns, key): value for key, value in state_dict.items()}


def fill(network: nn.Module, state_dict: StateDict, source: CheckpointFile) -> None:
    """Copy all tensors to a network.

    The counters ``num_batches_tracked`` may be missing: files older than PyTorch 0.4.1 (2018) do not have them, and
    inference does not use them.

    Raises:
        WeightsError: Keys or shapes differ; the message lists them.
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
