"""Set up `.venv` from a lock file, then run a command in it: ``python3 bootstrap.py arabesque demo``.

Requires Python 3.11 or newer with pip, nothing else. If `.venv` is up to date, the command starts immediately.

    python3 bootstrap.py COMMAND          everything that `pip install ".[all]"` installs, from requirements.lock
    python3 bootstrap.py --dev COMMAND    also the tools of developers, from requirements-dev.lock
    python3 bootstrap.py --cpu COMMAND    torch without its GPU libraries

`.venv` keeps the options that it was set up with. The commands pytest, pyright, ruff and mkdocs imply ``--dev``.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("ARABESQUE_VENV", ROOT / ".venv"))
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
OPTIONS = ("--dev", "--cpu")
DEVELOPER_COMMANDS = ("pytest", "pyright", "ruff", "mkdocs")
CPU_INDEX = os.environ.get("ARABESQUE_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
"""Index of torch's builds without GPU libraries."""
GPU_PACKAGE = re.compile(r"nvidia-(?!ml-py)|cuda-|(torch|torchvision|triton)==")

PACKAGES = ("arabesque", "manifests", "extractors", "pipeline", "models", "reports", "cli")


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - report an older version
        print(f"arabesque needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    options, command = set[str](), sys.argv[1:]
    while command and command[0] in OPTIONS:
        options.add(command.pop(0))
    if command and command[0].startswith("-"):
        print(f"bootstrap.py: {command[0]} is not an option; give {' or '.join(OPTIONS)}", file=sys.stderr)
        return 2
    if command and command[0] in DEVELOPER_COMMANDS:
        options.add("--dev")
    set_up(options)
    if not command:
        print(f"ready: {BIN}")
        return 0
    program = BIN / command[0]
    if not program.exists():
        print(f"bootstrap.py: {program} does not exist; tools of developers need --dev", file=sys.stderr)
        return 2
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(VENV)}
    return subprocess.call([str(program), *command[1:]], env=environment)


def set_up(options: set[str]) -> None:
    """Install a lock file and this package into `.venv`, unless it is up to date."""
    stamp = VENV / "installed-from.txt"
    earlier = stamp.read_text().split() if stamp.exists() else []
    options = options | set(earlier[:-1])
    lock = ROOT / ("requirements-dev.lock" if "--dev" in options else "requirements.lock")
    state = [*sorted(options), hashlib.sha256(lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()]
    if earlier == state:
        return
    python = BIN / "python"
    size = "about 2 GB" if "--cpu" in options else "about 8 GB on Linux, of which torch's GPU libraries are 5 GB"
    print(f"arabesque: setting up {VENV} from {lock.name} ({size})", file=sys.stderr)
    if not python.exists():
        call(sys.executable, "-m", "venv", "--without-pip", str(VENV))
    call(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "uv")
    # without compiled bytecode, the first start of a fresh installation takes ten times as long
    uv_install = (str(BIN / "uv"), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
    if "--cpu" in options:
        gpu, others = split_lock(lock.read_text())
        torch = [each.split()[0] for each in gpu if each.startswith("torch")]
        rest = VENV / "requirements-cpu.lock"
        rest.write_text("".join(others))
        call(*uv_install, "--no-deps", "--index-url", CPU_INDEX, *torch)
        call(*uv_install, "--no-deps", "--require-hashes", "-r", str(rest))
    else:
        call(*uv_install, "--require-hashes", "-r", str(lock))
    call(*uv_install, "--no-deps", "--editable", str(ROOT))
    call(str(python), "-m", "compileall", "-q", *(str(ROOT / folder) for folder in PACKAGES))
    stamp.write_text(" ".join(state))


def split_lock(text: str) -> tuple[list[str], list[str]]:
    """Return the entries of torch, torchvision and the GPU libraries, and all other entries of a lock file."""
    entries = re.split(r"(?m)^(?=\S)", text)
    gpu = [entry for entry in entries if GPU_PACKAGE.match(entry)]
    return gpu, [entry for entry in entries if entry not in gpu]


def call(*command: str) -> None:
    """Run a command. If it fails, print it and exit with status 1."""
    status = subprocess.call(command)
    if status:
        print(f"arabesque: set-up failed, status {status}: {' '.join(command)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
