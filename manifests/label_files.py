"""A data set's label files, read and checked: every video's scores, or the line that is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from .datasets import Columns, Dataset, JsonFiles, PickledDict
from .errors import ManifestError
from .inert_pickle import read_inert

T = TypeVar("T")

WHOLE = "all"
"""The one split of a data set whose files tell none."""


@dataclass(frozen=True)
class Entry:
    """One video's labels and where they stand."""

    video_id: str
    values: Mapping[str, float]
    place: str


@dataclass(frozen=True)
class DatasetLabels:
    """All labels of a data set, by split."""

    dataset: Dataset
    splits: Mapping[str, Mapping[str, Entry]]
    """Split → video_id → entry, in the files' order"""

    def scores(self, target: str, split: str, subset: str | None = None) -> dict[str, float]:
        """video_id → score; raises `ManifestError` for a target or subset that the data set does not have."""
        wanted = _named(self.dataset.targets, target, f"{self.dataset.name} target")
        pattern = None if subset is None else _named(self.dataset.subsets, subset, f"{self.dataset.name} subset")
        found: dict[str, float] = {}
        for video_id, entry in self.splits[split].items():
            if pattern is None or re.search(pattern, video_id):
                score = entry.values[wanted.column]
                found[video_id] = score / entry.values[wanted.divided_by] if wanted.divided_by else score
        return found


def read_dataset_labels(dataset: Dataset, folder: Path, *, drop_first: bool = False) -> DatasetLabels:
    """Read and check everything; raises `ManifestError` that names file, line and value.

    ``drop_first``: leave out the first data line of each file, as several works do that take it for a header.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; --labels names the one that holds {dataset.name}'s label files")
    raw = _raw_splits(dataset, folder)
    splits = {split: _unique(dataset, entries, drop_first=drop_first) for split, entries in raw.items()}
    for split, entries in splits.items():
        for entry in entries.values():
            _check_entry(dataset, entry)
        _check_counts(dataset, folder, split, entries, dropped=int(drop_first))
    _check_disjoint(splits)
    return DatasetLabels(dataset, splits)


def _raw_splits(dataset: Dataset, folder: Path) -> dict[str, Iterator[Entry]]:
    labels = dataset.labels
    if isinstance(labels, Columns):
        if not dataset.files:
            return {WHOLE: _text_entries(_only_text_file(folder), labels)}
        return {split: _text_entries(_existing(folder, names), labels) for split, names in dataset.files.items()}
    if isinstance(labels, JsonFiles):
        return {WHOLE: _json_entries(folder, labels)}
    entries = {entry.video_id: entry for entry in _pickled_entries(folder, labels)}
    if not dataset.files:
        return {WHOLE: iter(entries.values())}
    return {split: _picked(entries, _existing(folder, names), split) for split, names in dataset.files.items()}


def _existing(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ManifestError(f"{folder}: none of {', '.join(names)} is there; put the published label file there")


def _only_text_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".csv"))
    if len(files) != 1:
        raise ManifestError(f"{folder}: {len(files)} .txt and .csv files; leave the one that holds the labels")
    return files[0]


def _text_entries(path: Path, labels: Columns) -> Iterator[Entry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot read this label file ({error})") from error
    fields = [(number, line.replace(",", " ").split()) for number, line in enumerate(lines, start=1) if line.strip()]
    if fields and not any(_number(cell) is not None for cell in fields[0][1][1:]):
        fields = fields[1:]  # a header: no field of it reads as data
    for number, cells in fields:
        place = f"{path}, line {number}"
        if len(cells) != len(labels.names):
            raise ManifestError(f"{place}: {len(cells)} fields where {' '.join(labels.names)} are expected: {cells}")
        values = {name: _finite(cell, name, place) for name, cell in zip(labels.names[1:], cells[1:], strict=True)}
        yield Entry(cells[0], values, place)


def _json_entries(folder: Path, labels: JsonFiles) -> Iterator[Entry]:
    paths = sorted(folder.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise ManifestError(f"{folder}: there are no .json files; name the folder of annotations")
    for path in paths:
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ManifestError(f"{path}: cannot read this label file ({error})") from error
        if not isinstance(content, dict):
            raise ManifestError(f"{path}: holds a {type(content).__name__} where an object is expected")
        found = cast(dict[str, Any], content)
        yield Entry(
            path.stem, {name: _finite(found.get(key), key, str(path)) for name, key in labels.keys.items()}, str(path)
        )


def _pickled_entries(folder: Path, labels: PickledDict) -> Iterator[Entry]:
    path = folder / labels.file
    content = read_inert(path)
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: holds a {type(content).__name__} where a dict is expected")
    for key, values in cast(dict[Any, Any], content).items():
        video_id = clip_id(key)
        place = f"{path}, {video_id}"
        if not isinstance(values, list | tuple):
            raise ManifestError(f"{place}: holds a {type(values).__name__} where a list is expected")
        row = cast("list[Any]", values)
        found = {name: row[at] if at < len(row) else None for name, at in labels.places.items()}
        yield Entry(video_id, {name: _finite(value, name, place) for name, value in found.items()}, place)


def _picked(entries: Mapping[str, Entry], path: Path, split: str) -> Iterator[Entry]:
    """The entries whose keys a pickled list names."""
    content = read_inert(path)
    if not isinstance(content, list | tuple):
        raise ManifestError(f"{path}: holds a {type(content).__name__} where a list of clips is expected")
    for key in cast("list[Any]", content):
        if (name := clip_id(key)) not in entries:
            raise ManifestError(f"{path}: the {split} split names {name}, which has no label")
        yield entries[name]


def clip_id(key: Any) -> str:
    """``("game", 3)`` → ``game/3``; anything else as it is written."""
    return "/".join(str(part) for part in cast("tuple[Any, ...]", key)) if isinstance(key, tuple) else str(key)


def _unique(dataset: Dataset, entries: Iterator[Entry], *, drop_first: bool) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    own = (entry for entry in entries if dataset.ids is None or re.search(dataset.ids, entry.video_id))
    for number, entry in enumerate(own):
        if number == 0 and drop_first:
            continue
        if entry.video_id in found:
            raise ManifestError(f"{entry.place}: {entry.video_id} stands in {found[entry.video_id].place} already")
        found[entry.video_id] = entry
    return found


def _check_entry(dataset: Dataset, entry: Entry) -> None:
    for target in dataset.targets.values():
        low, high = target.plausible
        value = entry.values[target.column]
        if target.divided_by and not entry.values[target.divided_by] > 0:
            raise ManifestError(
                f"{entry.place}: {target.divided_by} is {entry.values[target.divided_by]:g}, not positive"
            )
        if not low <= value <= high:
            raise ManifestError(f"{entry.place}: {target.column} {value:g} lies outside {low:g} … {high:g}")
    for identity in dataset.identities:
        parts = [
            -entry.values[term.removeprefix("-")] if term.startswith("-") else entry.values[term]
            for term in identity.terms
        ]
        if abs(sum(parts) - entry.values[identity.total]) > identity.tolerance:
            rule = " + ".join(identity.terms).replace("+ -", "- ")
            raise ManifestError(
                f"{entry.place}: {identity.total} is {entry.values[identity.total]:g}, but {rule} gives {sum(parts):g}"
            )


def _check_counts(dataset: Dataset, folder: Path, split: str, entries: Mapping[str, Entry], dropped: int) -> None:
    wanted = dataset.counts.get(split)
    if wanted is not None and len(entries) + dropped != wanted:
        raise ManifestError(
            f"{folder}: {len(entries) + dropped} videos in the {split} split of {dataset.name}, "
            f"where the published file has {wanted}; get the file anew"
        )
    for subset, pattern in dataset.subsets.items() if split in dataset.subset_counts else ():
        count = sum(bool(re.search(pattern, name)) for name in entries)
        if count + dropped < dataset.subset_counts[split]:
            raise ManifestError(
                f"{folder}: {count} videos of {subset} in the {split} split, where {dataset.subset_counts[split]} "
                "are published; get the file anew"
            )


def _check_disjoint(splits: Mapping[str, Mapping[str, Entry]]) -> None:
    seen: dict[str, Entry] = {}
    for entries in splits.values():
        for name, entry in entries.items():
            if name in seen:
                raise ManifestError(f"{entry.place}: {name} is in two splits; it stands in {seen[name].place}, too")
        seen |= entries


def _finite(value: Any, name: str, place: str) -> float:
    number = _number(value)
    if number is None:
        raise ManifestError(f"{place}: {name} is {value!r}, which is no finite number")
    return number


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise ManifestError(f"{what} {name!r} is not known; there are {', '.join(known) or 'none'}")
    return known[name]
