"""Plain language: idioms that readers stumble over stay out of code, comments, documentation and configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "manifests",
    "extractors",
    "pipeline",
    "models",
    "reports",
    "cli",
    "arabesque",
    "benchmarks",
    "docker",
    "docs",
    "examples",
    "tests",
)
SUFFIXES = {".py", ".md", ".toml"}
MOST_PER_THOUSAND_LINES = 0.5

IDIOMS = {
    "tell of": r"\b(?:tells?|told|telling) (?:of|by|from|which|what|how|where|who|when|apart)\b",
    "in hand": r"\bin hand\b",
    "way out": r"\bway[_ ]out\b",
    "mend": r"\bmend(?:s|ed|ing)?\b",
    "anew": r"\banew\b",
    "nobody, whoever": r"\b(?:nobody|whoever|somebody|everybody|anybody)\b",
    "foresee": r"\bforesee\w*|\bforesaw\b",
    "for ever": r"\bfor ever\b",
    "is no X": r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more than\b|less than\b)[a-z]",
    "none as a subject": r"(?:^|[.;:] )none (?:is|are|was|has|have|of)\b",
    "heed, vouch, obey, owe": r"\b(?:heed|vouch|obey|owe)(?:s|es|ed|ing)?\b",
    "meanwhile": r"\bmeanwhile\b",
    "all the same": r"\ball the same\b",
    "of the day": r"\bof the day\b",
    "strangers": r"\bstrangers?\b",
    "one's own": r"\bone's own\b",
    "so many, so much": r"\b(?:takes?|took|has|have|were|are) so (?:many|much)\b",
    "some 15": r"\bsome \d+\b",
    "in the midst": r"\bin the midst\b",
    "come to an end": r"\bcomes? to an end\b",
    "taken for": r"\b(?:take|takes|taken) for (?:lost|dead|hung|whole)\b",
    "of its own accord": r"\bof its own accord\b",
    "the like": r"\band the like\b|\band its like\b",
}
"""Name → regular expression, upper and lower case alike. `style` for each: a complete, simple sentence instead."""
IDIOM = re.compile("|".join(IDIOMS.values()), re.IGNORECASE | re.MULTILINE)

BRITISH = re.compile(
    r"colour|neighbour|behaviour|favour|honour|centre(?:s|d)?\b|\bgrey\b|licence|labelled"
    r"|(?:normal|quant|standard|optim|organ|recogn|synchron|util|initial|serial|summar)is(?:e|ed|es|er|ing|ation)\b",
    re.IGNORECASE,
)


EARLIER_SPELLING = ("manifests/streams.py", "tests/pipeline/test_digests.py")
"""Files that must name settings as the first stores spelled them."""


def texts(part: str) -> list[Path]:
    """Our files of one top-level folder; the list of idioms itself does not count."""
    found = (path for path in (ROOT / part).rglob("*") if path.suffix in SUFFIXES)  # links are not followed
    return sorted(path for path in found if path != Path(__file__).resolve() and "__pycache__" not in path.parts)


def matches(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """``file:line: text`` of each line on which the pattern occurs."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("part", PARTS)
def test_idioms_are_rare(part: str) -> None:
    paths = texts(part)
    if not paths:
        pytest.skip(f"{part}/ is not in this checkout")
    num_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    found = matches(IDIOM, paths)
    rate = 1000 * len(found) / num_lines
    assert rate <= MOST_PER_THOUSAND_LINES, f"{rate:.1f} idioms per thousand lines:\n" + "\n".join(found[:40])


def test_the_readme_has_no_idiom() -> None:
    assert matches(IDIOM, [ROOT / "README.md"]) == []


def test_spelling_is_american() -> None:
    """As torch spells it: color, normalize, neighbor."""
    found = matches(BRITISH, [ROOT / "README.md", *(path for part in PARTS for path in texts(part))])
    assert [line for line in found if not line.startswith(EARLIER_SPELLING)] == []


@pytest.mark.parametrize("name", IDIOMS)
def test_each_idiom_is_found(name: str) -> None:
    """The expressions match what they are named after."""
    examples = {
        "tell of": "What a run tells of.",
        "heed, vouch, obey, owe": "a row that vouches for it",
        "nobody, whoever": "frames nobody trusts",
        "is no X": "a file that is no video",
        "none as a subject": "none of them is read",
        "so many, so much": "it takes so many seconds",
        "some 15": "some 15 frames",
        "in the midst": "in the midst of a packet",
        "taken for": "a writer taken for dead",
        "the like": "masks and the like",
    }
    assert re.search(IDIOMS[name], examples.get(name, name), re.IGNORECASE | re.MULTILINE)
