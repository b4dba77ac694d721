"""Measure the time to the first line of a command, and its processor time if little remains to be done.

    python benchmarks/start_up.py --json start_up.json --chart start_up.png

Runs `arabesque --help`, `status` of a small store, `extract` of finished videos, and `extract` of one generated video
of two seconds into a new store, each in a new process, ``--repeats`` times alternately. The fastest run counts, because
other processes can only slow a run down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from charts import BLUE, ORANGE, PALE, bars, picture
from measured import Found, markdown, parser_for, present, three

from arabesque.cli.demo_videos.moving_texture import write_moving_texture

DURATION_S = 2.0
MEASURES = {
    "first_line_s": "first line, s",
    "first_line_cpu_s": "first line, CPU s",
    "wall_s": "whole command, s",
    "cpu_s": "whole command, CPU s",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="number of runs of each command")
    options = parser.parse_args(arguments)
    present(table, draw, options, lambda: measure(options), ["torch", "typer"])


def measure(options: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_moving_texture(folder / "video.mp4", duration_s=DURATION_S, width_px=320, height_px=240)
        extract = ("extract", "video.mp4", "--recipe", "starter", "--out")
        one_run((*extract, "features"), folder)
        runs: dict[str, list[Found]] = {}
        for number in range(options.repeats):
            commands = {
                "--help": ("--help",),
                "status": ("status", "features"),
                "extract, nothing to do": (*extract, "features"),
                "extract, 2 s of video": (*extract, f"new_{number}"),
            }
            for command, words in commands.items():
                runs.setdefault(command, []).append(one_run(words, folder))
                print(f"{command}: {runs[command][-1]}", file=sys.stderr, flush=True)
    return {
        "repeats": options.repeats,
        "commands": {
            command: {name: min(each[name] for each in found) for name in MEASURES} for command, found in runs.items()
        },
    }


def one_run(words: Sequence[str], folder: Path) -> Found:
    """Run a command and return its figures; the processor time includes that of its decoders."""
    command = [sys.executable, "-c", "from arabesque.cli.main import app; app()", *words]
    before = os.times()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder) as run:
        assert run.stdout is not None
        first = run.stdout.readline()
        first_line_s = time.perf_counter() - began
        spent = psutil.Process(run.pid).cpu_times()
        rest = run.stdout.read()
    wall_s = time.perf_counter() - began
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with status {run.returncode}:\n{(first + rest).decode()}")
    after = os.times()
    return {
        "first_line_s": first_line_s,
        "first_line_cpu_s": spent.user + spent.system,
        "wall_s": wall_s,
        "cpu_s": after.children_user + after.children_system - before.children_user - before.children_system,
    }


def table(found: Found) -> list[str]:
    rows = [
        (f"`{command}`", *(three(figures[name]) for name in MEASURES)) for command, figures in found["commands"].items()
    ]
    return markdown(["command", *MEASURES.values()], rows)


def draw(found: Found, path: Path) -> None:
    title = "The first line of a command, and its processor time"
    shown = ("first_line_s", "first_line_cpu_s", "cpu_s")
    colors = dict(zip((MEASURES[name] for name in shown), (BLUE, PALE, ORANGE), strict=True))
    rows = {
        command: {MEASURES[name]: figures[name] for name in shown} for command, figures in found["commands"].items()
    }
    with picture(path, title, found, 3.0) as (axes,):
        bars(axes, rows, "seconds", colors=colors, told="{:.2f}".format)


if __name__ == "__main__":
    main()
