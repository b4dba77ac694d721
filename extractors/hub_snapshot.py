"""Files of a transformers checkpoint: a local folder, or a revision of a repository in the Hugging Face cache.

A checkpoint has a name such as ``facebook/dinov2-base`` or ``facebook/dinov2-base@REVISION``, or the path of a folder.
The commit is looked up once, when a recipe is resolved, and is part of every key. Code of a repository is never run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..manifests.errors import ConfigError, WeightsError

PREFIX = "transformers:"
CONFIG_FILES = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)
"""Files that determine the input of a text tower for a sentence."""
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """The files of one checkpoint."""

    name: str
    """``REPOSITORY@COMMIT``, or the path as given."""
    path: Path
    digest: str = ""
    """SHA-256 over names and contents of the configuration and the tensors; empty until `with_digest`."""

    @property
    def weight_files(self) -> list[Path]:
        return sorted({file for pattern in WEIGHT_FILES for file in self.path.glob(pattern)})

    def with_digest(self) -> CheckpointFolder:
        """Hash the files.

        Raises:
            WeightsError: There are no tensors, or they cannot be read.
        """
        if not any(file.suffix == ".safetensors" for file in self.weight_files):
            raise WeightsError(
                f"checkpoint {PREFIX}{self.name}: {self.path} has no model.safetensors; "
                f"`arabesque weights fetch {PREFIX}{self.name}` downloads it"
            )
        total = hashlib.sha256()
        try:
            for file in [*(self.path / name for name in CONFIG_FILES), *self.weight_files]:
                if file.exists():
                    with file.open("rb") as content:
                        total.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise WeightsError(f"{self.path}: checkpoint cannot be read ({error.strerror or error})") from error
        return CheckpointFolder(self.name, self.path, total.hexdigest())

    def tokenizer_digest(self) -> str:
        """Return the SHA-256 over names and contents of the tokenizer's files.

        Raises:
            ConfigError: There are none, or they cannot be read.
        """
        files = [self.path / name for name in TOKENIZER_FILES if (self.path / name).is_file()]
        if not files:
            raise ConfigError(
                f"{PREFIX}{self.name}: {self.path} has no tokenizer (tokenizer.json), which settings.sentences needs; "
                "choose a checkpoint with one"
            )
        total = hashlib.sha256()
        try:
            for file in files:
                total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        except OSError as error:
            raise ConfigError(f"{self.path}: tokenizer cannot be read ({error.strerror or error})") from error
        return total.hexdigest()

    def read_config(self) -> dict[str, Any]:
        """Return the content of ``config.json``; raise `ConfigError` if it is not a configuration."""
        try:
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.path}/config.json: cannot be read ({error}); fetch the checkpoint again"
            ) from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self.path}/config.json: is not a configuration of transformers")
        return cast("dict[str, Any]", content)


def find_checkpoint(
    name: str, *, tensors: bool = False, tokenizer: bool = False, offline: bool = False
) -> CheckpointFolder:
    """Find a checkpoint on this machine, or download its configuration.

    Args:
        name: ``REPOSITORY``, ``REPOSITORY@REVISION``, or the path of a folder.
        tensors: Download the tensors and the tokenizer as well.
        tokenizer: Download the tokenizer as well.
        offline: Use only files on this machine.

    Raises:
        ConfigError: The name does not exist, or its files are not on this machine and cannot be downloaded.
    """
    if Path(name).expanduser().is_dir():
        return CheckpointFolder(name, Path(name).expanduser())
    if name.startswith((".", "/", "~")):
        raise ConfigError(f"transformers:{name}: this folder does not exist; give a folder that contains config.json")
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    patterns = [*CONFIG_FILES, *(WEIGHT_FILES if tensors else ()), *(TOKENIZER_FILES if tensors or tokenizer else ())]
    try:
        folder = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns, local_files_only=offline)
        )
    except HFValidationError as error:
        raise ConfigError(f"transformers:{name}: is not a repository name such as facebook/dinov2-base") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError, TypeError, KeyError) as error:
        # the last three are raised if the server is not a hub
        raise ConfigError(f"transformers:{name}: {_reason(error, repository, revision)}") from error
    return CheckpointFolder(f"{repository}@{folder.name}", folder)


def _reason(error: Exception, repository: str, revision: str) -> str:
    """Return the error of the hub or its cache in one line."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    page = f"https://huggingface.co/{repository}"
    if isinstance(error, GatedRepoError):
        return f"is gated; accept its terms at {page}, then run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"{page} does not exist or is private; check the name"
    if type(error).__name__ == "RevisionNotFoundError":
        return f"{page} has no revision {revision}"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "is not on this machine, and the hub cannot be reached; `arabesque weights fetch "
            f"{PREFIX}{repository}` downloads it on a machine with a network"
        )
    return f"cannot be downloaded ({' '.join(str(error).split())[:200]})"
