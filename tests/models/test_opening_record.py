from __future__ import annotations

from pathlib import Path

import pytest

from arabesque.manifests.errors import StoreError
from arabesque.models.opening_record import RECORD, openings, record_opening


def test_openings_are_counted_per_target(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    assert openings(folder) == []
    assert [record_opening(folder, "fisv", "TES", "train gdlt") for _ in range(2)] == [1, 2]
    assert record_opening(folder, "fisv", "PCS", "train gdlt") == 1
    assert record_opening(folder, "rg", "TES", "train gdlt") == 1
    assert [each.target for each in openings(folder)] == ["TES", "TES", "PCS", "TES"]
    with (folder / RECORD).open("a") as file:
        file.write("{\n")
    with pytest.raises(StoreError, match="line 5: not a line of this record"):
        openings(folder)
