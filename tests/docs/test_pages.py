"""Links between files of the repository, the length of the README, and the pages that are written from the code.

`make docs` checks the links and headings inside the site.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from code_blocks import ROOT

from arabesque.cli.main import commands
from arabesque.extractors.table import EXTRACTORS
from arabesque.models.published_tables import list_tables

GENERATED = {"commands.md", "stream-cards.md", "tables.md"}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *(ROOT / name / "README.md" for name in ("benchmarks", "examples", "manifests/recipes", "models")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The module that writes pages from the code."""
    return _script_of_docs("generate")


def _script_of_docs(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_tutorial_executed() -> None:
    notebook = json.loads((ROOT / "examples" / "first_store.ipynb").read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    page = _script_of_docs("notebook").cells_of((ROOT / "docs" / "first-store.md").read_text(encoding="utf-8"))
    assert [(kind, text.replace("attachment:", "pictures/")) for kind, text in cells] == page
    assert sum(len(cell.get("attachments", {})) for cell in notebook["cells"]) == 2  # pictures
    outputs = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(outputs[:3])  # the demo, the contact sheet and status print something
    assert [each for group in outputs for each in group if each["output_type"] == "error"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_linked_file_exists(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text)
    local = [target for target in targets if "://" not in target and target not in GENERATED]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_readme_has_at_most_900_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", ["README.md", "docs/streams.md"])
def test_the_table_of_streams_has_the_licenses_of_the_checkpoints(page: str) -> None:
    entries = tomllib.loads((ROOT / "manifests" / "weights.toml").read_text(encoding="utf-8"))["weights"]
    rows = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = [(row, name) for row in rows for name in re.findall("`([a-z0-9_]+)`", row) if name in entries]
    assert len(named) >= 5
    detectors = {"yolov8n", "yolov3"}  # they have a table of their own
    assert [
        (row, name)
        for row, name in named
        if name not in detectors and entries[name]["license"].removesuffix(" by the port") not in row
    ] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} | GENERATED


def test_the_reference_has_every_command_and_option(generate: ModuleType) -> None:
    page = generate.commands_page()
    group = typer.main.get_command(commands)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f"\n## {name}\n" in page
        for member in getattr(command, "commands", {name: command}).values():
            options = [option for each in member.params for option in each.opts if option.startswith("--")]
            assert [option for option in options if f"`{option}" not in page] == []


def test_every_extractor_has_a_card_and_every_table_a_status(generate: ModuleType) -> None:
    cards, tables = generate.stream_cards(), generate.tables_page()
    assert [name for name in EXTRACTORS if f"\n## {name}\n" not in cards] == []
    assert generate.CHECKED.keys() == EXTRACTORS.keys()
    assert [name for name in list_tables() if f"\n## {name}: " not in tables] == []
    assert "| PAMFN, RGB branch | trained on Fis-V | vst | .665 | .823 |" in tables


def test_the_results_are_the_same_in_both_places() -> None:
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if " | TES | " in line or " | PCS | " in line]
    assert len(table) == 12
    assert set(table) <= set((ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines())
