"""Options of all scripts here: write figures as JSON with their circumstances, and draw them.

``--json FILE``      writes the figures
``--chart FILE``     draws them
``--redraw FILE``    measures nothing, but prints and draws the figures that an earlier run wrote with ``--json``
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
    parser.add_argument(
        "--redraw", type=Path, metavar="JSON", help="measure nothing; use the figures of an earlier run"
    )
    return parser


def measured_or_read(options: argparse.Namespace, measure: Callable[[], Found], packages: Sequence[str] = ()) -> Found:
    """Return the figures of ``--redraw``; else measure, add the circumstances, and write ``--json`` if it is given."""
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
    """Print the figures of `measured_or_read` as a table, and draw them if ``--chart`` is given."""
    found = measured_or_read(options, measure, packages)
    print("", *table(found), sep="\n")
    if options.chart is not None:
        draw(found, options.chart)


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, *rows)]
    return [lines[0], f"{'|---' * len(titles)}|", *lines[1:]]


def three(value: float) -> str:
    """Format with three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8"))


def commit() -> str | None:
    """Return the commit of the measured code. ``PYTHONPATH`` may select another checkout than that of the script."""
    spec = importlib.util.find_spec("arabesque.pipeline")
    assert spec is not None
    assert spec.origin is not None
    asked = ["git", "-C", str(Path(spec.origin).resolve().parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _circumstances() -> Any:
    """Return the circumstances by the module of this checkout, because earlier ones lack it."""
    path = ROOT / "pipeline" / "benchmarking" / "circumstances.py"
    spec = importlib.util.spec_from_file_location("circumstances", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Circumstances()
