"""Pages of comparisons: of two sets of features, and of the printed and reproduced numbers of a table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..manifests.errors import InputError, os_reason
from ..pipeline.interop.comparing import Comparison
from ..pipeline.interop.feature_comparison import FeatureComparison
from . import charts
from .pages import ReportFolder, page_names

PER_PAGE = 100
"""Videos on one page of a comparison"""
PARTS_BELOW = 0.9999
"""Both sides are different from the first segment with a lower cosine"""
MAX_CELLS = 400
"""Maximum number of cells in a strip. With more segments, a cell shows the lowest cosine of several segments"""
SELECTIONS = (("best_test", "best on test"), ("validation", "validation"), ("last", "last epoch"))


def write_comparison(result: FeatureComparison, a: str, b: str, out: Path) -> Path:
    """Write the page of a comparison of two sets of features.

    Args:
        result: Result of `compare_features`.
        a: Description of A, such as its path.
        b: Description of B.
        out: Folder of the report: new, empty, or that of an earlier report.

    Returns:
        The page to open.

    Raises:
        InputError: ``out`` contains other files.
        StoreError: The page cannot be written.
    """
    folder = ReportFolder(out)
    order = sorted(result.pairs, key=lambda one: (one.same, -(one.relative_error or math.inf), one.video_id))
    pages = page_names("index", len(order), PER_PAGE)
    for number, name in enumerate(pages, start=1):
        folder.write_page(
            name,
            "comparison.html",
            navigation=[{"href": "index.html", "title": "Comparison", "current": number == 1}],
            made_at=_now(),
            a=a,
            b=b,
            result=result,
            only=[("A", result.only_a), ("B", result.only_b)],
            pages=pages,
            page_number=number,
            current=name,
            pairs=[_pair(one) for one in order[(number - 1) * PER_PAGE : number * PER_PAGE]],
            parts_below=PARTS_BELOW,
        )
    folder.remove_stale()
    return folder.folder / "index.html"


def _pair(one: Comparison) -> dict[str, Any]:
    parted = next((index for index, cosine in enumerate(one.cosines) if cosine < PARTS_BELOW), None)
    shifted = [(offset, count) for offset, count in Counter(one.offsets).most_common() if offset]
    matches = ""
    if shifted and shifted[0][1] > len(one.offsets) / 2:
        offset, count = shifted[0]
        matches = f"{count} of {len(one.offsets)} segments of A are most like the segment {offset:+d} of B"
    return {
        "video": one.video_id,
        "stream": one.stream,
        "shape_a": " × ".join(map(str, one.shape_a)),
        "shape_b": " × ".join(map(str, one.shape_b)),
        "same": one.same,
        "error": one.relative_error,
        "lowest": min(one.cosines, default=None),
        "cause": one.explanation.cause if one.explanation else "same",
        "sentence": one.explanation.sentence if one.explanation else "",
        "parted": None if parted is None else parted + 1,
        "matches": matches,
        "strip": _strip(one),
    }


def _strip(one: Comparison) -> Markup:
    """Return a row of cells, one for each segment. Lower cosines are redder, on a logarithmic scale."""
    if not one.cosines:
        return Markup("")
    values = np.array(one.cosines)
    if len(values) > MAX_CELLS:
        values = np.minimum.reduceat(values, np.linspace(0, len(values), MAX_CELLS + 1).astype(int)[:-1])
    distances = np.clip(np.log10(np.maximum(1 - values, 1e-8)) / 8 + 1, 0, 1)
    width = 1000 / len(values)
    cells = "".join(
        f'<rect x="{index * width:.2f}" width="{0.94 * width:.2f}" y="0" height="20" class="down" '
        f'fill-opacity="{strength:.2f}"/>'
        for index, strength in enumerate(distances.tolist())
        if strength > 0
    )
    spoken = f"Cosine of the {len(one.cosines)} segments of {one.video_id}, {one.stream}: lowest {min(one.cosines):.6f}"
    return Markup(
        f'<svg class="strip" viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(spoken)}">{cells}</svg>'
    )


def write_table_page(table: Path, out: Path) -> Path:
    """Write the page of a reproduced table: printed and reproduced numbers, intervals, and the numbers of each seed.

    Args:
        table: The file ``table.json`` of `arabesque reproduce`.
        out: Folder of the report: new, empty, or that of an earlier report.

    Returns:
        The page to open.

    Raises:
        InputError: ``table`` cannot be read, or ``out`` contains other files.
        StoreError: The page cannot be written.
    """
    try:
        content: Any = json.loads(table.read_text(encoding="utf-8"))
        rows = [_table_row(row) for row in content["rows"]]
        compared: Any = {column: dict(each) for column, each in content.get("comparisons", {}).items()}
        source, ours = str(content["source"]), str(content["ours"])
    except OSError as error:
        raise InputError(
            f"{table}: {os_reason(error)}; give the table.json that `arabesque reproduce` wrote"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{table}: is not a table.json that `arabesque reproduce` wrote ({error})") from error
    folder = ReportFolder(out)
    folder.write_page(
        "index.html",
        "table.html",
        navigation=[{"href": "index.html", "title": "Table", "current": True}],
        made_at=_now(),
        source=source,
        ours=ours,
        rows=rows,
        selections=[title for _, title in SELECTIONS],
        compared=compared,
    )
    folder.remove_stale()
    return folder.folder / "index.html"


def _table_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "note": row.get("note", ""),
        "not_run": row.get("not_run", ""),
        "cells": [
            {
                "column": column,
                "published": cell["published"],
                "results": [_result(cell.get(key)) for key, _ in SELECTIONS],
                "cross_validated": _mean(cell.get("cross_validated") or ()),
                "gain": _mean([each["gain"] for each in cell.get("gains") or ()]),
                "permuted": _mean([each["permuted"] for each in cell.get("gains") or ()]),
                "chart": _seeds_chart(column, cell),
            }
            for column, cell in row["cells"].items()
        ],
    }


def _result(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return mean, deviation and interval over the seeds. Reports of highlights have another metric."""
    if report is None:
        return None
    interval = report.get("interval")
    seeds = _numbers(report["by_seed"])
    return {
        "mean": float(np.mean(seeds)),
        "deviation": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
        "low": interval["low"] if interval else None,
        "high": interval["high"] if interval else None,
        "seeds": len(seeds),
        "num_test": report.get("num_test"),
        "epochs": report.get("epochs") or [],
    }


def _numbers(values: Sequence[float | None]) -> list[float]:
    """Return numbers of a JSON file, in which null is NaN."""
    return [math.nan if value is None else float(value) for value in values]


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, NaN if one value is NaN, and None without values."""
    return float(np.mean(_numbers(values))) if values else None


def _seeds_chart(column: str, cell: Mapping[str, Any]) -> Markup:
    """Return a strip with a dot for each seed of each selection, and a line at the printed number."""
    series: list[tuple[str, list[float]]] = []
    for key, title in SELECTIONS:
        seeds = _numbers(cell[key]["by_seed"]) if cell.get(key) else []
        if defined := [value for value in seeds if not math.isnan(value)]:
            series.append((title, defined))
    if not series:
        return Markup("")
    published: float | None = cell["published"]
    values = [value for _, seeds in series for value in seeds] + ([published] if published is not None else [])
    spoken = f"{column}: " + "; ".join(
        f"{title} {', '.join(f'{value:.3f}' for value in seeds)}" for title, seeds in series
    )
    return charts.dots(series, (min(values), max(values)), spoken, line=published)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
