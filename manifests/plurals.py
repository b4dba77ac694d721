"""Counts with their noun."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Format a count: ``1 video``, ``2 videos``, ``1,200 videos``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
