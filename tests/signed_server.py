"""A local web server that serves a folder to requests with a signature or a password only."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SECRET = "s3cr3t"
QUERY = f"X-Amz-Expires=60&X-Amz-Signature={SECRET}%2Fa%2Bb%3D/"
"""It ends with a slash, and quoting it twice would change it."""
LOGIN = f"reader:{SECRET}"


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        query = self.path.partition("?")[2]
        password = base64.b64encode(LOGIN.encode()).decode()
        if query == QUERY or self.headers.get("Authorization") == f"Basic {password}":
            super().do_GET()
        else:
            self.send_error(403)

    def do_HEAD(self) -> None:
        self.send_error(403)  # like S3, if the signature covers GET only

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving_signed(folder: Path) -> Iterator[str]:
    """Serve a folder; yields ``HOST:PORT``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
