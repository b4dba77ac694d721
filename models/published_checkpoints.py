"""Load checkpoints that authors published; rename their keys to those of our networks.

    action_net   state dict, two streams: ``d_ct.*`` (clips), ``s_ct.*`` (athlete crops), ``fc.*``, ``adj1``, ``adj2``
    gdlt         state dict
    pamfn        state dict ``*_multimodal.pth``, its branches as ``model_r``, ``model_f``, ``model_a``
    pamfn_branch whole-module pickle ``*_{rgb,flow,audio}_*.pth``, or its state dict

Missing tensors, unexpected tensors and tensors of another shape are errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import InputError, WeightsError
from ..manifests.untrusted_pickles import ForeignPickle, Shell, named_tensors, plain
from ..manifests.untrusted_torch import read_torch
from .context_attention import ContextAttention, ContextAttentionSettings
from .gdlt import Gdlt, GdltSettings
from .pamfn import PUBLISHED, Pamfn
from .pamfn_branch import WIDTH, BranchSettings, PamfnBranch

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


PUBLISHED_STREAMS: Mapping[str, tuple[str, ...]] = {
    "context-attention": ("i3d_rgb", "resnet_crop"),
    "gdlt": ("vst",),
    "pamfn": ("vst", "i3d_flow", "ast"),
    "pamfn-branch": (),
}
"""Model → our names of the streams of its published checkpoints; a branch of PAMFN reads any stream"""

_MARKS = {
    "d_ct.embedding.0.weight": "context-attention",
    "prototype.weight": "gdlt",
    "model_r.embedding.0.weight": "pamfn",
    "embedding.0.weight": "pamfn-branch",
}
"""A tensor that identifies checkpoints of a model → the model"""


@dataclass(frozen=True, eq=False)
class PublishedNetwork:
    """A network with the weights that its authors published."""

    model: str
    network: nn.Module
    dims: Mapping[str, int]
    """Our names of the streams, in the order of the authors → dim of their features"""

    @property
    def streams(self) -> tuple[str, ...]:
        """Our names of the streams, in the order of the authors."""
        return tuple(self.dims)


def load_published(path: Path, streams: Sequence[str] | None = None) -> PublishedNetwork:
    """Load a checkpoint of ACTION-NET, GDLT, PAMFN or one of PAMFN's branches, recognized by its tensors.

    Args:
        path: File of the authors.
        streams: Our names of the streams, in the order of the authors; None for those of `PUBLISHED_STREAMS`.

    Raises:
        WeightsError: The file cannot be read or is a checkpoint of another network.
        InputError: The number of streams does not fit.

    Example:
        >>> load_published(Path("Ball_multimodal.pth")).model  # doctest: +SKIP
        'pamfn'
    """
    state = read_published(path)
    model = next((name for mark, name in _MARKS.items() if mark in state), None)
    if model is None:
        raise WeightsError(f"{path}: not a checkpoint of ACTION-NET, GDLT or PAMFN; these have published layouts")
    known = PUBLISHED_STREAMS[model]
    chosen = tuple(streams or known)
    count = len(known) or 1
    if len(chosen) != count:
        raise InputError(
            f"{path}: {model} reads {count} stream{'s' if count > 1 else ''}, not {len(chosen)}; "
            f"name them with --streams{f', as in {chr(44).join(known)}' if known else ''}"
        )
    if model == "context-attention":
        network: nn.Module = load_action_net(path, chosen)
    elif model == "gdlt":
        network = load_gdlt(path, chosen[0], released=True)
    elif model == "pamfn":
        network = load_pamfn(path, chosen, _configuration(path, state), released=True)
    else:
        network = load_pamfn_branch(path, chosen[0], released=True)
    inputs = {
        "context-attention": ("d_ct.embedding.0.weight", "s_ct.embedding.0.weight"),
        "gdlt": ("in_proj.0.weight",),
        "pamfn": tuple(f"{unit}.embedding.0.weight" for unit in ("model_r", "model_f", "model_a")),
        "pamfn-branch": ("embedding.0.weight",),
    }[model]
    dims = {stream: _shape(path, state, name)[1] for stream, name in zip(chosen, inputs, strict=True)}
    return PublishedNetwork(model, network, dims)


def _configuration(path: Path, state: StateDict) -> str:
    """Return the key of `PUBLISHED` with the checkpoint's number of FusionNets and width of the head."""
    num_nets = _shape(path, state, "stage1.f_fusion.policy.0.weight")[0]
    narrow = _shape(path, state, "fc.1.weight")[0]
    for name, settings in PUBLISHED.items():
        if (settings.num_nets, WIDTH // settings.fc_ratio) == (num_nets, narrow):
            return name
    raise WeightsError(f"{path}: {num_nets} FusionNets and a head of width {narrow} are not a published configuration")


def load_action_net(path: Path, streams: Sequence[str]) -> ContextAttention:
    """Load ACTION-NET.

    Args:
        path: State dict of the authors.
        streams: Our names of the stream of clips and the stream of crops, in this order.

    Raises:
        WeightsError: The file cannot be read or does not fit the network.
    """
    state = read_published(path)
    for fixed in ("adj1", "adj2"):  # adjacency for a fixed number of segments; we compute it
        state.pop(fixed, None)
    layers = {"gcn1": "graph.0", "gcn2": "graph.1", "att": "attention"}
    renamed: StateDict = {}
    for name, value in state.items():
        unit, _, rest = name.partition(".")
        if unit in ("d_ct", "s_ct"):
            layer, _, leaf = rest.partition(".")
            unit = f"streams.{streams[unit == 's_ct']}"
            rest = f"{layers.get(layer, layer)}.{leaf}"
        renamed[f"{'head' if unit == 'fc' else unit}.{rest}"] = value
    dims = {
        stream: _shape(path, state, f"{unit}.embedding.0.weight")[1]
        for stream, unit in zip(streams, ("d_ct", "s_ct"), strict=True)
    }
    return _filled(ContextAttention(dims, ContextAttentionSettings()), renamed, path)


def load_gdlt(path: Path, stream: str, *, released: bool = False) -> Gdlt:
    """Load GDLT from the authors' state dict; raise `WeightsError` if it does not fit."""
    state = read_published(path)
    hidden_dim, grades = _shape(path, state, "in_proj.3.weight")[0], _shape(path, state, "prototype.weight")[0]
    dim = _shape(path, state, "in_proj.0.weight")[1]
    depth = {part: _depth(state, f"transformer.{part}.layers.") for part in ("encoder", "decoder")}
    settings = GdltSettings(
        num_grades=grades,
        hidden_dim=hidden_dim,
        num_encoders=depth["encoder"],
        num_decoders=depth["decoder"],
        released=released,
    )
    return _filled(Gdlt({stream: dim}, settings), state, path)


def load_pamfn(path: Path, streams: Sequence[str], configuration: str, *, released: bool = False) -> Pamfn:
    """Load PAMFN.

    Args:
        path: State dict of the authors.
        streams: Our names of the RGB, flow and audio streams, in this order.
        configuration: A key of `pamfn.PUBLISHED`.
        released: Treat padding and frozen branches as the released code does.

    Raises:
        WeightsError: The file cannot be read or does not fit the network.
    """
    state = read_published(path)
    units = dict(zip(("model_r", "model_f", "model_a"), streams, strict=True))
    renamed: StateDict = {}
    for name, value in state.items():
        unit, _, rest = name.partition(".")
        renamed[f"branches.{units[unit]}.{rest}" if unit in units else name] = value
    dims = {stream: _shape(path, state, f"{unit}.embedding.0.weight")[1] for unit, stream in units.items()}
    settings = PUBLISHED[configuration].model_copy(update={"released": released})
    return _filled(Pamfn(dims, settings), renamed, path)


def load_pamfn_branch(path: Path, stream: str, *, released: bool = False) -> PamfnBranch:
    """Load a branch of PAMFN from a state dict or a pickled network; raise `WeightsError` if it does not fit."""
    state = read_published(path)
    dims = {stream: _shape(path, state, "embedding.0.weight")[1]}
    network = PamfnBranch(dims, BranchSettings(released=released))
    return _filled(network, {f"branch.{name}": value for name, value in state.items()}, path)


def read_published(path: Path) -> StateDict:
    """Return the named tensors of a state dict or of a pickled network. No code of the file is run.

    Raises:
        WeightsError: The file is damaged, names other classes than networks need, or does not contain named tensors.
    """
    try:
        with path.open("rb") as handle:
            content = plain(_state_dict(read_torch(handle, unknown="network")))
    except ForeignPickle as error:
        raise WeightsError(
            f"{path}: not safe to read ({error}, which a network does not need); get it again from its authors"
        ) from error
    except Exception as error:  # a forged file may raise errors of any type
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as a checkpoint ({reason}); get it again from its authors"
        ) from error
    found: dict[Any, Any] = dict(cast("Mapping[Any, Any]", content)) if isinstance(content, Mapping) else {}
    for wrapper in ("state_dict", "model"):
        if isinstance(found.get(wrapper), Mapping):
            found = dict(found[wrapper])
    if not isinstance(content, Mapping) or not all(isinstance(value, np.ndarray) for value in found.values()):
        raise WeightsError(f"{path}: contains values that are not named tensors; get it again from its authors")
    # DataParallel prefixes every key with "module."
    return {str(name).removeprefix("module."): torch.as_tensor(value.copy()) for name, value in found.items()}


def _state_dict(content: Any) -> Any:
    """Return the tensors of a pickled network; return other content unchanged."""
    return named_tensors(content) if isinstance(content, Shell) else content


def _filled(network: Network, state: StateDict, path: Path) -> Network:
    wanted = network.state_dict()
    findings = [
        f"{len(names)} {title} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for title, names in (
            ("missing", sorted(wanted.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - wanted.keys())),
            (
                "of another shape",
                sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape),
            ),
        )
        if names
    ]
    if findings:
        raise WeightsError(f"{path}: does not fit {type(network).__name__}: {'; '.join(findings)}")
    network.load_state_dict(state)
    return network.eval()


def _shape(path: Path, state: StateDict, name: str) -> torch.Size:
    if name not in state:
        raise WeightsError(f"{path}: the tensor {name} is missing; choose a checkpoint of this network")
    return state[name].shape


def _depth(state: StateDict, prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
