"""Checks of arguments that run before torch is imported (which takes seconds), so that errors are reported at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.errors import InputError, WeightsError
from ..manifests.optional_packages import require_package

if TYPE_CHECKING:
    from ..extractors.engines import Engine
    from ..manifests.recipes import Recipe
    from ..manifests.streams import StreamSpec
    from ..models.metric_log import LogFormat

WEIGHTS_MANIFEST = Annotated[
    Path | None,
    typer.Option(
        "--weights-manifest", help="TOML file with checkpoints of your own, in the form of manifests/weights.toml."
    ),
]
ID_PREFIX = Annotated[
    str,
    typer.Option(help="Prefix of the video ids (NAME/…), if the store uses the ids for other files."),
]
REPLACE = Annotated[
    bool,
    typer.Option("--replace", help="Replace stored features whose id now belongs to another file."),
]

GPU_DEVICES = ("nvidia[0-9]*", "nvidiactl", "nvgpu*", "nvhost*", "kfd", "dxg")
"""Names in /dev that show a possible GPU: NVIDIA, NVIDIA Tegra, AMD, Windows Subsystem for Linux."""


def check_device(name: str) -> None:
    """Raise if the name is not a device, or is a GPU on a machine without one. torch checks the index later."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", name):
        raise typer.BadParameter(f"{name!r} is not a device; give auto, cpu, cuda or cuda:1", param_hint="--device")
    if name.startswith("cuda") and sys.platform == "linux" and not _may_have_gpu():
        raise typer.BadParameter(
            f"{name!r} is not available: /dev lists no GPU; give cpu, or run `arabesque doctor`",
            param_hint="--device",
        )


TRAINING_DEVICE = Annotated[str, typer.Option(help="Device of features and networks: auto, cpu, cuda or cuda:N.")]
LOGGER = Annotated[
    str | None, typer.Option(help="Write curves of each training to its folder: csv (metrics.csv) or tensorboard.")
]


def check_logger(name: str | None) -> LogFormat | None:
    """Return the format of curves; raise if the name is unknown."""
    if name is None or name == "csv" or name == "tensorboard":
        return name
    raise typer.BadParameter(f"{name!r} is neither csv nor tensorboard; give one of them", param_hint="--logger")


def check_decoder(name: str) -> None:
    """Raise if the name is not a decoder backend, or if its package is not installed."""
    from ..pipeline.decoding.decoders import BACKENDS, check_backend

    if name not in BACKENDS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(BACKENDS)}", param_hint="--decoder")
    check_backend(name)


def check_engine(name: str, device: str) -> Engine:
    """Return the engine; raise if it is unknown or not installed, or does not run on the device."""
    if name in ("torch", "compile"):
        return name
    if name != "openvino":
        raise typer.BadParameter(f"{name!r} is not an engine; give torch, compile or openvino", param_hint="--engine")
    if device.startswith("cuda"):
        raise typer.BadParameter("openvino runs on the CPU; add --device cpu", param_hint="--engine")
    require_package("openvino", "--engine openvino")
    return "openvino"


def check_streams(recipe: Recipe, names: list[str] | None, override: str | None) -> None:
    """Raise if the recipe lacks a stream, or if an extractor, a package or a checkpoint is missing."""
    from ..extractors.table import require_available

    for name in names or ():
        if name not in recipe.streams:
            known = ", ".join(recipe.streams)
            raise typer.BadParameter(
                f"{recipe.name} has no stream {name!r}; choose from {known}", param_hint="--stream"
            )
    chosen: Mapping[str, StreamSpec] = {name: recipe.streams[name] for name in names or recipe.streams}
    for spec in chosen.values():
        require_available(spec)
    from ..pipeline.weights.required import require_checkpoints

    try:
        require_checkpoints(recipe, chosen, override)
    except WeightsError:
        if recipe.changes:  # a misspelled role leaves the checkpoint of the right one missing
            from ..extractors.table import resolved_recipe

            resolved_recipe(recipe.model_copy(update={"streams": chosen}))
        raise


def check_features(path: str) -> None:
    """Raise if the path is neither a feature store nor a file or folder of released features."""
    from ..pipeline.store.files.storage import as_store_path
    from ..pipeline.store.manifest import read_manifest

    root = as_store_path(path)
    if isinstance(root, Path):
        if not root.exists():
            raise InputError(f"{root}: does not exist; check the path")
        if root.suffix == ".npz" or (root.is_dir() and next(root.glob("*.npy"), None) is not None):
            return
    read_manifest(root)


def check_store_path(store: str) -> None:
    """Raise if the path is missing or a file. The contents are not read, so a damaged store passes."""
    from ..pipeline.store.files.storage import as_store_path

    root = as_store_path(store)
    if isinstance(root, Path) and not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{root}: {what}; give the folder of a feature store")


def check_store_or_new(path: str) -> None:
    """Raise if the path is neither a feature store nor free for a new one."""
    from ..pipeline.store.files.storage import as_store_path
    from ..pipeline.store.manifest import is_free, is_store

    root = as_store_path(path)
    if not is_store(root) and not is_free(root):
        raise InputError(f"{root}: is not empty and not a feature store; give a new or empty folder")


def model_folder(folder: Path) -> Path:
    """Return the folder of a trained model; the path of the ``model.pt`` in it is accepted, too."""
    if folder.name == "model.pt":
        folder = folder.parent
    if not folder.exists():
        raise InputError(f"{folder}: does not exist; give a folder that `arabesque train` wrote")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the folder that `arabesque train` wrote")
    for name in ("model.json", "model.pt"):
        if not (folder / name).exists():
            below = sorted(path.parent for path in folder.glob("*/model.json"))
            remedy = f"did you mean {below[0]}?" if below else "give a folder that `arabesque train` wrote"
            raise InputError(f"{folder}: has no {name}, so it is not a trained model; {remedy}")
    return folder


def check_labels(labels: Path, dataset: str | None, target: str | None, *, drop_first: bool = False) -> None:
    """Raise if a label file is missing or unreadable, the data set is unknown, or it has no such target score."""
    if dataset is None:
        from ..models.labels import read_labels

        read_labels(labels, target)
        return
    from ..models.named_labels import read_named_labels

    read_named_labels(dataset, labels, target, drop_first=drop_first)


def check_output_folder(folder: Path, option: str) -> None:
    """Raise if the output folder, or the nearest existing parent, is a file."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise typer.BadParameter(f"{nearest} is a file; give a folder", param_hint=option)


def _may_have_gpu() -> bool:
    return any(next(Path("/dev").glob(pattern), None) is not None for pattern in GPU_DEVICES)
