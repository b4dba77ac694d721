"""The door: one Typer application, one file per command, and what a person sees when something goes wrong.

Exit statuses: 0 all done or empty, 3 finished with failures, 1 the run itself failed, 2 wrong usage (a recipe, an input
or an output folder that cannot be obeyed included), 130 and 143 interrupted by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, NoReturn

import typer

from ..manifests.errors import ArabesqueError, ManifestError
from . import (
    bench,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    import_features,
    recipes,
    reproduce,
    score,
    status,
    train,
    verify,
    weights,
)

commands = typer.Typer(
    name="arabesque",
    help="Raw gymnastics and skating videos to feature stores for action quality assessment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
commands.command("extract")(extract.extract)
commands.command("status")(status.status)
commands.command("verify")(verify.verify)
commands.command("repair")(verify.repair)
commands.command("recipes")(recipes.recipes)
commands.command("train")(train.train)
commands.command("score")(score.score)
commands.command("evaluate")(evaluate.evaluate)
commands.command("reproduce")(reproduce.reproduce)
commands.command("compare")(compare.compare)
commands.command("import")(import_features.import_features)
commands.command("export")(export.export)
commands.command("bench")(bench.bench)
commands.command("demo")(demo.demo)
commands.command("doctor")(doctor.doctor)
commands.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"arabesque {version('arabesque')}")
        raise typer.Exit


@commands.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Anywhere in the line: show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the door itself; `app` has taken ``--debug`` out before they are read."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not a `KeyboardInterrupt`, which Typer would swallow and report as status 1."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def app() -> None:
    """The console script: runs a command and turns what it raises into one line and an exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    logging.basicConfig(level=logging.INFO if debug else logging.CRITICAL)  # the engine logs what we turn into outcomes
    try:
        commands()
    except Interrupted as interruption:
        print(f"arabesque: {interruption}: finished work is kept; the same command goes on from there", file=sys.stderr)
        _leave(interruption.exit_status)
    except Exception as error:
        if debug:
            raise
        expected = isinstance(error, ArabesqueError)
        about = "" if expected else f"unexpected {type(error).__name__} (--debug shows where; please report it): "
        print(f"arabesque: {about}{_one_line(str(error))}", file=sys.stderr)
        _leave(2 if isinstance(error, ManifestError) else 1)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for repeated in (signal.SIGINT, signal.SIGTERM):
        signal.signal(repeated, signal.SIG_IGN)  # the first one is being obeyed
    raise Interrupted(number)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _leave(status: int) -> NoReturn:
    """Ends the process; without waiting for a network in the middle of a batch: all that is finished is on disk."""
    sys.stdout.flush()
    sys.stderr.flush()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        os._exit(status)
    sys.exit(status)
