"""Counts with their noun."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Format a count: ``1 video``, ``1,200 videos``, ``2 stretches``."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"
