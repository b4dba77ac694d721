"""Simulated GPUs: choice of the device, division of its memory among workers, and failure of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import PLAIN, stream, video

from arabesque.cli import doctor
from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import ArabesqueError, InputError
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline import extraction
from arabesque.pipeline.decoding.decoder_pool import FrameChunk
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Batch, DecodedChunk, PreprocessedChunk, SegmentTask
from arabesque.pipeline.machine import find_device, local_workers, options_for_machine
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.stages import preprocess as preprocess_stage
from arabesque.pipeline.stages.assemble import SegmentBuilder
from arabesque.pipeline.stages.compute import Forward, prepare
from arabesque.pipeline.stages.preprocess import preprocess
from arabesque.pipeline.stages.transfer import Transfer
from arabesque.pipeline.system import accelerators
from arabesque.pipeline.system.accelerators import limit_memory, share_of_memory, unusable_gpu

GIB = 1 << 30
CARD_BYTES = 24 * GIB


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, torch.device]]:
    """Simulate two cards of 24 GiB; the list contains the shares of their memory that are set."""
    shares: list[tuple[float, torch.device]] = []
    module = SimpleNamespace(
        get_device_properties=lambda device: SimpleNamespace(total_memory=CARD_BYTES),
        set_per_process_memory_fraction=lambda share, device: shares.append((share, device)),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    return shares


def test_the_first_card_is_the_default_and_others_must_exist(cards: Any) -> None:
    assert find_device("auto") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    for name in ("cuda:2", "xpu"):
        with pytest.raises(InputError, match=f"device '{name}' is not there: torch sees"):
            find_device(name)


def test_auto_warns_of_a_card_that_torch_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    file = tmp_path / "version"
    monkeypatch.setattr(accelerators, "DRIVER_FILE", file)
    assert find_device("auto") == torch.device("cpu")
    assert not caplog.records
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12\n")
    assert find_device("auto") == torch.device("cpu")
    [record] = caplog.records
    assert "driver 535.104.05 is installed" in record.getMessage()
    assert "CUDA 13.2 of this torch needs driver 580 or newer" in record.getMessage()
    [check] = doctor.devices()
    assert (check.level, check.detail) == ("warn", unusable_gpu())


@pytest.mark.parametrize(
    ("num_workers", "limit_gib", "share_gib"), [(2, None, None), (3, None, 12), (4, 10, 5), (2, 10, 10)]
)
def test_workers_of_one_card_share_its_memory(
    num_workers: int, limit_gib: int | None, share_gib: int | None, cards: Any
) -> None:
    """Two cards: a third worker is a second one on the first card, and all workers have the same share."""
    options = replace(options_for_machine(threads=16), gpu_memory_bytes=limit_gib and limit_gib * GIB)
    torch.set_num_threads(1)
    assert options.num_decoders == 16, "all cores decode for a GPU"
    shared, executor = local_workers(options, "auto", workers=num_workers)
    assert executor is not None
    assert shared.gpu_memory_bytes == (share_gib and share_gib * GIB)


def test_a_limit_is_a_share_of_the_card(cards: list[tuple[float, torch.device]]) -> None:
    card = torch.device("cuda", 1)
    for limit_bytes in (None, 6 * GIB, 2 * CARD_BYTES):
        limit_memory(card, limit_bytes)
    assert cards == [(0.25, card), (1.0, card)]
    assert share_of_memory(torch.device("cpu"), None, 8) is None
    with pytest.raises(InputError, match="--gpu-memory: mps has no memory that can be limited"):
        limit_memory(torch.device("mps"), GIB)


def test_a_network_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    (tmp_path / "a.mp4").write_bytes(b"not opened")
    monkeypatch.setattr(extraction, "build_streams", too_large)
    with pytest.raises(InputError, match=r"stream motion: its network does not fit .* allow more memory \(--gpu-mem"):
        list(Extraction(tmp_path, load_recipe("starter"), tmp_path / "out"))


def lost(*_: Any, **__: Any) -> Any:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")


def on(device: torch.device, frames: torch.Tensor) -> torch.Tensor:
    """Frames that report a GPU as their device."""
    kind = type("OnCard", (torch.Tensor,), {"device": device})
    return frames.as_subclass(kind)


def fail_in_transfer(device: torch.device, patch: pytest.MonkeyPatch) -> None:
    transfer = Transfer(device)
    patch.setattr(torch.Tensor, "to", lost)
    transfer(decoded(device))


def fail_in_preprocess(device: torch.device, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preprocess_stage, "apply_geometry", lost)
    preprocess(decoded(device))


def fail_in_assemble(device: torch.device, patch: pytest.MonkeyPatch) -> None:
    plan, _ = plan_video(video(num_frames=8), [stream()], {})
    frames = [on(device, torch.zeros(3, 6, 8, dtype=torch.uint8)) for _ in range(8)]
    patch.setattr(torch, "stack", lost)
    list(SegmentBuilder()(PreprocessedChunk(plan, {PLAIN: (np.arange(8), frames)}, None)))  # type: ignore[dict-item]


def fail_in_prepare(device: torch.device, patch: pytest.MonkeyPatch) -> None:
    task = segment_task(device)
    task.stream.extractor.prepare = lost  # type: ignore[method-assign]
    prepare(task)


def fail_in_network(device: torch.device, patch: pytest.MonkeyPatch) -> None:
    task = segment_task(device)
    task.stream.extractor.forward = lost  # type: ignore[method-assign]
    Forward(device)(Batch(task.stream, (task,)))


def decoded(device: torch.device) -> DecodedChunk:
    plan, _ = plan_video(video(), [stream()], {})
    pictures = np.zeros((2, 6, 8, 3), np.uint8)
    chunk = FrameChunk(np.arange(2), pictures, None, None, 0.0, lambda: None)
    return DecodedChunk(plan, chunk, on(device, torch.from_numpy(pictures)))


def segment_task(device: torch.device) -> SegmentTask:
    fake = stream()
    plan, _ = plan_video(video(num_frames=40), [fake], {})
    frames = on(device, torch.zeros(4, 3, 6, 8, dtype=torch.uint8))
    return SegmentTask(plan, fake, SegmentInput(0, 0.0, 0.4, frames=frames))


@pytest.mark.parametrize("index", [0, 1, 7])
@pytest.mark.parametrize(
    "fail", [fail_in_transfer, fail_in_preprocess, fail_in_assemble, fail_in_prepare, fail_in_network]
)
def test_a_lost_gpu_ends_the_run_in_every_stage(
    fail: Callable[[torch.device, pytest.MonkeyPatch], None], index: int
) -> None:
    asked: list[int | None] = []

    def synchronize(device: torch.device) -> None:
        asked.append(device.index)
        lost()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "synchronize", synchronize)
        with pytest.raises(ArabesqueError, match=r"the GPU has failed \(CUDA error: an illegal .*run the same command"):
            fail(torch.device("xpu", index), patch)  # PyTorch makes no stream of a CUDA device that is not there
    assert asked == [index]
