"""Paths in lists and tables of files."""

from __future__ import annotations

import os
from pathlib import Path
from posixpath import normpath

from ...manifests.urls import join_url, public_url
from ..store.files.storage import StorePath, as_store_path, is_url
from .discovery import ListedRoot


def listed_root(text: str, folder: StorePath) -> ListedRoot:
    """Return the root of a path or URL in a list. A relative path is searched in ``folder``, then here."""
    if is_url(text):
        place = as_store_path(text)
        if isinstance(place, Path):
            return ListedRoot(place, place.name, place.parent)
        above, _, name = public_url(place).rpartition("/")
        return ListedRoot(place, name, above)
    name = normpath(text)
    if is_url(str(folder)) and not name.startswith(("/", "..")):
        return ListedRoot(join_url(str(folder), name), name, folder)
    base = os.fspath(folder)
    there = os.path.join(base, name)
    if not os.path.lexists(there) and os.path.lexists(name):
        base, there = "", name
    if name.startswith(("/", "..")):
        place = Path(there)
        return ListedRoot(place, place.name, place.parent)
    return ListedRoot(Path(there), "" if name == "." else name, base)
