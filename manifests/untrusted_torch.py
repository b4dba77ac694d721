"""Read untrusted pickles and ``torch.save`` files without torch, in the zip and the older sequential format.

No code of the file is executed, and memory is limited in proportion to the size of the file; see
`arabesque.manifests.untrusted_pickles`.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, BinaryIO

from .untrusted_pickles import ADMITTED, STORAGES, Machine, Storage, Unknown

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the older format, which is five pickles followed by the storages."""
_MAX_LEVEL = 3
"""Maximum depth of nested torch files. A pickled tensor contains a torch file."""


def is_torch(handle: BinaryIO) -> bool:
    """Return whether a torch file starts at the position of the handle. The position does not change."""
    begin = handle.tell()
    head = handle.read(len(MAGIC))
    handle.seek(begin)
    return head.startswith(b"PK\x03\x04") or head == MAGIC


def read_torch(handle: BinaryIO, unknown: Unknown = "refuse", level: int = 0) -> Any:
    """Return the saved object, with tensors as records for `untrusted_pickles.plain`.

    The handle must stay open until `untrusted_pickles.plain` has read the tensors.

    Raises:
        ForeignPickle: The pickle names a class or function that is not allowed.
        Exception: The file is damaged.
    """
    begin = handle.tell()
    size_bytes = handle.seek(0, os.SEEK_END) - begin
    handle.seek(begin)
    if level > _MAX_LEVEL:
        raise pickle.UnpicklingError("torch files within torch files")
    if handle.read(4) == b"PK\x03\x04":
        return _read_zip(handle, size_bytes, unknown, level)
    handle.seek(begin)
    return _read_older(handle, size_bytes, unknown, level)


def read_pickle(handle: BinaryIO, size_bytes: int, unknown: Unknown = "refuse") -> Any:
    """Return the pickled value, in which arrays and tensors are records for `untrusted_pickles.plain`.

    Raises:
        ForeignPickle: The pickle names a class or function outside the table.
        Exception: The pickle is damaged or exceeds a limit. A damaged pickle may raise errors of any type.
    """
    return _run(handle, size_bytes, unknown)


def _run(
    handle: BinaryIO,
    size_bytes: int,
    unknown: Unknown,
    persistent: Callable[[Any], Any] | None = None,
    level: int = 0,
) -> Any:
    return Machine(handle, size_bytes, unknown, persistent, level, admitted=_ADMITTED).run()


def _nested(machine: Machine, content: object) -> Any:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("a storage of something other than bytes")
    return read_torch(io.BytesIO(content), level=machine.level + 1)


_ADMITTED = {**ADMITTED, ("torch.storage", "_load_from_bytes"): _nested}


def _read_zip(handle: BinaryIO, size_bytes: int, unknown: Unknown, level: int) -> Any:
    archive = zipfile.ZipFile(handle)
    members = {member.filename: member for member in archive.infolist()}
    if sum(member.file_size for member in members.values()) > size_bytes:
        raise pickle.UnpicklingError("its members are larger than the file")
    if any(name.rpartition("/")[2] == "constants.pkl" for name in members):
        raise pickle.UnpicklingError("it contains a TorchScript program")
    folder = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
    if folder is None:
        raise pickle.UnpicklingError("it has no data.pkl")
    if f"{folder}byteorder" in members and archive.read(members[f"{folder}byteorder"]) != b"little":
        raise pickle.UnpicklingError("its byte order is not little-endian")

    @lru_cache(maxsize=4)
    def read(key: str) -> bytes:
        return archive.read(members[f"{folder}data/{key}"])

    def persistent(found: Any) -> Storage:
        dtype, key, numel = _described(found)
        return Storage(dtype, numel, partial(read, key))

    with archive.open(members[f"{folder}data.pkl"]) as content:
        data = io.BytesIO(content.read())
    return _run(data, size_bytes, unknown, persistent, level)


def _read_older(handle: BinaryIO, size_bytes: int, unknown: Unknown, level: int) -> Any:
    storages: dict[str, Storage] = {}

    def persistent(found: Any) -> Any:
        if found[0] == "module":  # the class of a network, with its source code
            return found[1]
        dtype, key, numel = _described(found)
        if found[5:] and found[5] is not None:
            raise pickle.UnpicklingError("a storage that is a view of another")
        return storages.setdefault(key, Storage(dtype, numel))

    for _ in range(3):  # magic number, protocol, sizes of number types
        _run(handle, size_bytes, unknown, level=level)
    root = _run(handle, size_bytes, unknown, persistent, level)
    for key in _run(handle, size_bytes, unknown, level=level):
        storage = storages.get(str(key))
        numel = int.from_bytes(handle.read(8), "little", signed=True)
        if storage is None or numel != storage.numel:
            raise pickle.UnpicklingError(f"storage {key!r} is not the expected one")
        content = handle.read(numel * storage.itemsize)
        if len(content) < numel * storage.itemsize:
            raise pickle.UnpicklingError("it ends before its last number")
        storage.read = partial(_itself, content)
    return root


def _itself(content: bytes) -> bytes:
    return content


def _described(found: Any) -> tuple[str, str, int]:
    """Return number type, key and length of a persistent id such as ``("storage", FloatStorage, "0", "cpu", 12)``."""
    tag, kind, key, _, numel = found[:5]
    dtype = STORAGES.get(getattr(kind, "name", ""))
    if tag != "storage" or dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise pickle.UnpicklingError(f"a storage of {kind}")
    return dtype, key, numel
