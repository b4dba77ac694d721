"""Trained models on disk: ``model.pt`` holds the weights, ``model.json`` everything that is needed to use them."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import nn

from ..manifests.complaints import first_complaint
from ..manifests.errors import StoreError, WeightsError
from ..manifests.streams import Record
from .protocol import Protocol
from .recipe_differences import tell_differences
from .standardising import Standardised
from .table import build_model

WEIGHTS = "model.pt"
DESCRIPTION = "model.json"


class ModelCard(Record):
    """What a checkpoint is, and what features it may score."""

    format: Literal[2] = 2
    model: str
    settings: dict[str, Any]
    dims: dict[str, int]
    streams: dict[str, dict[str, Any]]
    """The feature store's manifest entry per stream, its settings digest included"""
    target: str
    score_range: tuple[float, float]
    """The scores that the fractions 0 and 1 stand for"""
    protocol: Protocol
    seed: int
    trained_on: tuple[str, ...]
    """The videos that its weights were learnt from, those included by which ``validation`` chose the epoch"""
    chosen_on: tuple[str, ...] = ()
    """The test videos by which ``best-test`` chose the epoch"""
    made_with: dict[str, str]
    recipe: dict[str, Any] | None = None
    """What extracted the streams, with every setting; None where others did"""


def new_network(card: ModelCard) -> nn.Module:
    """The card's network before training."""
    network = build_model(card.model, card.dims, card.settings, card.seed)
    return Standardised(network, card.dims) if card.protocol.standardise else network


def save_checkpoint(folder: Path, network: nn.Module, card: ModelCard) -> list[Path]:
    """Writes both files, each whole or not at all, weights first."""
    content = io.BytesIO()
    torch.save(network.state_dict(), content)
    put_whole(folder / WEIGHTS, content.getvalue())
    put_whole(folder / DESCRIPTION, card.model_dump_json(indent=2).encode())
    return [folder / WEIGHTS, folder / DESCRIPTION]


def load_checkpoint(folder: Path) -> tuple[nn.Module, ModelCard]:
    """The trained network in eval mode and its card; raises `WeightsError` where they do not belong together.

    ``folder``: what `save_checkpoint` was given, or the file of weights in it.
    """
    folder = folder.parent if folder.name == WEIGHTS else folder
    try:
        card = ModelCard.model_validate_json((folder / DESCRIPTION).read_text(encoding="utf-8"))
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    except ValidationError as error:
        raise WeightsError(
            f"{folder / DESCRIPTION}: {first_complaint(error)}; it is of another version of arabesque, train the model "
            "again"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0]
        below = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
        way_out = f"did you mean {below[0]}?" if below else "name a folder that train wrote"
        raise WeightsError(f"{folder}: not a trained model ({first}); {way_out}") from error
    network = new_network(card)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{folder / WEIGHTS}: does not fit {DESCRIPTION} beside it; train again") from error
    return network.eval(), card


def check_streams(
    card: ModelCard,
    streams: Mapping[str, Mapping[str, Any]],
    where: Path | str,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Features made under other settings must not be scored: raises `WeightsError` that names stream and settings.

    ``streams``: the features' manifest entries; ``recipe``: what made them, where that is known.
    """
    for stream, entry in card.streams.items():
        if stream not in streams:
            raise WeightsError(f"{where}: no stream {stream!r}, which this model was trained on; extract it first")
        wanted, found = entry["settings_digest"], streams[stream]["settings_digest"]
        if wanted != found:
            told = tell_differences(stream, entry, streams[stream], card.recipe, recipe)
            raise WeightsError(
                f"{where}: stream {stream!r} was made with settings {found[:12]}, the model was trained on "
                f"{wanted[:12]}{f' ({told})' if told else ''}; extract with the recipe of its training, or train on "
                "this store"
            )


def put_whole(path: Path, content: bytes) -> None:
    """Written under a temporary name, flushed to disk and renamed: there is never half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another --out or make room") from error


def to_json(value: Any) -> bytes:
    """Readable JSON, keys in their order; a number that is undefined (NaN) becomes null, which JSON has a word for."""
    return (json.dumps(_defined(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _defined(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _defined(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
