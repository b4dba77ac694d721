"""``arabesque doctor``: is this machine fit for a run, and if not, what mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.text import Text

MEMORY_WANTED_BYTES = 4 << 30
DISK_WANTED_BYTES = 5 << 30

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    way_out: str = ""


def doctor() -> None:
    """Check packages, decoders, GPUs, memory, disk and checkpoints; exit status 1 if something essential fails."""
    console, failed = Console(), False
    for finding in examine():
        failed |= finding.level == "fail"
        mark, style = MARKS[finding.level]
        way_out = f" → {finding.way_out}" if finding.way_out else ""
        console.print(Text.assemble((mark, style), f" {finding.subject}: {finding.detail}{way_out}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """All findings, the quick ones first."""
    yield python()
    yield from packages()
    yield processors()
    yield memory(_memory_limit_bytes())
    yield disk(Path.cwd())
    yield from decoders()
    yield from devices()
    yield from checkpoints()


def python() -> Finding:
    return Finding("ok", "Python", f"{platform.python_version()} on {platform.platform()}")


def packages() -> Iterator[Finding]:
    """Ourselves and what we depend on, by what is installed, not by importing it."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        requirements = requires("arabesque") or []
    except PackageNotFoundError:
        yield Finding("fail", "arabesque", "is not installed, only lies on the path", "pip install -e .")
        return
    found, missing = [f"arabesque {version('arabesque')}"], list[str]()
    for requirement in requirements:
        specifier, _, marker = requirement.partition(";")
        name = re.split(r"[<>=!~\[ ]", specifier.strip(), maxsplit=1)[0]
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if not marker:  # decord has a marker: it is not published for every platform, see `decoders`
                missing.append(name)
    yield Finding("ok", "packages", ", ".join(found))
    if missing:
        yield Finding("fail", "packages", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("ok", "processors", f"{usable} usable of {os.cpu_count()} ({platform.machine()})")


def memory(limit_bytes: int | None) -> Finding:
    if limit_bytes is None:
        return Finding("ok", "memory", "this platform does not tell")
    detail = f"{limit_bytes / 2**30:.1f} GiB for this process"
    if limit_bytes < MEMORY_WANTED_BYTES:
        return Finding("warn", "memory", detail, "large networks want 4 GiB; run with fewer decoders or streams")
    return Finding("ok", "memory", detail)


def _memory_limit_bytes() -> int | None:
    """Physical memory, or what the container leaves of it."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return min(physical, int(text))
    return physical


def disk(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{free_bytes / 2**30:.1f} GiB free in {folder}"
    if free_bytes < DISK_WANTED_BYTES:
        return Finding("warn", "disk", detail, "an hour of video gives tens of MB of features, checkpoints take GB")
    return Finding("ok", "disk", detail)


def decoders() -> Iterator[Finding]:
    """By importing them: a wheel may be installed and its libraries not load."""
    try:
        import av
    except Exception as error:  # whatever a broken wheel raises is the finding
        yield Finding("fail", "decoder pyav", f"does not load ({error})", "pip install --force-reinstall av")
    else:
        libraries = ", ".join(
            f"{name} {'.'.join(map(str, numbers))}" for name, numbers in sorted(av.library_versions.items())
        )
        yield Finding("ok", "decoder pyav", f"{av.__version__} with FFmpeg's {libraries}")
    try:
        import decord
    except Exception as error:
        yield Finding("warn", "decoder decord", f"does not load ({error})", "--decoder pyav, the default, does without")
    else:
        yield Finding("ok", "decoder decord", decord.__version__)


def devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("fail", "torch", f"does not load ({error})", "pip install --force-reinstall torch torchvision")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            detail = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"
            yield Finding("ok", f"cuda:{index}", detail)
    elif shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        detail = f"there is an NVIDIA driver, but torch {torch.__version__} finds no device"
        yield Finding("warn", "GPU", detail, "a newer driver, or in a container --gpus all")
    else:
        detail = f"none; networks run on the CPU with torch {torch.__version__}"
        yield Finding(
            "warn", "GPU", detail, "fine for `starter` and for trying out; large networks take seconds a clip"
        )


def checkpoints() -> Iterator[Finding]:
    """Where they are kept, and for each recipe which streams could run now."""
    from ..manifests.recipes import list_recipes, load_recipe
    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    nearest = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    if os.access(nearest, os.W_OK):
        yield Finding("ok", "checkpoints", f"kept in {cache.folder}")
    else:
        way_out = "name another folder in ARABESQUE_WEIGHTS, unless all you need is there"
        yield Finding("warn", "checkpoints", f"{cache.folder} cannot be written", way_out)
    for recipe in list_recipes():
        streams = load_recipe(recipe).streams
        lacking = {
            stream: [name for name in spec.weights.values() if cache.state(name) not in ("ready", "unchecked")]
            for stream, spec in streams.items()
        }
        ready = [stream for stream, names in lacking.items() if not names]
        short = [f"{stream} lacks {', '.join(names)}" for stream, names in lacking.items() if names]
        detail = "; ".join([*([f"{', '.join(ready)} ready"] if ready else []), *short])
        if short:
            yield Finding("warn", f"recipe {recipe}", detail, f"`arabesque weights fetch --recipe {recipe}`")
        else:
            yield Finding("ok", f"recipe {recipe}", detail)
