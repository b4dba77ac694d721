"""``--labels`` of ``extract`` and ``status``: compare the ids of labels and videos before a long run."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.errors import InputError
from ..manifests.plurals import plural

LABELS = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Compare the ids of this label file with the videos: a CSV file (video_id,score), or with --dataset the "
        "folder of its label files.",
    ),
]
DATASET = Annotated[
    str | None, typer.Option(help="With --labels: data set of the label files, e.g. fisv, or a .toml file.")
]
TARGET = Annotated[str | None, typer.Option(help="With --labels: name of the score column, if there are several.")]
MAX_NAMES = 5


@dataclass(frozen=True)
class LabelCheck:
    """Result of comparing the ids of labels with those of videos."""

    labels: str
    num_labels: int
    num_matched: int
    videos_without_label: tuple[str, ...]
    labels_without_video: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the lines to print."""
        lines = [f"{self.labels}: {self.num_matched} of {self.num_labels} labels have a video", *self.notes]
        for noun, lacking, names in (
            ("label", "without a video", self.labels_without_video),
            ("video", "without a label", self.videos_without_label),
        ):
            if names:
                more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
                lines.append(f"{plural(len(names), noun)} {lacking}: {', '.join(map(repr, names[:MAX_NAMES]))}{more}")
        return lines


def check_label_options(labels: Path | None, dataset: str | None, target: str | None) -> None:
    """Raise if ``--dataset`` or ``--target`` is given without ``--labels``."""
    for option, value in (("--dataset", dataset), ("--target", target)):
        if labels is None and value is not None:
            raise typer.BadParameter("belongs to a label file; add --labels FILE", param_hint=option)


def check_labels(labels: Path, video_ids: Collection[str], dataset: str | None, target: str | None) -> LabelCheck:
    """Compare the ids of a label file with those of videos.

    Args:
        labels: The label file, or with ``dataset`` the folder of its label files.
        video_ids: Ids of the videos.
        dataset: Name of the data set, or path of its ``.toml`` file.
        target: Name of the score.

    Raises:
        InputError: The labels cannot be read, are ambiguous, or none of them has a video.
    """
    from ..models.label_matching import match_labels

    if dataset is None or dataset == "csv":
        from ..models.labels import read_labels

        read = read_labels(labels, target)
        ids, notes, titles = [*read.scores], read.notes, read.titles_of
    else:
        from ..manifests.datasets import load_dataset
        from ..manifests.label_files import read_dataset_labels

        known = read_dataset_labels(load_dataset(dataset), labels)
        ids, notes, titles = known.video_ids, known.notes, known.titles_of
    matching = match_labels(ids, video_ids, labels, titles)
    matched = set(matching.videos.values())
    if video_ids and not matched:
        raise InputError(
            f"{labels}: none of its {len(ids)} labels has a video; a label is for example {ids[0]!r}, a video "
            f"{min(video_ids)!r}; rename the labels, or give the folder above the videos"
        )
    return LabelCheck(
        labels=str(labels),
        num_labels=len(ids),
        num_matched=len(matching.videos),
        videos_without_label=tuple(sorted(set(video_ids) - matched)),
        labels_without_video=tuple(name for name in ids if name not in matching.videos),
        notes=(*notes, *([matching.note] if matching.note else [])),
    )


def label_options(labels: Path | None, dataset: str | None, target: str | None) -> str:
    """Return the options for a command that trains on these labels."""
    given: Sequence[tuple[str, object]] = (("--labels", labels), ("--dataset", dataset), ("--target", target))
    return " ".join(f"{option} {shlex.quote(str(value))}" for option, value in given if value is not None)
