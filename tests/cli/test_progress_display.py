"""The display of a running extraction in a terminal of 80 columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from rich.console import Console

from arabesque.cli.progress import RunDisplay
from arabesque.pipeline.progress import RunProgress


@pytest.mark.parametrize("color_system", [None, "standard"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_bar_state_and_current_files_have_a_line_each(share: float, color_system: Literal["standard"] | None) -> None:
    now = RunProgress("extracting", 7300 * share, 7300.0, 11, 60, ("Ball_001", "Ball_002", "Hoop_9"), 60.0, 4.1, 1450.0)
    run: Any = SimpleNamespace(tracker=lambda: SimpleNamespace(now=now))
    console = Console(width=80, color_system=color_system, force_terminal=True, highlight=False)
    with console.capture() as captured:
        console.print(RunDisplay(run).renderable())
    lines = "".join(part.partition("m")[2] if mark else part for mark, part in _parts(captured.get())).splitlines()
    assert set(lines[0].strip()) <= set("━╸╺ ")
    assert [line.strip() for line in lines[1:]] == [
        f"11/60 videos · {'0:00' if not share else '48:40' if share < 1 else '2:01:40'} of 2:01:40 of video · "
        "4.1 × real time · 24:10 left",
        "'Ball_001', 'Ball_002' and 1 more",
    ]


def _parts(text: str) -> list[tuple[int, str]]:
    """Return the pieces of a text between escape sequences; the first one follows none."""
    return list(enumerate(text.split("\x1b[")))
