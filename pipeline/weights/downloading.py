"""One file from one address to disk: resumed where it broke off, bounded in bytes, attempts and time."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any

from ...manifests.errors import WeightsError

Progress = Callable[[int, int | None], None]
"""Called with the bytes on disk so far, and the bytes in all where the server says."""

USER_AGENT = "arabesque (weights download)"
CHUNK_BYTES = 1 << 20
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    attempts: int = 8
    first_pause_s: float = 0.5
    longest_pause_s: float = 15.0
    silence_s: float = 30.0
    """Without a byte for this long, a connection counts as broken."""
    window_s: float = 60.0
    slowest_bytes_per_s: int = 1024
    """Slower than this over a whole window, it counts as broken too: a trickle must not hold us for ever."""


class _BrokeOff(Exception):
    """This attempt failed; the next may not."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to http(s) only, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        scheme = newurl.partition(":")[0].lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            fp.close()
            raise WeightsError(f"{req.full_url}: the server sends us on to {newurl}, which is no safe address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class Download:
    """The bytes at ``url`` on their way into the file ``part``.

    ``size_bytes``: what the file must measure, where known; elsewhere it may have ``most_bytes``. Not a byte more is
    ever written.
    """

    url: str
    part: Path
    size_bytes: int | None
    most_bytes: int
    progress: Progress | None = None
    patience: Patience = Patience()

    def run(self) -> None:
        """Returns with the whole file in ``part``, flushed to disk; raises `WeightsError`.

        What an earlier run left is continued if the server still offers the very same bytes, which a strong ETag,
        kept beside the part, tells.
        """
        if not self.url.startswith(("https://", "http://")):
            raise WeightsError(f"{self.url}: only http and https addresses are fetched")
        pause_s, reason = self.patience.first_pause_s, ""
        for attempts_left in reversed(range(self.patience.attempts)):
            try:
                return self._attempt()
            except _BrokeOff as broke:
                reason = str(broke)
                if attempts_left:
                    time.sleep(min(max(pause_s, broke.pause_s), self.patience.longest_pause_s))
                    pause_s *= 2
        kept = self.part.stat().st_size if self.part.exists() else 0
        raise WeightsError(
            f"{self.url}: gave up after {self.patience.attempts} attempts ({reason}); "
            f"{kept:,} bytes are kept, and the same command goes on from there"
        )

    def discard(self) -> None:
        """Removes the part and what is remembered of it."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _attempt(self) -> None:
        have, etag = self._left_over()
        asked = {"Range": f"bytes={have}-", "If-Range": etag} if have else {}
        try:
            response = self._open(asked)
        except urllib.error.HTTPError as refusal:
            with refusal:
                self._judge_refusal(refusal)
            return
        with response:
            start, total = self._extent(response, have, etag)
            limit = self._limit(total, response.chunked)
            if not start:
                self._begin(response.headers.get("ETag", ""))
            written = self._write(_chunks(response), start, limit, total)
        whole = self.size_bytes if total is None else total
        if whole is not None and written < whole:
            raise _BrokeOff(f"the connection ended at {written:,} of {whole:,} bytes")

    def _left_over(self) -> tuple[int, str]:
        """Bytes that may be continued, and the ETag they came under; (0, "") where there are none."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            have = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        etag = note.get("etag") if isinstance(note, dict) and note.get("url") == self.url else None
        # a weak ETag promises like content, not like bytes, and If-Range does not take it (RFC 9110, 13.1.5)
        return (have, etag) if have and isinstance(etag, str) and etag.startswith('"') else (0, "")

    def _open(self, asked: dict[str, str]) -> HTTPResponse:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **asked}
        opener = urllib.request.build_opener(_SafeRedirects)
        try:
            return opener.open(urllib.request.Request(self.url, headers=headers), timeout=self.patience.silence_s)
        except urllib.error.HTTPError:
            raise
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError):
                raise WeightsError(f"{self.url}: cannot connect ({cause})") from error
            raise _BrokeOff(_in_words(error)) from error

    def _judge_refusal(self, refusal: urllib.error.HTTPError) -> None:
        """Returns only for a part that turns out to be whole already."""
        said = f"the server answers {refusal.code} {refusal.reason}"
        if refusal.code == 416:
            total = _number(refusal.headers.get("Content-Range", "").partition("/")[2])
            if self.part.exists() and total == self.part.stat().st_size:
                return
            self.discard()
            raise _BrokeOff(said)
        if refusal.code in PASSING_STATUSES:
            raise _BrokeOff(said, pause_s=_number(refusal.headers.get("Retry-After")) or 0)
        raise WeightsError(f"{self.url}: {said}")

    def _extent(self, response: HTTPResponse, have: int, etag: str) -> tuple[int, int | None]:
        """Where in the file this body starts, and the file's size if the server says it."""
        if response.status == 200:  # from the beginning: nothing else was asked for, or the server knows no ranges
            return 0, _number(response.headers.get("Content-Length"))
        unit, _, extent = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = extent.partition("/")
        in_place = unit == "bytes" and _number(span.partition("-")[0]) == have
        if response.status != 206 or not in_place or response.headers.get("ETag", etag) != etag:
            self.discard()
            raise _BrokeOff(f"asked for bytes from {have}, the server answers {response.status} with {unit} {extent}")
        return have, _number(total)

    def _limit(self, total: int | None, chunked: bool) -> int:
        """How many bytes the file may have; raises for an offer that cannot be the file."""
        if total is not None and self.size_bytes is not None and total != self.size_bytes:
            self.discard()
            raise WeightsError(
                f"{self.url}: the server offers {total:,} bytes, the file has {self.size_bytes:,} by weights.toml"
            )
        limit = self.most_bytes if self.size_bytes is None else self.size_bytes
        if total is not None and total > limit:
            raise WeightsError(f"{self.url}: the server offers {total:,} bytes, more than the {limit:,} that we take")
        if total is None and self.size_bytes is None and not chunked:
            raise WeightsError(
                f"{self.url}: the server does not say where the file ends, so a broken-off one could pass for whole; "
                "download it by other means and use `arabesque weights add`"
            )
        return limit if total is None else total

    def _begin(self, etag: str) -> None:
        self.part.unlink(missing_ok=True)
        self._note.write_text(json.dumps({"url": self.url, "etag": etag}), encoding="utf-8")

    def _write(self, chunks: Iterator[bytes], start: int, limit: int, total: int | None) -> int:
        """Appends the chunks to the part and flushes it, also when they break off; returns the part's size."""
        written = start
        with self.part.open("ab") as file:
            try:
                for chunk in self._not_too_slow(chunks):
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
        raise WeightsError(f"{self.url}: the server sends more than {limit:,} bytes; nothing of it is kept")

    def _not_too_slow(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        began, came = time.monotonic(), 0
        for chunk in chunks:
            came += len(chunk)
            elapsed_s = time.monotonic() - began
            if elapsed_s > self.patience.window_s:
                if came < self.patience.slowest_bytes_per_s * elapsed_s:
                    raise _BrokeOff(f"only {came:,} bytes came in {elapsed_s:.0f} s")
                began, came = time.monotonic(), 0
            yield chunk


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives; a connection that closes before its time ends it quietly, any other mishap loudly."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _BrokeOff(_in_words(error)) from error
        if not chunk:
            return
        yield chunk


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _in_words(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__
