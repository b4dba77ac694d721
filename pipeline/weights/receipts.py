"""Digests of a checkpoint file, and the receipt that records them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, ValidationError

from ...manifests.errors import WeightsError
from ...manifests.streams import Record
from ...manifests.weights import WeightsEntry
from ..system.user_cache import is_private

READ_BYTES = 1 << 20


class Digests(Record):
    """Size and digests of a file."""

    size_bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    git_blob: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""
    """Empty if it was not computed."""


class Receipt(Record):
    """Record of the last hashing of a file in the cache.

    It states the facts that `weights list` shows, the origin of the file and whether the user trusts it. It does not
    replace verification: a file is hashed whenever it is used.
    """

    digests: Digests
    modified_ns: int
    origin: str
    """Address or path of the source; ``found`` for a file that was put into the folder by hand."""
    trusted: bool = False
    """Whether the user accepted, with ``--trust``, a file with another digest than the published one."""

    def still_describes(self, stat: os.stat_result) -> bool:
        """Return whether size and modification time of the file are unchanged."""
        return (stat.st_size, stat.st_mtime_ns) == (self.digests.size_bytes, self.modified_ns)


def hash_file(path: Path, origin: str, *, git_blob: bool = True) -> Receipt:
    """Hash a file.

    Args:
        path: The file.
        origin: Recorded in the receipt.
        git_blob: Also compute the git blob digest, which doubles the time.

    Raises:
        WeightsError: The file cannot be read, or it changed while it was read.
    """
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            blob = hashlib.sha1(b"blob %d\0" % stat.st_size, usedforsecurity=False)
            read = 0
            while chunk := file.read(READ_BYTES):
                sha256.update(chunk)
                if git_blob:
                    blob.update(chunk)
                read += len(chunk)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if read != stat.st_size:
        raise WeightsError(f"{path}: the file changed while it was read; try again when no process writes to it")
    digests = Digests(size_bytes=read, sha256=sha256.hexdigest(), git_blob=blob.hexdigest() if git_blob else "")
    return Receipt(digests=digests, modified_ns=stat.st_mtime_ns, origin=origin)


def receipt_path(path: Path) -> Path:
    """Return the path of the receipt of a checkpoint file."""
    return path.parent / "receipt.json"


def read_receipt(path: Path) -> Receipt | None:
    """Return the receipt of a checkpoint file.

    Returns:
        The receipt; None if it is missing, damaged, or writable by other users. The file is then judged by its digest
        alone.
    """
    receipt = receipt_path(path)
    if not is_private(receipt):
        return None
    try:
        return Receipt.model_validate_json(receipt.read_bytes())
    except (OSError, ValidationError):
        return None


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Write the receipt of a checkpoint file atomically."""
    staged = path.parent / f".receipt.{os.getpid()}"
    staged.unlink(missing_ok=True)
    # independent of the umask, since a group-writable receipt would be ignored
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(receipt.model_dump_json(indent=2) + "\n")
    staged.replace(receipt_path(path))


def disagreement(entry: WeightsEntry, digests: Digests) -> str | None:
    """Return ``expected …, got …``, or None if the digests match all published facts of the checkpoint."""
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
    """Raise `WeightsError` for a file in an unknown format, e.g. a web page, a Git LFS pointer or an empty file."""
    with path.open("rb") as file:
        head = file.read(16)
    is_zip = head.startswith(b"PK\x03\x04")
    is_pickle = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20
    is_tflite = head[4:8] == b"TFL3"
    # Darknet: major, minor and revision of its version as int32; the published files have versions 0.1 and 0.2
    version = [int.from_bytes(head[at : at + 4], "little") for at in (0, 4, 8)]
    is_darknet = len(head) == 16 and version[0] == 0 and version[1] in (1, 2) and version[2] < 100
    if not (is_zip or is_pickle or is_safetensors or is_tflite or is_darknet):
        raise WeightsError(
            f"{what}: is not a checkpoint: it begins with {head!r}, unlike files of PyTorch, safetensors, TensorFlow "
            "Lite and Darknet; download the file itself"
        )
