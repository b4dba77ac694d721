"""The graph of imports between our modules, from all import statements, including those in functions."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("manifests", "extractors", "pipeline", "models", "reports", "cli")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def import_graph() -> dict[str, set[str]]:
    """Return module → our modules that it imports."""
    modules = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    return {name: set(imported_modules(name, path, modules)) for name, path in modules.items()}


def import_cycles() -> list[list[str]]:
    """Return groups of modules that import each other, directly or through others."""
    return [sorted(group) for group in strongly_connected(import_graph()) if len(group) > 1]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(name: str, path: Path, modules: dict[str, Path]) -> Iterable[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        target = ".".join([*base, *(node.module.split(".") if node.module else [])]).removeprefix("arabesque.")
        for alias in node.names:
            found = f"{target}.{alias.name}" if f"{target}.{alias.name}" in modules else target
            if found in modules and found != name:
                yield found


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components, by Tarjan's algorithm without recursion."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []
    for start in graph:
        todo = [(start, iter(sorted(graph[start])))] if start not in index else []
        if todo:
            index[start] = low[start] = len(index)
            stack.append(start)
        while todo:
            node, targets = todo[-1]
            following = next(targets, None)
            if following is None:
                todo.pop()
                if todo:
                    low[todo[-1][0]] = min(low[todo[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    groups.append(set(stack[at:]))
                    del stack[at:]
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                todo.append((following, iter(sorted(graph[following]))))
            elif following in stack:
                low[node] = min(low[node], index[following])
    return groups
