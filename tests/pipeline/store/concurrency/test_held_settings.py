"""While a writer lives, no other run writes its streams with other settings; a killed writer does not count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from store_rows import manifest, new_store, row, settings_of, written

from arabesque.manifests.errors import ConfigError, StoreError
from arabesque.pipeline.store.concurrency import coordination
from arabesque.pipeline.store.concurrency.writer_locks import HeldSettings
from arabesque.pipeline.store.manifest import read_manifest, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.store import Store
from arabesque.pipeline.store.writer import StoreWriter


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "disk":
        yield new_store(tmp_path / "store")
        return
    place = f"memory://held-{os.getpid()}"
    new_store(place)  # type: ignore[arg-type]
    yield place
    fsspec.filesystem("memory").rm(place, recursive=True)


def settings(version: int, *streams: str) -> dict[str, str]:
    return {stream: settings_of(stream, version) for stream in streams or ("vst", "ast")}


@contextmanager
def begun(root: Any, version: int, *, float16: bool = False) -> Iterator[StoreWriter]:
    """Begin a run with the settings of this version, like `Extraction`."""
    held = HeldSettings(number="float16" if float16 else "float32", streams=settings(version))
    with Store.open(root).starting(held):
        write_manifest(root, manifest(version))
        writer = StoreWriter(root, settings=settings(version), float16=float16)
    with writer:
        yield writer


def test_other_settings_are_refused_while_a_writer_lives(root):
    with begun(root, 1), pytest.raises(ConfigError) as refused, begun(root, 2):
        pass
    for part in (f"process {os.getpid()}", "writes stream 'ast' with other settings", "wait until it ends", "--out"):
        assert part in str(refused.value)
    with begun(root, 2):
        pass


def test_equal_settings_and_other_streams_may_be_written_at_once(root):
    with begun(root, 1), StoreWriter(root, settings=settings(1)), begun(root, 1):
        pass
    held = HeldSettings(number="float32", streams=settings(2, "vst"))
    with StoreWriter(root, settings=settings(1, "ast")), Store.open(root).starting(held):
        pass


def test_another_type_of_numbers_is_refused(root):
    with begun(root, 1), pytest.raises(ConfigError, match="as float32, not as float16"), begun(root, 1, float16=True):
        pass


def test_a_writer_that_is_created_without_settings_is_refused_too(root):
    with begun(root, 1):
        write_manifest(root, manifest(2))
        with pytest.raises(ConfigError, match="with other settings"):
            StoreWriter(root)
        with pytest.raises(ConfigError, match="has other settings since this run began"):
            StoreWriter(root, settings=settings(1))
        write_manifest(root, manifest(1))
        written(root, row("A"))


def test_concurrent_runs_start_with_one_set_of_settings(root):
    ready, all_tried = threading.Barrier(6), threading.Barrier(6)
    won: list[int] = []

    def begin(version: int) -> None:
        ready.wait(60)
        refused = suppress(ConfigError)
        with refused, begun(root, version) as writer:
            won.append(version)
            all_tried.wait(60)
            writer.add(row(f"video {version}", version=version))
            return
        all_tried.wait(60)

    threads = [threading.Thread(target=begin, args=(version,)) for version in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(won) == 1
    assert FeatureStore(root).video_ids == (f"video {won[0]}",)
    assert read_manifest(root)["streams"]["vst"]["settings_digest"] == settings_of("vst", won[0])


HOLD = """
import sys, time
from pathlib import Path
from arabesque.pipeline.store.store import Store
from arabesque.pipeline.store.writer import StoreWriter
writer = StoreWriter(Path(sys.argv[1]))
print("holds", flush=True)
time.sleep(1000)
"""


def test_a_stopped_writer_keeps_others_off_and_a_killed_one_does_not(tmp_path):
    new_store(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds\n"
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(ConfigError, match=f"process {other.pid}"), begun(tmp_path, 2):
            pass
        other.kill()
        other.wait()
        with begun(tmp_path, 2):
            pass


def test_records_of_killed_runs_on_object_storage_grow_old(monkeypatch):
    root = f"memory://old-{os.getpid()}"
    new_store(root)  # type: ignore[arg-type]
    killed = StoreWriter(root)
    folder = Store.open(root).storage
    (record,) = folder.files(".runs")
    folder.put(".starting", b"left by a run that was killed as it began", "")
    monkeypatch.setattr(coordination, "START_BEAT_S", 0.01)
    monkeypatch.setattr(coordination, "START_STALE_S", -1.0)
    monkeypatch.setattr(coordination, "STALE_S", -1.0)
    with begun(root, 2):
        assert not folder.exists(record)
    assert not folder.files(".runs")
    assert not folder.exists(".starting")
    killed.close()


@pytest.mark.parametrize("content", [b"of another run that starts", b""])
def test_a_run_that_was_suspended_while_it_started_on_object_storage_notices(content: bytes):
    root = f"memory://suspended-{os.getpid()}-{len(content)}"
    new_store(root)  # type: ignore[arg-type]
    folder = Store.open(root).storage
    take = partial(folder.put, ".starting", content, "") if content else partial(folder.remove, ".starting")
    with (
        pytest.raises(StoreError, match="another run has started instead; run"),
        Store.open(root).starting(HeldSettings(number="float32", streams=settings(2))),
    ):
        take()
    assert folder.exists(".starting") == bool(content)


def test_a_record_is_renewed_as_long_as_its_writer_lives(monkeypatch):
    root = f"memory://renewed-{os.getpid()}"
    new_store(root)  # type: ignore[arg-type]
    renewed = threading.Event()
    put = type(Store.open(root).storage).put

    def watched(self: Any, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        put(self, name, data, owner, new=new)
        if name.startswith(".runs/") and threading.current_thread() is not threading.main_thread():
            renewed.set()

    monkeypatch.setattr(coordination, "BEAT_S", 0.01)
    monkeypatch.setattr(type(Store.open(root).storage), "put", watched)
    with StoreWriter(root):
        assert renewed.wait(60)
