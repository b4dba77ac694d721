"""Digests of a stream's settings, and keys of rows. Rows with a new key are computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..manifests.streams import RENAMED, StreamSpec, respelled

_ADDED: dict[str, Any] = {
    "athlete": "largest",
    "audio_track": "best",
    "crops": "center",
    "deinterlace": "none",
    "detector": "ultralytics",
    "layer": "",
    "link_threshold": 0.1,
    "network_precision": "float32",
    "num_athletes": 1,
    "one_factor": False,
    "pixel_aspect": "ignore",
    "resize_arithmetic": "torch",
    "row_shape": [],
    "sentences": [],
    "tokenizer_sha256": "",
}
"""Fields of `StreamSpec`, geometries and settings that were added after the first stores → value without an effect."""
_DIGITS = 32  # 128 bits: accidental collisions are practically impossible


def settings_digest(spec: StreamSpec, weight_digests: Mapping[str, str], extractor_version: int) -> str:
    """Return the digest of all settings that affect a stream's features.

    Args:
        spec: Resolved settings of the stream.
        weight_digests: Weight role → digest of its checkpoint, ``random:SEED`` for random weights.
        extractor_version: Version of the extractor.

    Raises:
        ValueError: A weight role has no digest.
    """
    missing = ", ".join(sorted(spec.weights.keys() - weight_digests.keys()))
    if missing:
        raise ValueError(f"{spec.extractor}: no checkpoint digest for weight role {missing}; pass one for each role")
    described = spec.model_dump()
    if described["settings"].get("output") == "pooled" and "transformers:" not in spec.extractor:
        del described["settings"]["output"]  # only extractors of transformers had this setting from the start
    return _digest(
        {
            "spec": described,
            "weights": dict(weight_digests),
            "extractor_version": extractor_version,
        }
    )


def row_key(content_digest: str, settings_digest: str, tracks: str = "") -> str:
    """Return the key of a row. It depends on the content and the settings, not on the file's name.

    Args:
        content_digest: SHA-256 of the file.
        settings_digest: From `settings_digest`.
        tracks: Choice of streams if the file has several; see `VideoMetadata.tracks`.
    """
    return _digest({"content": content_digest, "settings": settings_digest} | ({"tracks": tracks} if tracks else {}))


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def _canonical(value: Any) -> Any:
    """Convert integral floats to integers, so that 5 and 5.0 are equal, and names to their original spelling.

    Later additions that have their original value are left out, at any depth, so that the keys of the first stores stay
    valid.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return respelled(value, {new: old for old, new in RENAMED.items()})
    if isinstance(value, Mapping):
        return {
            _canonical(str(name)): _canonical(item)
            for name, item in cast("Mapping[Any, Any]", value).items()
            if name not in _ADDED or item != _ADDED[name]
        }
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in cast("Sequence[Any]", value)]
    return value
