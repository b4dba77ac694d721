"""Classes that recipes and the command line name by their import path, such as ``mypackage.mine:MyExtractor``."""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import ConfigError
from .validation import suggestion


def import_class(path: str, kind: str) -> type:
    """Import a class.

    Args:
        path: ``module:class``, e.g. ``mypackage.mine:MyExtractor``.
        kind: What the class is, for error messages, e.g. ``extractor``.

    Raises:
        ConfigError: The module cannot be imported, has no such attribute, or the attribute is not a class.
    """
    module_name, _, class_name = path.partition(":")
    if not class_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{kind} {path!r}: is not an import path; write module:class, e.g. mypackage.mine:MyClass")
    found = getattr(_import(module_name, path, kind), class_name, None)
    if isinstance(found, type):
        return found
    classes = [name for name, value in vars(sys.modules[module_name]).items() if isinstance(value, type)]
    what = "has no class" if found is None else "has no class, but another object,"
    hint = suggestion(class_name, classes) or "; check the name after the colon"
    raise ConfigError(f"{kind} {path!r}: module {module_name} {what} {class_name!r}{hint}")


def class_path(cls: type) -> str:
    """Return the import path of a class, ``module:class``."""
    return f"{cls.__module__}:{cls.__qualname__}"


@cache
def code_digest(cls: type) -> str:
    """Return the SHA-256 of the source file that defines a class, or an empty string if it has no source file."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _import(module_name: str, path: str, kind: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{kind} {path!r}: module {error.name} is not found{suggestion(error.name, _neighbors(error.name))}; "
                "install its package in this environment, or add the folder of the package to PYTHONPATH"
            ) from error
        raise ConfigError(_import_failure(module_name, path, kind, error)) from error
    except Exception as error:  # the import of a module may raise errors of any type
        raise ConfigError(_import_failure(module_name, path, kind, error)) from error


def _import_failure(module_name: str, path: str, kind: str, error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    reason = " ".join(str(error).split()) or "no message"
    return (
        f"{kind} {path!r}: module {module_name} cannot be imported ({type(error).__name__}: {reason}, in {file}, "
        f"line {line}); correct it, or install what it needs"
    )


def _neighbors(module_name: str) -> Iterable[str]:
    """Return the names of the modules in the package of a module that does not exist."""
    parent = module_name.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    return (each.name for each in pkgutil.iter_modules(folders, prefix))
