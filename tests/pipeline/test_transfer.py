"""From a slot's memory to the device: page-locked, and given back once the copy is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes import stream, video

from arabesque.pipeline import transfer
from arabesque.pipeline.decoding.shared_buffers import SharedBuffers
from arabesque.pipeline.decoding.slots import Window
from arabesque.pipeline.planning import plan_video
from arabesque.pipeline.transfer import DecodedWindow, PageLocked, Transfer


class FakeCudart:
    """Keeps the books of page-locked memory as CUDA does, and as strictly."""

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


def decoded(buffers: SharedBuffers, number: int, released: list[int]) -> DecodedWindow:
    plan, _ = plan_video(video(), [stream()], {})
    frames = buffers.view(number, (2, 6, 8, 3))
    frames[...] = np.arange(frames.size, dtype=np.uint8).reshape(frames.shape) + number
    return DecodedWindow(plan, Window(np.arange(2), frames, None, None, 0.0, lambda: released.append(number)))


def test_a_slots_memory_is_locked_as_a_whole_once_and_until_it_is_unmapped():
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


def test_memory_that_cannot_be_locked_is_told_of_once_and_its_error_left_to_nobody(capsys):
    cudart, forgotten = FakeCudart(status=2), []
    locked = PageLocked(cudart, lambda: forgotten.append(cudart.refused))
    buffers = [SharedBuffers(1, 4096) for _ in range(2)]
    for each in (*buffers, *buffers):
        locked.cover(each.view(0, (10,)))
    assert cudart.refused == 2
    assert forgotten == [1, 2]
    assert capsys.readouterr().err == "frames travel to the GPU unpinned, slower (CUDA error 2)\n"


def test_on_a_cpu_nothing_is_copied_and_nothing_given_back():
    buffers, released = SharedBuffers(1, 4096), []
    item = decoded(buffers, 0, released)
    moved: Any = Transfer(torch.device("cpu"))(item)
    assert moved.frames.data_ptr() == item.window.frames.ctypes.data
    assert released == []
    assert Transfer(torch.device("cpu"))("a stranger") == "a stranger"


def test_a_copy_gives_the_memory_back_also_where_it_fails(monkeypatch):
    buffers, released = SharedBuffers(2, 4096), []

    def copy(frames: np.ndarray) -> torch.Tensor:
        if frames.flat[0] == 1:
            raise torch.OutOfMemoryError("no room")
        return torch.from_numpy(frames.copy())

    monkeypatch.setattr(transfer, "CudaCopy", lambda device: copy)
    to_gpu = Transfer(torch.device("cuda:0"))
    moved: Any = to_gpu(decoded(buffers, 0, released))
    assert released == [0]
    assert moved.frames.flatten().tolist() == buffers.view(0, (96 * 3,)).tolist()
    with pytest.raises(torch.OutOfMemoryError):
        to_gpu(decoded(buffers, 1, released))
    assert released == [0, 1]


@pytest.mark.gpu
def test_windows_arrive_whole_on_a_gpu_while_it_computes():
    """Memory is written anew as soon as it is given back, as a slot does, while kernels still read what was copied."""
    device = torch.device("cuda:0")
    buffers, released = SharedBuffers(2, 32 << 20), []
    to_gpu = Transfer(device)
    busy = torch.rand(2048, 2048, device=device)
    sums = []
    for number in range(40):
        view = buffers.view(number % 2, (1 << 24,))
        view[...] = number
        plan, _ = plan_video(video(), [stream()], {})
        window = Window(np.arange(1), view, None, None, 0.0, lambda: released.append(1))
        moved: Any = to_gpu(DecodedWindow(plan, window))
        assert len(released) == number + 1
        busy = busy @ busy / busy.norm()
        sums.append(moved.frames.sum(dtype=torch.int64))
    assert [int(total) for total in sums] == [number << 24 for number in range(40)]
