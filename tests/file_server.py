"""A local web server that serves one file, with faults that a test chooses."""

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
"""Begins like a PyTorch file."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_GET(self) -> None:
        self.close_connection = True
        self.files.requests.append(self.headers)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may close the connection
            (self.files.script.pop(0) if self.files.script else serve)(self)

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
    """The served file and what the server does.

    Args:
        body: The file.
        etag: Its ETag.
        script: How to answer the first requests; all later ones are served normally.
        requests: Headers of the requests so far.
        url: Address of the file.
    """

    body: bytes
    etag: str | None = '"first"'
    script: list[Step] = field(default_factory=list[Step])
    requests: list[Message] = field(default_factory=list[Message])
    url: str = ""


def serve(handler: Handler, upto: int | None = None, stated: int | None = None) -> None:
    """Send the file, or the requested range of it. ``upto``: close the connection at this offset of the file."""
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
    """Return the first byte of the requested range; None if the whole file must be sent."""
    byte_range, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    if byte_range is None or (condition is not None and condition != handler.files.etag):
        return None
    return int(byte_range.removeprefix("bytes=").removesuffix("-"))


def close_after(after: int) -> Step:
    return lambda handler: serve(handler, upto=after)


def state_length(stated: int) -> Step:
    """State this length instead of the true one, and ignore ranges."""

    def step(handler: Handler) -> None:
        del handler.headers["Range"]
        serve(handler, stated=stated)

    return step


def answer(status: int, **headers: str | int) -> Step:
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def ignore_range(handler: Handler) -> None:
    del handler.headers["Range"]
    serve(handler)


def ignore_if_range(handler: Handler) -> None:
    """Serve ranges of the current file even if the client has a part of another version."""
    del handler.headers["If-Range"]
    serve(handler)


def wait_first(seconds: float) -> Step:
    def step(handler: Handler) -> None:
        time.sleep(seconds)
        serve(handler)

    return step


def stall(after: int, seconds: float) -> Step:
    def step(handler: Handler) -> None:
        serve(handler, upto=after)
        handler.wfile.flush()
        time.sleep(seconds)

    return step


def trickle(handler: Handler) -> None:
    """Send one byte every 10 ms."""
    handler.head(200, Content_Length=len(handler.files.body), ETag=handler.files.etag or "")
    for offset in range(len(handler.files.body)):
        handler.wfile.write(handler.files.body[offset : offset + 1])
        time.sleep(0.01)


def without_length(upto: int | None = None) -> Step:
    """Do not state the length, as in HTTP/1.0: the file ends with the connection."""

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
