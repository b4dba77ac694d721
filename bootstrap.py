"""Sets up `.venv` from the lock files, then runs a command in it: ``python3 bootstrap.py arabesque demo``.

Needs Python 3.11 or newer and its pip, nothing else. A second call finds everything in place and starts at once.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("ARABESQUE_VENV", ROOT / ".venv"))
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = "requirements-dev.lock"
"""Everything that requirements.lock pins for users, in the same versions, and the tools that the tests need."""


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one should be told so
        print(f"arabesque needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    set_up()
    if len(sys.argv) == 1:
        print(f"ready: {BIN}")
        return 0
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(VENV)}
    return subprocess.call([str(BIN / sys.argv[1]), *sys.argv[2:]], env=environment)


def set_up() -> None:
    """Brings `.venv` to what the lock files and pyproject.toml say, unless it is there already."""
    stamp = VENV / "installed-from.sha256"
    state = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in (LOCK, "pyproject.toml"))).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return
    python = BIN / "python"
    print("arabesque: setting up .venv (about 5 GB on Linux: torch comes with its GPU libraries)", file=sys.stderr)
    if not python.exists():
        call(sys.executable, "-m", "venv", "--without-pip", str(VENV))
    call(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "uv")
    uv_install = (str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(python))
    call(*uv_install, "--require-hashes", "-r", str(ROOT / LOCK))
    call(*uv_install, "--no-deps", "--editable", str(ROOT))
    stamp.write_text(state)


def call(*command: str) -> None:
    """Runs a command; where it fails, says which one, and leaves."""
    status = subprocess.call(command)
    if status:
        print(f"arabesque: set-up stopped, status {status}: {' '.join(command)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
