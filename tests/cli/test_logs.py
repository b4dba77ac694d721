"""What the commands write to standard error and to a log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError
from arabesque.pipeline.system import logs
from arabesque.pipeline.system.logs import LogSettings, set_up_logs

SECRET = "s3cr3t"
URL = f"https://user:{SECRET}@example.org/a.mp4?X-Amz-Signature={SECRET}"


@pytest.fixture(autouse=True)
def usual_logs() -> Iterator[None]:
    yield
    set_up_logs(LogSettings())


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((3, 4), np.float32))
    return folder


def names(command: typer.core.TyperCommand | object, prefix: str = "") -> Iterator[list[str]]:
    for name, found in getattr(command, "commands", {}).items():
        below = list(names(found, name))
        yield from ([name, *each] for each in below) if below else [[name]]


def test_every_command_has_the_options() -> None:
    all_names = list(names(typer.main.get_command(commands)))
    assert ["weights", "list"] in all_names
    assert len(all_names) > 15
    for name in all_names:
        shown = CliRunner().invoke(commands, [*name, "--help"], env={"COLUMNS": "200"}).output
        assert all(option in shown for option in ("--verbose", "-v", "--quiet", "-q", "--log-file", "--debug")), name


@pytest.mark.parametrize(
    ("options", "notes", "decisions"), [([], True, False), (["-q"], False, False), (["-vv"], True, True)]
)
def test_notes_and_decisions(exported: Path, tmp_path: Path, options: list[str], notes: bool, decisions: bool) -> None:
    log = tmp_path / "logs" / "import.log"
    arguments = ["import", str(exported), "--out", str(tmp_path / "out"), *options, "--log-file", str(log)]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert ("1 imported" in done.stderr) == notes
    assert ("reading_child" in done.stderr) == decisions
    text = log.read_text()
    assert "1 imported" in text
    assert "reading_child" in text
    assert f" {os.getpid()} arabesque.cli.import_features: " in text


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--log-file .*file/x\.log: cannot be written \(.*\); give another path"):
        set_up_logs(LogSettings(file=tmp_path / "file" / "x.log"))


def test_credentials_are_never_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(LogSettings(verbosity=2, file=tmp_path / "x.log", debug=True))
    try:
        raise OSError(f"cannot open {URL}")
    except OSError:
        logging.getLogger("arabesque.pipeline").exception("reading %s failed", URL)
        logging.getLogger("urllib3.connectionpool").info("GET %s", URL)
    for text in (capsys.readouterr().err, (tmp_path / "x.log").read_text()):
        assert "Traceback" in text
        assert "https://example.org/a.mp4" in text
        assert SECRET not in text


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_message_that_cannot_be_written_is_dropped(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["import", str(exported), "--out", str(tmp_path / "out"), "--log-file", "/dev/full"]
    assert CliRunner().invoke(commands, arguments).exit_code == 0
    set_up_logs(LogSettings(file=Path("/dev/full")))
    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("arabesque.cli").warning("dropped")


def test_messages_of_libraries_are_shown_with_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    for debug in (False, True):
        set_up_logs(LogSettings(debug=debug))
        logging.getLogger("spdl.pipeline").error("stage failed")
        assert ("stage failed" in capsys.readouterr().err) == debug


def test_later_settings_replace_the_first() -> None:
    before = len(logging.getLogger().handlers)
    for _ in range(3):
        set_up_logs(LogSettings(verbosity=1))
    assert len(logging.getLogger().handlers) <= before + 1
    assert logs.current_logs() == LogSettings(verbosity=1)
