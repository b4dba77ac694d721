"""Fixtures of the straight-line tests. Their modules are imported by these tests only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from straight_line import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    from straight_line import Checkpoints

    return Checkpoints(tmp_path / "weights")


@pytest.fixture(params=["made", "real"])
def source(request: pytest.FixtureRequest) -> str:
    """Arguments of `straight_line.write_video`."""
    from straight_line import SKATER

    if request.param == "real" and not SKATER.exists():
        pytest.skip(f"{SKATER} is not here")
    return request.param
