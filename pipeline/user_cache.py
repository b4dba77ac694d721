"""Where things are kept that can be fetched or made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """This package's folder in the platform's place for such things."""
    base = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    # the XDG specification has relative paths ignored
    return (base if base.is_absolute() else Path.home() / ".cache") / "arabesque"
