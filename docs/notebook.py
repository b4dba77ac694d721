"""Run the tutorial `first-store.md` as a notebook, and write it with its outputs and pictures:

    uv pip install nbclient ipykernel && python docs/notebook.py examples/first_store.ipynb

Shell commands become ``%%bash`` cells. Pictures are attached to the notebook: those that the commands have written, or
those of `docs/pictures`.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

PAGE = Path(__file__).with_name("first-store.md")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(pictures/([\w-]+\.png)\)")
_PAGE_LINK = re.compile(r"\]\(([\w-]+\.md)\)")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
MAX_WIDTH_PX = 1000


def cells_of(page: str) -> list[tuple[str, str]]:
    """Return the cells of a page as (``markdown`` or ``code``, source), without the output that the page shows."""
    cells: list[tuple[str, str]] = []
    end = 0
    for block in _BLOCK.finditer(page):
        cells.append(("markdown", page[end : block.start()]))
        end = block.end()
        if block[1] != "text":
            cells.append(("code", {"bash": "%%bash\n", "python": ""}[block[1]] + block[2]))
    cells.append(("markdown", page[end:]))
    return [(kind, _PAGE_LINK.sub(r"](../docs/\1)", text.strip())) for kind, text in cells if text.strip()]


def executed(page: str, folder: Path) -> dict[str, Any]:
    """Run the cells of a page in a folder, and return the notebook with their outputs."""
    import nbformat  # pyright: ignore[reportMissingImports]
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]

    make: Any = nbformat.v4
    cells = [getattr(make, f"new_{kind}_cell")(source) for kind, source in cells_of(page)]
    notebook = make.new_notebook(cells=cells)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place, coalesce_streams=True)
    client.execute()
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "markdown":
            _attach_pictures(cell, folder)
            continue
        cell.metadata = {}
        for output in cell.outputs:
            if "text" in output:
                output.text = _TERMINAL_CODES.sub("", output.text).replace(f"{folder}/", "")
    return notebook


def _attach_pictures(cell: Any, folder: Path) -> None:
    for _, name in _PICTURE.findall(cell.source):
        written = [*folder.rglob(name), PAGE.parent / "pictures" / name][0]
        picture = Image.open(written).convert("RGB")
        picture.thumbnail((MAX_WIDTH_PX, 10 * MAX_WIDTH_PX))
        data = io.BytesIO()
        picture.quantize(64).save(data, "png", optimize=True)
        cell.setdefault("attachments", {})[name] = {"image/png": base64.b64encode(data.getvalue()).decode()}
    cell.source = _PICTURE.sub(r"![\1](attachment:\2)", cell.source)


def main() -> None:
    import nbformat  # pyright: ignore[reportMissingImports]

    os.environ["COLUMNS"] = "110"  # width of the tables that commands print
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(PAGE.read_text(encoding="utf-8"), Path(folder))
    write: Any = nbformat.write  # pyright: ignore[reportUnknownMemberType]
    write(notebook, sys.argv[1])


if __name__ == "__main__":
    main()
