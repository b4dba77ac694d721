"""Upper bounds of a recipe's speed on a GPU: known counts, and the table of a small recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clips import Clip, write_clip

from arabesque.extractors.network_runner import NetworkRunner
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.benchmarking import card_prediction
from arabesque.pipeline.benchmarking.benchmark import probed
from arabesque.pipeline.benchmarking.card_prediction import META, Counts, Prediction, StreamPrediction, predict
from arabesque.pipeline.benchmarking.cards import CARDS
from arabesque.pipeline.benchmarking.end_to_end import Bench
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.streams import build_streams

H200 = CARDS["h200"]
RECIPE = """
name = "small"
summary = "an image network, TV-L1 and a stream without a network"
[sampling]
fps = "native"
frames_per_segment = 10
frames_per_step = 10
remainder = "drop-tail"
[streams.images]
extractor = "torchvision:mobilenet_v3_small.IMAGENET1K_V1"
settings = { geometry = { steps = [{ size_px = [64, 64] }] } }
[streams.flow]
extractor = "optical_flow"
settings = { flow = { method = "tvl1" }, geometry = { steps = [{ size_px = [256, 341] }], gray = true } }
[streams.sound]
extractor = "loudness"
"""


@pytest.mark.parametrize(("precision", "rate"), [("float32", 67e12), ("tf32", 494e12), ("bfloat16", 989e12)])
def test_a_product_is_counted_and_takes_the_longer_of_arithmetic_and_memory(precision, rate) -> None:
    """2 · 64 · 512 · 2048 operations for a product of 64 × 512 and 512 × 2048 numbers."""
    runner = NetworkRunner(torch.nn.Linear(512, 2048, bias=False).requires_grad_(False), META, "float32")
    items = list(torch.empty(64, 512, device=META))
    with card_prediction._counting(H200, precision) as counter:
        runner.rows(items, lambda batch: batch)
    flop = 2 * 64 * 512 * 2048
    moved = 4 * (64 * 512 + 512 * 2048 + 64 * 2048)
    stacked = 2 * 4 * 64 * 512
    assert counter.counts.flop == flop
    assert counter.counts.moved_bytes == moved + stacked
    assert counter.counts.launches == 2
    assert counter.counts.card_s == pytest.approx(max(flop / rate, moved / 4.8e12) + stacked / 4.8e12)


def test_the_busiest_resource_is_the_bound() -> None:
    stream = StreamPrediction(
        "vst", 0.8, prepare_cpu_s=0.02, network=Counts(launches=2000.0, card_s=0.001), tvl1_s=0.004, not_counted=""
    )
    found = Prediction("small", H200, 16, 0.14, Counts(launches=1000.0, card_s=0.001), (stream,))
    assert found.seconds == pytest.approx({"CPU cores": 0.01, "launches": 0.015, "card": 0.006})
    assert found.bound == "launches"
    assert found.most_video_s_per_s == pytest.approx(1 / 0.015)
    assert replace(found, cores=4).bound == "CPU cores"


def test_a_small_recipe(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", Clip(num_frames=50, beeps_s=(0.5,)))
    options = RunOptions(num_decoders=1, num_cpu_threads=1)
    run = Extraction(clip, parse_recipe(RECIPE, "small.toml"), tmp_path / "out", weights="random:0", options=options)
    streams = build_streams(run.streams, run.weights, run.settings_digests, META)
    planar = replace(options, decoding=replace(options.decoder_settings, planar=True))
    found = predict(Bench(run, streams, planar), probed(run, run.inputs.videos), H200, 4, 0.05)
    assert found.decode_cpu_s > 0
    assert found.preprocess.launches > 10
    images, flow, sound = found.streams
    assert [each.segments_per_video_s for each in found.streams] == pytest.approx([2.5, 2.5, 2.5])
    assert not any(each.not_counted for each in found.streams)
    # torchvision's table: 57 million multiplications with an addition for 224 × 224 pixels; here for 64 × 64
    assert pytest.approx(images.network.flop, rel=0.25) == 2 * 57e6 / 12.25 * 25
    assert flow.tvl1_s == pytest.approx(25 / 7000, rel=0.01)
    assert sound.network.flop == 0
