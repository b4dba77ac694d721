"""Opening of storage by its path or URL."""

from __future__ import annotations

from pathlib import Path

from .local import LocalStorage
from .object_storage import ObjectStorage
from .storage import Storage, StorePath, as_store_path


def open_storage(root: StorePath) -> Storage:
    """Return the storage for a path or URL. Nothing is read yet."""
    place = as_store_path(root)
    return LocalStorage(place) if isinstance(place, Path) else ObjectStorage(place)
