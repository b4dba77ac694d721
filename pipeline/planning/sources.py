"""Source files of stored videos. Rows of one source file are not replaced by rows of another source file.

Files with equal paths are one source even if their bytes differ: a file may change. A file at another path with the
same bytes (a copy, a moved data set) is accepted. Only outcomes of `PROTECTED_KINDS` are compared: failed videos
have no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from ...manifests.errors import DecodeError, InputError, StoreError
from ...manifests.plurals import plural
from ...manifests.urls import public_url
from ..decoding.source_files import check_file, read_content
from ..records import PROTECTED_KINDS, Outcome, VideoFile, fragment_of, source_path, state_of
from ..store.files.storage import StorePath
from ..system.process_resources import available_cores
from .metadata_cache import MetadataCache
from .resume_index import ResumeIndex

MAX_NAMED = 3


def is_same_file(outcome: Outcome, file: VideoFile) -> bool:
    """Return whether the outcome has the path, or the size and time, of this file. Opens no file."""
    state = file.state or file.current_state
    if source_path(outcome) == source_path(file):
        return True
    recorded = outcome.size_bytes, outcome.modified_ns
    return state is not None and outcome.modified_ns != 0 and recorded == (state.size_bytes, state.modified_ns)


def is_same_part(outcome: Outcome, file: VideoFile) -> bool:
    """Return whether the outcome is for the same part of its file: the same clip, or the whole file."""
    return fragment_of(outcome.content_digest) == file.fragment


def is_other_source(outcome: Outcome, file: VideoFile) -> bool:
    """Return whether the outcome's rows are from a file at another path, whose bytes may be equal."""
    return outcome.kind in PROTECTED_KINDS and source_path(outcome) != source_path(file)


def refuse_other_sources(
    out: StorePath,
    files: Sequence[VideoFile],
    resume_index: ResumeIndex,
    metadata_cache: MetadataCache,
    earlier_folder: str,
    local_copy: Callable[[VideoFile], AbstractContextManager[Path]],
) -> None:
    """Raise InputError if files would replace rows of other source files with other bytes.

    Files with the recorded path, or size and time, are not opened. If only the size is equal, the bytes are compared.

    Args:
        out: The store.
        files: Result of `ResumeIndex.sources_to_compare`.
        resume_index: Outcomes of the store.
        metadata_cache: Digests of unchanged files.
        earlier_folder: Input of the store's latest run; empty if unknown. Outcomes without a recorded source, from
            earlier versions, count as made from this folder.
        local_copy: Returns the path of a file, or of a temporary copy of a remote one, as a context manager.

    Raises:
        InputError: There is at least one such file.
    """

    def conflict(file: VideoFile) -> tuple[Outcome, VideoFile] | None:
        for outcome in _of_other_paths(file, resume_index, earlier_folder):
            if _has_other_bytes(outcome, file, metadata_cache, local_copy):
                return outcome, file
        return None

    with ThreadPoolExecutor(min(8, available_cores())) as pool:
        found = [each for each in pool.map(conflict, files) if each is not None]
    if found:
        raise InputError(refusal(out, found, earlier_folder))


def of_other_size(files: Sequence[VideoFile], resume_index: ResumeIndex, earlier_folder: str) -> list[VideoFile]:
    """Return files whose ids have rows of source files of another size in the store. Opens no file."""
    return [
        file
        for file in resume_index.sources_to_compare(files)
        if any(_has_other_size(outcome, file) for outcome in _of_other_paths(file, resume_index, earlier_folder))
    ]


def _of_other_paths(file: VideoFile, resume_index: ResumeIndex, earlier_folder: str) -> list[Outcome]:
    """Return the outcomes of the file's id whose rows may be of another source."""
    return [
        outcome
        for outcome in resume_index.of_video(file.video_id)
        if is_other_source(outcome, file) and not is_same_file(outcome, file)
        if outcome.source or earlier_folder not in ("", file.input_root, source_path(file))
    ]


def refusal(out: StorePath, conflicts: Sequence[tuple[Outcome, VideoFile]], earlier_folder: str = "") -> str:
    """Return an error message with the first conflicts, with both paths, and the possible actions."""
    named = "; ".join(_named(outcome, file, earlier_folder) for outcome, file in conflicts[:MAX_NAMED])
    rest = len(conflicts) - MAX_NAMED
    more = f"; and {rest} more" if rest > 0 else ""
    count = plural(len(conflicts), "video")
    return (
        f"{public_url(out)}: contains features of other files under the ids of {count}: {named}{more}; give "
        f"--id-prefix NAME to store the new files as NAME/{conflicts[0][1].video_id}, or --replace to replace the "
        "stored features"
    )


def _named(outcome: Outcome, file: VideoFile, earlier_folder: str) -> str:
    stored = source_path(outcome) if outcome.source else f"a file in {earlier_folder}"
    return f"{file.video_id!r} is of {stored}, not of {source_path(file)}"


def _has_other_size(outcome: Outcome, file: VideoFile) -> bool:
    state = file.state or file.current_state
    return state is not None and outcome.size_bytes != 0 and state.size_bytes != outcome.size_bytes


def _has_other_bytes(
    outcome: Outcome,
    file: VideoFile,
    metadata_cache: MetadataCache,
    local_copy: Callable[[VideoFile], AbstractContextManager[Path]],
) -> bool:
    """Return whether files of equal size have different bytes. A file that cannot be read does not replace rows."""
    if _has_other_size(outcome, file):
        return True
    try:
        with local_copy(file) as path:
            check_file(path)
            content = metadata_cache.content(path)
            if content is None:
                before = state_of(path)
                content = read_content(path)
                metadata_cache.keep(path, before, content)
            return content.digest + file.fragment != outcome.content_digest
    except (DecodeError, StoreError, OSError):
        return False
