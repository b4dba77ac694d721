"""Save and load trained models: ``model.pt`` contains the weights, ``model.json`` their description.

``model.json`` is written last and ends with two digests: ``weights_sha256`` of the bytes of ``model.pt``, and
``sha256`` of its own content. Both are verified on load. Damaged files and files of two different trainings are
rejected.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import ValidationError
from torch import nn

from ..manifests.errors import ConfigError, StoreError, UsageError, WeightsError
from ..manifests.json_text import to_json
from ..manifests.streams import Record
from ..manifests.validation import validation_message
from .protocol import Protocol
from .recipe_differences import describe_differences
from .standardization import Standardized
from .table import build_model

WEIGHTS = "model.pt"
DESCRIPTION = "model.json"


class ModelCard(Record):
    """Description of a checkpoint and of the features that it can score."""

    format: Literal[2, 3] = 3
    """Format 2 has no digests: such a model can be loaded, but damage cannot be detected (see `unverified`)"""
    model: str
    settings: dict[str, Any]
    dims: dict[str, int]
    streams: dict[str, dict[str, Any]]
    """Stream → its entry in the manifest of the feature store, including the digest of its settings"""
    target: str
    score_range: tuple[float, float]
    """Scores that correspond to the fractions 0 and 1"""
    protocol: Protocol
    seed: int
    trained_on: tuple[str, ...]
    """Ids of the training videos, including those that select the epoch with ``validation``"""
    trained_contents: tuple[str, ...] = ()
    """Content digests of the training videos in the same order; empty for models of older versions"""
    chosen_on: tuple[str, ...] = ()
    """Ids of the test videos that selected the epoch with ``best-test``"""
    made_with: dict[str, str]
    recipe: dict[str, Any] | None = None
    """Resolved recipe of the streams; None for imported features"""

    def trained_duplicate(self, content: str) -> str | None:
        """Return the training video with this content, or None."""
        ids = dict(zip(self.trained_contents, self.trained_on, strict=False))
        return ids.get(content) if content else None

    @property
    def unverified(self) -> str:
        """Warning for a model without digests; empty for other models."""
        if self.format >= 3:
            return ""
        return f"{DESCRIPTION} has no digests (an older version wrote it): damage cannot be detected; train it again"


def new_network(card: ModelCard) -> nn.Module:
    """Build the network of the card, untrained."""
    network = build_model(card.model, card.dims, card.settings, card.seed)
    return Standardized(network, card.dims) if card.protocol.standardize else network


def save_checkpoint(folder: Path, network: nn.Module, card: ModelCard) -> list[Path]:
    """Write the weights, then the description with the digests, each atomically. Return the paths."""
    content = io.BytesIO()
    state = network.state_dict()
    for name, value in state.items():
        state[name] = value.cpu()  # the file does not depend on the device of the training
    torch.save(state, content)
    weights = content.getvalue()
    description = card.model_dump(mode="json") | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / DESCRIPTION, to_json_with_digest(description))
    return [folder / WEIGHTS, folder / DESCRIPTION]


def load_checkpoint(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Return the trained network in eval mode and its card.

    Args:
        folder: The folder of `save_checkpoint`, or the file ``model.pt`` in it.

    Raises:
        WeightsError: A file is missing or damaged, or belongs to another training or another version.
        ConfigError: The class of the model is in another package and cannot be imported.
    """
    folder = folder.parent if folder.name == WEIGHTS else folder
    try:
        card, digest = _read_card((folder / DESCRIPTION).read_bytes())
        content = (folder / WEIGHTS).read_bytes()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{WEIGHTS} is damaged or of another training: it is not the file {DESCRIPTION} names")
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ValidationError as error:
        raise WeightsError(
            f"{folder / DESCRIPTION}: {validation_message(error)}; it is of another version of arabesque; "
            "train the model again"
        ) from error
    except FileNotFoundError as error:
        below = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
        advice = f"did you mean {below[0]}?" if below else "name a folder that train wrote"
        raise WeightsError(f"{folder}: not a trained model ({error}); {advice}") from error
    except Exception as error:  # torch raises errors of many types for a forged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{folder}: not a trained model ({reason}); train it again, or copy {WEIGHTS} and {DESCRIPTION} together"
        ) from error
    try:
        network = new_network(card)
    except UsageError as error:
        raise ConfigError(f"{folder / DESCRIPTION}: {error}") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{folder / WEIGHTS}: does not fit {DESCRIPTION} in the same folder; train again") from error
    return network.eval(), card


def _read_card(content: bytes) -> tuple[ModelCard, str | None]:
    """Return the card and the SHA-256 of its weights, or None for a card that was written without digests."""
    description = _json_object(content, DESCRIPTION)
    digest = None
    if description.get("format") == 3:
        description = from_json_with_digest(content, DESCRIPTION)
        digest = description.pop("weights_sha256", None)
        if not isinstance(digest, str):
            raise ValueError(f"{DESCRIPTION} does not name the digest of {WEIGHTS}")
    card = ModelCard.model_validate(description)
    # in older versions, frozen branches were a setting of the network; now they are a setting of training stages
    settings = {name: value for name, value in card.settings.items() if name != "frozen"}
    return card.model_copy(update={"settings": settings}), digest


def to_json_with_digest(content: Mapping[str, Any]) -> bytes:
    """Return indented JSON that ends with the ``sha256`` of its content."""
    plain = json.loads(to_json(content))  # the form in which it will be read: lists for tuples, null for NaN
    return to_json(plain | {"sha256": _digest_of(plain)}).encode()


def from_json_with_digest(content: bytes, name: str) -> dict[str, Any]:
    """Return the content of `to_json_with_digest`.

    Raises:
        ValueError: The content does not have its digest.
    """
    found = _json_object(content, name)
    digest = found.pop("sha256", None)
    if digest != _digest_of(found):
        raise ValueError(f"{name} is damaged or was edited: its content does not have the digest at its end")
    return found


def _json_object(content: bytes, name: str) -> dict[str, Any]:
    found: object = json.loads(content.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{name} contains a {type(found).__name__}, not an object")
    return cast("dict[str, Any]", found)


def _digest_of(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def check_streams(
    card: ModelCard,
    streams: Mapping[str, Mapping[str, Any]],
    where: Path | str,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Check that features were made with the settings of the model's training features.

    Args:
        card: Description of the model.
        streams: Stream → entry in the manifest of the store.
        where: Path of the store, for the error message.
        recipe: Recipe of the features, if known.

    Raises:
        WeightsError: A stream is missing or was made with other settings.
    """
    for stream, entry in card.streams.items():
        if stream not in streams:
            raise WeightsError(f"{where}: no stream {stream!r}, which this model was trained on; extract it first")
        wanted, found = entry["settings_digest"], streams[stream]["settings_digest"]
        if wanted != found:
            differences = describe_differences(stream, entry, streams[stream], card.recipe, recipe)
            raise WeightsError(
                f"{where}: stream {stream!r} was made with settings {found[:12]}, the model was trained on "
                f"{wanted[:12]}{f' ({differences})' if differences else ''}; extract with the recipe of its training, "
                "or train on this store"
            )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk and rename it, so that it is never incomplete.

    Raises:
        StoreError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*"):
            if _belongs_to_dead_process(left):
                left.unlink(missing_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another --out or make room") from error


def _belongs_to_dead_process(temporary: Path) -> bool:
    pid = temporary.name.rpartition(".")[2]
    if not (pid.isascii() and pid.isdigit()) or sys.platform == "win32":  # os.kill would end the process there
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
