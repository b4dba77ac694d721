"""The help and the usage errors of every command fit 80 columns, and are plain text with NO_COLOR."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from arabesque.cli.main import commands

PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm-256color"}


def names() -> Iterator[tuple[str, ...]]:
    yield ()
    group = typer.main.get_command(commands)
    for name, command in sorted(group.commands.items()):  # pyright: ignore[reportAttributeAccessIssue]
        yield (name,)
        yield from ((name, sub) for sub in sorted(getattr(command, "commands", ())))


@pytest.mark.parametrize("command", [*names()], ids=" ".join)
def test_help_and_errors_fit_80_columns_without_color(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    runner = CliRunner(env=PLAIN)
    short, long = (runner.invoke(commands, [*command, option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.stdout == long.stdout
    wrong = runner.invoke(commands, [*command, "--no-such-option"])
    assert wrong.exit_code == 2
    for text in (short.output, wrong.output):
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
        assert text.strip()


@pytest.mark.parametrize("command", [("recipes",), ("weights", "list"), ("weights", "list", "-v")], ids=" ".join)
def test_lists_fit_the_terminal(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: object):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", "w")
    monkeypatch.setenv("COLUMNS", "80")
    found = CliRunner().invoke(commands, command)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    if command == ("recipes",):
        assert len(lines) <= 30
    assert "\x1b" not in found.stdout


def test_no_help_text_loses_words_in_square_brackets():
    """Typer reads them as Rich's markup."""
    group = typer.main.get_command(commands)
    for command in group.commands.values():  # pyright: ignore[reportAttributeAccessIssue]
        for part in (command, *getattr(command, "commands", {}).values()):
            texts = [part.help or "", *(getattr(parameter, "help", None) or "" for parameter in part.params)]
            assert [text for text in texts if Text.from_markup(text).plain != text] == []


def test_help_imports_no_large_package():
    large = {"numpy", "pyarrow", "pydantic", "torch"}
    program = f"import sys; import arabesque.cli.main; print(*sorted({large} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []


def test_every_output_has_the_same_short_option():
    group = typer.main.get_command(commands)
    commands_of_group = group.commands.values()  # pyright: ignore[reportAttributeAccessIssue]
    outputs = [option.opts for each in commands_of_group for option in each.params if "--out" in option.opts]
    assert len(outputs) >= 10
    assert all(names == ["--out", "-o"] for names in outputs)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("arabesque extr", "extract"), ("arabesque score --cli", "--clips")],
    ids=["command", "option"],
)
def test_shells_complete_commands_and_options(words: str, completed: str) -> None:
    position = str(len(words.split()) - 1)
    asked = {"_ARABESQUE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    found = CliRunner(env=asked).invoke(commands, [], prog_name="arabesque")
    assert found.stdout.split() == [completed]
