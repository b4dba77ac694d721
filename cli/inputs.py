"""Options that select the inputs of a command: paths, lists, clips, patterns and a maximum number of videos."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import ID_PREFIX

if TYPE_CHECKING:
    from ..pipeline.planning.discovery import Inputs
    from ..pipeline.planning.selection import InputSelection

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
    typer.Option(help="Use only videos whose path, name or id matches this pattern, e.g. 'ball/*'; may be repeated."),
]
EXCLUDE = Annotated[
    list[str] | None,
    typer.Option(help="Leave out videos whose path, folder, name or id matches this pattern; may be repeated."),
]
LIMIT = Annotated[int | None, typer.Option(min=1, help="Use only this number of videos, the first by id.")]


@dataclass(frozen=True)
class InputOptions:
    """The inputs of a command as the user gives them; `with_inputs` makes one option of each field."""

    videos: list[str] | None = None
    list_file: str | None = None
    clips: str | None = None
    frame_rate: float | None = None
    include: list[str] | None = None
    exclude: list[str] | None = None
    limit: int | None = None
    id_prefix: str = ""

    @property
    def are_given(self) -> bool:
        """Whether the user selects inputs at all."""
        return self != InputOptions(id_prefix=self.id_prefix)

    @property
    def name_files(self) -> bool:
        """Whether the options name files, and not only select from them."""
        return bool(self.videos) or self.list_file is not None or self.clips is not None

    def selection(self) -> InputSelection:
        """Return the selection of the pipeline."""
        from ..pipeline.planning.selection import InputSelection

        return InputSelection(
            places=tuple(self.videos or ()),
            list_file=self.list_file,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            limit=self.limit,
            id_prefix=self.id_prefix,
            frame_rate=self.frame_rate,
            clips=self.clips,
        )

    def find(self) -> Inputs:
        """Return the videos. Raises the errors of `find_inputs`."""
        from ..pipeline.planning.selection import find_inputs

        return find_inputs(self.selection())


_OPTIONS: dict[str, Any] = {
    "videos": VIDEOS,
    "list_file": LIST,
    "clips": CLIPS,
    "frame_rate": FRAME_RATE,
    "include": INCLUDE,
    "exclude": EXCLUDE,
    "limit": LIMIT,
    "id_prefix": ID_PREFIX,
}
"""Field of `InputOptions` → its option."""


def with_inputs(*left_out: str, videos: Any = VIDEOS) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace the parameter ``inputs`` (`InputOptions`) in the function of a command by one option for each field.

    Args:
        left_out: Fields that the command has no option for.
        videos: The argument for ``videos``, for another help text.
    """
    defaults = {field.name: field.default for field in fields(InputOptions) if field.name not in left_out}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=videos if name == "videos" else _OPTIONS[name],
            default=default,
        )
        for name, default in defaults.items()
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            inputs = InputOptions(**{name: given.pop(name) for name in defaults})
            return command(inputs=inputs, **given)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            parameters += options if name == "inputs" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
