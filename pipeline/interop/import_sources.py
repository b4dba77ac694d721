"""Protection of imported rows: rows of one feature file are not replaced by rows of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.urls import public_url
from ..records import FeatureRow, one_line
from ..store.files.storage import StorePath
from ..store.manifest import read_manifest
from ..store.reader import FeatureStore
from .feature_arrays import FeatureArray
from .feature_files import FeatureSource
from .import_plans import ImportPlan

_MAX_NAMED = 3


def refuse_other_files(out: StorePath, source: FeatureSource, arrays: Sequence[FeatureArray], plan: ImportPlan) -> None:
    """Raise InputError if arrays would replace rows with other content that were imported from other files.

    Arrays of streams that the store imported only from this source are not read.
    """
    place = str(Path(source.path).resolve())
    conflicts: list[str] = []
    known: Mapping[str, Any] = read_manifest(out)["streams"]
    for name in sorted({array.stream for array in arrays} & set(known)):
        if source.exported is None and not set(known[name].get("sources", [])) - {place}:
            continue
        mine = {array.video_id: array for array in arrays if array.stream == name}
        for stored in FeatureStore(out, partial=True).scan(name):
            array = mine.get(stored.video_id)
            origin = _origin(stored.provenance)
            if array is None or not origin or origin == _origin_of(array):
                continue
            if _content_digest(array, plan) not in (None, stored.content_digest):
                conflicts.append(f"{stored.video_id!r} [{name}] is of {origin}, not of {_origin_of(array)}")
    if conflicts:
        more = f"; and {len(conflicts) - _MAX_NAMED} more" if len(conflicts) > _MAX_NAMED else ""
        raise InputError(
            f"{public_url(out)}: contains features of other files under {len(conflicts)} of these ids: "
            f"{'; '.join(conflicts[:_MAX_NAMED])}{more}; give --id-prefix NAME to store the new ones as NAME/…, or "
            "--replace to replace the stored ones"
        )


def _origin(provenance: Mapping[str, str]) -> str:
    """Return the source of a row: a feature file, or a video below its input root."""
    return "/".join(filter(None, (provenance.get("input_root"), provenance.get("source"))))


def _origin_of(array: FeatureArray) -> str:
    return _origin(array.exported.provenance) if array.exported else one_line(str(Path(array.file).resolve()))


def _content_digest(array: FeatureArray, plan: ImportPlan) -> str | None:
    """Return the content digest of the array's row; None if it has no row."""
    if array.exported is not None:
        return array.exported.content_digest
    made = plan.row(array)
    return made.content_digest if isinstance(made, FeatureRow) else None
