"""Inputs are computed on a separate stream, and a network waits for it on the device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import stream, video

from arabesque.extractors.protocol import SegmentInput
from arabesque.pipeline.items import Batch, SegmentTask
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.runner import SWITCH_INTERVAL_S, short_waits
from arabesque.pipeline.stages.compute import Forward, prepare
from arabesque.pipeline.system import accelerators

CARD = torch.device("cuda", 3)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls to a simulated card, in order."""
    found: list[str] = []

    @contextmanager
    def on(chosen: Any) -> Iterator[None]:
        found.append(f"on the stream of inputs of card {chosen.index}")
        yield
        found.append("on the stream of networks")

    networks = SimpleNamespace(wait_stream=lambda other: found.append(f"wait for the inputs of card {other.index}"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: SimpleNamespace(index=index))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: networks)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    accelerators._stream.cache_clear()
    return found


def test_a_network_waits_for_its_inputs_on_the_device(order: list[str]) -> None:
    frames = torch.zeros(4, 3, 6, 8, dtype=torch.uint8).as_subclass(type("OnCard", (torch.Tensor,), {"device": CARD}))
    fake = stream(row=lambda segment: order.append("forward") or torch.zeros(2))
    fake.extractor.prepare = lambda segment: order.append("prepare") or segment  # type: ignore[func-returns-value]
    plan, _ = plan_video(video(num_frames=40), [fake], {})
    prepared = prepare(SegmentTask(plan, fake, SegmentInput(0, 0.0, 0.4, frames=frames)))
    assert isinstance(prepared, SegmentTask)
    Forward(CARD)(Batch(fake, (prepared,)))
    assert order == [
        "on the stream of inputs of card 3",
        "prepare",
        "on the stream of networks",
        "wait for the inputs of card 3",
        "forward",
    ]


def test_the_current_card_has_one_stream_under_both_names(order: list[str]) -> None:
    assert accelerators.input_stream(torch.device("cuda")) is accelerators.input_stream(CARD)
    assert not order


def test_threads_wait_for_a_gpu_with_a_short_interval() -> None:
    usual = sys.getswitchinterval()
    with short_waits(torch.device("cpu")):
        assert sys.getswitchinterval() == pytest.approx(usual)
    with short_waits(CARD):
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    assert sys.getswitchinterval() == pytest.approx(usual)
