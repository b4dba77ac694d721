"""A feature store that is opened once and used by all parts of a run that read or write it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...manifests.errors import ConfigError
from ...manifests.urls import public_url
from .concurrency.coordination import LocklessCoordination, WriterCoordination
from .concurrency.writer_locks import HeldSettings, LockCoordination
from .files.local import LocalStorage
from .files.object_storage import ObjectStorage
from .files.storage import Storage, StorePath, as_store_path


@dataclass(frozen=True, eq=False)
class Store:
    """The files of a store and the coordination with its other writers.

    Example:
        >>> from arabesque.pipeline.store.store import Store
        >>> store = Store.open("features")
        >>> Store.open(store) is store
        True
    """

    storage: Storage
    coordination: WriterCoordination

    @classmethod
    def open(cls, place: Store | StorePath) -> Store:
        """Return the store at a path or URL, which may not exist yet. No file is read. A `Store` is returned as is."""
        if isinstance(place, Store):
            return place
        root = as_store_path(place)
        if isinstance(root, Path):
            folder = LocalStorage(root)
            return cls(folder, LockCoordination(folder))
        remote = ObjectStorage(root)
        return cls(remote, LocklessCoordination(remote))

    @property
    def path(self) -> StorePath:
        """Folder or URL of the store."""
        return self.storage.root

    @contextmanager
    def starting(
        self, own: HeldSettings, differences: Callable[[str], str] = lambda stream: ""
    ) -> Generator[None, None, None]:
        """Let a run write the manifest and open its writer in this block; other runs wait until it ends.

        Args:
            own: The settings of the run.
            differences: Stream → description of the different settings, for the message.

        Raises:
            ConfigError: A living writer uses other settings; see `refuse_other_settings`.
        """
        with self.coordination.starting():
            self.refuse_other_settings(own, differences)
            yield

    def refuse_other_settings(self, own: HeldSettings, differences: Callable[[str], str] = lambda stream: "") -> None:
        """Check that the living writers use the same settings and number type for the streams of ``own``.

        Args:
            own: The settings of a writer.
            differences: Stream → description of the different settings, for the message.

        Raises:
            ConfigError: Another writer writes one of the streams with other settings or another type of numbers.
        """
        for other in self.coordination.held():
            if other.writer_id == own.writer_id:
                continue
            for stream in sorted(set(own.streams) & set(other.streams)):
                if other.streams[stream] != own.streams[stream]:
                    digests = f"digest {other.streams[stream][:12]} there, {own.streams[stream][:12]} here"
                    what = f"with other settings ({differences(stream) or digests})"
                elif other.number != own.number:
                    what = f"as {other.number}, not as {own.number}"
                else:
                    continue
                raise ConfigError(
                    f"{public_url(self.path)}: a run on {other.host} (process {other.pid}) writes stream {stream!r} "
                    f"{what}; wait until it ends, run with its settings, or give --out another folder"
                )
