"""A local stand-in for the Hugging Face hub: repositories of files with commits, and broken connections."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class Repository:
    """Commits of a repository, the newest last. ``error`` is an ``X-Error-Code`` of the hub."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    error: str = ""

    def commit(self, folder: Path) -> str:
        """Add the files of a folder as a commit; return its id."""
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        name = hashlib.sha1(b"".join(name.encode() + data for name, data in files.items())).hexdigest()
        self.commits[name] = files
        return name


@dataclass
class Hub:
    """The repositories, and the requests so far.

    Args:
        repositories: Name → repository.
        cut_after: File → bytes after which the connection breaks, once for each entry of the list.
        down: Whether every request fails.
        requests: (method, path, ``Range`` header) of the requests so far.
    """

    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    cut_after: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    down: bool = False
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    url: str = ""

    def files_fetched(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        with suppress(BrokenPipeError, ConnectionResetError):
            if self.hub.down:
                self._answer(503, b"")
            elif path.startswith("/api/models/"):
                self._info(path.removeprefix("/api/models/"))
            else:
                self._file(*path.strip("/").split("/"))

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _commit(self, owner: str, name: str, revision: str) -> str | None:
        """Answer with an error, or return the commit."""
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None or repository.error:
            code = "RepoNotFound" if repository is None else repository.error
            self._answer(403 if code == "GatedRepo" else 404, b"", **{"X-Error-Code": code})
            return None
        commit = list(repository.commits)[-1] if revision == "main" else revision
        if commit not in repository.commits:
            self._answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _info(self, path: str) -> None:
        owner, name, *rest = path.split("/")
        if (commit := self._commit(owner, name, rest[1] if len(rest) > 1 else "main")) is None:
            return
        files = self.hub.repositories[f"{owner}/{name}"].commits[commit]
        if rest and rest[0] == "tree":
            tree = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
            self._answer(200, json.dumps(tree).encode(), **{"Content-Type": "application/json"})
            return
        siblings = [{"rfilename": file} for file in files]
        found = {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "private": False, "tags": []}
        self._answer(200, json.dumps(found).encode(), **{"Content-Type": "application/json"})

    def _file(self, owner: str, name: str, _: str, revision: str, file: str) -> None:
        if (commit := self._commit(owner, name, revision)) is None:
            return
        data = self.hub.repositories[f"{owner}/{name}"].commits[commit].get(file)
        if data is None:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        facts = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = 0
        if (part := self.headers.get("Range", "")).startswith("bytes="):
            start = int(part.removeprefix("bytes=").partition("-")[0])
            facts["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206 if start else 200, data[start:], cut_after=self._cut(file), **facts)

    def _cut(self, file: str) -> int | None:
        cuts = self.hub.cut_after.get(file, [])
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def _answer(self, status: int, data: bytes, cut_after: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(patch: pytest.MonkeyPatch, hub: Hub, cache: Path) -> None:
    """Let huggingface_hub of this process use a hub and an empty cache, as ``HF_ENDPOINT`` and ``HF_HOME`` do."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
