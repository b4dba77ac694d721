"""Options that select the inputs of a command: lists, patterns and a maximum number of videos."""

from __future__ import annotations

from typing import Annotated

import typer

VIDEOS = Annotated[
    list[str] | None,
    typer.Argument(help="Folders of videos (with subfolders), videos, patterns such as 'videos/*.mp4', and URLs."),
]
LIST = Annotated[
    str | None, typer.Option("--list", help="Text file with one path or URL a line; - reads standard input.")
]
CLIPS = Annotated[
    str | None,
    typer.Option(
        help="CSV file of clips: columns path, id, start_s, end_s in seconds, and any others, which the store keeps."
    ),
]
FRAME_RATE = Annotated[
    float | None,
    typer.Option(help="Read folders of .jpg or .png images as videos with this number of frames per second."),
]
INCLUDE = Annotated[
    list[str] | None,
    typer.Option(help="Only videos whose path, name or id matches this pattern, e.g. 'ball/*'; may be repeated."),
]
EXCLUDE = Annotated[
    list[str] | None,
    typer.Option(help="No videos whose path, folder, name or id matches this pattern; may be repeated."),
]
LIMIT = Annotated[int | None, typer.Option(min=1, help="Only the first videos, in the order of their ids.")]
