"""The options that every command has: how much it writes to standard error, and a log file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ..pipeline.system.logs import LogSettings, current_logs, set_up_logs

VERBOSE = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Also show decisions such as retries and skipped files; -vv shows more.",
        rich_help_panel="Messages",
    ),
]
QUIET = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show only results, warnings and errors.", rich_help_panel="Messages"),
]
LOG_FILE = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Append all messages, with those of -v, to this file.",
        rich_help_panel="Messages",
    ),
]
DEBUG = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks, and the messages of libraries.", rich_help_panel="Messages"),
]
_OPTIONS = {"verbose": (VERBOSE, 0), "quiet": (QUIET, False), "log_file": (LOG_FILE, None), "debug": (DEBUG, False)}


def with_messages(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``-v``, ``-q``, ``--log-file`` and ``--debug`` to the function of a command."""

    @wraps(command)
    def run(*arguments: Any, verbose: int, quiet: bool, log_file: Path | None, debug: bool, **options: Any) -> Any:
        set_up_logs(LogSettings(-1 if quiet else verbose, log_file, debug))
        return command(*arguments, **options)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def notes_are_shown() -> bool:
    """Whether messages other than results, warnings and errors are shown (no ``-q``)."""
    settings = current_logs()
    return settings is None or settings.verbosity >= 0


def verbose_is_shown() -> bool:
    """Whether details are shown (``-v``)."""
    settings = current_logs()
    return settings is not None and settings.verbosity >= 1


def progress_is_shown() -> bool:
    """Whether standard error is a terminal that shows live progress."""
    return notes_are_shown() and sys.stderr.isatty()
