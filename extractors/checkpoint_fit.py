"""Check whether an unknown file is a checkpoint of the network with its name, without running code of the file."""

from __future__ import annotations

import io
import pickletools
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..manifests.errors import WeightsError
from .checkpoints import CheckpointFile, read_state_dict

if TYPE_CHECKING:  # importing torch takes seconds
    from .network import NetworkCard

MOST_PICKLE_BYTES = 64 << 20
PICKLES_IN_OLD_FILES = 4
"""Number of pickles in a file written before PyTorch 1.6: two numbers, the platform, and the content."""
DETECTORS = ("ultralytics.nn.tasks.DetectionModel", "ultralytics.nn.tasks.YOLOv10DetectionModel")


def require_fit(checkpoint: CheckpointFile) -> None:
    """Load the file into its network; of a whole pickle, read only the names of classes.

    Raises:
        WeightsError: The file does not contain this network; the message states what was found.
    """
    names = pickled_classes(checkpoint.path)
    if checkpoint.layout == "ultralytics-yolo":
        if not set(DETECTORS).intersection(names):
            raise _other(checkpoint, names, f"a detector ({DETECTORS[0]})")
        return
    if foreign := [name for name in names if not name.startswith(("torch.", "collections.", "numpy.", "builtins."))]:
        raise _other(checkpoint, foreign, f"the tensors of layout {checkpoint.layout}")
    _load(checkpoint)


def pickled_classes(path: Path) -> list[str]:
    """Return the classes and functions named in a pickle or a PyTorch archive; an empty list for other files."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entry = next(each for each in archive.infolist() if each.filename.rpartition("/")[2] == "data.pkl")
                if entry.file_size > MOST_PICKLE_BYTES:
                    return []
                content = archive.read(entry)
        else:
            with path.open("rb") as file:
                content = file.read(MOST_PICKLE_BYTES)
        if not content.startswith(b"\x80"):
            return []
    except (OSError, StopIteration, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return []
    found: dict[str, None] = {}
    texts: list[str] = []
    stream = io.BytesIO(content)
    with suppress(Exception):  # a damaged pickle: return the names found before
        for _ in range(PICKLES_IN_OLD_FILES):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found[str(argument).replace(" ", ".", 1)] = None
                elif opcode.name == "STACK_GLOBAL":
                    found[".".join(texts[-2:])] = None
                elif isinstance(argument, str):
                    texts = [*texts[-1:], argument]
    return list(found)


def _other(checkpoint: CheckpointFile, names: list[str], wanted: str) -> WeightsError:
    what = f"a pickle of {names[0]}" if names else "something else"
    return WeightsError(
        f"{checkpoint.path}: contains {what}; {checkpoint.name} must contain {wanted}; give the file that "
        "`arabesque weights list --json` names"
    )


def cards_for(layout: str, name: str) -> list[NetworkCard]:
    """Return the cards of the networks that read a key layout.

    Args:
        layout: Layout of the checkpoint, as in weights.toml.
        name: Name of the checkpoint. Those of pytorchvideo have the name of their network, and those of Unmasked
            Teacher end with the number of frames.
    """
    from .network import NetworkCard
    from .table import EXTRACTORS, extractor_kind

    if layout == "pytorchvideo-hub":
        names = [f"pytorchvideo:{name.removesuffix('_k400')}"]
    elif layout == "unmasked-teacher":
        names = [f"unmt:l16_{frames}" for frames in ("f8", "f16") if name.endswith(f"_{frames}")]
    else:
        names = list(EXTRACTORS)
    kinds = [extractor_kind(each) for each in names]
    return [kind for kind in kinds if isinstance(kind, NetworkCard) and layout in kind.layouts]


def _load(checkpoint: CheckpointFile) -> None:
    """Load the file into its network. For a layout of another package, check only that it contains named tensors."""
    if checkpoint.layout.startswith("raft-"):
        import torch

        from .optical_flow.raft import ROLE, Raft, RaftFlow

        settings = Raft(model="raft_small" if "small" in checkpoint.name else "raft_large")
        RaftFlow(settings, {ROLE: checkpoint}, torch.device("cpu"))
    elif checkpoint.layout == "blazepose-tflite":
        if checkpoint.read()[4:8] != b"TFL3":
            raise _other(checkpoint, [], "a network of TensorFlow Lite")
    elif checkpoint.layout == "darknet-yolov3":
        from .yolov3 import load_yolov3

        load_yolov3(checkpoint)
    elif checkpoint.layout.startswith("i3d-") and "flow" in checkpoint.name:
        from .i3d import load_i3d

        load_i3d(checkpoint, in_channels=2, batch_norm_eps=1e-3)
    else:
        cards = cards_for(checkpoint.layout, checkpoint.name)
        for card in cards:
            card.load(card.Settings(), checkpoint)
        if not cards:
            read_state_dict(checkpoint)
