"""What the scripts here have in common: figures as JSON that says where they come from, and a chart of them.

``--json FILE``      writes the figures
``--chart FILE``     draws them
``--redraw FILE``    measures nothing, and prints and draws what an earlier run wrote with ``--json``
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("arabesque") is None:  # a machine where it is not installed
    sys.path.insert(0, str(ROOT))

Found = dict[str, Any]


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--chart", type=Path, help="draw them (.png)")
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="measure nothing; take an earlier run's figures")
    return parser


def measured_or_read(options: argparse.Namespace, measure: Callable[[], Found], packages: Sequence[str] = ()) -> Found:
    """What ``measure`` finds, with the circumstances, written to ``--json``; or what ``--redraw`` holds."""
    if options.redraw is not None:
        return read(options.redraw)
    circumstances = _circumstances()
    figures = measure()
    found = circumstances.as_dict() | {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "versions": {name: version(name) for name in packages},
        **figures,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1, default=str, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def present(
    table: Callable[[Found], list[str]],
    draw: Callable[[Found, Path], None],
    options: argparse.Namespace,
    measure: Callable[[], Found],
    packages: Sequence[str] = (),
) -> None:
    """What `measured_or_read` gives, printed as a table and drawn where ``--chart`` says."""
    found = measured_or_read(options, measure, packages)
    print("", *table(found), sep="\n")
    if options.chart is not None:
        draw(found, options.chart)


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, as docs/measurements.md has it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, *rows)]
    return [lines[0], f"{'|---' * len(titles)}|", *lines[1:]]


def three(value: float) -> str:
    """Three digits that count, and no powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8"))


def commit() -> str | None:
    """Of the code that was measured, which need not be the script's: ``PYTHONPATH`` may name another checkout."""
    spec = importlib.util.find_spec("arabesque.pipeline")
    assert spec is not None
    assert spec.origin is not None
    asked = ["git", "-C", str(Path(spec.origin).resolve().parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _circumstances() -> Any:
    """This checkout's, whichever is measured: an earlier one has none."""
    path = ROOT / "pipeline" / "benchmarking" / "circumstances.py"
    spec = importlib.util.spec_from_file_location("circumstances", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Circumstances()
