"""Checkpoints of torchvision and timm, ``torchvision:NAME.WEIGHTS`` and ``timm:NAME.TAG``, without a TOML entry."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from .errors import ConfigError
from .optional_packages import require_package
from .weights import WeightsEntry

TORCHVISION_LAYOUT, TIMM_LAYOUT = "torchvision", "timm"


def is_published(name: str) -> bool:
    """Return whether the name is that of a checkpoint of torchvision or timm."""
    return name.startswith(("torchvision:", "timm:"))


def published_entry(name: str) -> WeightsEntry:
    """Return a checkpoint of torchvision or timm.

    Raises:
        ConfigError: The package publishes no such weights.
        MissingPackageError: timm is not installed.
    """
    package, _, rest = name.partition(":")
    return torchvision_entry(rest) if package == "torchvision" else timm_entry(rest)


def torchvision_weights(network: str, weights: str = "") -> Any:
    """Return a member of torchvision's weights enumeration of a network.

    Args:
        network: Name of the network, e.g. ``resnet50``.
        weights: Name of the member, e.g. ``IMAGENET1K_V1``; torchvision's default if it is empty.

    Raises:
        ConfigError: There are no such weights.
    """
    models: Any = import_module("torchvision.models")
    try:
        members = models.get_model_weights(network)
    except ValueError as error:
        raise ConfigError(f"torchvision:{network}: torchvision has no such network; check the name") from error
    if not weights:
        return members.DEFAULT
    if weights not in members.__members__:
        raise ConfigError(
            f"torchvision:{network} has no weights {weights!r}; there are {', '.join(members.__members__)}"
        )
    return members[weights]


def torchvision_entry(name: str) -> WeightsEntry:
    """Return the checkpoint ``NAME.WEIGHTS`` of torchvision.

    Raises:
        ConfigError: torchvision has no such weights.
    """
    network, _, member = name.partition(".")
    weights = torchvision_weights(network, member)
    file_name = weights.url.rpartition("/")[2]
    digest = re.search(r"-([0-9a-f]{8})\.pth$", file_name)
    metrics: dict[str, dict[str, float]] = weights.meta.get("_metrics", {})
    accuracies = [f"{values['acc@1']} % top-1" for values in metrics.values() if "acc@1" in values]
    return WeightsEntry(
        name=f"torchvision:{network}.{weights.name}",
        file_name=file_name,
        urls=(weights.url,),
        sha256_prefix=digest[1] if digest else None,
        license="CC-BY-NC-4.0" if "SWAG" in weights.name else "BSD-3-Clause",
        layout=TORCHVISION_LAYOUT,
        trained_on=f"{weights.name} ({', '.join(accuracies)})" if accuracies else weights.name,
        source=f"torchvision, {type(weights).__name__}.{weights.name}",
    )


def timm_entry(name: str) -> WeightsEntry:
    """Return the checkpoint ``NAME.TAG`` of timm.

    Raises:
        ConfigError: timm has no such weights.
        MissingPackageError: timm is not installed.
    """
    require_package("timm", f"checkpoint timm:{name}")
    from timm.models import get_pretrained_cfg

    found: Any = get_pretrained_cfg(name, allow_unregistered=True)
    if found is None or not found.hf_hub_id:
        raise ConfigError(
            f"checkpoint timm:{name}: timm publishes no such weights; `timm.list_pretrained()` lists them"
        )
    repository = found.hf_hub_id if not found.hf_hub_id.endswith("/") else f"{found.hf_hub_id}{name}"
    return WeightsEntry(
        name=f"timm:{name}",
        file_name="model.safetensors",
        urls=(f"https://huggingface.co/{repository}/resolve/main/model.safetensors",),
        license=found.license or "see the model card",
        layout=TIMM_LAYOUT,
        trained_on=found.tag or "see the model card",
        source=f"https://huggingface.co/{repository}",
    )
