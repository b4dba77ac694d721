"""Transfer of a chunk from page-locked shared memory to the device, and release after the copy."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from fakes import stream, video

from arabesque.pipeline.decoding.decoder_pool import FrameChunk
from arabesque.pipeline.decoding.decoder_process import SharedBuffers
from arabesque.pipeline.items import ChunkFailure, DecodedChunk
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.stages import transfer
from arabesque.pipeline.stages.transfer import PageLocked, Transfer
from arabesque.pipeline.system import accelerators


class FakeCudart:
    """Tracks page-locked memory with the rules of CUDA."""

    def __init__(self, status: int = 0) -> None:
        self.locked: dict[int, int] = {}
        self._status = status
        self.refused = 0

    def cudaHostRegister(self, address: int, num_bytes: int, flags: int) -> int:
        if self._status:
            self.refused += 1
            return self._status
        assert not any(address < start + size and start < address + num_bytes for start, size in self.locked.items())
        self.locked[address] = num_bytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


def decoded(buffers: SharedBuffers, number: int, released: list[int]) -> DecodedChunk:
    plan, _ = plan_video(video(), [stream()], {})
    frames = buffers.view(number, (2, 6, 8, 3))
    frames[...] = np.arange(frames.size, dtype=np.uint8).reshape(frames.shape) + number
    return DecodedChunk(plan, FrameChunk(np.arange(2), frames, None, None, 0.0, lambda: released.append(number)))


def test_a_buffer_is_page_locked_once_until_it_is_unmapped():
    cudart = FakeCudart()
    locked = PageLocked(cudart, lambda: pytest.fail("nothing was refused"))
    buffers = [SharedBuffers(3, 4096), SharedBuffers(2, 8192)]
    for number in (0, 2, 1, 0):
        locked.cover(buffers[0].view(number, (2, 6, 8, 3))[1:])
    kept = buffers[1].view(1, (10,))
    locked.cover(kept)
    assert sorted(cudart.locked.values()) == [3 * 4096, 2 * 8192]
    buffers.clear()
    assert list(cudart.locked.values()) == [2 * 8192], "a view that is out keeps its memory locked"
    del kept
    assert cudart.locked == {}


def test_a_refusal_to_lock_memory_is_logged_once_and_its_cuda_error_cleared(caplog):
    cudart, forgotten = FakeCudart(status=2), []
    locked = PageLocked(cudart, lambda: forgotten.append(cudart.refused))
    buffers = [SharedBuffers(1, 4096) for _ in range(2)]
    for each in (*buffers, *buffers):
        locked.cover(each.view(0, (10,)))
    assert cudart.refused == 2
    assert forgotten == [1, 2]
    assert caplog.messages == ["frames are copied to the GPU from unpinned memory, which is slower (CUDA error 2)"]


def test_on_a_cpu_frames_are_neither_copied_nor_released():
    buffers, released = SharedBuffers(1, 4096), []
    item = decoded(buffers, 0, released)
    moved: Any = Transfer(torch.device("cpu"))(item)
    assert moved.frames.data_ptr() == item.chunk.frames.ctypes.data
    assert released == []


def test_the_buffer_is_released_even_if_the_copy_fails(monkeypatch):
    buffers, released = SharedBuffers(2, 4096), []

    def copy(frames: np.ndarray) -> torch.Tensor:
        if frames.flat[0] == 1:
            raise torch.OutOfMemoryError("no memory")
        return torch.from_numpy(frames.copy())

    monkeypatch.setattr(transfer, "CudaCopy", lambda device: copy)
    monkeypatch.setattr(accelerators, "on_input_stream", lambda device: nullcontext())
    to_gpu = Transfer(torch.device("cuda:0"))
    moved: Any = to_gpu(decoded(buffers, 0, released))
    assert released == [0]
    assert moved.frames.flatten().tolist() == buffers.view(0, (96 * 3,)).tolist()
    failed = to_gpu(decoded(buffers, 1, released))
    assert isinstance(failed, ChunkFailure)  # of this video: the others continue
    assert "too little memory" in failed.reason
    assert released == [0, 1]


@pytest.mark.gpu
def test_chunks_arrive_complete_on_a_gpu_that_computes():
    """A released buffer is overwritten at once, as by a decoder, while kernels read the copy."""
    device = torch.device("cuda:0")
    buffers, released = SharedBuffers(2, 32 << 20), []
    to_gpu = Transfer(device)
    busy = torch.rand(2048, 2048, device=device)
    sums = []
    for number in range(40):
        view = buffers.view(number % 2, (1 << 24,))
        view[...] = number
        plan, _ = plan_video(video(), [stream()], {})
        chunk = FrameChunk(np.arange(1), view, None, None, 0.0, lambda: released.append(1))
        moved: Any = to_gpu(DecodedChunk(plan, chunk))
        assert len(released) == number + 1
        busy = busy @ busy / busy.norm()
        sums.append(moved.frames.sum(dtype=torch.int64))
    assert [int(total) for total in sums] == [number << 24 for number in range(40)]
