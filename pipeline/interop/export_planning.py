"""Planning of an export: the files to write, and the video ids that a format cannot represent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...manifests.errors import InputError
from ..digests import row_key
from ..records import Outcome
from ..store.reader import FeatureStore
from .export_manifest import ExportHeader
from .feature_arrays import ExportEntry, UnfitId, label_of
from .formats import Format

Number = Literal["source", "float32", "float16"]
MAX_PATH_BYTES = 4095


@dataclass(frozen=True)
class NotExported:
    """A row that is not exported, with the reason."""

    video_id: str
    stream: str
    reason: str


@dataclass(frozen=True)
class PlannedRow:
    """One array to write."""

    video_id: str
    stream: str
    label: str
    member: str
    key: str
    settings_digest: str
    outcome: Outcome


def chosen_streams(store: FeatureStore, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted streams without duplicates, or all streams if none is given."""
    for stream in wanted:
        if stream not in store.streams:
            raise InputError(f"{store.path}: no stream {stream!r}; it has {', '.join(store.streams)}")
    return tuple(dict.fromkeys(wanted)) or store.streams


def planned_files(
    store: FeatureStore,
    streams: Sequence[str],
    out: Path,
    chosen: Format,
    names: Mapping[str, str],
    action: str | None,
    number: Number,
    failed: list[NotExported],
) -> tuple[dict[str, list[PlannedRow]], int]:
    """Return file → rows in the order of the ids, and the number of rows of partial videos that are left out."""
    is_file = out.suffix in chosen.suffixes
    keys = {stream: store.keys(stream) for stream in streams}
    outcomes = {(one.video_id, one.stream): one for one in store.outcomes()}
    digests = {stream: _settings_digest(store, stream, number) for stream in streams}
    planned: dict[str, list[PlannedRow]] = {}
    labels: dict[str, str] = {}
    inner_names = set[str]()
    taken = _Names()
    for position, video_id in enumerate(store.video_ids):
        for stream in streams:
            if not store.holds(video_id, stream):
                continue
            label = label_of(stream, chosen.labels, names)
            if chosen.splits_at_underscore and stream not in names:
                label = label.replace("_", "-")
            if (other := labels.setdefault(label, stream)) != stream:
                raise InputError(
                    f"streams {other} and {stream} would both have the label {label!r}; rename one with --name"
                )
            entry = ExportEntry(
                video_id, label, position, alone=len(streams) == 1 and stream not in names, action=action
            )
            try:
                inner, member = chosen.path_for(entry), chosen.member_for(entry)
                file = out.name if is_file else inner
                if file not in planned:
                    taken.claim_file(file, out.parent if is_file else out, video_id)
                taken.claim_member(file, member, video_id)
            except UnfitId as error:
                failed.append(NotExported(video_id, stream, str(error)))
                continue
            inner_names.add(inner)
            outcome = outcomes.get((video_id, stream), Outcome(video_id, stream, "done"))
            key = keys[stream][video_id]
            if digests[stream] != store.manifest["streams"][stream]["settings_digest"]:
                key = row_key(outcome.content_digest, digests[stream])
            planned.setdefault(file, []).append(
                PlannedRow(video_id, stream, label, member, key, digests[stream], outcome)
            )
    if is_file and len(inner_names) > 1:
        raise InputError(f"{out}: one file cannot hold {', '.join(streams)}; choose one with --stream, or a folder")
    left_out = sum(1 for stream in streams for video_id in keys[stream] if not store.holds(video_id, stream))
    return planned, left_out


class _Names:
    """Names of files and members in use, to detect video ids that would have the same name."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._members: dict[tuple[str, str], str] = {}
        self._groups: dict[tuple[str, str], str] = {}

    def claim_file(self, file: str, root: Path, video_id: str) -> None:
        if len(os.fsencode(root.absolute() / file)) > MAX_PATH_BYTES:
            raise UnfitId(
                f"video id {video_id[:80]!r} is too long for a path; choose a format with ids inside, such as npz"
            )
        folded = file.casefold()
        above = [str(folder) for folder in PurePosixPath(folded).parents]
        other = self._files.get(folded) or self._folders.get(folded)
        other = other or next((self._files[folder] for folder in above if folder in self._files), None)
        if other is not None:
            raise UnfitId(
                f"video id {video_id!r} and {other!r} have one name on a case-insensitive disk, or one is a folder "
                "with the name of the other; choose a format with ids inside the file, such as npz"
            )
        self._files[folded] = video_id
        self._folders |= {folder: video_id for folder in above if folder not in self._folders}

    def claim_member(self, file: str, member: str, video_id: str) -> None:
        """Members of HDF5 files are paths, and a dataset cannot also be a group. Other formats have no such limit."""
        if not file.endswith((".h5", ".hdf5")):
            return
        above = [str(folder) for folder in PurePosixPath(member).parents]
        other = self._groups.get((file, member)) or next(
            (self._members[file, folder] for folder in above if (file, folder) in self._members), None
        )
        if other is not None:
            raise UnfitId(
                f"video id {video_id!r}: HDF5 cannot store it with {other!r}; choose another format, such as npz"
            )
        self._members[file, member] = video_id
        self._groups |= {(file, folder): video_id for folder in above}


def header_of(
    store: FeatureStore,
    format: str,
    streams: Sequence[str],
    names: Mapping[str, str],
    action: str | None,
    number: Number,
) -> ExportHeader:
    entries = {
        stream: {**store.manifest["streams"][stream], "settings_digest": _settings_digest(store, stream, number)}
        for stream in streams
    }
    return ExportHeader(
        format=format,
        command={
            "streams": list(streams),
            "names": dict(names),
            "action": action,
            "number": number,
            "partial": store.partial,
        },
        store=as_json({**store.manifest, "streams": entries}),
    )


def _settings_digest(store: FeatureStore, stream: str, number: Number) -> str:
    """Return the digest of the stream, or another one for rounded values, because rounded rows are different."""
    digest = str(store.manifest["streams"][stream]["settings_digest"])
    return hashlib.sha256(f"float16 of {digest}".encode()).hexdigest()[:32] if number == "float16" else digest


def as_json(value: Any) -> Any:
    """Return the value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=str))
