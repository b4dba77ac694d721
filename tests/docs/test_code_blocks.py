"""Every code block of the README and of the manual runs, or its page states why not; every command in them exists."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from clips import Clip, write_clip
from code_blocks import PAGES, ROOT, Block, blocks_of, commands_in

from arabesque.cli.main import commands

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = {page.stem: page for page in PAGES if any(block.is_run for block in blocks_of(page))}
NUM_VIDEOS = 10


def test_every_block_has_a_language_and_every_exception_a_reason() -> None:
    known = {"bash", "python", "toml", "text", "csv", "json", ""}  # without a language: fields and drawings
    assert [str(block) for block in BLOCKS if block.language not in known] == []
    for block in BLOCKS:
        kind, _, reason = block.directive.partition(":")
        assert kind in ("", "shared", "file", "not run"), block
        assert len(reason) > 5 or kind in ("", "shared"), block
    assert len([block for block in BLOCKS if block.is_run]) > 30


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("python", "toml")], ids=str)
def test_python_and_toml_are_valid(block: Block) -> None:
    if block.language == "python":
        compile(block.text, str(block), "exec")
    else:
        tomllib.loads(block.text.replace("…", ""))


@pytest.fixture(scope="module")
def group() -> Any:
    return typer.main.get_command(commands)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_every_command_and_option_exists(block: Block, group: Any) -> None:
    for words in commands_in(block):
        if words in (["--version"], ["--help"], ["--install-completion"]):
            continue
        command, name, arguments = group.commands[words[0]], words[0], words[1:]
        if hasattr(command, "commands"):
            command, name, arguments = command.commands[arguments[0]], arguments[0], arguments[1:]
        with command.make_context(name, list(arguments)):
            pass


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the manual assumes, with videos, their scores, and a store of their features."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "VIDEOS").mkdir()
    lines = ["video_id,score"]
    for index in range(NUM_VIDEOS):
        write_clip(
            folder / "VIDEOS" / f"Ball_{index:03d}.mp4", Clip(num_frames=40 + 4 * index, beeps_s=(0.2 + 0.1 * index,))
        )
        lines.append(f"Ball_{index:03d},{10 + 1.5 * (index * 7 % 10)}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    extract = ["extract", "VIDEOS", "--recipe", "starter", "--out", "features"]
    subprocess.run([sys.executable, "-m", "arabesque", *extract], cwd=folder, check=True, timeout=900)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_order(page: str, prepared: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", f"{prepared}/.", str(tmp_path)], check=True)
    for name in ("examples", "docker", "manifests", "bootstrap.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    shared = ROOT.parent / "shared"
    if shared.exists():
        (tmp_path / "shared").symlink_to(shared)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ARABESQUE_WEIGHTS": str(tmp_path / "weights"),
        "COLUMNS": "120",
    }
    python: list[str] = []
    for block in blocks_of(RUN[page]):
        kind, _, name = block.directive.partition(":")
        if kind == "file":
            (tmp_path / name.strip()).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name.strip()).write_text(block.text)
        if not block.is_run or (kind == "shared" and not shared.exists()):
            continue
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        else:  # the blocks of a page are one program: later ones use names of earlier ones
            python.append(block.text)
            command = [sys.executable, "-c", "\n".join(["if True:", *_indented(python)])]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout}\n{done.stderr}"


def _indented(blocks: list[str]) -> list[str]:
    return ["    " + line for block in blocks for line in block.splitlines()]
