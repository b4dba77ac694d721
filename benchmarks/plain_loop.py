"""Compute features like a plain script: for each network, one loop over the frames of a video, on one thread.

python benchmarks/plain_loop.py VIDEO [--networks i3d resnet50]

Decoding by PyAV, resizing by PIL, PyTorch's own layers in float32, seeded weights: I3D on stacks of 64 frames, and
ResNet-50 on each frame in batches of 16, as v-iashin/video_features computes them. Prints CPU and clock seconds of the
whole process. benchmarks/peers.md has the commands that do the same work with arabesque.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence

import av
import torch
from networks import CASES, in_pytorchs_layers
from torch import Tensor, nn
from torchvision.transforms import v2

TO_INPUT = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
COLORS = {
    "i3d": v2.Normalize([0.5] * 3, [0.5] * 3),
    "resnet50": v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
FRAMES_AT_ONCE = {"i3d": 64, "resnet50": 16}


def main(given: Sequence[str] | None = None) -> None:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--networks", nargs="+", choices=FRAMES_AT_ONCE, default=list(FRAMES_AT_ONCE))
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    for name in options.networks:
        network = in_pytorchs_layers(CASES[name].load())
        rows = list(rows_of_video(options.video, name, network))
        print(f"{name}: {len(torch.cat(rows))} rows")
    used = os.times()
    print(f"CPU {used.user + used.system:.1f} s, clock {time.time() - began:.1f} s")


@torch.inference_mode()
def rows_of_video(path: str, name: str, network: nn.Module) -> Iterator[Tensor]:
    """Yield the rows of all complete stacks or batches; a stack of I3D is one clip."""
    waiting: list[Tensor] = []
    with av.open(path) as container:
        for frame in container.decode(video=0):
            waiting.append(COLORS[name](TO_INPUT(frame.to_image())))
            if len(waiting) == FRAMES_AT_ONCE[name]:
                frames = torch.stack(waiting)
                yield network(frames.transpose(0, 1)[None] if name == "i3d" else frames)
                waiting.clear()
    if waiting and name != "i3d":
        yield network(torch.stack(waiting))


if __name__ == "__main__":
    main()
