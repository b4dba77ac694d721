"""The table of scoring models, and models of other packages by import path. Models are imported when they are used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..manifests.errors import ConfigError, InputError
from ..manifests.import_paths import code_digest, import_class
from ..manifests.streams import Record
from ..manifests.validation import suggestion, validation_message

if TYPE_CHECKING:  # importing torch takes seconds, and names are checked without it
    from torch import nn

MODELS: dict[str, str] = {
    "bi-lstm": "arabesque.models.recurrent:BiLstm",
    "context-attention": "arabesque.models.context_attention:ContextAttention",
    "ensemble": "arabesque.models.ensemble:Ensemble",
    "gdlt": "arabesque.models.gdlt:Gdlt",
    "joint-va": "arabesque.models.joint_va:JointVa",
    "kernel-regression": "arabesque.models.kernel_regression:KernelRegression",
    "late-fusion": "arabesque.models.late_fusion:LateFusion",
    "lstm": "arabesque.models.recurrent:Lstm",
    "ms-lstm": "arabesque.models.ms_lstm:MsLstm",
    "msaf": "arabesque.models.msaf:Msaf",
    "pamfn": "arabesque.models.pamfn:Pamfn",
    "pamfn-branch": "arabesque.models.pamfn_branch:PamfnBranch",
    "pamfn-branch-highlights": "arabesque.models.pamfn_highlights:PamfnBranchHighlights",
    "pamfn-highlights": "arabesque.models.pamfn_highlights:PamfnHighlights",
    "pooled-svr": "arabesque.models.pooled_svr:PooledSvr",
    "umt": "arabesque.models.umt:Umt",
}
"""Name on the command line → import path of the class."""


def model_class(name: str) -> Any:
    """Return the class of a model.

    Args:
        name: A name of `MODELS`, or the import path of a class, such as ``mypackage:MyModel``.

    Raises:
        InputError: The name is not known.
        ConfigError: The class cannot be imported, or it is not a scoring model.
    """
    return _checked_class(_path(name))


def require_known(name: str) -> None:
    """Raise an error for a model that does not exist. Only models of other packages are imported."""
    path = _path(name)
    if path not in MODELS.values():
        _checked_class(path)


def code_of(name: str) -> dict[str, str]:
    """Return import path → SHA-256 of the source file for a model of another package; otherwise an empty dict."""
    return {} if name in MODELS else {name: f"sha256 {code_digest(model_class(name))}"}


def _path(name: str) -> str:
    if name in MODELS:
        return MODELS[name]
    if ":" in name:
        return name
    raise InputError(
        f"scoring model {name!r} is not known{suggestion(name, MODELS)}; there are {', '.join(sorted(MODELS))}; for "
        "the class of another package, give its import path, module:class"
    )


@cache
def _checked_class(path: str) -> type:
    """Import a model; raise `ConfigError` if the class lacks a part of the `ScoringModel` protocol."""
    found = import_class(path, "scoring model")
    if missing := list(_missing_parts(found)):
        raise ConfigError(
            f"scoring model {path!r}: {'; '.join(missing)}; `arabesque.testing.check_model` checks a class against "
            "arabesque.models.scoring.ScoringModel"
        )
    return found


def _missing_parts(found: type) -> Iterator[str]:
    from torch import nn

    if not issubclass(found, nn.Module):
        yield "is not a subclass of torch.nn.Module"
        return
    record = getattr(found, "Settings", None)
    if not (isinstance(record, type) and issubclass(record, Record)):
        yield "Settings is not a subclass of arabesque.manifests.streams.Record"
        return
    for flag in ("one_stream", "one_grid"):
        if not isinstance(getattr(found, flag, None), bool):
            yield f"{flag} is neither True nor False"
    parameters = list(inspect.signature(found).parameters.values())
    positional = [each for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    needed = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    if len(positional) < 2 or len(needed) > 2:
        yield f"the constructor takes {', '.join(each.name for each in parameters)} instead of dims and settings"


def resolve_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with all defaults.

    Raises:
        ConfigError: The model does not have one of the settings, or a value is not valid.
    """
    record = model_class(name).Settings
    try:
        return record.model_validate(dict(settings)).model_dump(mode="json")
    except ValidationError as error:
        message = validation_message(error, "settings", record.model_fields)
        raise ConfigError(f"scoring model {name}: {message}") from None


def build_model(name: str, dims: Mapping[str, int], settings: Mapping[str, Any], seed: int) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: Name of the model.
        dims: Stream name → feature dim.
        settings: Settings that differ from the defaults.
        seed: Seed of the weights.
    """
    import torch

    from .prediction import seeded

    made = model_class(name)
    with seeded(seed, torch.device("cpu")):
        return made(dict(dims), made.Settings.model_validate(dict(settings)))
