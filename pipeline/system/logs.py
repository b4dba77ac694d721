"""Log messages of a process, on standard error and optionally in a file.

Credentials in URLs are removed from every message. A message that cannot be written is dropped, so that logging never
changes an exit status. Messages of libraries are shown only with ``debug``, because SPDL logs failures that are
outcomes here.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.urls import public_text

_FILE_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"


@dataclass(frozen=True)
class LogSettings:
    """Which messages are logged, and where.

    Args:
        verbosity: -1: warnings and errors; 0: also notes of a command; 1: also decisions of the library; 2: everything.
        file: File to which all messages are appended, with tracebacks of errors; None: no file.
        debug: Log everything, also messages of other libraries.
    """

    verbosity: int = 0
    file: Path | None = None
    debug: bool = False


_handlers: list[logging.Handler] = []
_settings: LogSettings | None = None


def set_up_logs(settings: LogSettings) -> None:
    """Set up the log messages of this process. Later calls replace the settings.

    Args:
        settings: Which messages are logged, and where.

    Raises:
        InputError: The log file cannot be written.
    """
    global _settings
    handlers: list[logging.Handler] = [_ConsoleHandler(settings)]
    if settings.file is not None:
        try:
            settings.file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_FileHandler(settings.file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise InputError(
                f"--log-file {settings.file}: cannot be written ({error.strerror or error}); give another path"
            ) from None
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
        handler.close()
    _handlers[:] = handlers
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO if settings.debug else logging.CRITICAL)
    everything = settings.debug or settings.verbosity > 1 or settings.file is not None
    logging.getLogger("arabesque").setLevel(logging.DEBUG if everything else logging.INFO)
    file = None if settings.file is None else settings.file.absolute()  # workers have other working folders
    _settings = replace(settings, file=file)


def current_logs() -> LogSettings | None:
    """Return the settings of the last `set_up_logs`, for processes that this one starts; None if there was no call."""
    return _settings


class _PublicFormatter(logging.Formatter):
    """Removes credentials of URLs from messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return public_text(super().format(record))


class _FileHandler(logging.FileHandler):
    def __init__(self, path: Path, *, encoding: str, errors: str) -> None:
        super().__init__(path, encoding=encoding, errors=errors)
        self.setFormatter(_PublicFormatter(_FILE_FORMAT))

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the message, for example if the disk is full."""

    def close(self) -> None:
        with suppress(OSError):  # the disk may be full
            super().close()


class _ConsoleHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a live display replaces temporarily."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._verbosity = 2 if settings.debug else settings.verbosity
        self.setFormatter(_PublicFormatter("%(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        if getattr(record, "only_in_file", False):
            return False
        is_note = record.name.startswith("arabesque.cli")
        return self._verbosity > 1 or (record.levelno >= logging.INFO and self._verbosity >= (0 if is_note else 1))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if record.levelno >= logging.ERROR:
                text = f"arabesque: {text}"
            elif record.levelno >= logging.WARNING:
                text = f"WARNING: {text}"
            elif not record.name.startswith("arabesque.cli"):
                text = f"{record.name.removeprefix('arabesque.')}: {text}"
            print(text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the message."""
