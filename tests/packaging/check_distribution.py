"""sdist → wheel → an empty environment → the console script from another folder.

Packaging failures are detected only here: an editable install finds files that are missing in a wheel.
Dependencies are those of the environment that runs this (they are 5 GB); arabesque itself is that of the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("arabesque", "manifests", "extractors", "pipeline", "models", "reports", "cli")
COMMANDS = (["--help"], ["--version"], ["recipes", "pamfn"], ["weights", "list"], ["doctor"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run("uv", "build", "--quiet", "--sdist", "--out-dir", str(work), str(ROOT))
        (sdist,) = work.glob("*.tar.gz")
        check_source(sdist)
        run("uv", "build", "--quiet", "--wheel", "--out-dir", str(work), str(sdist))
        (wheel,) = work.glob("*.whl")
        check_contents(wheel)
        script = install(wheel, work / "empty")
        for arguments in COMMANDS:
            output = run(str(script), *arguments, cwd=work)
            print(f"arabesque {' '.join(arguments)}: {len(output.splitlines())} lines")
        python = str(script.parent / "python")
        run(python, "-m", "arabesque", "--help", cwd=work)
        where = run(python, "-c", "import arabesque.pipeline as p; print(p.__file__)", cwd=work)
        assert str(work) in where, f"arabesque was imported from {where}, not from the wheel"
    print("distribution: 1 passed, 0 failed")


def check_contents(wheel: Path) -> None:
    """Check that the wheel contains every file of the packages once, and no other file."""
    tracked = [name for name in run("git", "ls-files", *PACKAGES, cwd=ROOT).split() if is_packed(name)]
    expected = sorted(name if name.startswith("arabesque/") else f"arabesque/{name}" for name in tracked)
    packed = sorted(name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name)
    assert packed == expected, (
        f"wheel and tree differ: {sorted(set(packed) ^ set(expected)) or 'a file is there twice'}"
    )


def check_source(sdist: Path) -> None:
    """Check that the source archive contains every file of the packages once, at its path in the repository."""
    expected = sorted(name for name in run("git", "ls-files", *PACKAGES, cwd=ROOT).split() if is_packed(name))
    with tarfile.open(sdist) as archive:
        members = [name.partition("/")[2] for name in archive.getnames() if is_packed(name)]
    packed = sorted(name for name in members if name.startswith(tuple(f"{package}/" for package in PACKAGES)))
    assert packed == expected, (
        f"sdist and tree differ: {sorted(set(packed) ^ set(expected)) or 'a file is there twice'}"
    )


def is_packed(name: str) -> bool:
    return name.endswith((".py", ".toml", "py.typed", ".html", ".css", ".js"))


def install(wheel: Path, venv: Path) -> Path:
    """Return the console script of a new environment with the dependencies of this one, but not its arabesque."""
    run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    (site,) = venv.glob("lib/python*/site-packages")
    run("uv", "pip", "install", "--quiet", "--no-deps", "--python", str(venv / "bin" / "python"), str(wheel))
    # a plain path, read after the wheel's own folder; .pth files in it (our editable install) are not run
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return venv / "bin" / "arabesque"


def run(*command: str, cwd: Path = ROOT) -> str:
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}: status {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


if __name__ == "__main__":
    main()
