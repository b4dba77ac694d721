"""The Typer application: registers the commands and turns exceptions into an error line and an exit status.

Exit statuses: 0 all done or empty, 3 finished with failures, 1 the run itself failed, 2 wrong usage (this includes an
invalid recipe, input or output folder), 130 and 143 interrupted by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType, TracebackType
from typing import Annotated, NoReturn

import typer

from ..manifests.errors import ArabesqueError, UsageError
from ..manifests.urls import public_text
from ..pipeline.system.logs import LogSettings, set_up_logs
from . import (
    bench,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    figures,
    import_features,
    init,
    look,
    predict,
    recipes,
    report,
    reproduce,
    score,
    shots,
    status,
    train,
    verify,
    weights,
)
from .console import lost_output, prepare_output
from .messages import with_messages

_LOG = logging.getLogger(__name__)

commands = typer.Typer(
    name="arabesque",
    help="Extract features from gymnastics and skating videos for action quality assessment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command("init")(with_messages(init.init))
commands.command("extract")(with_messages(extract.extract))
commands.command("status")(with_messages(status.status))
commands.command("verify")(with_messages(verify.verify))
commands.command("repair")(with_messages(verify.repair))
commands.command("recipes")(with_messages(recipes.recipes))
commands.command("predict")(with_messages(predict.predict))
commands.command("train")(with_messages(train.train))
commands.command("score")(with_messages(score.score))
commands.command("evaluate")(with_messages(evaluate.evaluate))
commands.command("look")(with_messages(look.look))
commands.command("report")(with_messages(report.report))
commands.command("figures")(with_messages(figures.figures))
commands.command("reproduce")(with_messages(reproduce.reproduce))
commands.command("compare")(with_messages(compare.compare))
commands.command("import")(with_messages(import_features.import_features))
commands.command("export")(with_messages(export.export))
commands.command("shots")(with_messages(shots.shots))
commands.command("cut")(with_messages(shots.cut))
commands.command("bench")(with_messages(bench.bench))
commands.command("demo")(with_messages(demo.demo))
commands.command("doctor")(with_messages(doctor.doctor))
commands.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"arabesque {version('arabesque')}")
        raise typer.Exit


@commands.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and the messages of libraries.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the program itself. Each command has ``--debug``, too."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not a `KeyboardInterrupt`, which Typer would catch and report as status 1."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def app() -> None:
    """Run the console script: execute a command and turn exceptions into one line and an exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    prepare_output()
    debug = "--debug" in sys.argv
    set_up_logs(LogSettings(debug=debug))
    try:
        commands()
    except SystemExit:
        _report_lost_output()
        raise
    except Interrupted as interruption:
        _LOG.error("%s: finished work is kept; run the same command to resume", interruption)
        leave(interruption.exit_status)
    except Exception as error:
        _LOG.debug("the command failed", exc_info=error, extra={"only_in_file": True})
        if debug:
            sys.excepthook = _show_traceback
            raise
        expected = isinstance(error, ArabesqueError)
        about = (
            "" if expected else f"unexpected {type(error).__name__} (please report it; --debug shows the traceback): "
        )
        _LOG.error("%s", f"{about}{_one_line(str(error))}")
        leave(2 if isinstance(error, UsageError) else 1)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(public_text("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr)


def _report_lost_output() -> None:
    if lost := lost_output():
        _LOG.error("standard output: cannot be written (%s); free some space and run the command again", lost)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for repeated in (signal.SIGINT, signal.SIGTERM):
        signal.signal(repeated, signal.SIG_IGN)  # the first signal already stops the run
    raise Interrupted(number)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def leave(status: int) -> NoReturn:
    """Exit without waiting for running threads: finished work is already on disk."""
    _report_lost_output()
    sys.stderr.flush()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        os._exit(status)
    sys.exit(status)
