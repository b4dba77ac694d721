from __future__ import annotations

import os
from contextlib import closing
from typing import Any

import pytest

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.store.concurrency.writer_locks import WriterLock, living_writers
from arabesque.pipeline.store.files import local
from arabesque.pipeline.store.files.local import LocalStorage


class StoreSink:
    """Passes on disk calls, and records their order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._names: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "fsync", "replace", "mkdir"):
            return real

        def noted(*arguments: Any, **keywords: Any) -> Any:
            result = real(*arguments, **keywords)
            if name == "open":
                self._names[result] = os.path.basename(arguments[0])
            elif name == "fsync":
                self.calls.append(f"fsync {self._names[arguments[0]]}")
            else:
                self.calls.append(f"{name} {os.path.basename(arguments[0])}")
            return result

        return noted


def test_a_file_is_on_disk_before_its_name_and_its_name_before_put_returns(tmp_path, monkeypatch):
    recorder = StoreSink()
    monkeypatch.setattr(local, "os", recorder)
    LocalStorage(tmp_path).put("stream=vst/part-w-000000.parquet", b"whole", "w")
    temporary = ".tmp-w-part-w-000000.parquet"
    assert recorder.calls == [
        "mkdir stream=vst",
        f"fsync {tmp_path.name}",
        f"fsync {temporary}",
        f"replace {temporary}",
        "fsync stream=vst",
    ]
    assert LocalStorage(tmp_path).read("stream=vst/part-w-000000.parquet") == b"whole"


def test_a_listing_is_repeated_while_files_are_merged(tmp_path, monkeypatch):
    """The first listing is inconsistent because of a merge: it has neither the old file nor the new one."""
    folder = LocalStorage(tmp_path)
    folder.put("a/new", b"", "w")
    lists = iter([[], ["new"], ["new"]])
    with monkeypatch.context() as merging:
        merging.setattr(os, "listdir", lambda path: next(lists))
        assert folder.files("a") == ["a/new"]


def test_leftovers_are_removed_with_their_writer(tmp_path):
    folder = LocalStorage(tmp_path)
    with closing(WriterLock(tmp_path)) as lock:
        for writer in (lock.writer_id, "gone"):
            (tmp_path / f".tmp-{writer}-arabesque.toml").write_bytes(b"")
        assert folder.sweep(lambda: living_writers(tmp_path)) == 1
        assert (tmp_path / f".tmp-{lock.writer_id}-arabesque.toml").exists()
    assert living_writers(tmp_path) == set()
    assert folder.sweep(lambda: living_writers(tmp_path)) == 1


def test_a_file_instead_of_a_folder_is_reported(tmp_path):
    (tmp_path / "stream=vst").write_bytes(b"")
    with pytest.raises(StoreError, match=r"stream=vst/part-w-0\.parquet: cannot be written"):
        LocalStorage(tmp_path).put("stream=vst/part-w-0.parquet", b"", "w")


def test_locks_of_living_and_dead_processes_are_distinguished(tmp_path):
    with closing(WriterLock(tmp_path, "alive")):
        (tmp_path / ".writers" / "dead.lock").write_text("{}")
        assert living_writers(tmp_path) == {"alive"}
        assert [path.name for path in (tmp_path / ".writers").iterdir()] == ["alive.lock"]
