"""``weights add`` and ``fetch`` are killed at changes of the disk: no incomplete file is accepted, and the same command
then finishes. The fast tests kill at a third of the changes, the slow ones at each."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import BODY, FileServer
from workloads import workload_process

from arabesque.manifests.errors import WeightsError
from arabesque.manifests.weights import WeightsEntry, WeightsManifest
from arabesque.pipeline.weights.cache import WeightsCache

Order = Callable[..., dict[str, Any]]
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = b"PK\x03\x04" + random.Random(2).randbytes(50_000)
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    with workload_process("training_workload.py") as give:
        yield give


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("published", [{"sha256": SHA256}, {}])
@pytest.mark.parametrize("step", ["add", "add with --trust", "fetch"])
def test_a_command_killed_at_any_change_finishes_when_repeated(
    order: Order, server: FileServer, tmp_path: Path, step: str, published: dict[str, str], every: int
) -> None:
    entry: dict[str, Any] = {"name": "net", "file_name": "net.pth", "urls": [server.url], "layout": "raft-torchvision"}
    entry |= {"license": "MIT", "trained_on": "nothing", "source": "this test", **published}
    file = tmp_path / "mine.pth"
    file.write_bytes(OTHER if "trust" in step else BODY)
    wanted = OTHER_SHA256 if "trust" in step else SHA256
    command = {"do": step.split()[0], "entry": entry, "file": str(file), "trust": "trust" in step}
    # with --trust, another file and its receipt exist already
    start = tmp_path / "start"
    start.mkdir()
    if "trust" in step:
        order(do="fetch", entry=entry, out=start)
    shutil.copytree(start, tmp_path / "whole" / "cache")
    uninterrupted = order(**command, out=tmp_path / "whole" / "cache")
    assert uninterrupted["result"] == wanted
    assert uninterrupted["changes"] > 4
    for change in range(0, uninterrupted["changes"], every):
        out = tmp_path / f"killed {change}" / "cache"
        shutil.copytree(start, out)
        assert order(**command, out=out, kill_at=change)["killed"]
        cache = WeightsCache(out, WeightsManifest(weights={"net": WeightsEntry.model_validate(entry)}))
        try:
            located = cache.locate("net")
        except WeightsError:
            pass
        else:
            assert located.digest in (wanted, SHA256)
            assert hashlib.sha256(located.read()).hexdigest() == located.digest
        assert order(**command, out=out)["result"] == wanted
        assert cache.locate("net").digest == wanted
        assert {path.name for path in (out / "net").iterdir()} == {".lock", "net.pth", "receipt.json"}
        assert cache.state("net") == "ready"
