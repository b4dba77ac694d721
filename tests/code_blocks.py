"""The code blocks of the README and of the manual, with the directives of their pages.

A comment before a block, which is not visible on the page, controls the test; without one, the block is run:

    <!-- not run: REASON -->    the test only checks that commands, options and syntax exist
    <!-- file: NAME -->         the block is the content of this file, for the blocks after it
    <!-- shared -->             the block is run if ../shared with its data exists

Blocks in ``text`` or without a language are output, fields and drawings. The blocks of a page run in order, in one
folder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md")
_BLOCK = re.compile(
    r"(?:^<!-- (?P<directive>[^>]*?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_ENDS_COMMAND = {"|", ">", ">>", "<", ";", "&&", "||", "&"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    directive: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in ("bash", "python") and not self.directive.startswith(("not run", "file"))


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            text.count("\n", 0, match.start("text")),
            match["language"],
            match["text"],
            match["directive"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]


def commands_in(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each call of ``arabesque`` in a block of shell commands."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "arabesque" and (start == 0 or words[start - 1] in {*_ENDS_COMMAND, "bootstrap.py"}):
                rest = words[start + 1 :]
                end = next((at for at, each in enumerate(rest) if each in _ENDS_COMMAND), len(rest))
                yield rest[:end]
