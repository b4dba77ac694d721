"""Open pages in a headless Chromium and collect their errors."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None or importlib.util.find_spec("playwright") is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium or no playwright; install Debian's package chromium and the group dev")
        pytest.skip("needs Chromium and playwright; REQUIRE_BROWSER=1 makes this an error")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
        started = playwright.chromium.launch(executable_path=found, args=arguments, timeout=WAIT_MS)
        yield started
        started.close()


class Visit:
    """An open page, and the errors since it was opened."""

    def __init__(self, browser, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(WAIT_MS)
        self.page = context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri(), wait_until="load")

    def check(self) -> None:
        """Check that there were no errors and no requests to a network, and that the page fits its width."""
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def artifacts(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("BROWSER_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
