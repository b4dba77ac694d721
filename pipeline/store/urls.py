"""Reaching what a URL names: the file system that serves it, and its errors in words that a person can act on.

Credentials and endpoints are fsspec's affair: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, profiles and roles for s3fs,
application default credentials for gcsfs, and fsspec's own configuration files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ...manifests.errors import ArabesqueError, ManifestError, StoreError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory")
"""Protocols of stores in which an object is there whole or not at all."""
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created")
"""Under which names file systems tell when a file was written."""


class UnreachableStore(StoreError):
    """Nothing is known of the files there: they may be as good as ever."""


def connect(url: str, *, to_write: bool = False) -> tuple[Any, str]:
    """fsspec's file system for a URL, which remembers no listing, and the URL's path in it.

    StoreError where the package that speaks the protocol is not installed; ManifestError where nobody knows it, or
    where what is being written there is seen before it is whole.
    """
    import fsspec
    import fsspec.core

    protocol = url.partition("://")[0]
    if to_write and protocol not in _WHOLE and protocol in fsspec.available_protocols():
        raise ManifestError(
            f"{url}: over {protocol}:// others may see half-written files; mount it, or use {', '.join(_WHOLE)}"
        )
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        way_out = f"`pip install arabesque[{extra}]`" if extra else "install the package that fsspec asks for"
        raise StoreError(f"{url}: no support for {protocol}:// is installed ({error}); {way_out}") from error
    except ValueError as error:
        raise ManifestError(f"{url}: {error}; give a path or a URL that fsspec knows, as s3://bucket/folder") from error


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Turns what a file system raises into an `UnreachableStore`; FileNotFoundError and FileExistsError pass."""
    try:
        yield
    except (ArabesqueError, FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        raise UnreachableStore(f"{url}: access denied ({error}); check the credentials and what they allow") from error
    except Exception as error:  # every file system has a tree of its own
        about = f"{type(error).__name__}: {error}".strip(": ")
        raise UnreachableStore(
            f"{url}: cannot be reached ({about}); check network, endpoint and credentials, then run again"
        ) from error


def modified_ns(entry: Mapping[str, Any]) -> int:
    """When a listed file was written, in nanoseconds since 1970; 0 where the file system does not tell.

    Stores that tell whole seconds say more by the ETag: its digest takes the place of the rest of the second, so that
    another file of the same size in the same second has another time.
    """
    told = next((entry[name] for name in _TIMES if entry.get(name)), 0)
    if isinstance(told, str):
        told = datetime.fromisoformat(told) if told[:1].isdigit() else parsedate_to_datetime(told)
    if isinstance(told, datetime):
        told = told if told.tzinfo else told.replace(tzinfo=UTC)
        when_ns = (told - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
    else:
        when_ns = round(told * 1e6) * 1000
    etag = entry.get("ETag") or entry.get("etag")
    if etag and when_ns % 10**9 == 0:
        when_ns += zlib.crc32(str(etag).encode()) % 10**9
    return when_ns
