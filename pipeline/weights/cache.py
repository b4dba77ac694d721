"""Checkpoints on this machine: fetched or added once, recognised by their digest, handed out as `CheckpointFile`.

    <folder>/<name>/<file_name>     the bytes, there whole or not at all
    <folder>/<name>/receipt.json    what was found when they were last hashed

A file is accepted if it has the digest of ``weights.toml``. Where none is published, the first file that comes is
recorded and every later one has to equal it. Other bytes under a name are taken only from a user who says ``--trust``.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...manifests.errors import WeightsError
from ...manifests.weights import WeightsEntry, WeightsManifest, load_weights_manifest
from ..user_cache import user_cache
from .downloading import Download, Patience, Progress
from .receipts import (
    Digests,
    Receipt,
    disagreement,
    hash_file,
    read_receipt,
    require_checkpoint_form,
    write_receipt,
)

if TYPE_CHECKING:  # torch takes a second to import, and `arabesque weights` does without
    from ...extractors.checkpoints import CheckpointFile, Weights

MOST_BYTES = 4 << 30
"""Where nobody states a checkpoint's size, more than this is not downloaded."""

State = Literal["ready", "unchecked", "unfinished", "missing"]


@dataclass(frozen=True)
class WeightsCache:
    """The checkpoints of a manifest in a folder of this machine."""

    folder: Path
    manifest: WeightsManifest
    patience: Patience = field(default_factory=Patience)

    def path(self, name: str) -> Path:
        """Where the checkpoint lies or would lie."""
        return self.folder / name / self.manifest.entry(name).file_name

    def state(self, name: str) -> State:
        """What a glance tells, without hashing anything."""
        path = self.path(name)
        if not path.exists():
            return "unfinished" if _part(path).exists() else "missing"
        receipt = read_receipt(path)
        return "ready" if receipt is not None and receipt.still_describes(path.stat()) else "unchecked"

    def locate(self, name: str) -> CheckpointFile:
        """The verified file of that name; raises `WeightsError` with the command that mends what is wrong."""
        from ...extractors.checkpoints import CheckpointFile

        entry, receipt = self.manifest.entry(name), self.recognise(name)
        digest = receipt.digests.sha256
        return CheckpointFile(
            name=name,
            path=self.path(name),
            digest=digest,
            layout=entry.layout,
            trusted_pickle=entry.pickle and (digest == entry.sha256 or receipt.trusted),
        )

    def verify(self, name: str) -> Receipt:
        """Like `recognise`, but reads every byte again."""
        return self.recognise(name, rehash=True)

    def recognise(self, name: str, *, rehash: bool = False) -> Receipt:
        """What the file of that name is, hashed only if it changed since; raises `WeightsError` for wrong bytes."""
        entry, path = self.manifest.entry(name), self.path(name)
        if not path.exists():
            raise WeightsError(_missing(entry, self.folder))
        known = read_receipt(path)
        if known is not None and not rehash and known.still_describes(path.stat()):
            now = known
        else:
            now = hash_file(path, origin="found")
        way_out = f"`arabesque weights fetch {name}` gets it anew"
        if known is not None and known.digests == now.digests:
            now = now.model_copy(update={"origin": known.origin, "trusted": known.trusted})
        elif entry.published_digest is None:
            require_checkpoint_form(path, f"{path}")
            _require_first_seen(entry, known, now.digests, f"{path}", way_out)
        if not now.trusted:
            _require_published(entry, now.digests, f"{path}", way_out)
        if now != known:
            with suppress(OSError):  # a shared cache may be read-only: the file is then hashed again next time
                write_receipt(path, now)
        return now

    def fetch(self, name: str, progress: Progress | None = None, *, force: bool = False) -> Receipt:
        """Downloads the checkpoint unless it is there already; raises `WeightsError`.

        ``force`` downloads it all the same, e.g. in place of a file that was added with ``--trust``.
        """
        entry, path = self.manifest.entry(name), self.path(name)
        if not entry.urls:
            raise WeightsError(_missing(entry, self.folder))
        complaints: list[str] = []
        with _alone_in(path.parent, name):
            if path.exists() and not force:
                with suppress(WeightsError):  # a damaged file is what fetching mends
                    return self.recognise(name)
            for url in entry.urls:
                try:
                    return _fetch_from(url, entry, path, progress, self.patience)
                except WeightsError as error:
                    complaints.append(str(error))
        raise WeightsError(
            f"checkpoint {name} could not be fetched: {'; '.join(complaints)}; "
            f"`arabesque weights add {name} FILE` takes a file that you got by other means"
        )

    def add(self, name: str, file: Path, *, trust: bool = False) -> Receipt:
        """Takes a file that the user has, by hard link where the disk allows it; raises `WeightsError`.

        ``trust``: other bytes than the published ones are taken too, under their own digest.
        """
        entry, path = self.manifest.entry(name), self.path(name)
        if not file.is_file():
            raise WeightsError(f"{file}: there is no such file; `arabesque weights add {name} FILE` takes a path")
        staged = path.with_name(f".{path.name}.added")
        with _alone_in(path.parent, name):
            try:
                # a killed run may have left a hard link; copying onto it would overwrite its other end
                staged.unlink(missing_ok=True)
                _link_or_copy(file.resolve(), staged)
                require_checkpoint_form(staged, f"{file}")
                receipt = hash_file(staged, origin=f"{file.resolve()}")
                if trust:
                    foreign = disagreement(entry, receipt.digests) is not None
                    receipt = receipt.model_copy(update={"trusted": foreign})
                else:
                    way_out = _way_to_trust(entry, file)
                    _require_published(entry, receipt.digests, f"{file}", way_out)
                    _require_first_seen(entry, read_receipt(path), receipt.digests, f"{file}", way_out)
                return _keep(staged, path, receipt)
            finally:
                staged.unlink(missing_ok=True)


def open_cache() -> WeightsCache:
    """This user's cache of the checkpoints that come with the package."""
    return WeightsCache(cache_folder(), load_weights_manifest())


def cache_folder() -> Path:
    """``$ARABESQUE_WEIGHTS``, or the platform's folder for things that can be fetched again."""
    if own := os.environ.get("ARABESQUE_WEIGHTS"):
        return Path(own).expanduser()
    return user_cache() / "weights"


def resolve_weights(
    spec_weights: Mapping[str, str], override: str | None = None, cache: WeightsCache | None = None
) -> dict[str, Weights]:
    """What fills each role of a stream (``{"network": "x3d_m_k400"}``): a verified file, or ``random:SEED`` for all.

    Raises `ValueError` for any other override, `WeightsError` for a checkpoint that is missing or altered.
    """
    if override is not None:
        from ...extractors.checkpoints import RandomWeights

        return dict.fromkeys(spec_weights, RandomWeights(_seed(override)))
    cache = cache or open_cache()
    return {role: cache.locate(name) for role, name in spec_weights.items()}


def _seed(override: str) -> int:
    kind, _, seed = override.partition(":")
    if kind != "random" or not (seed.isascii() and seed.isdigit()) or int(seed) >= 1 << 63:
        raise ValueError(f"weights {override!r}: give random:SEED with a whole number, e.g. random:0")
    return int(seed)


def _fetch_from(url: str, entry: WeightsEntry, path: Path, progress: Progress | None, patience: Patience) -> Receipt:
    download = Download(url, _part(path), entry.size_bytes, MOST_BYTES, progress, patience)
    download.run()
    try:
        require_checkpoint_form(download.part, url)
        receipt = hash_file(download.part, origin=url)
        _require_published(entry, receipt.digests, url, "the download is removed")
        _require_first_seen(
            entry, read_receipt(path), receipt.digests, url, f"to take the new one, remove {path.parent}"
        )
        return _keep(download.part, path, receipt)
    finally:
        download.discard()


def _require_published(entry: WeightsEntry, digests: Digests, what: str, way_out: str) -> None:
    if (difference := disagreement(entry, digests)) is not None:
        raise WeightsError(f"{what}: these are not the bytes of checkpoint {entry.name}: {difference}; {way_out}")


def _require_first_seen(entry: WeightsEntry, known: Receipt | None, digests: Digests, what: str, way_out: str) -> None:
    """Trust on first use: where no digest is published, what came first is the measure of what comes later."""
    if entry.published_digest is None and known is not None and known.digests != digests:
        raise WeightsError(
            f"{what}: checkpoint {entry.name} is not what it was: sha256 {known.digests.sha256} was recorded, "
            f"this is sha256 {digests.sha256}; {way_out}"
        )


def _way_to_trust(entry: WeightsEntry, file: Path) -> str:
    command = f"`arabesque weights add {entry.name} {file} --trust`"
    if entry.pickle:
        return (
            f"{entry.name} is a whole pickle, and opening one runs whatever code is in it: "
            f"only if you trust whoever made this file, {command}"
        )
    return f"to use it all the same, {command}; its own digest then goes into the key of every feature"


def _missing(entry: WeightsEntry, folder: Path) -> str:
    absent = f"checkpoint {entry.name} is not in {folder}"
    add = f"`arabesque weights add {entry.name} FILE` takes a file that you have"
    if not entry.urls:
        return f"{absent}, and it is published nowhere: {add}"
    return f"{absent}: `arabesque weights fetch {entry.name}` downloads {entry.urls[0]}, {add}"


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _keep(staged: Path, path: Path, receipt: Receipt) -> Receipt:
    """Moves a whole file to its place. A crash between the two steps leaves what `recognise` can judge."""
    staged.replace(path)
    write_receipt(path, receipt)
    return receipt


def _link_or_copy(file: Path, staged: Path) -> None:
    try:
        os.link(file, staged)
    except OSError:  # another disk, another owner, a file system without links
        shutil.copyfile(file, staged)
        with staged.open("rb+") as copy:
            os.fsync(copy.fileno())


@contextmanager
def _alone_in(folder: Path, name: str) -> Iterator[None]:
    """Holds the folder against other processes; what the disk refuses becomes a `WeightsError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            _lock(lock.fileno())
            yield
    except BlockingIOError:
        raise WeightsError(f"checkpoint {name}: another process is at work on it; wait until it has finished") from None
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot keep checkpoint {name} there ({error}); make room, or name another folder in "
            "the environment variable ARABESQUE_WEIGHTS"
        ) from error


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # some cluster file systems know no locks; there, two fetches at once are left to the digests
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
