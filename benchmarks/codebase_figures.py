"""Figures about the code itself: idioms, functions called for one clip, import cycles, strict type errors.

    python benchmarks/codebase_figures.py [--types]

A generated clip of three seconds is extracted with the recipe `starter` twice in this process, each time from a new
file into a new store. Every function of ours that the second run calls between `Extraction(...)` and its end counts
once, including extractors and dunder methods. The first run fills the caches: its additional calls, such as imports and
functions whose results are cached, depend on earlier runs. Bodies of classes, lambdas and comprehensions do not count.
`--types` runs pyright in strict mode (minutes).
"""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("manifests", "extractors", "pipeline", "models", "reports", "cli")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--types", action="store_true", help="count pyright's strict errors, too")
    arguments = options.parse_args()
    for part, (found, lines) in idioms().items():
        print(f"idioms in {part}: {found} in {lines} lines, {1000 * found / lines:.1f} per thousand")
    functions, opened = trace_one_clip()
    files = {file for file, _, _ in functions}
    print(f"one clip: {len(functions)} functions in {len(files)} files; the store is opened {opened} times")
    import import_graph  # pyright: ignore[reportMissingImports]

    cycles = import_graph.import_cycles()
    print(f"import cycles: {len(cycles)}")
    for cycle in cycles:
        print("  " + ", ".join(cycle))
    if arguments.types:
        for part, count in strict_errors().items():
            print(f"pyright strict, {part}: {count} errors")


def idioms() -> dict[str, tuple[int, int]]:
    """Return part of the repository → (lines with an idiom of `tests/test_language.py`, lines)."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_language  # pyright: ignore[reportMissingImports]

    found: dict[str, tuple[int, int]] = {}
    for part in test_language.PARTS:
        paths = test_language.texts(part)
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        if lines:
            found[part] = (len(test_language.matches(test_language.IDIOM, paths)), lines)
    return found


def trace_one_clip() -> tuple[set[tuple[str, int, str]], int]:
    """Return our functions called for one clip as (file, line, name), and how often the store's folder is opened."""
    from arabesque.cli.demo_videos.moving_texture import write_moving_texture
    from arabesque.manifests.recipes import load_recipe
    from arabesque.pipeline.extraction import Extraction
    from arabesque.pipeline.store.store import Store

    functions: set[tuple[str, int, str]] = set()
    opened: Counter[str] = Counter()

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(ROOT)) or code.co_name.startswith("<"):
            return
        if not code.co_flags & inspect.CO_OPTIMIZED:  # the body of a class
            return
        if Path(code.co_filename).resolve().relative_to(ROOT).parts[0] not in PACKAGES:
            return
        functions.add((str(Path(code.co_filename).resolve()), code.co_firstlineno, code.co_name))
        if code is Store.open.__func__.__code__ and not isinstance(frame.f_locals["place"], Store):
            opened[code.co_name] += 1

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_moving_texture(clip, duration_s=3.0)
        for number in range(2):
            videos = Path(folder) / f"videos {number}"
            videos.mkdir()
            shutil.copy(clip, videos)
            if number == 1:
                threading.setprofile(on_event)
                sys.setprofile(on_event)
            try:
                for _ in Extraction(videos, load_recipe("starter"), Path(folder) / f"store {number}"):
                    pass
            finally:
                sys.setprofile(None)
                threading.setprofile(None)  # type: ignore[arg-type]
    return functions, sum(opened.values())


def strict_errors() -> dict[str, int]:
    """Return package → number of errors that pyright reports in strict mode."""
    settings = {
        "include": list(PACKAGES),
        "extraPaths": ["_namespace", "tests"],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    file = ROOT / ".pyright-strict.json"
    file.write_text(json.dumps(settings))
    try:
        found = subprocess.run(
            ["pyright", "-p", str(file), "--outputjson"], capture_output=True, text=True, check=False
        )
    finally:
        file.unlink()
    errors = Counter(
        Path(item["file"]).relative_to(ROOT).parts[0]
        for item in json.loads(found.stdout)["generalDiagnostics"]
        if item["severity"] == "error"
    )
    return {package: errors[package] for package in PACKAGES}


if __name__ == "__main__":
    main()
