"""Measure the CPU milliseconds of a frame from file to network: decoding, color, hand-over, geometry.

python benchmarks/decoding.py [--video drawn FILE …] [--frames 240] [--rounds 3] [--device cuda] [--chart FILE]

``drawn`` is a video that the script encodes (1280 × 720, H.264, 3 Mbit/s). The parts are measured alternately, in CPU
seconds of the process that does the work, and the best round counts, to reduce the effect of other load. With a GPU,
the copy and the work of the device are measured, too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from charts import BLUE, PALE, aim, bars, picture
from measured import Found, markdown, parser_for, present
from moving_texture import moving_texture

from arabesque.extractors.geometry import apply_geometry
from arabesque.manifests.streams import CenterCrop, Geometry, ShortSide, Size
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess, DecoderSettings, Holes
from arabesque.pipeline.decoding.decoders import build_decoder
from arabesque.pipeline.decoding.planes import ColorSpace, Planes
from arabesque.pipeline.records import Hole, VideoMetadata
from arabesque.pipeline.stages.color import to_rgb

SWIN = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 300)), Size(size_px=(224, 224))))
"""Geometry of the frames for the networks of GDLT and PAMFN."""

Costs = dict[str, float]
"""Part → milliseconds per frame."""
AIM_MS = 3.5
"""Aim for the CPU time of a 720p frame on the path to a GPU, including decoding."""
ON_CPU, ON_GPU = (
    "in all, CPU path: RGB, hand-over, geometry",
    "in all, GPU path: planes, hand-over; the rest is the GPU's",
)
GEOMETRY = "geometry of Video Swin, on the CPU"


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--video", nargs="+", default=["drawn"], help="files, or `drawn`")
    parser.add_argument("--frames", type=int, default=240, help="number of frames, from the beginning of the video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    present(
        table,
        draw,
        options,
        lambda: {"videos": [of_video(name, options.frames, options.rounds, device) for name in options.video]},
        ["torch", "av"],
    )


def table(found: Found) -> list[str]:
    videos = found["videos"]
    titles = ["CPU ms a frame", *(f"{video['video'].partition('_')[0]}: {video['kind']}" for video in videos)]
    costs = [video["ms_a_frame"] for video in videos]
    return markdown(titles, ([part, *(f"{cost_ms[part]:.2f}" for cost_ms in costs)] for part in costs[0]))


def of_video(name: str, num_frames: int, num_rounds: int, device: torch.device) -> Found:
    """Return the best round of each part."""
    with tempfile.TemporaryDirectory() as folder:
        video = draw_video(Path(folder, "drawn.mp4"), num_frames) if name == "drawn" else Path(name)
        probe = build_decoder("pyav", lambda: None).probe(video)
        wanted = np.arange(min(num_frames, probe.num_frames))
        rounds = [measure(video, probe, wanted, device) for _ in range(num_rounds)]
        rate_mbit_s = 8 * video.stat().st_size / probe.end_s / 1e6
    kind = f"{probe.codec}, {probe.width_px}×{probe.height_px}, {rate_mbit_s:.1f} Mbit/s"
    costs = {part: min(each[part] for each in rounds) for part in rounds[0]}
    return {"video": Path(name).stem, "kind": kind, "frames": len(wanted), "ms_a_frame": costs}


def draw(found: Found, path: Path) -> None:
    rows = {
        video["video"].partition("_")[0]: {
            "planes, handed over, for a GPU": video["ms_a_frame"][ON_GPU],
            "RGB, handed over and resized, for a CPU": video["ms_a_frame"][ON_CPU],
        }
        for video in found["videos"]
    }
    colors = dict(zip(next(iter(rows.values())), (BLUE, PALE), strict=True))
    title = "What a frame of 720p costs the CPU, from the file to the network's input"
    with picture(path, title, found, 1.4 + 0.6 * len(rows)) as (axes,):
        bars(axes, rows, "CPU milliseconds a frame", colors=colors, told="{:.2f}".format)
        aim(axes, AIM_MS, f"aim for a GPU: {AIM_MS} ms")


def draw_video(path: Path, num_frames: int) -> Path:
    pictures = moving_texture(min(num_frames, 48), 720, 1280).frames.permute(0, 2, 3, 1).contiguous().numpy()
    to_and_fro = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(25), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 3_000_000
        for number in range(num_frames):
            picture = pictures[to_and_fro[number % len(to_and_fro)]]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def measure(video: Path, probe: VideoMetadata, wanted: np.ndarray, device: torch.device) -> Costs:
    costs = {
        "decoding alone": decode(video, probe, wanted[-1:], planar=False),
        "decoding, RGB by swscale": decode(video, probe, wanted, planar=False),
        "decoding, planes": decode(video, probe, wanted, planar=True),
    }
    costs = {part: 1000 * seconds / len(wanted) for part, seconds in costs.items()}
    rgb, planes = (through_slot(video, probe, wanted, planar=planar) for planar in (False, True))
    costs |= {f"RGB through a slot: {part}": cost_ms for part, cost_ms in rgb.items()}
    costs |= {f"planes through a slot: {part}": cost_ms for part, cost_ms in planes.items()}
    pictures, flat = some_pictures(video, probe, wanted)
    color = ColorSpace("bt601", full_range=False)
    costs["planes to RGB in torch, on the CPU"] = on_cpu(lambda: to_rgb(flat, color), len(flat))
    costs[GEOMETRY] = on_cpu(lambda: apply_geometry(pictures, SWIN), len(pictures))
    costs[ON_CPU] = sum(rgb.values()) + costs[GEOMETRY]
    costs[ON_GPU] = sum(planes.values())
    if device.type == "cuda":
        costs |= on_gpu(flat, color, device)
    return costs


def decode(video: Path, probe: VideoMetadata, wanted: np.ndarray, *, planar: bool) -> float:
    """Return the CPU seconds to decode and to copy the frames ``wanted``, as a decoder process does."""
    room = np.zeros((16, probe.height_px, probe.width_px, 3), np.uint8)
    decoder = build_decoder("pyav", lambda: None, planar=planar)
    began = time.process_time()
    for number, item in enumerate(decoder.frames(video, probe, wanted)):
        if isinstance(item, Hole):
            sys.exit(f"{video}: has damaged frames; give a whole video")
        frame = item[1]
        if isinstance(frame, Planes):
            frame.write_to(room[number % 16].reshape(-1)[: frame.luma.size * 3 // 2])
        else:
            room[number % 16] = frame
        del frame, item
    return time.process_time() - began


def through_slot(video: Path, probe: VideoMetadata, wanted: np.ndarray, *, planar: bool) -> Costs:
    """Return the costs of the child, which decodes, and of the parent, which receives and releases chunks.

    The second pass is measured; the first one allocates the shared memory.
    """
    with DecoderProcess(settings=DecoderSettings(planar=planar)) as slot:
        slot.probe(video)
        assert slot.pid is not None
        before_s = began = 0.0
        for _ in range(2):
            before_s, began = child_cpu_s(slot.pid), time.process_time()
            for chunk in slot.decode(video, probe, wanted):
                if isinstance(chunk, Holes):
                    sys.exit(f"{video}: has damaged frames; give a whole video")
                if planar and chunk.color is None:
                    sys.exit(f"{video}: is not 8-bit 4:2:0; only such videos are decoded to planes")
                chunk.release()
        parent_s = time.process_time() - began
        child_s = child_cpu_s(slot.pid) - before_s
    return {"child": 1000 * child_s / len(wanted), "parent": 1000 * parent_s / len(wanted)}


def child_cpu_s(pid: int) -> float:
    """Return the CPU seconds of the main thread of a process, which decodes."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def some_pictures(video: Path, probe: VideoMetadata, wanted: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one chunk of RGB frames, and the same number of random planes."""
    with DecoderProcess() as slot:
        for chunk in slot.decode(video, probe, wanted):
            if isinstance(chunk, Holes):
                sys.exit(f"{video}: has damaged frames; give a whole video")
            pictures = torch.from_numpy(chunk.frames.copy()).permute(0, 3, 1, 2)
            num, rows, columns = len(pictures), probe.height_px * 3 // 2, probe.width_px
            return pictures, torch.randint(0, 256, (num, rows, columns), dtype=torch.uint8)
    sys.exit(f"{video}: has no frames")


def on_cpu(work: Callable[[], Any], num_frames: int) -> float:
    work()
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began) / num_frames


def on_gpu(planes: torch.Tensor, color: ColorSpace, device: torch.device) -> Costs:
    """Return the milliseconds per frame of the GPU's work."""
    pinned = planes.pin_memory()
    on_device = pinned.to(device)
    rgb = to_rgb(on_device, color)
    works: dict[str, Callable[[], Any]] = {
        "GPU: copy of planes from page-locked memory": lambda: pinned.to(device, non_blocking=True),
        "GPU: planes to RGB": lambda: to_rgb(on_device, color),
        "GPU: geometry of Video Swin": lambda: apply_geometry(rgb, SWIN),
    }
    return {part: gpu_ms(work) / len(planes) for part, work in works.items()}


def gpu_ms(work: Callable[[], Any]) -> float:
    for _ in range(3):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 10


if __name__ == "__main__":
    main()
