"""The digests that decide what is new work: of a stream's settings, and of one video under those settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..manifests.streams import StreamSpec

_DIGITS = 32  # 128 bits: no two rows of any store will ever share a key by chance


def settings_digest(spec: StreamSpec, weight_digests: Mapping[str, str], extractor_version: int) -> str:
    """Digest of everything but the video that a stream's numbers depend on.

    ``weight_digests`` maps each weight role to its checkpoint's digest (``random:SEED`` for random ones).
    """
    missing = ", ".join(sorted(spec.weights.keys() - weight_digests.keys()))
    if missing:
        raise ValueError(f"{spec.extractor}: no checkpoint digest for weight role {missing}; pass one for each role")
    return _digest(
        {
            "spec": spec.model_dump(),
            "weights": dict(weight_digests),
            "extractor_version": extractor_version,
        }
    )


def row_key(content_digest: str, settings_digest: str) -> str:
    """Key of one video's row: equal bytes under equal settings have an equal key, whatever the file is called."""
    return _digest({"content": content_digest, "settings": settings_digest})


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def _canonical(value: Any) -> Any:
    """Whole floats as integers, so that 5 and 5.0 agree; other floats print as their shortest exact decimal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value
