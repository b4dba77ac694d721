"""A web server that serves one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import file_server
import pytest
from file_server import BODY, FileServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server.serving(BODY) as files:
        yield files
