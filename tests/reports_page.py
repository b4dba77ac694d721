"""An HTML page, for tests of reports."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

SELF_CLOSING = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, and the text; raises an error for tags that are not nested."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.tags, self.text, self.open = path, [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in SELF_CLOSING:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{self.path.name}: </{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]
