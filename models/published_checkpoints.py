"""Checkpoints as their authors published them, renamed to our networks' keys.

    action_net   state dict, two streams: ``d_ct.*`` (clips), ``s_ct.*`` (athlete crops), ``fc.*``, ``adj1``, ``adj2``
    gdlt         state dict
    pamfn        state dict ``*_multimodal.pth``, its branches as ``model_r``, ``model_f``, ``model_a``
    pamfn_branch whole-module pickle ``*_{rgb,flow,audio}_*.pth``, or its state dict

Every tensor must find its place: missing, unexpected and misshapen ones are errors.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..manifests.errors import WeightsError
from .context_attention import ContextAttention
from .gdlt import Gdlt
from .pamfn import PUBLISHED, Pamfn, PamfnSettings
from .pamfn_branch import PamfnBranch
from .restricted_pickle import read_pickled_network

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def load_action_net(path: Path, streams: Sequence[str]) -> ContextAttention:
    """``streams``: our names of the clips' and of the crops' stream, in this order."""
    state = read_published(path)
    for fixed in ("adj1", "adj2"):  # follow from the number of segments; ours are computed for any number
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
    return _filled(ContextAttention(dims), renamed, path)


def load_gdlt(path: Path, stream: str, *, released: bool = False) -> Gdlt:
    state = read_published(path)
    hidden_dim, grades = _shape(path, state, "in_proj.3.weight")[0], _shape(path, state, "prototype.weight")[0]
    dim = _shape(path, state, "in_proj.0.weight")[1]
    depth = {part: _depth(state, f"transformer.{part}.layers.") for part in ("encoder", "decoder")}
    network = Gdlt(
        {stream: dim},
        num_grades=grades,
        hidden_dim=hidden_dim,
        num_encoders=depth["encoder"],
        num_decoders=depth["decoder"],
        released=released,
    )
    return _filled(network, state, path)


def load_pamfn(path: Path, streams: Sequence[str], configuration: str, *, released: bool = False) -> Pamfn:
    """``streams``: our names of RGB, flow and audio, in this order; ``configuration``: a key of `pamfn.PUBLISHED`."""
    state = read_published(path)
    units = dict(zip(("model_r", "model_f", "model_a"), streams, strict=True))
    renamed: StateDict = {}
    for name, value in state.items():
        unit, _, rest = name.partition(".")
        renamed[f"branches.{units[unit]}.{rest}" if unit in units else name] = value
    dims = {stream: _shape(path, state, f"{unit}.embedding.0.weight")[1] for unit, stream in units.items()}
    settings: PamfnSettings = PUBLISHED[configuration].model_copy(update={"released": released})
    network = Pamfn(dims, **{field: getattr(settings, field) for field in PamfnSettings.model_fields})
    return _filled(network, renamed, path)


def load_pamfn_branch(path: Path, stream: str, *, released: bool = False) -> PamfnBranch:
    state = read_published(path)
    network = PamfnBranch({stream: _shape(path, state, "embedding.0.weight")[1]}, released=released)
    return _filled(network, {f"branch.{name}": value for name, value in state.items()}, path)


def read_published(path: Path) -> StateDict:
    """Named tensors of a file: a state dict where it is one, else a pickled network read by our own narrow reader."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = read_pickled_network(path)
    except Exception as error:  # a forged file fails in whatever of torch it makes stumble
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds something other than named tensors")
    # DataParallel puts the module's name before every key
    return {str(name).removeprefix("module."): value for name, value in content.items()}


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
        raise WeightsError(f"{path}: there is no {name} in it; it is a checkpoint of another network")
    return state[name].shape


def _depth(state: StateDict, prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
