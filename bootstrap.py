"""Set up `.venv` from the lock file, then run a command in it: ``python3 bootstrap.py arabesque demo``.

Requires Python 3.11 or newer with pip, nothing else. If `.venv` is up to date, the command starts immediately.
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
"""The packages of requirements.lock in the same versions, and the tools for development and tests."""

PACKAGES = ("arabesque", "manifests", "extractors", "pipeline", "models", "reports", "cli")


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - report an older version
        print(f"arabesque needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    set_up()
    if len(sys.argv) == 1:
        print(f"ready: {BIN}")
        return 0
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(VENV)}
    return subprocess.call([str(BIN / sys.argv[1]), *sys.argv[2:]], env=environment)


def set_up() -> None:
    """Install the lock file and this package into `.venv`, unless it is up to date."""
    stamp = VENV / "installed-from.sha256"
    state = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in (LOCK, "pyproject.toml"))).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return
    python = BIN / "python"
    print(
        "arabesque: setting up .venv (about 5 GB on Linux, because torch includes its GPU libraries)", file=sys.stderr
    )
    if not python.exists():
        call(sys.executable, "-m", "venv", "--without-pip", str(VENV))
    call(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "uv")
    # without compiled bytecode, the first start of a fresh installation takes ten times as long
    uv_install = (str(BIN / "uv"), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
    call(*uv_install, "--require-hashes", "-r", str(ROOT / LOCK))
    call(*uv_install, "--no-deps", "--editable", str(ROOT))
    call(str(python), "-m", "compileall", "-q", *(str(ROOT / folder) for folder in PACKAGES))
    stamp.write_text(state)


def call(*command: str) -> None:
    """Run a command. If it fails, print it and exit with status 1."""
    status = subprocess.call(command)
    if status:
        print(f"arabesque: set-up failed, status {status}: {' '.join(command)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
