"""How the bytes of a checkpoint are recognised, and what is written down of them so that it is done once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from ...manifests.errors import WeightsError
from ...manifests.streams import Record
from ...manifests.weights import WeightsEntry

READ_BYTES = 1 << 20


class Digests(Record):
    """What identifies the bytes of a file."""

    size_bytes: int
    sha256: str
    git_blob: str


class Receipt(Record):
    """What was found when a file in the cache was last hashed."""

    digests: Digests
    modified_ns: int
    origin: str
    """Address or path it came from; ``found`` for a file that somebody put into the folder."""
    trusted: bool = False
    """The user vouched with ``--trust`` for bytes that are not the published ones."""

    def still_describes(self, stat: os.stat_result) -> bool:
        return (stat.st_size, stat.st_mtime_ns) == (self.digests.size_bytes, self.modified_ns)


def hash_file(path: Path, origin: str) -> Receipt:
    """Reads the whole file; raises `WeightsError` for one that cannot be read or is being written."""
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            git_blob = hashlib.sha1(b"blob %d\0" % stat.st_size, usedforsecurity=False)
            read = 0
            while chunk := file.read(READ_BYTES):
                sha256.update(chunk)
                git_blob.update(chunk)
                read += len(chunk)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    if read != stat.st_size:
        raise WeightsError(f"{path}: the file changed while it was read; try again when nothing writes to it")
    digests = Digests(size_bytes=read, sha256=sha256.hexdigest(), git_blob=git_blob.hexdigest())
    return Receipt(digests=digests, modified_ns=stat.st_mtime_ns, origin=origin)


def read_receipt(path: Path) -> Receipt | None:
    """The receipt beside a checkpoint; None where there is none, or none that can be read.

    Without one, a file is judged by its bytes alone.
    """
    try:
        return Receipt.model_validate_json((path.parent / "receipt.json").read_bytes())
    except (OSError, ValidationError):
        return None


def write_receipt(path: Path, receipt: Receipt) -> None:
    staged = path.parent / f".receipt.{os.getpid()}"
    staged.write_text(receipt.model_dump_json(indent=2) + "\n", encoding="utf-8")
    staged.replace(path.parent / "receipt.json")


def disagreement(entry: WeightsEntry, digests: Digests) -> str | None:
    """``expected …, got …``; None for bytes that agree with all that is published of them."""
    if entry.git_blob is not None:
        agree, got = digests.git_blob.startswith(entry.git_blob), f"git blob {digests.git_blob}"
    else:
        agree, got = digests.sha256.startswith(entry.sha256 or entry.sha256_prefix or ""), f"sha256 {digests.sha256}"
    if not agree:
        return f"expected {entry.published_digest}, got {got}"
    if entry.size_bytes not in (None, digests.size_bytes):
        return f"expected {entry.size_bytes:,} bytes, got {digests.size_bytes:,}"
    return None


def require_checkpoint_form(path: Path, what: str) -> None:
    """Raises `WeightsError` for a file that no framework wrote: a web page, a Git LFS pointer, an empty file."""
    with path.open("rb") as file:
        head = file.read(16)
    is_zip = head.startswith(b"PK\x03\x04")
    is_pickle = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20
    if not (is_zip or is_pickle or is_safetensors):
        raise WeightsError(
            f"{what}: this is no checkpoint: it begins with {head!r}, which is neither PyTorch nor safetensors"
        )
