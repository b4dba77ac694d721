"""The HTML of a report: templates, names of files, and the folder of the report."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..manifests.errors import InputError, StoreError, os_reason
from ..manifests.plurals import plural
from ..pipeline.records import one_line
from .charts import number

ASSETS = ("report.css", "report.js")
MARK = "report.css"
"""A folder with this file in ``assets`` is a report and may be replaced"""
_OWN = re.compile(r".+-[0-9a-f]{10}(-[a-z0-9_-]+)?\.(html|jpg|png)")
_HERE = Path(__file__).parent


def page_name(video_id: str) -> str:
    """Return the name of a video's page without suffix: readable, unique, and valid in file systems and URLs."""
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", video_id).strip("-")[:60] or "video"
    return f"{readable}-{hashlib.sha256(video_id.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def clock(time_s: float) -> str:
    """Format a time: ``1:05``, or ``1:05.3`` if it is not a whole second, and ``2:01:05`` from an hour on."""
    tenths = round(10 * time_s)
    seconds, tenth = divmod(tenths, 10)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{shown}.{tenth}" if tenth else shown


def size(size_bytes: float) -> str:
    """Format a size: ``12.3 MB``."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


class ReportFolder:
    """The folder of a report.

    Args:
        folder: A new or empty folder, or an earlier report, whose pages are replaced.

    Raises:
        InputError: The folder contains other files.
        StoreError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            if folder.is_dir() and any(folder.iterdir()) and not (folder / "assets" / MARK).exists():
                raise InputError(f"{folder}: is not empty and not a report; give --out a new or empty folder")
            for part in ("assets", "videos"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            for name in ASSETS:
                shutil.copyfile(_HERE / "assets" / name, folder / "assets" / name)
        except OSError as error:
            raise StoreError(f"{folder}: {os_reason(error)}; give --out a folder that can be written") from error
        self._written: set[str] = set()
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates: Any = self._templates  # filters and globals of jinja2 have no types
        templates.filters.update(clock=clock, number=number, size=size, one_line=one_line)
        templates.globals.update(plural=plural, arabesque_version=version("arabesque"))

    def write_page(self, name: str, template: str, /, **values: Any) -> Path:
        """Render a template to a file of the report; ``name`` is its path below the folder."""
        root = "../" * name.count("/")
        return self.write(name, self._templates.get_template(template).render(root=root, **values).encode())

    def write_script(self, name: str, variable: str, value: Any) -> Path:
        """Write a script that defines a global variable, because pages opened from a disk cannot read JSON files."""
        text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
        return self.write(f"assets/{name}", f"globalThis.{variable} = {text};\n".encode())

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the report."""
        path = self.folder / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise StoreError(f"{path}: {os_reason(error)}; make room, or give --out another folder") from error
        self._written.add(name)
        return path

    def remove_stale(self) -> None:
        """Remove pages and pictures of an earlier report that this report did not write."""
        for path in (self.folder / "videos").iterdir():
            if f"videos/{path.name}" not in self._written and _OWN.fullmatch(path.name):
                path.unlink()
        for path in self.folder.glob("*-*.html"):
            if path.name not in self._written and re.fullmatch(r"(index|scores)-\d+\.html", path.name):
                path.unlink()


def relative_link(target: Path, folder: Path) -> str:
    """Return the URL of a file relative to a folder; absolute if they are on different drives."""
    try:
        return quote(Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix())
    except ValueError:
        return target.resolve().as_uri()


def page_names(stem: str, count: int, per_page: int) -> list[str]:
    """Return the file names of the pages of a list: ``index.html``, ``index-2.html``, …"""
    pages = max(1, -(-count // per_page))
    return [f"{stem}.html" if page == 1 else f"{stem}-{page}.html" for page in range(1, pages + 1)]


def video_link(video_id: str) -> dict[str, str]:
    """Return the id of a video and the URL of its page relative to the folder of the report."""
    return {"id": video_id, "href": f"videos/{page_name(video_id)}.html"}
