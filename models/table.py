"""The one table of scoring models. Nothing is scanned or decorated into it, nothing imported before it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ..extractors.onednn_layers import with_onednn
from ..manifests.complaints import did_you_mean, first_complaint
from ..manifests.errors import ManifestError
from .dropout import with_quick_dropout

MODELS: dict[str, str] = {
    "bi-lstm": "recurrent:BiLstm",
    "context-attention": "context_attention:ContextAttention",
    "gdlt": "gdlt:Gdlt",
    "joint-va": "joint_va:JointVa",
    "late-fusion": "late_fusion:LateFusion",
    "lstm": "recurrent:Lstm",
    "ms-lstm": "ms_lstm:MsLstm",
    "msaf": "msaf:Msaf",
    "pamfn": "pamfn:Pamfn",
    "pamfn-branch": "pamfn_branch:PamfnBranch",
    "pamfn-highlights": "pamfn_highlights:PamfnHighlights",
    "pooled-svr": "pooled_svr:PooledSvr",
    "umt": "umt:Umt",
}
"""Name on the command line → ``module:class`` in this package."""


def model_class(name: str) -> Any:
    """The class behind a name; raises `ManifestError` for one that is not in the table."""
    if name not in MODELS:
        hint = did_you_mean(name, MODELS)
        raise ManifestError(f"scoring model {name!r} is not known{hint}; there are {', '.join(sorted(MODELS))}")
    module_name, _, class_name = MODELS[name].partition(":")
    return getattr(import_module(f".{module_name}", __package__), class_name)


def resolve_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with every default filled in; raises `ManifestError` for one that the model does not have."""
    record = model_class(name).Settings
    try:
        return record.model_validate(dict(settings)).model_dump(mode="json")
    except ValidationError as error:
        complaint = first_complaint(error, "settings", record.model_fields)
        raise ManifestError(f"scoring model {name}: {complaint}") from None


def build_model(name: str, dims: Mapping[str, int], settings: Mapping[str, Any], seed: int) -> nn.Module:
    """The network over these streams, its weights drawn under the seed."""
    made = model_class(name)
    resolved = made.Settings.model_validate(dict(settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = made(dict(dims), **{field: getattr(resolved, field) for field in type(resolved).model_fields})
    return with_quick_dropout(with_onednn(network))
