"""Download of one file with resume and with limits on bytes, attempts and time."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ...manifests.errors import WeightsError
from ...manifests.urls import public_text, public_url

if TYPE_CHECKING:  # importing requests takes a tenth of a second, and `arabesque weights list` does not need it
    from requests import Response, Session

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes on disk and the total, which is None if the server does not state it."""

USER_AGENT = "arabesque (weights download)"
CHUNK_BYTES = 1 << 20
TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts, pauses and time limits of a download."""

    attempts: int = 8
    first_pause_s: float = 0.5
    max_pause_s: float = 15.0
    read_timeout_s: float = 30.0
    """A connection that sends nothing for this long counts as broken."""
    speed_window_s: float = 60.0
    """The speed is measured over windows of this length."""
    min_bytes_per_s: int = 1024
    """A connection that is slower than this over a whole window counts as broken."""


class _AttemptFailed(Exception):
    """An attempt failed for a reason that may be transient."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass
class Download:
    """Download of ``url`` into the file ``part``.

    Args:
        url: Address of the file, http or https.
        part: The file to write.
        size_bytes: Exact size of the file; None if it is not known.
        max_bytes: Limit for a file of unknown size. More bytes are never written.
        progress: Called after each chunk.
        retry: Attempts, pauses and time limits.
        continues: Continue an existing part, whatever run or address it is from. The caller must compare the digest of
            the file afterwards. Otherwise a broken attempt is continued only if a strong ETag identifies the bytes.
    """

    url: str
    part: Path
    size_bytes: int | None
    max_bytes: int
    progress: Progress | None = None
    retry: RetryPolicy = RetryPolicy()
    continues: bool = False

    def run(self) -> None:
        """Download the complete file into ``part`` and flush it to disk.

        Raises:
            WeightsError: The server refused, or all attempts failed.
        """
        if not self.url.lower().startswith(("https://", "http://")):
            raise WeightsError(f"{self._name}: only http and https addresses are supported; give one of these")
        if not self.continues:
            self.discard()
        self._etag = ""
        pause_s, reason = self.retry.first_pause_s, ""
        with _session() as session:
            for attempts_left in reversed(range(self.retry.attempts)):
                try:
                    return self._attempt(session)
                except _AttemptFailed as failed:
                    reason = str(failed)
                    _LOG.info("%s: attempt failed (%s); %d remaining", self._name, reason, attempts_left)
                    if attempts_left:
                        time.sleep(min(max(pause_s, failed.pause_s), self.retry.max_pause_s))
                        pause_s *= 2
        kept = f"{self._have():,} bytes are kept, and the same command continues from there"
        raise WeightsError(
            f"{self._name}: all {self.retry.attempts} attempts failed ({reason}); "
            f"{kept if self.continues else 'run the same command again'}"
        )

    def discard(self) -> None:
        """Remove the part."""
        self.part.unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        return public_url(self.url)

    def _have(self) -> int:
        """Size of the part that is continued, in bytes."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, session: Session) -> None:
        if not self.continues and not self._etag:
            self.discard()
        have = self._have()
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._etag:
            headers["If-Range"] = self._etag
        with self._open(session, headers) as response:
            if response.status_code not in (200, 206):
                return self._handle_refusal(response)
            start, total = self._extent(response, have)
            limit = self._limit(response, total)
            if not start:
                self.discard()
                # a weak ETag does not guarantee equal bytes, and If-Range does not allow it (RFC 9110, 13.1.5)
                etag = response.headers.get("ETag", "")
                self._etag = etag if etag.startswith('"') else ""
            written = self._write(_chunks(response), start, limit, total)
        whole = self.size_bytes if total is None else total
        if whole is not None and written < whole:
            raise _AttemptFailed(f"the connection ended at {written:,} of {whole:,} bytes")
        return None

    def _open(self, session: Session, headers: dict[str, str]) -> Response:
        from requests import RequestException

        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        try:
            return session.get(self.url, headers=headers, stream=True, timeout=self.retry.read_timeout_s)
        except RequestException as error:
            cause = _cause(error)
            if isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError):
                raise WeightsError(f"{self._name}: cannot connect ({cause}); check network and address") from None
            raise _AttemptFailed(_reason(error)) from None

    def _handle_refusal(self, response: Response) -> None:
        """Return if the part is complete already; raise an error otherwise."""
        answer = f"the server answers {response.status_code} {response.reason}"
        if response.status_code == 416:
            total = _number(response.headers.get("Content-Range", "").partition("/")[2])
            if total and total == self._have():
                return
            self.discard()
            raise _AttemptFailed(answer)
        if response.status_code in TRANSIENT_STATUSES:
            raise _AttemptFailed(answer, pause_s=_number(response.headers.get("Retry-After")) or 0)
        raise WeightsError(f"{self._name}: {answer}")

    def _extent(self, response: Response, have: int) -> tuple[int, int | None]:
        """Return the offset of this body in the file, and the file's size if the server states it."""
        if response.status_code == 200:  # a complete body: no range was requested, or it is not supported
            return 0, _number(response.headers.get("Content-Length"))
        unit, _, extent = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = extent.partition("/")
        in_place = unit == "bytes" and _number(span.partition("-")[0]) == have
        if not in_place or (self._etag and response.headers.get("ETag", self._etag) != self._etag):
            self.discard()
            raise _AttemptFailed(f"requested bytes from {have}, the server answers 206 with {unit} {extent}")
        return have, _number(total)

    def _limit(self, response: Response, total: int | None) -> int:
        """Return the maximum number of bytes of the file. Raises `WeightsError` for a body that cannot be the file."""
        if total is not None and self.size_bytes is not None and total != self.size_bytes:
            self.discard()
            raise WeightsError(
                f"{self._name}: the server offers {total:,} bytes, but by weights.toml the file has {self.size_bytes:,}"
            )
        limit = self.max_bytes if self.size_bytes is None else self.size_bytes
        if total is not None and total > limit:
            raise WeightsError(f"{self._name}: the server offers {total:,} bytes, more than the limit of {limit:,}")
        is_chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if total is None and self.size_bytes is None and not is_chunked:
            raise WeightsError(
                f"{self._name}: the server does not state the size, so that a truncated file could not be detected; "
                "download it by other means and use `arabesque weights add`"
            )
        return limit if total is None else total

    def _write(self, chunks: Iterator[bytes], start: int, limit: int, total: int | None) -> int:
        """Append the chunks to the part and flush it, even if the connection breaks. Returns the part's size."""
        written = start
        with self.part.open("ab") as file:
            try:
                for chunk in self._fast_enough(chunks):
                    if written + len(chunk) > limit:
                        break
                    file.write(chunk)
                    written += len(chunk)
                    if self.progress is not None:
                        self.progress(written, total)
                else:
                    return written
            finally:
                file.flush()
                os.fsync(file.fileno())
        self.discard()
        raise WeightsError(f"{self._name}: the server sends more than {limit:,} bytes; the part was removed")

    def _fast_enough(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        began, num_bytes = time.monotonic(), 0
        for chunk in chunks:
            num_bytes += len(chunk)
            elapsed_s = time.monotonic() - began
            if elapsed_s > self.retry.speed_window_s:
                if num_bytes < self.retry.min_bytes_per_s * elapsed_s:
                    raise _AttemptFailed(f"received only {num_bytes:,} bytes in {elapsed_s:.0f} s")
                began, num_bytes = time.monotonic(), 0
            yield chunk


def _session() -> Session:
    """Return a session that follows redirects to http(s) only, and never from https to http."""
    import requests

    class SafeSession(requests.Session):
        def get_redirect_target(self, resp: Response) -> str | None:
            target = super().get_redirect_target(resp)
            if target is not None:
                require_safe_redirect(resp.url, urljoin(resp.url, target))
            return target

    return SafeSession()


def require_safe_redirect(url: str, target: str) -> None:
    """Raise `WeightsError` for a redirect to anything but http(s), or from https to http."""
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and scheme == "http"):
        raise WeightsError(
            f"{public_url(url)}: the server redirects to {public_url(target)}, which is not a safe address"
        )


def _chunks(response: Response) -> Iterator[bytes]:
    """Yield the body as it arrives. It ends silently if the connection is closed early; other errors are raised."""
    from urllib3.exceptions import HTTPError, IncompleteRead

    while True:
        try:
            chunk = response.raw.read1(CHUNK_BYTES)
        except (HTTPError, OSError) as error:
            if isinstance(_cause(error), IncompleteRead):
                return
            raise _AttemptFailed(_reason(error)) from None
        if not chunk:
            return
        yield chunk


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _cause(error: BaseException) -> BaseException:
    """Return the first exception of a chain: those of requests repeat the address with its query."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _reason(error: BaseException) -> str:
    cause = _cause(error)
    return public_text(str(cause)) or type(cause).__name__
