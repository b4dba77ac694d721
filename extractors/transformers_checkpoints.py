"""Load networks of transformers from the configuration and tensors of a folder. Code of a repository is never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from ..manifests.errors import ConfigError, WeightsError
from .hub_snapshot import CheckpointFolder


def read_config(checkpoint: CheckpointFolder, name: str) -> Any:
    """Return the configuration of a checkpoint.

    Args:
        checkpoint: The folder.
        name: Name of the checkpoint in error messages.

    Raises:
        ConfigError: It is not a configuration, or not of a network that transformers implements.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    raw = checkpoint.read_config()
    model_type = raw.get("model_type")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise ConfigError(
                f"transformers:{name}: the checkpoint needs code of its repository, which is never run; choose a "
                "checkpoint that transformers itself implements"
            )
        raise ConfigError(
            f"transformers:{name}: transformers {__version__} does not implement model type {model_type!r}"
        )
    try:
        return cast("Any", AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=False, local_files_only=True))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # configurations raise errors of any type
        raise ConfigError(f"transformers:{name}: config.json: {one_line(error)}") from error


def filled(
    kind: Any,
    checkpoint: CheckpointFolder,
    config: Any,
    is_needed: Callable[[str], bool] = lambda _: True,
    hint: Callable[[list[str]], str] = lambda _: "",
) -> Any:
    """Return a network with the tensors of a checkpoint.

    Args:
        kind: A class of transformers that has ``from_pretrained``.
        checkpoint: The folder with its digest.
        config: Its configuration.
        is_needed: Returns whether a tensor of this name must be in the checkpoint.
        hint: Returns the end of the error message for the names of missing tensors.

    Raises:
        WeightsError: The files have changed, do not load, or lack tensors.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # arabesque shows its own
    if checkpoint.with_digest().digest != checkpoint.digest:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} has changed since it was verified; run again"
        )
    try:
        network, report = kind.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} does not load: {one_line(error)}"
        ) from error
    missing = [name for name in report["missing_keys"] if is_needed(name)]
    if missing or report["mismatched_keys"]:
        lacking = ", ".join(sorted(map(str, [*missing, *report["mismatched_keys"]]))[:3])
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} lacks tensors of its network ({lacking}){hint(missing)}"
        )
    return network


def one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
