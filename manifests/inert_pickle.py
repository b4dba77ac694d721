"""Plain containers, numbers and texts out of a pickle; whatever else it names becomes an inert shell and is not run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from .errors import ManifestError


class Shell:
    """Stands where the pickle wanted an instance of some class."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return type(global_name, (Shell,), {"__module__": module_name})


def read_inert(path: Path) -> Any:
    """What the file holds; raises `ManifestError` where it cannot be read."""
    try:
        return _Unpickler(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); put the published file there") from error
    except Exception as error:  # a damaged pickle may raise almost anything
        raise ManifestError(f"{path}: not a readable pickle ({error}); get the file anew") from error
