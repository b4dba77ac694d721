"""A web server on this machine that serves one file, and misbehaves as a test tells it to."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"PK\x03\x04" + random.Random(1).randbytes(300_000)
"""Begins as PyTorch's files do."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_GET(self) -> None:
        self.close_connection = True
        self.files.requests.append(self.headers)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may have had enough
            (self.files.script.pop(0) if self.files.script else behave)(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


Step = Callable[[Handler], None]


@dataclass
class FileServer:
    """``script``: what to do with each request in turn; when it is used up, the server behaves."""

    body: bytes
    etag: str | None = '"first"'
    script: list[Step] = field(default_factory=list[Step])
    requests: list[Message] = field(default_factory=list[Message])
    url: str = ""


def behave(handler: Handler, upto: int | None = None, stated: int | None = None) -> None:
    """A whole answer, or a range of it where that is asked for; ``upto``: closes after that many bytes of the file."""
    files, start = handler.files, _start(handler)
    tag = {} if files.etag is None else {"ETag": files.etag}
    size = len(files.body)
    if start is None:
        handler.head(200, Content_Length=size if stated is None else stated, **tag)
    elif start >= size:
        return handler.head(416, Content_Range=f"bytes */{size}", Content_Length=0)
    else:
        handler.head(206, Content_Range=f"bytes {start}-{size - 1}/{size}", Content_Length=size - start, **tag)
    handler.wfile.write(files.body[start or 0 : upto])
    return None


def _start(handler: Handler) -> int | None:
    """Where the range begins; None for a request of the whole, or of a range of bytes that are no longer served."""
    asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    if asked is None or (condition is not None and condition != handler.files.etag):
        return None
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def break_off(after: int) -> Step:
    return lambda handler: behave(handler, upto=after)


def state_length(stated: int) -> Step:
    """Whatever the file's length is; and ranges are not known."""

    def step(handler: Handler) -> None:
        del handler.headers["Range"]
        behave(handler, stated=stated)

    return step


def answer(status: int, **headers: str | int) -> Step:
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def ignore_range(handler: Handler) -> None:
    del handler.headers["Range"]
    behave(handler)


def ignore_if_range(handler: Handler) -> None:
    """Ranges of whatever is there now, under its ETag, whatever the client had before."""
    del handler.headers["If-Range"]
    behave(handler)


def wait_first(seconds: float) -> Step:
    def step(handler: Handler) -> None:
        time.sleep(seconds)
        behave(handler)

    return step


def fall_silent(after: int, seconds: float) -> Step:
    def step(handler: Handler) -> None:
        behave(handler, upto=after)
        handler.wfile.flush()
        time.sleep(seconds)

    return step


def trickle(handler: Handler) -> None:
    """A byte every hundredth of a second."""
    handler.head(200, Content_Length=len(handler.files.body), ETag=handler.files.etag or "")
    for offset in range(len(handler.files.body)):
        handler.wfile.write(handler.files.body[offset : offset + 1])
        time.sleep(0.01)


def without_length(upto: int | None = None) -> Step:
    """As HTTP/1.0 did: the end of the connection is the end of the file."""

    def step(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(handler.files.body[:upto])

    return step


def chunked(upto: int | None = None, end: bool = True) -> Step:
    def step(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        body = handler.files.body[:upto]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if end else b""))

    return step


def endless(handler: Handler) -> None:
    handler.head(200, Transfer_Encoding="chunked")
    for _ in range(10_000):
        handler.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")


@contextmanager
def serving(body: bytes) -> Iterator[FileServer]:
    files = FileServer(body)
    handler = type("FilesHandler", (Handler,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    files.url = f"http://127.0.0.1:{server.server_address[1]}/file.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
