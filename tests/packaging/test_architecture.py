"""The structure of the repository: packages, the direction of imports, and the contents of a wheel."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from import_graph import import_cycles, import_graph, parsed

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("manifests", "extractors", "pipeline", "models", "reports", "cli")
"""Packages in the order of imports: each may import itself and those before it."""
MAY_IMPORT = {
    "manifests": {"manifests"},
    "extractors": {"manifests", "extractors"},
    "pipeline": {"manifests", "extractors", "pipeline"},
    "models": {"manifests", "extractors", "pipeline", "models"},
    "reports": {"manifests", "extractors", "pipeline", "models", "reports"},
    "cli": set(ROOMS),
    "arabesque": {*ROOMS, *(path.stem for path in (ROOT / "arabesque").glob("*.py"))},
}
FOR_MODELS = {"store", "system"}
"""Folders of the pipeline that models may import: the feature store, and the helpers for processes and logs."""
FOLDERS = {
    "system": set[str](),
    "weights": {"system"},
    "decoding": {"system"},
    "store/files": set[str](),
    "store/concurrency": {"store/files"},
    "store": {"store/files", "store/concurrency"},
    "store/maintenance": {"store", "store/files", "store/concurrency"},
    "planning": {"system", "decoding", "store", "store/files", "store/concurrency"},
    "stages": {"system", "decoding", "store", "store/files", "store/concurrency", "planning"},
    "workers": {"system", "store", "store/files", "store/concurrency", "planning"},
    "interop": {"system", "store", "store/files", "store/concurrency", "store/maintenance"},
    "benchmarking": {"system", "decoding", "store", "store/files", "store/concurrency", "planning", "stages"},
}
"""Folder of `pipeline` → the other folders that it may import. Its top-level modules connect the folders."""
HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "ultralytics",
    "pytorchvideo",
    "librosa",
    "cv2",
    "av",
    "decord",
    "spdl",
}


def sources(room: str) -> list[Path]:
    """Return the files of a package; for `arabesque` without those behind its links."""
    return sorted((ROOT / room).glob("*.py") if room == "arabesque" else (ROOT / room).rglob("*.py"))


def imported_rooms(path: Path, room: str) -> list[tuple[str, str]]:
    """Return ``(package, module or folder below it)`` for each of our modules that a file imports, in any form."""
    package = ["arabesque", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module or "").split(".")] if node.module else base
            targets = [[*parts, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found += [(target[1], target[2]) for target in targets if target[0] == "arabesque" and len(target) > 2]
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    assert sources(room)
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}.{module}"
        for path in sources(room)
        for other, module in imported_rooms(path, room)
        if other not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_models_import_only_the_store_and_system_of_the_pipeline():
    wrong = [
        f"{path.name} imports pipeline.{module}"
        for path in sources("models")
        for other, module in imported_rooms(path, "models")
        if other == "pipeline" and module not in FOR_MODELS
    ]
    assert wrong == []


def test_the_pipeline_does_not_name_networks():
    allowed = {
        "protocol",
        "table",
        "class_scores",
        "checkpoints",
        "checkpoint_fit",
        "hub_snapshot",
        "geometry",
        "precision",
        "weight_sources",
        "engines",
        "device_copies",
    }
    wrong = [
        f"{path.name} imports extractors.{module}"
        for path in sources("pipeline")
        for other, module in imported_rooms(path, "pipeline")
        if other == "extractors" and module not in allowed
    ]
    assert wrong == []


def folder_of(module: str) -> str:
    """Return the folder of a module of `pipeline`, such as ``store/files``; empty for a top-level module."""
    parts = module.split(".")[1:]
    return "/".join(parts if (ROOT / "pipeline" / Path(*parts)).is_dir() else parts[:-1])


def test_folders_of_the_pipeline_import_one_way():
    known = {folder_of(module) for module in import_graph() if module.startswith("pipeline.")} - {""}
    assert known == FOLDERS.keys()
    wrong = [
        f"{module} imports {other}"
        for module, others in import_graph().items()
        for other in others
        if module.startswith("pipeline.") and other.startswith("pipeline.")
        if (folder := folder_of(module)) and folder_of(other) not in {"", folder, *FOLDERS[folder]}
    ]
    assert wrong == []
    order = list(FOLDERS)
    assert all(order.index(other) < order.index(folder) for folder, others in FOLDERS.items() for other in others)


def test_no_modules_import_each_other():
    assert import_cycles() == []


@pytest.mark.parametrize("room", ["manifests", "cli"])
def test_manifests_and_commands_import_nothing_heavy_at_the_top(room):
    deferred = {"progress.py"}  # imported when a command runs
    wrong = []
    for path in sources(room):
        if path.name in deferred:
            continue
        for node in parsed(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] in HEAVY]
    assert wrong == []


def test_the_list_of_packages_is_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"arabesque"} | {
        "arabesque." + ".".join(init.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == found


def test_every_package_is_typed_and_linked_for_type_checkers():
    assert (ROOT / "arabesque" / "py.typed").exists()
    for room in ROOMS:
        assert (ROOT / room / "py.typed").exists()
        assert (ROOT / "arabesque" / room).resolve() == ROOT / room


def test_lock_files_pin_every_dependency_by_hash_and_name_no_address():
    import re

    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pinned = set(re.findall(r"^([a-z0-9-]+)==", text, flags=re.MULTILINE))
        assert {re.match(r"[a-z0-9-]+", line)[0] for line in dependencies} <= pinned  # type: ignore[index]
        assert text.count("==") <= text.count("--hash=sha256:")
        assert "://" not in text
