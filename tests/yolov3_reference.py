"""YOLOv3 by OpenCV 4 with seeded weights: the reference of `test_yolov3`.

Needs numpy and opencv-python-headless 4, whose ``dnn`` reads Darknet's files; OpenCV 5 does not. Imports nothing else,
so that it runs in an environment of its own:

    uv venv cv4 && uv pip install --python cv4/bin/python "opencv-python-headless<5"
    cv4/bin/python tests/yolov3_reference.py tests/golden/yolov3.npz           # the golden file
    cv4/bin/python tests/yolov3_reference.py OUT.npz --width 32 --size 160 224   # the published size
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
GOLDEN_WIDTH, GOLDEN_SIZE = 4, (32, 64)


def layers(width: int) -> Iterator[dict[str, str | int]]:
    """Yield the layers of Darknet's configuration, with its order and names; the published ``width`` is 32."""

    def convolution(filters: int, size: int, stride: int = 1) -> dict[str, str | int]:
        shape = {"filters": filters, "size": size, "stride": stride, "pad": 1}
        return {"": "convolutional", "batch_normalize": 1, **shape, "activation": "leaky"}

    yield convolution(width, 3)
    for stage, blocks in enumerate((1, 2, 8, 8, 4), start=1):
        channels = width << stage
        yield convolution(channels, 3, 2)
        for _ in range(blocks):
            yield convolution(channels // 2, 1)
            yield convolution(channels, 3)
            yield {"": "shortcut", "from": -3, "activation": "linear"}
    for scale, (channels, mask, joined) in enumerate(((32, "6,7,8", 0), (16, "3,4,5", 61), (8, "0,1,2", 36))):
        channels *= width
        if scale:
            yield {"": "route", "layers": "-4"}
            yield convolution(channels // 2, 1)
            yield {"": "upsample", "stride": 2}
            yield {"": "route", "layers": f"-1, {joined}"}
        for _ in range(3):
            yield convolution(channels // 2, 1)
            yield convolution(channels, 3)
        yield {"": "convolutional", "filters": 255, "size": 1, "stride": 1, "pad": 1, "activation": "linear"}
        yield {"": "yolo", "mask": mask, "anchors": ANCHORS, "classes": 80, "num": 9}


def configuration(width: int, height_px: int, width_px: int) -> str:
    lines = [f"[net]\nheight={height_px}\nwidth={width_px}\nchannels=3"]
    for layer in layers(width):
        lines.append(f"[{layer['']}]")
        lines += [f"{name}={value}" for name, value in layer.items() if name]
    return "\n".join(lines) + "\n"


def weights_file(width: int, seed: int = 0) -> bytes:
    """Return seeded numbers in the layout of ``yolov3.weights``: header, then bias, scale, mean, variance, kernel."""
    rng = np.random.Generator(np.random.Philox(seed))
    parts = [np.array([0, 2, 0], "<i4").tobytes(), np.array([32_013_312], "<i8").tobytes()]
    channels_in, outputs = 3, list[int]()

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    for layer in layers(width):
        if layer[""] == "convolutional":
            filters, size = int(layer["filters"]), int(layer["size"])
            parts.append((0.1 * normal(filters)).tobytes())
            if "batch_normalize" in layer:
                scale, variance = 1 + 0.1 * normal(filters), rng.uniform(0.5, 1.5, filters).astype(np.float32)
                parts += [scale.tobytes(), (0.1 * normal(filters)).tobytes(), variance.tobytes()]
            gain = 1.0 if "batch_normalize" in layer else 0.1
            kernel = normal(filters, channels_in, size, size) * np.float32(np.sqrt(gain / (channels_in * size * size)))
            parts.append(kernel.tobytes())
            channels_in = filters
        elif layer[""] == "route":
            at = [int(each) for each in str(layer["layers"]).split(",")]
            channels_in = sum(outputs[each] for each in at)
        outputs.append(channels_in)
    return b"".join(parts)


def picture(height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return ``[1, 3, height, width]``, 0 to 1."""
    return np.random.Generator(np.random.Philox(7)).random((1, 3, height_px, width_px), np.float32)


def reference(width: int, height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return ``[candidates, 5 + classes]``: center and size as shares of the picture, objectness, probabilities."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        cfg, weights = Path(folder, "net.cfg"), Path(folder, "net.weights")
        cfg.write_text(configuration(width, height_px, width_px))
        weights.write_bytes(weights_file(width))
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(picture(height_px, width_px))
    return np.concatenate(network.forward(network.getUnconnectedOutLayersNames()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=GOLDEN_WIDTH)
    parser.add_argument("--size", type=int, nargs=2, default=GOLDEN_SIZE)
    options = parser.parse_args()
    np.savez_compressed(options.out, candidates=reference(options.width, *options.size))
