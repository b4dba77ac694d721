"""Parse URLs, and remove credentials and signatures before a URL is shown or stored."""

from __future__ import annotations

import re
from pathlib import Path

_CONTAINER_AT_ACCOUNT = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols with the name of a container before the ``@`` of an address, which is not a secret."""
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")

_PUNCTUATION = ".,;:)]"
"""Punctuation that may follow a URL in a sentence."""


def is_web_address(url: str) -> bool:
    """Return whether a URL is an HTTP or HTTPS address."""
    return url[:8].lower().startswith(("http://", "https://"))


def split_query(url: str) -> tuple[str, str]:
    """Split a URL into its base without a trailing slash, and its query with the question mark.

    The fragment of a web address is dropped. In other URLs a question mark may be part of an object's name: only
    ``?name=…`` is a query.
    """
    is_web = is_web_address(url)
    if is_web:
        url = url.partition("#")[0]
    base, mark, query = url.partition("?")
    if mark and not is_web and "=" not in query:
        base, mark, query = url, "", ""
    return base.rstrip("/"), mark + query


def join_url(url: str, name: str) -> str:
    """Return the URL of ``name`` below a URL. A query is moved to the end."""
    base, query = split_query(url)
    return f"{base}/{name}{query}"


def public_url(place: Path | str) -> str:
    """Return a path unchanged, and a URL without user name, password and query, so that it may be shown and stored."""
    protocol, mark, rest = str(place).partition("://")
    if isinstance(place, Path) or not mark:
        return str(place)
    base = split_query(f"{protocol}://{rest}")[0].partition("://")[2]
    server, slash, path = base.partition("/")
    user, at, host = server.rpartition("@")
    if at and protocol in _CONTAINER_AT_ACCOUNT:
        host = f"{user.partition(':')[0]}@{host}"
    return f"{protocol}://{host}{slash}{path}"


def public_text(text: str) -> str:
    """Apply `public_url` to every URL in a text, for example in the error message of a library."""
    return _URL_IN_TEXT.sub(_public, text)


def _public(found: re.Match[str]) -> str:
    url = found[0].rstrip(_PUNCTUATION)
    return public_url(url) + found[0][len(url) :] if "?" in url or "@" in url else found[0]
