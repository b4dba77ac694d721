"""Cache of checkpoints on this machine: downloaded or added once, verified by digest, returned as `CheckpointFile`.

    <folder>/<name>/<file_name>     the checkpoint; the file appears only once it is complete
    <folder>/<name>/receipt.json    digests and origin, recorded when the file was last hashed

A file is accepted if it has the digest of ``weights.toml``. If no digest is published, the first file is recorded and
every later file must equal it. A file with another digest is accepted only with ``--trust``, and only if it fits the
network. Files are hashed whenever they are used, and again when they are loaded. A receipt that other users may write
is ignored.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...extractors.hub_snapshot import PREFIX, CheckpointFolder, find_checkpoint
from ...extractors.weight_sources import CheckpointFile, RandomWeights, Weights
from ...manifests.errors import ConfigError, WeightsError
from ...manifests.hub_weights import is_published, published_entry
from ...manifests.urls import public_url
from ...manifests.weights import WeightsEntry, WeightsManifest, load_weights_manifest, weights_manifest_with
from ..system.user_cache import user_cache
from .downloading import Download, Progress, RetryPolicy
from .receipts import (
    Digests,
    Receipt,
    disagreement,
    hash_file,
    read_receipt,
    receipt_path,
    require_checkpoint_form,
    write_receipt,
)

_LOG = logging.getLogger(__name__)

MAX_BYTES = 4 << 30
"""Limit of a download whose size is stated neither by the manifest nor by the server."""

Fits = Callable[[WeightsEntry, Path, str], None]
"""Called with the manifest entry, the file and its SHA-256."""

State = Literal["ready", "unchecked", "unfinished", "missing"]


@dataclass(frozen=True)
class WeightsCache:
    """Cache of a manifest's checkpoints in a local folder.

    Example:
        >>> from arabesque.pipeline.weights.cache import open_cache
        >>> open_cache().state("x3d_m_k400") in ("ready", "unchecked", "unfinished", "missing")
        True
    """

    folder: Path
    manifest: WeightsManifest
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    fits: Fits = field(default_factory=lambda: _require_fit)
    """Raises `WeightsError` for a file with an unpublished digest that does not fit the entry's network."""

    def entry(self, name: str) -> WeightsEntry:
        """Return the facts about a checkpoint of the manifest, or one that torchvision or timm publishes.

        Raises:
            ConfigError: The name is unknown.
        """
        return published_entry(name) if is_published(name) else self.manifest.entry(name)

    def path(self, name: str) -> Path:
        """Return the path of a checkpoint, whether it exists or not."""
        entry = self.entry(name)
        return self.folder / entry.name.replace(":", "-").replace("/", "-") / entry.file_name

    def is_present(self, name: str) -> bool:
        """Return whether the files of a checkpoint are on this machine, without reading them."""
        if not is_folder(name):
            return self.path(name).exists()
        try:
            return bool(find_checkpoint(name.removeprefix(PREFIX), offline=True).weight_files)
        except ConfigError:
            return False

    def state(self, name: str) -> State:
        """Return the state of a checkpoint, judged by file size and time without hashing."""
        if is_folder(name):
            return "unchecked" if self.is_present(name) else "missing"
        path = self.path(name)
        if not path.exists():
            return "unfinished" if _part(path).exists() else "missing"
        receipt = read_receipt(path)
        return "ready" if receipt is not None and receipt.still_describes(path.stat()) else "unchecked"

    def locate(self, name: str) -> CheckpointFile | CheckpointFolder:
        """Verify a checkpoint and return it.

        Args:
            name: Name of the checkpoint in the manifest, or ``transformers:`` and a repository or a folder.

        Raises:
            WeightsError: The file is missing or damaged. The message contains the command that replaces it.
        """
        if is_folder(name):
            return find_checkpoint(name.removeprefix(PREFIX), offline=True).with_digest()
        entry, receipt = self.entry(name), self.verify(name)
        digest = receipt.digests.sha256
        return CheckpointFile(
            name=name,
            path=self.path(name),
            digest=digest,
            layout=entry.layout,
            trusted_pickle=entry.pickle and (digest == entry.sha256 or receipt.trusted),
        )

    def recorded_digest(self, name: str) -> str | None:
        """Return the digest of a checkpoint from its last verification, without reading the file.

        The result is None if the file was not verified, or if its size or modification time have changed since.
        """
        if is_folder(name):
            return None
        path = self.path(name)
        try:
            receipt, stat = read_receipt(path), path.stat()
        except OSError:
            return None
        return receipt.digests.sha256 if receipt is not None and receipt.still_describes(stat) else None

    def verify(self, name: str) -> Receipt:
        """Hash a checkpoint and return its receipt.

        Args:
            name: Name of the checkpoint in the manifest.

        Raises:
            WeightsError: The file is missing, or it has another digest than the published or recorded one.
        """
        entry, path = self.entry(name), self.path(name)
        if not path.exists():
            raise WeightsError(_missing(entry, self.folder))
        known = read_receipt(path)
        now = hash_file(path, origin="found", git_blob=entry.git_blob is not None)
        hint = f"`arabesque weights fetch {name}` downloads it again"
        if known is None and receipt_path(path).exists():
            hint += (
                f", or, if it was added with --trust, make sure that only you may write to {path.parent} and "
                "add it again"
            )
        if known is not None and known.digests.sha256 == now.digests.sha256:
            now = known.model_copy(update={"modified_ns": now.modified_ns})
        elif entry.published_digest is None:
            require_checkpoint_form(path, f"{path}")
            _require_first_seen(entry, known, now.digests, f"{path}", hint)
        if not now.trusted:
            _require_published(entry, now.digests, f"{path}", hint)
        if now != known:
            with suppress(OSError):  # a shared cache may be read-only
                write_receipt(path, now)
        return now

    def fetch(self, name: str, progress: Progress | None = None, *, force: bool = False) -> Receipt:
        """Download a checkpoint unless a valid file exists already.

        Args:
            name: Name of the checkpoint in the manifest.
            progress: Called with the bytes so far and the total.
            force: Download even if a valid file exists, e.g. to replace a file that was added with ``--trust``.

        Raises:
            WeightsError: No published address provides the checkpoint.
        """
        entry, path = self.entry(name), self.path(name)
        if not entry.urls:
            raise WeightsError(_missing(entry, self.folder))
        errors: list[str] = []
        with locked_folder(path.parent, name):
            if path.exists() and not force:
                with suppress(WeightsError):  # a damaged file is downloaded again
                    return self.verify(name)
            for url in entry.urls:
                try:
                    return _fetch_from(url, entry, path, progress, self.retry)
                except WeightsError as error:
                    errors.append(str(error))
        raise WeightsError(
            f"checkpoint {name} could not be fetched: {'; '.join(errors)}; "
            f"`arabesque weights add {name} FILE` adds a file that you obtained by other means"
        )

    def add(self, name: str, file: Path, *, trust: bool = False) -> Receipt:
        """Add a local file, by hard link where the disk allows it.

        Args:
            name: Name of the checkpoint in the manifest.
            file: The file.
            trust: Accept a file with another digest than the published one, under its own digest, if it fits the
                network and is not a checkpoint with another name.

        Raises:
            WeightsError: The file does not exist, is not this checkpoint, or cannot be stored.
        """
        entry, path = self.entry(name), self.path(name)
        if not file.is_file():
            raise WeightsError(f"{file}: file not found; `arabesque weights add {name} FILE` takes a path")
        staged = path.with_name(f".{path.name}.added")
        with locked_folder(path.parent, name):
            try:
                # a killed run may have left a hard link, and copying would overwrite the linked file
                staged.unlink(missing_ok=True)
                _link_or_copy(file.resolve(), staged)
                require_checkpoint_form(staged, f"{file}")
                receipt = hash_file(staged, origin=f"{file.resolve()}")
                if entry.published_digest is None or disagreement(entry, receipt.digests) is not None:
                    self._refuse_known(entry, receipt.digests, file, trust=trust)
                    self._require_fit(entry, staged, file, receipt.digests.sha256)
                if trust:
                    foreign = disagreement(entry, receipt.digests) is not None
                    receipt = receipt.model_copy(update={"trusted": foreign})
                else:
                    hint = _trust_hint(entry, file)
                    _require_published(entry, receipt.digests, f"{file}", hint)
                    _require_first_seen(entry, read_receipt(path), receipt.digests, f"{file}", hint)
                return _keep(staged, path, receipt)
            finally:
                staged.unlink(missing_ok=True)

    def _require_fit(self, entry: WeightsEntry, staged: Path, file: Path, digest: str) -> None:
        try:
            self.fits(entry, staged, digest)
        except WeightsError as error:
            raise WeightsError(str(error).replace(f"{staged}", f"{file}")) from error

    def _refuse_known(self, entry: WeightsEntry, digests: Digests, file: Path, *, trust: bool) -> None:
        """Refuse a file that is another checkpoint; with ``trust`` only one of another network architecture."""
        for other in self.manifest.weights.values():
            if other.name == entry.name or (trust and other.layout == entry.layout):
                continue
            recorded = read_receipt(self.path(other.name)) if other.published_digest is None else None
            same = recorded is not None and not recorded.trusted and recorded.digests.sha256 == digests.sha256
            if same or (other.published_digest is not None and disagreement(other, digests) is None):
                raise WeightsError(
                    f"{file}: this is checkpoint {other.name} ({other.trained_on}), not {entry.name}; `arabesque "
                    f"weights add {other.name} {file}` adds it under its name"
                )


def open_cache(more: Mapping[str, WeightsEntry] | None = None) -> WeightsCache:
    """Open the user's cache of the checkpoints in the package's manifest.

    Args:
        more: Checkpoints of a recipe or of ``--weights-manifest`` that the package's manifest does not have.

    Raises:
        ConfigError: One of them has the name of another checkpoint of the package.
    """
    return WeightsCache(cache_folder(), weights_manifest_with(more) if more else load_weights_manifest())


def manifest_option(names: Iterable[str]) -> str:
    """Return the command-line option for checkpoints that are not in the package, for messages; empty if all are."""
    own = {name for name in names if not is_published(name) and not is_folder(name)}
    return "" if load_weights_manifest().weights.keys() >= own else " --weights-manifest TOML"


def is_folder(name: str) -> bool:
    """Return whether a checkpoint is a folder of transformers and not a file of this cache."""
    return name.startswith(PREFIX)


def cache_folder() -> Path:
    """Return the folder of the cache: ``$ARABESQUE_WEIGHTS`` if it is set, otherwise a folder in the user's cache."""
    if own := os.environ.get("ARABESQUE_WEIGHTS"):
        return Path(own).expanduser()
    return user_cache() / "weights"


def resolve_weights(
    spec_weights: Mapping[str, str], override: str | None = None, cache: WeightsCache | None = None
) -> dict[str, Weights]:
    """Find the weights of a stream.

    Args:
        spec_weights: Role → name of its checkpoint, e.g. ``{"network": "x3d_m_k400"}``, or ``random:SEED``.
        override: ``random:SEED`` for random weights in all roles; None for checkpoints.
        cache: Cache of the checkpoints; the user's by default.

    Returns:
        Role → weights. Checkpoint files are verified.

    Raises:
        ValueError: ``override`` is malformed.
        WeightsError: A checkpoint is missing or damaged.
    """
    if override is not None and not is_random(override):
        raise ValueError(f"weights {override!r}: give random:SEED with a whole number, e.g. random:0")
    found: dict[str, Weights] = {}
    for role, name in spec_weights.items():
        if is_random(override or name):
            found[role] = RandomWeights(int((override or name).partition(":")[2]))
        else:
            cache = cache or open_cache()
            found[role] = cache.locate(name)
    return found


def is_random(name: str) -> bool:
    """Return whether a recipe's checkpoint is ``random:SEED``, random weights in place of a file."""
    return re.fullmatch(r"random:[0-9]{1,18}", name) is not None


def _fetch_from(url: str, entry: WeightsEntry, path: Path, progress: Progress | None, retry: RetryPolicy) -> Receipt:
    """Download and verify a checkpoint. Without a published digest, parts of earlier runs are not continued."""
    part, has_digest = _part(path), entry.published_digest is not None
    is_continued = has_digest and part.exists()
    download = Download(url, part, entry.size_bytes, MAX_BYTES, progress, retry, continues=has_digest)
    download.run()
    try:
        require_checkpoint_form(part, public_url(url))
        receipt = hash_file(part, origin=public_url(url))
        _require_published(entry, receipt.digests, public_url(url), "the download is removed")
        _require_first_seen(
            entry, read_receipt(path), receipt.digests, public_url(url), f"to accept the new file, remove {path.parent}"
        )
        return _keep(part, path, receipt)
    except WeightsError as error:
        if not is_continued:
            raise
        _LOG.info("%s; the download starts again", error)
    finally:
        download.discard()
    return _fetch_from(url, entry, path, progress, retry)  # the part belonged to another version of the file


def _require_fit(entry: WeightsEntry, path: Path, digest: str) -> None:
    from ...extractors.checkpoint_fit import require_fit

    require_fit(CheckpointFile(entry.name, path, digest, entry.layout))


def _require_published(entry: WeightsEntry, digests: Digests, what: str, hint: str) -> None:
    if (difference := disagreement(entry, digests)) is not None:
        raise WeightsError(f"{what}: is not checkpoint {entry.name}: {difference}; {hint}")


def _require_first_seen(entry: WeightsEntry, known: Receipt | None, digests: Digests, what: str, hint: str) -> None:
    """Trust on first use: if no digest is published, a file must equal the first one that was recorded."""
    if entry.published_digest is None and known is not None and known.digests.sha256 != digests.sha256:
        raise WeightsError(
            f"{what}: checkpoint {entry.name} has changed: sha256 {known.digests.sha256} was recorded, "
            f"this is sha256 {digests.sha256}; {hint}"
        )


def _trust_hint(entry: WeightsEntry, file: Path) -> str:
    command = f"`arabesque weights add {entry.name} {file} --trust`"
    if entry.pickle:
        return (
            f"{entry.name} is a full pickle, and loading it runs any code that it contains: "
            f"only if you trust its source, use {command}"
        )
    return f"to use it nevertheless, {command}; the key of every feature then contains its own digest"


def _missing(entry: WeightsEntry, folder: Path) -> str:
    absent = f"checkpoint {entry.name} is not in {folder}"
    option = manifest_option([entry.name])
    add = f"`arabesque weights add {entry.name} FILE{option}` adds a file that you have"
    if not entry.urls:
        return f"{absent}, and no download address is published: {add}"
    return f"{absent}: `arabesque weights fetch {entry.name}{option}` downloads {entry.urls[0]}, {add}"


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _keep(staged: Path, path: Path, receipt: Receipt) -> Receipt:
    """Move a complete file to its path and write its receipt. `verify` handles a crash between the two steps."""
    staged.replace(path)
    _LOG.info("%s: stored, sha256 %s, from %s", path, receipt.digests.sha256, receipt.origin)
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
def locked_folder(folder: Path, name: str) -> Generator[None]:
    """Lock a checkpoint's folder against other processes. Errors of the disk are raised as `WeightsError`."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # not group-writable, since its receipts would be ignored
        with (folder / ".lock").open("a") as lock:
            _lock(lock.fileno())
            for leftover in folder.glob(".receipt.*"):  # of a killed run
                leftover.unlink(missing_ok=True)
            yield
    except BlockingIOError:
        raise WeightsError(
            f"checkpoint {name}: another process is downloading or adding it; wait until it has finished"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot store checkpoint {name} there ({error}); free disk space, or set the environment "
            "variable ARABESQUE_WEIGHTS to another folder"
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
            # some cluster file systems have no locks; digests then detect two concurrent downloads
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
