"""The shape of the repository: rooms, the direction of imports, and what is packed into a wheel."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("manifests", "extractors", "pipeline", "models", "cli")
"""In the order of imports: a room may import itself and those before it."""
MAY_IMPORT = {
    "manifests": {"manifests"},
    "extractors": {"manifests", "extractors"},
    "pipeline": {"manifests", "extractors", "pipeline"},
    "models": {"manifests", "extractors", "pipeline", "models"},
    "cli": set(ROOMS),
}
STORE = {"store"}
"""What the models room may know of the pipeline."""
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
    return sorted((ROOT / room).rglob("*.py"))


def imported_rooms(path: Path, room: str) -> list[tuple[str, str]]:
    """``(room, module or folder below it)`` for everything of ours that a file imports, however it says so."""
    package = ["arabesque", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
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


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    assert sources(room)
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}.{module}"
        for path in sources(room)
        for other, module in imported_rooms(path, room)
        if other not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_models_know_only_the_store_of_the_pipeline():
    wrong = [
        f"{path.name} imports pipeline.{module}"
        for path in sources("models")
        for other, module in imported_rooms(path, "models")
        if other == "pipeline" and module not in STORE
    ]
    assert wrong == []


def test_the_pipeline_knows_no_network_by_name():
    allowed = {"protocol", "table", "checkpoints", "geometry", "precision"}
    wrong = [
        f"{path.name} imports extractors.{module}"
        for path in sources("pipeline")
        for other, module in imported_rooms(path, "pipeline")
        if other == "extractors" and module not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["manifests", "cli"])
def test_manifests_and_commands_import_nothing_heavy_at_the_top(room):
    deferred = {"progress.py"}  # imported by a command once it runs
    wrong = []
    for path in sources(room):
        if path.name in deferred:
            continue
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] in HEAVY]
    assert wrong == []


def test_the_list_of_packages_is_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "arabesque." + ".".join(init.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == found


def test_every_room_is_typed_and_linked_for_type_checkers():
    for room in ROOMS:
        assert (ROOT / room / "py.typed").exists()
        assert (ROOT / "_namespace" / "arabesque" / room).resolve() == ROOT / room


def test_lock_files_pin_every_dependency_by_hash_and_name_no_address():
    import re

    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pinned = set(re.findall(r"^([a-z0-9-]+)==", text, flags=re.MULTILINE))
        assert {re.match(r"[a-z0-9-]+", line)[0] for line in dependencies} <= pinned  # type: ignore[index]
        assert text.count("==") <= text.count("--hash=sha256:")
        assert "://" not in text
