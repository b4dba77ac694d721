"""Reading and validation of the label files of a data set."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from .datasets import Columns, Dataset, JsonFiles, PickledDict, SegmentLabels
from .errors import InputError, os_reason
from .label_text import SEPARATORS, parse_number, read_label_text, resembles_number, split_cells
from .untrusted_pickles import plain
from .untrusted_torch import read_pickle

T = TypeVar("T")

WHOLE = "all"
"""Name of the only split if the files of a data set do not define splits."""


@dataclass(frozen=True)
class Entry:
    """The labels of one video, and their location in the label file."""

    video_id: str
    values: Mapping[str, float]
    place: str
    highlights: tuple[bool, ...] = ()
    """Whether each segment is a highlight, for data sets with labels of segments"""


@dataclass(frozen=True)
class DatasetLabels:
    """All labels of a data set."""

    dataset: Dataset
    splits: Mapping[str, Mapping[str, Entry]]
    """Split → video_id → entry, in the order of the files."""
    notes: tuple[str, ...] = ()
    """Messages to the user about unusual encodings."""
    titles_of: tuple[str, str] | None = None
    """For a plain label file with a header: file and line of the header, and the title of the id column."""

    @property
    def video_ids(self) -> list[str]:
        """All video ids, in the order of the files."""
        return list(dict.fromkeys(name for entries in self.splits.values() for name in entries))

    @property
    def highlights(self) -> dict[str, tuple[bool, ...]]:
        """Video id → whether each of its segments is a highlight; empty for data sets without labels of segments."""
        entries = (entry for split in self.splits.values() for entry in split.values())
        return {entry.video_id: entry.highlights for entry in entries if entry.highlights}

    def scores(self, target: str, split: str, subset: str | None = None) -> dict[str, float]:
        """Return video_id → score.

        Raises:
            InputError: The data set does not have this target or subset.
        """
        wanted = _named(self.dataset.targets, target, f"{self.dataset.name} target")
        if subset is not None:
            _named(dict.fromkeys(self.dataset.subset_names), subset, f"{self.dataset.name} subset")
        found: dict[str, float] = {}
        for video_id, entry in self.splits[split].items():
            if subset is None or self.dataset.is_in(subset, video_id):
                score = entry.values[wanted.column]
                found[video_id] = score / entry.values[wanted.divided_by] if wanted.divided_by else score
        return found


def read_dataset_labels(dataset: Dataset, folder: Path, *, drop_first: bool = False) -> DatasetLabels:
    """Read and validate the label files of a data set.

    Args:
        dataset: The manifest of the data set.
        folder: The folder of the published label files.
        drop_first: Leave out the first data line of each file, as in published works that treat it as a header.

    Raises:
        InputError: A file is missing or wrong; the message names file, line and value.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give --labels the folder with the label files of {dataset.name}")
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
    if isinstance(labels, SegmentLabels):
        found = {entry.video_id: entry for entry in _segment_entries(folder, labels)}
        names = {
            split: [each for topic in dataset.lists.values() for each in topic[split]] for split in ("train", "test")
        }
        return {split: (found[name] for name in ids if name in found) for split, ids in names.items()}
    entries = {entry.video_id: entry for entry in _pickled_entries(folder, labels)}
    if not dataset.files:
        return {WHOLE: iter(entries.values())}
    return {split: _picked(entries, _existing(folder, names), split) for split, names in dataset.files.items()}


def _existing(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    wanted = " nor ".join(names)
    raise InputError(f"{folder}: has no file {wanted}; put the published label file there")


def _only_text_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".csv"))
    if len(files) != 1:
        raise InputError(f"{folder}: has {len(files)} .txt and .csv files; leave only the file with the labels")
    return files[0]


def _text_entries(path: Path, labels: Columns) -> Iterator[Entry]:
    width = len(labels.names)
    lines = read_label_text(path).lines
    fields = [(number, cells) for (number, _), cells in zip(lines, _split(path, lines, width), strict=True)]
    if fields and not any(resembles_number(cell) for cell in fields[0][1][1:]):
        fields = fields[1:]  # a header, because no field is a number
    for number, cells in fields:
        place = f"{path}, line {number}"
        if len(cells) != width:
            raise InputError(f"{place}: has {len(cells)} fields, expected {' '.join(labels.names)}: {cells}")
        values = {name: _finite(cell, name, place) for name, cell in zip(labels.names[1:], cells[1:], strict=True)}
        yield Entry(cells[0], values, place)


def _split(path: Path, lines: Sequence[tuple[int, str]], width: int) -> list[list[str]]:
    """Split every line by the first separator that yields ``width`` fields in all of them."""
    for name in ("tab", "semicolon", "bar", "comma"):
        try:
            rows = [split_cells(line, SEPARATORS[name]) for _, line in lines]
        except csv.Error:
            continue
        if all(len(cells) == width for cells in rows):
            break
    else:
        rows = [line.replace(",", " ").split() for _, line in lines]
    for (number, line), cells in zip(lines, rows, strict=True):
        if cells and (mark := re.search(r"[;|\s]", cells[0])):
            raise InputError(
                f"{path}, line {number}: {line.strip()!r} has {mark[0]!r} in its first field; use one separator in all "
                "lines, and write decimals with a point"
            )
    return rows


def _segment_entries(folder: Path, labels: SegmentLabels) -> Iterator[Entry]:
    path = folder / labels.file
    for video_id, annotation in _json_object(path).items():
        place = f"{path}, {video_id}"
        marks = cast("dict[str, Any]", annotation).get(labels.key) if isinstance(annotation, dict) else None
        if not isinstance(marks, list) or not marks:
            raise InputError(f"{place}: has no list {labels.key!r} of at least one number; get the file again")
        is_highlight = tuple(_finite(mark, labels.key, place) > 0 for mark in cast("list[Any]", marks))
        yield Entry(video_id, {labels.column: sum(is_highlight) / len(is_highlight)}, place, is_highlight)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {os_reason(error)}; put the published file there") from error
    except ValueError as error:
        raise InputError(f"{path}: is not a JSON file ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: contains a {type(content).__name__}, expected an object; get the file again")
    return cast(dict[str, Any], content)


def _json_entries(folder: Path, labels: JsonFiles) -> Iterator[Entry]:
    paths = sorted(folder.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise InputError(f"{folder}: there are no .json files; name the folder of annotations")
    for path in paths:
        found = _json_object(path)
        yield Entry(
            path.stem, {name: _finite(found.get(key), key, str(path)) for name, key in labels.keys.items()}, str(path)
        )


def _pickled_entries(folder: Path, labels: PickledDict) -> Iterator[Entry]:
    path = folder / labels.file
    content = _unpickled(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: contains a {type(content).__name__}, expected a dict; get the file again")
    for key, values in cast(dict[Any, Any], content).items():
        video_id = clip_id(key)
        place = f"{path}, {video_id}"
        if not isinstance(values, list | tuple):
            raise InputError(f"{place}: is a {type(values).__name__}, expected a list; get the file again")
        row = cast("list[Any]", values)
        found = {name: row[at] if at < len(row) else None for name, at in labels.places.items()}
        yield Entry(video_id, {name: _finite(value, name, place) for name, value in found.items()}, place)


def _unpickled(path: Path) -> Any:
    """Return the containers, numbers and strings of a pickle without executing its code."""
    try:
        with path.open("rb") as handle:
            return plain(read_pickle(handle, path.stat().st_size, unknown="any"))
    except OSError as error:
        raise InputError(f"{path}: {os_reason(error)}; put the published file there") from error
    except Exception as error:  # a damaged pickle may raise errors of any type
        raise InputError(f"{path}: not a readable pickle ({error}); get the file again") from error


def _picked(entries: Mapping[str, Entry], path: Path, split: str) -> Iterator[Entry]:
    """Yield the entries whose keys are in a pickled list."""
    content = _unpickled(path)
    if not isinstance(content, list | tuple):
        raise InputError(f"{path}: contains a {type(content).__name__}, expected a list of clips; get the file again")
    for key in cast("list[Any]", content):
        if (name := clip_id(key)) not in entries:
            raise InputError(f"{path}: the {split} split contains {name}, which has no label; get the file again")
        yield entries[name]


def clip_id(key: Any) -> str:
    """Return ``game/3`` for ``("game", 3)``, and the string of any other key."""
    return "/".join(str(part) for part in cast("tuple[Any, ...]", key)) if isinstance(key, tuple) else str(key)


def _unique(dataset: Dataset, entries: Iterator[Entry], *, drop_first: bool) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    own = (entry for entry in entries if dataset.ids is None or re.search(dataset.ids, entry.video_id))
    for number, entry in enumerate(own):
        if number == 0 and drop_first:
            continue
        if entry.video_id in found:
            raise InputError(f"{entry.place}: {entry.video_id} is already in {found[entry.video_id].place}")
        found[entry.video_id] = entry
    return found


def _check_entry(dataset: Dataset, entry: Entry) -> None:
    for target in dataset.targets.values():
        low, high = target.plausible
        value = entry.values[target.column]
        if target.divided_by and not entry.values[target.divided_by] > 0:
            raise InputError(f"{entry.place}: {target.divided_by} is {entry.values[target.divided_by]:g}, not positive")
        if not low <= value <= high:
            raise InputError(f"{entry.place}: {target.column} {value:g} lies outside {low:g} … {high:g}")
    for identity in dataset.identities:
        parts = [
            -entry.values[term.removeprefix("-")] if term.startswith("-") else entry.values[term]
            for term in identity.terms
        ]
        if abs(sum(parts) - entry.values[identity.total]) > identity.tolerance:
            rule = " + ".join(identity.terms).replace("+ -", "- ")
            raise InputError(
                f"{entry.place}: {identity.total} is {entry.values[identity.total]:g}, but {rule} gives {sum(parts):g}"
            )


def _check_counts(dataset: Dataset, folder: Path, split: str, entries: Mapping[str, Entry], dropped: int) -> None:
    wanted = dataset.counts.get(split)
    if wanted is not None and len(entries) + dropped != wanted:
        raise InputError(
            f"{folder}: has {len(entries) + dropped} videos in the {split} split of {dataset.name}, but the published "
            f"file has {wanted}; download the file again"
        )
    for subset, pattern in dataset.subsets.items() if split in dataset.subset_counts else ():
        count = sum(bool(re.search(pattern, name)) for name in entries)
        if count + dropped < dataset.subset_counts[split]:
            raise InputError(
                f"{folder}: has {count} videos of {subset} in the {split} split, but {dataset.subset_counts[split]} "
                "are published; download the file again"
            )


def _check_disjoint(splits: Mapping[str, Mapping[str, Entry]]) -> None:
    seen: dict[str, Entry] = {}
    for entries in splits.values():
        for name, entry in entries.items():
            if name in seen:
                raise InputError(f"{entry.place}: {name} is in two splits; it is also in {seen[name].place}")
        seen |= entries


def _finite(value: Any, name: str, place: str) -> float:
    number = _number(value)
    if number is None:
        raise InputError(f"{place}: {name} is {value!r}, which is not a finite number")
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return parse_number(value.strip())
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise InputError(f"{what} {name!r} is not known; there are {', '.join(known) or 'none'}")
    return known[name]
