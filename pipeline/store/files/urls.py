"""The file system for a URL, with errors that include advice.

fsspec handles credentials and endpoints: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, profiles and roles for s3fs,
application default credentials for gcsfs, and fsspec's own configuration files.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from ....manifests.errors import ArabesqueError, InputError, StoreError
from ....manifests.optional_packages import require_package
from ....manifests.urls import is_web_address, public_url, split_query

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory")
"""Protocols of stores in which an object is either complete or absent."""
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created")
"""Names under which file systems report the time of writing of a file."""


class UnreachableStore(StoreError):
    """The store cannot be reached. The state of its files is unknown: they may be intact."""


def connect(url: str, *, to_write: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, without a cache of listings, and the URL's path in it.

    Args:
        url: A URL. The query of a web address is not part of the path; the file system adds it to every request.
        to_write: Refuse protocols with which other processes may read incomplete files.

    Raises:
        MissingPackageError: The package for the protocol is not installed, and is in an extra of arabesque.
        StoreError: The package for the protocol is not installed, and is not in an extra.
        InputError: The protocol is unknown, or unsuited for writing.
    """
    import fsspec  # pyright: ignore[reportMissingTypeStubs]
    import fsspec.core  # pyright: ignore[reportMissingTypeStubs]

    protocol, shown = url.partition("://")[0], public_url(url)
    if to_write and protocol not in _WHOLE and protocol in fsspec.available_protocols():
        raise InputError(
            f"{shown}: over {protocol}:// others may read incomplete files; mount it, or use {', '.join(_WHOLE)}"
        )
    try:
        if is_web_address(url):
            base, query = split_query(url)
            return _web_file_system()(query=query, use_listings_cache=False), base
        core: Any = fsspec.core
        return core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        if module := _PACKAGES.get(protocol):
            require_package(module, f"{shown}: {protocol}://")
        raise StoreError(
            f"{shown}: no support for {protocol}:// is installed ({error}); install the package that fsspec asks for"
        ) from error
    except ValueError as error:
        raise InputError(f"{shown}: {error}; give a path or a supported URL, such as s3://bucket/folder") from error


@cache
def _web_file_system() -> Any:
    """Return fsspec's class for web servers, extended to add a query unchanged to every request.

    The query must not be changed, because a signature may cover its spelling.
    """
    import yarl
    from fsspec.implementations.http import HTTPFileSystem  # pyright: ignore[reportMissingTypeStubs]

    base: Any = HTTPFileSystem

    class WebFileSystem(base):
        def __init__(self, *, query: str = "", **options: Any) -> None:
            base.__init__(self, client_kwargs={"requote_redirect_url": False}, **options)
            self._query = query

        def encode_url(self, url: str) -> Any:
            encoded: Any = base.encode_url(self, url)
            has_its_own = not self._query or encoded.query_string
            return encoded if has_its_own else yarl.URL(f"{encoded}{self._query}", encoded=True)

    return WebFileSystem


@contextmanager
def network_errors(url: str) -> Generator[None, None, None]:
    """Convert errors of a file system into `UnreachableStore`; FileNotFoundError and FileExistsError pass.

    fsspec reports any failure of a web server as FileNotFoundError. Only status 404 and 410 are treated as such.
    """
    try:
        yield
    except (ArabesqueError, FileExistsError):
        raise
    except FileNotFoundError as error:
        cause: Any = error.__cause__
        if cause is None or not is_web_address(url) or getattr(cause, "status", None) in (404, 410):
            raise
        raise UnreachableStore(
            f"{public_url(url)}: cannot be reached ({_about(cause)}); check address and credentials, then run again"
        ) from error
    except PermissionError as error:
        raise UnreachableStore(
            f"{public_url(url)}: access denied ({error}); check the credentials and their permissions"
        ) from error
    except Exception as error:  # every file system has its own exception classes
        shown, advice = public_url(url), "check network, endpoint and credentials, then run again"
        raise UnreachableStore(f"{shown}: cannot be reached ({_about(error)}); {advice}") from error


def _about(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")


def modified_ns(entry: Mapping[str, Any]) -> int:
    """Return the time of writing of a listed file, in nanoseconds since 1970; 0 if the file system does not report it.

    If the file system reports whole seconds, a digest of the ETag replaces the fraction, so that another file of the
    same size in the same second has another time.
    """
    reported = next((entry[name] for name in _TIMES if entry.get(name)), 0)
    if isinstance(reported, str):
        reported = datetime.fromisoformat(reported) if reported[:1].isdigit() else parsedate_to_datetime(reported)
    if isinstance(reported, datetime):
        reported = reported if reported.tzinfo else reported.replace(tzinfo=UTC)
        when_ns = (reported - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
    else:
        when_ns = round(reported * 1e6) * 1000
    etag = entry.get("ETag") or entry.get("etag")
    if etag and when_ns % 10**9 == 0:
        when_ns += zlib.crc32(str(etag).encode()) % 10**9
    return when_ns
