"""A page to review shots and routines: an HTML file that works without a server and writes a corrected clips table."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .edits import CLIP_COLUMNS, Edit, clip_rows
from .measures import FrameMeasures
from .shots import Shot

MAX_PICTURES = 2000
"""Maximum number of shots with a picture on one page, which has 2 KB."""


def review_page(edits: Sequence[Edit], folder: Path, exclude: str, file_name: str) -> str:
    """Return the page.

    Args:
        edits: The recordings.
        folder: Folder of the clips table; see `clips_csv`.
        exclude: ``cut``, ``mask`` or ``keep``, as in the table.
        file_name: Name of the corrected table that the page downloads.

    Returns:
        HTML with all data, pictures and scripts. The page does not load other files.
    """
    room = MAX_PICTURES
    recordings = list[dict[str, Any]]()
    for edit in edits:
        recordings.append(_recording(edit, folder, exclude, pictures=len(edit.shots) <= room))
        room -= len(edit.shots)
    data = {"columns": CLIP_COLUMNS, "file_name": file_name, "exclude": exclude, "recordings": recordings}
    template = (resources.files("arabesque.models.broadcast") / "review.html").read_text(encoding="utf-8")
    # within a script element, only "<" could end the data
    return template.replace("{{DATA}}", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


def _recording(edit: Edit, folder: Path, exclude: str, *, pictures: bool) -> dict[str, Any]:
    frames = edit.frames
    shots = [_shot(shot, frames if pictures else None) for shot in edit.shots]
    rows = [dict(zip(CLIP_COLUMNS, row, strict=True)) for row in clip_rows(edit, folder, exclude)]
    end_s = edit.shots[-1].end_s if edit.shots else 0.0
    return {"id": edit.video_id, "path": edit.path, "note": edit.note, "end_s": end_s, "shots": shots, "routines": rows}


def _shot(shot: Shot, frames: FrameMeasures | None) -> dict[str, Any]:
    middle_s = (shot.start_s + shot.end_s) / 2
    return {
        "start_s": round(shot.start_s, 3),
        "end_s": round(shot.end_s, 3),
        "kind": shot.kind,
        "reason": shot.reason,
        "enters_by": shot.enters_by,
        "picture": "" if frames is None else _data_url(frames.picture_near(middle_s)),
    }


def _data_url(picture: NDArray[np.uint8]) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
