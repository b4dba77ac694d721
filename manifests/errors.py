"""The errors that the package raises for inputs, files and machines.

    ArabesqueError                 base class; the command line prints the message as one line, exit status 1
    ├── UsageError                 a setting or an input is wrong; exit status 2
    │   ├── ConfigError            a recipe, a TOML file or a setting is wrong
    │   ├── InputError             a path, an option or a label file is wrong
    │   └── MissingPackageError    an optional package is not installed
    ├── WeightsError               a checkpoint is missing, altered, or does not fit its network
    ├── DecodeError                a video cannot be decoded to its end
    │   └── TransientDecodeError   another attempt may succeed: a crash, or a time or memory limit was exceeded
    ├── ExtractionError            a stream of a video has no features; raised when single videos are extracted
    └── StoreError                 a feature store is damaged, was made with other settings, or cannot be written
        └── NotAStoreError         the path is not a feature store; also an InputError

Wrong arguments of an internal function raise ``ValueError``. A message names the object, what is wrong with it, and
what to do.
"""

from __future__ import annotations

from .short_help import own_names
from .urls import public_text


class _ErrorType(type):
    def __dir__(cls) -> list[str]:
        return own_names(cls)


class ArabesqueError(Exception, metaclass=_ErrorType):
    """Base class of all errors that inputs, files and machines cause. Its message shows no credentials of a URL.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.extract("missing.mp4")
        ... except arabesque.ArabesqueError as error:
        ...     print(error)
        missing.mp4...
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(public_text(message))


class UsageError(ArabesqueError):
    """A setting or an input is wrong. The command line exits with status 2."""


class ConfigError(UsageError):
    """A recipe, a TOML file or a setting is wrong: unknown or missing keys, wrong values, settings that conflict.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.load_recipe("startr")
        ... except arabesque.ConfigError as error:
        ...     print(str(error).partition(";")[0])
        recipe 'startr' is not known...
    """


class InputError(UsageError):
    """A path, an option or a label file is wrong: it does not exist, cannot be read, or conflicts with other inputs.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.extract("missing.mp4")
        ... except arabesque.InputError as error:
        ...     print(error)
        missing.mp4...
    """


class MissingPackageError(UsageError):
    """A recipe or an option needs an optional package that is not installed; the message has the command to install it.

    Example:
        >>> import arabesque
        >>> issubclass(arabesque.MissingPackageError, arabesque.ArabesqueError)
        True
    """


class WeightsError(ArabesqueError):
    """A checkpoint is missing, altered, or does not fit its network.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.score("routine.mp4", model="features")
        ... except arabesque.WeightsError as error:
        ...     print(str(error).partition(" (")[0])
        features: not a trained model
    """


class DecodeError(ArabesqueError):
    """A video cannot be decoded to its end because the file is damaged; another attempt would fail as well.

    In a run, the message becomes the reason in the video's outcome.

    Example:
        >>> import arabesque
        >>> issubclass(arabesque.DecodeError, arabesque.ArabesqueError)
        True
    """


class TransientDecodeError(DecodeError):
    """A decoder crashed or exceeded its time or memory limit; another attempt may succeed."""


class ExtractionError(ArabesqueError):
    """A stream of a single video could not be extracted; the message has the outcome's reason.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.extract("damaged.mp4", recipe="starter")
        ... except arabesque.ExtractionError as error:
        ...     print(str(error).partition(":")[0])
        damaged, stream motion
    """


class StoreError(ArabesqueError):
    """A feature store is damaged, has other settings, or cannot be written.

    Example:
        >>> import arabesque
        >>> try:
        ...     arabesque.open_store("videos")
        ... except arabesque.StoreError as error:
        ...     print(str(error).partition(";")[0])
        videos: is not a feature store: it has no arabesque.toml
    """


class NotAStoreError(StoreError, InputError):
    """A path that should be a feature store is not one."""


def os_reason(error: OSError) -> str:
    """Return the reason of an `OSError` as text that follows the name of the file."""
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, NotADirectoryError):
        return "a part of its path is a file, not a folder"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a file"
    if isinstance(error, TimeoutError):
        return "no response within the time limit"
    return f"cannot be read ({(error.strerror or str(error)).lower()})"
