"""``arabesque doctor``: check whether this machine can run extractions, and name the remedy for each problem."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import typer
from rich.console import Console
from rich.text import Text

from ..manifests.errors import UsageError
from ..manifests.optional_packages import EXTRAS, install_command, is_installed
from ..pipeline.system.process_resources import available_cores
from .console import JSON, print_json

if TYPE_CHECKING:
    import torch

    from ..manifests.streams import StreamSpec
    from ..pipeline.weights.cache import WeightsCache

MIN_MEMORY_BYTES = 4 << 30
MIN_DISK_BYTES = 5 << 30

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    remedy: str = ""


def doctor(as_json: JSON = False) -> None:
    """Check packages, decoders, GPUs, memory, disk and checkpoints; exit status 1 if something essential fails.

    Decodes a clip with each decoder, and computes on each GPU.
    """
    console, failed = Console(), False
    if as_json:
        checks = list(examine())
        print_json([asdict(check) for check in checks])
        failed = any(check.level == "fail" for check in checks)
    for check in () if as_json else examine():
        failed |= check.level == "fail"
        mark, style = MARKS[check.level]
        remedy = f" → {check.remedy}" if check.remedy else ""
        console.print(Text.assemble((mark, style), f" {check.subject}: {check.detail}{remedy}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """Yield all checks, quick checks first."""
    yield python()
    yield from packages()
    yield from optional_packages()
    yield processors()
    yield memory(_memory_limit_bytes())
    yield disk(Path.cwd())
    yield from decoders()
    yield restriction()
    yield from decoded_clips()
    yield from devices()
    yield from kernels()
    yield from checkpoints()


def python() -> Check:
    return Check("ok", "Python", f"{platform.python_version()} on {platform.platform()}")


def packages() -> Iterator[Check]:
    """Check arabesque and its dependencies by their metadata, without importing them."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        requirements = requires("arabesque") or []
    except PackageNotFoundError:
        yield Check("fail", "arabesque", "is on the import path but not installed", "pip install -e .")
        return
    found, missing = [f"arabesque {version('arabesque')}"], list[str]()
    for requirement in requirements:
        specifier, _, marker = requirement.partition(";")
        name = re.split(r"[<>=!~\[ ]", specifier.strip(), maxsplit=1)[0]
        if "extra ==" in marker:
            continue
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Check("ok", "packages", ", ".join(found))
    if missing:
        yield Check("fail", "packages", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def optional_packages() -> Iterator[Check]:
    """Show which extras are installed. A missing one is not a problem: commands that need it report it."""
    modules = {extra: [module for module, its in EXTRAS.items() if its == extra] for extra in EXTRAS.values()}
    missing = {
        extra: ", ".join(module for module in members if not is_installed(module))
        for extra, members in modules.items()
        if not all(map(is_installed, members))
    }
    installed = [extra for extra in modules if extra not in missing]
    if installed:
        yield Check("ok", "extras", f"installed: {', '.join(installed)}")
    if missing:
        named = ", ".join(f"{extra} ({modules})" for extra, modules in missing.items())
        yield Check("ok", "extras", f"not installed: {named}", install_command(",".join(missing)))


def processors() -> Check:
    return Check("ok", "processors", f"{available_cores()} usable of {os.cpu_count()} ({platform.machine()})")


def memory(limit_bytes: int) -> Check:
    detail = f"{limit_bytes / 2**30:.1f} GiB for this process"
    if limit_bytes < MIN_MEMORY_BYTES:
        return Check("warn", "memory", detail, "large networks need 4 GiB; run with fewer decoders or streams")
    return Check("ok", "memory", detail)


def _memory_limit_bytes() -> int:
    """Return the physical memory, or the limit of the container."""
    import psutil

    physical = psutil.virtual_memory().total
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return min(physical, int(text))
    return physical


def disk(folder: Path) -> Check:
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{free_bytes / 2**30:.1f} GiB free in {folder}"
    if free_bytes < MIN_DISK_BYTES:
        return Check("warn", "disk", detail, "features take tens of MB per hour of video, checkpoints several GB")
    return Check("ok", "disk", detail)


def decoders() -> Iterator[Check]:
    """Check the decoders by importing them: an installed wheel may have libraries that do not load."""
    try:
        import av
    except Exception as error:  # a broken wheel can raise any exception
        yield Check("fail", "decoder pyav", f"does not load ({error})", "pip install --force-reinstall av")
    else:
        libraries = ", ".join(
            f"{name} {'.'.join(map(str, numbers))}" for name, numbers in sorted(av.library_versions.items())
        )
        yield Check("ok", "decoder pyav", f"{av.__version__} with FFmpeg's {libraries}")
    if not is_installed("decord"):
        return
    try:
        decord = import_module("decord")
    except Exception as error:
        yield Check("warn", "decoder decord", f"does not load ({error})", "not needed: --decoder pyav is the default")
    else:
        yield Check("ok", "decoder decord", decord.__version__)


def restriction() -> Check:
    """Check the sandbox by starting a decoder process: containers differ in the restrictions that they allow."""
    from ..manifests.errors import ArabesqueError
    from ..pipeline.decoding.decoder_pool import DecoderProcess
    from ..pipeline.system.restriction import still_allowed

    subject = "decoder process"
    try:
        with DecoderProcess() as decoder:
            decoder.wait_until_ready()
            refused = decoder.refused
    except (ArabesqueError, OSError) as error:
        return Check("fail", subject, f"does not start ({error})", "pip install --force-reinstall av")
    if not (allowed := still_allowed(refused)):
        return Check("ok", subject, f"the kernel denies it {refused}")
    return Check(
        "warn",
        subject,
        f"this kernel or container does not restrict {allowed} (Landlock, seccomp)",
        "extract files from untrusted sources in a container without network",
    )


def decoded_clips() -> Iterator[Check]:
    """Decode the same generated clip with each decoder, in decoder processes as in a run."""
    import numpy as np

    from ..manifests.errors import ArabesqueError, MissingPackageError
    from ..pipeline.decoding.decoder_pool import DecoderProcess, Holes
    from ..pipeline.decoding.decoders import BACKENDS, check_backend
    from .demo_videos.moving_texture import write_moving_texture

    with TemporaryDirectory(prefix="arabesque-doctor-") as folder:
        path = Path(folder) / "clip.mp4"
        try:
            write_moving_texture(path, duration_s=1.0, width_px=320, height_px=240)
        except Exception as error:  # a broken build of FFmpeg can raise any exception
            yield Check("warn", "clip", f"cannot be written ({error})", "decoders are not tested; H.264 may be missing")
            return
        for backend in BACKENDS:
            try:
                check_backend(backend)
            except MissingPackageError:
                continue
            subject = f"clip by {backend}"
            level = "fail" if backend == "pyav" else "warn"
            try:
                import_module(_PACKAGES[backend])
                with DecoderProcess(backend) as decoder:
                    metadata = replace(decoder.probe(path), checked_frames=25)
                    wanted = np.arange(metadata.num_frames, dtype=np.int64)
                    num_frames, num_samples, on_cpu = 0, 0, ""
                    for chunk in decoder.decode(path, metadata, wanted, audio_until_s=metadata.end_s):
                        if isinstance(chunk, Holes):
                            continue
                        num_frames, on_cpu = num_frames + len(chunk.indices), on_cpu or chunk.on_cpu
                        num_samples += 0 if chunk.audio is None else chunk.audio.samples.shape[-1]
                        chunk.release()
            except (ArabesqueError, ImportError, OSError) as error:
                yield Check(level, subject, f"fails ({error})", f"pip install --force-reinstall {_PACKAGES[backend]}")
                continue
            detail = f"{num_frames} of 25 frames and {num_samples} audio samples decoded"
            if on_cpu:
                yield Check("warn", subject, f"{detail} on the CPU: {on_cpu}", "--decoder pyav")
            elif num_frames == 25 and num_samples:
                yield Check("ok", subject, detail)
            else:
                yield Check(level, subject, detail, f"pip install --force-reinstall {_PACKAGES[backend]}")


_PACKAGES = {"pyav": "av", "decord": "decord", "nvdec": "av"}


def kernel(device: torch.device) -> str:
    """Compute a convolution on a device and compare it with the CPU; return an error, or an empty string."""
    import torch

    generator = torch.Generator().manual_seed(0)
    clip = torch.rand((1, 3, 8, 32, 32), generator=generator)
    weight = torch.rand((4, 3, 3, 3, 3), generator=generator)
    try:
        found = torch.nn.functional.conv3d(clip.to(device), weight.to(device)).cpu()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    expected = torch.nn.functional.conv3d(clip, weight)
    difference = float((found - expected).abs().max() / expected.abs().max())
    return "" if difference < 1e-2 else f"a convolution differs from the CPU's by {difference:.1e}"


def devices() -> Iterator[Check]:
    """Check the GPUs that torch finds, with one kernel on each."""
    try:
        import torch
    except Exception as error:
        yield Check("fail", "torch", f"does not load ({error})", "pip install --force-reinstall torch torchvision")
        return
    from ..pipeline.system.accelerators import device_name, unusable_gpu

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            _, total_bytes = torch.cuda.mem_get_info(index)
            detail = f"{torch.cuda.get_device_name(index)}, {total_bytes / 2**30:.0f} GiB, torch {torch.__version__}"
            if problem := kernel(torch.device("cuda", index)):
                yield Check("fail", f"cuda:{index}", f"{detail}; {problem}", "install a driver and a torch that match")
            else:
                yield Check("ok", f"cuda:{index}", f"{detail}; a convolution agrees with the CPU")
    elif problem := unusable_gpu():
        yield Check("warn", "GPU", problem, "install a newer driver; in a container, add --gpus all")
    elif torch.accelerator.is_available():
        device = torch.device(torch.accelerator.current_accelerator(), 0)  # type: ignore[arg-type]
        detail = f"{device_name(device)}, torch {torch.__version__}"
        if problem := kernel(device):
            yield Check("fail", str(device), f"{detail}; {problem}", "give --device cpu")
        else:
            yield Check("ok", str(device), f"{detail}; a convolution agrees with the CPU")
    else:
        detail = f"not found; networks run on the CPU with torch {torch.__version__}"
        yield Check("warn", "GPU", detail, "sufficient for `starter` and tests; large networks take seconds per clip")


def kernels() -> Iterator[Check]:
    """Show which kernels networks use on this CPU. They are measured if no earlier result is stored."""
    try:
        from ..extractors.kernel_choice import is_available, speed_ratios
    except Exception:  # torch does not load, as `devices` reports
        return
    if is_available():
        named = (f"{kind} {'oneDNN' if r <= 1 else 'default'} ({r:.2f})" for kind, r in speed_ratios().items())
        yield Check("ok", "CPU kernels", f"{', '.join(named)}; time of oneDNN ÷ PyTorch's default, measured once")


def checkpoints() -> Iterator[Check]:
    """Check the checkpoint cache, and for each recipe which streams have all their packages and checkpoints."""
    from ..extractors.table import require_available
    from ..manifests.recipes import list_recipes, load_recipe
    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    nearest = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    if os.access(nearest, os.W_OK):
        yield Check("ok", "checkpoints", f"stored in {cache.folder}")
    else:
        remedy = "set ARABESQUE_WEIGHTS to another folder, unless all checkpoints are present"
        yield Check("warn", "checkpoints", f"{cache.folder} cannot be written", remedy)
    for recipe in list_recipes():
        streams = load_recipe(recipe).streams
        try:
            for spec in streams.values():
                require_available(spec)
        except UsageError as error:
            yield Check("warn", f"recipe {recipe}", str(error))
            continue
        missing_names = {
            stream: [name for name in _checkpoints(spec) if _state(cache, name) not in ("ready", "unchecked")]
            for stream, spec in streams.items()
        }
        ready = [stream for stream, names in missing_names.items() if not names]
        missing = [f"{stream} lacks {', '.join(names)}" for stream, names in missing_names.items() if names]
        detail = "; ".join([*([f"{', '.join(ready)} ready"] if ready else []), *missing])
        if missing:
            yield Check("warn", f"recipe {recipe}", detail, f"`arabesque weights fetch --recipe {recipe}`")
        else:
            yield Check("ok", f"recipe {recipe}", detail)


def _checkpoints(spec: StreamSpec) -> list[str]:
    """Return the checkpoints of a stream. If it names none, those of torchvision, timm or transformers are used."""
    of_package = spec.extractor.startswith(("torchvision:", "timm:", "transformers:"))
    return [spec.extractor] if of_package and not spec.weights else [*spec.weights.values()]


def _state(cache: WeightsCache, name: str) -> str:
    try:
        return cache.state(name)
    except UsageError:  # timm is not installed
        return "missing"
