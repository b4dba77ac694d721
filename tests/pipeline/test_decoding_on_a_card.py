"""Runs with ``--decoder nvdec``: the CPU decodes a file in the first run and a card in later ones, with equal rows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.decoding import decoder_pool, decoders
from arabesque.pipeline.decoding.messages import Begin
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning import metadata_cache
from arabesque.pipeline.store.reader import FeatureStore


@pytest.fixture
def card(monkeypatch, tmp_path) -> None:
    """Decoder processes have the stand-in for a card, and files are remembered at once."""
    monkeypatch.setenv("ARABESQUE_METADATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata_cache, "SETTLED_NS", 0)
    monkeypatch.setattr(decoders, "CARD_LIBRARIES", ())
    names = {"nvdec": "simulated_nvdec:NvdecInChild", "pyav": "pyav"}
    monkeypatch.setattr(decoder_pool, "Begin", lambda name, *settings: Begin(names[name], *settings))


def extracted(videos: Path, out: Path, decoder: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return video → rows, and video → reason why the CPU has decoded it."""
    options = RunOptions(decoder=decoder)
    list(Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, streams=["numbers"], options=options))
    store = FeatureStore(out, partial=True)
    rows = {video: store[video]["numbers"] for video in store.video_ids}
    assert {row.provenance["decoder"] for row in rows.values()} == {decoder}
    reasons = {video: row.provenance.get("decoded_on_cpu", "") for video, row in rows.items()}
    return {video: row.values for video, row in rows.items()}, reasons


@pytest.mark.parametrize("first", [pytest.param("pyav", marks=pytest.mark.slow), "nvdec"])
def test_a_card_decodes_what_an_earlier_run_has_decoded_without_damage(tmp_path, card, caplog, first):
    caplog.set_level(logging.INFO)
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("whole", "damaged"):
        write_clip(videos / f"{name}.ts", Clip(num_frames=64))
    content = (videos / "damaged.ts").read_bytes()
    half = len(content) // 376 * 188
    (videos / "damaged.ts").write_bytes(content[:half] + content[half + 188 :])
    (videos / "only-in-this-run.ts").write_bytes(content)

    rows, reasons = extracted(videos, tmp_path / "first", first)
    assert len(rows["whole"]) == 8
    assert 2 < len(rows["damaged"]) < 8
    assert {bool(reason) for reason in reasons.values()} == {first == "nvdec"}
    assert ("whole: decoded on the CPU: the CPU has not yet decoded" in caplog.text) is (first == "nvdec")

    (videos / "only-in-this-run.ts").write_bytes(content + bytes(188))
    again, reasons = extracted(videos, tmp_path / "again", "nvdec")
    assert {video for video, reason in reasons.items() if not reason} == {"whole"}
    assert again.keys() == rows.keys()
    assert all(np.array_equal(again[video], rows[video]) for video in rows)
