"""No modules import each other, not even for their types, and not by way of others."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Graph = Mapping[str, set[str]]


def modules(root: Path, package: str) -> dict[str, Path]:
    found = {}
    for file in (root / package).rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(root: Path, package: str) -> Graph:
    """All imports between modules: at the top, in functions, and under ``TYPE_CHECKING``.

    ``from package import name`` is the module ``package.name`` where there is one. A package that
    imports its own modules, to hand them on, and a module that imports its package's name are a
    circle as any other.
    """
    known = modules(root, package)
    return {
        name: {each for each in _imported(file, known) if each != name}
        for name, file in known.items()
    }


def _imported(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            module = node.module or ""
            whole = [f"{module}.{alias.name}" for alias in node.names]
            names = [each if each in known else module for each in whole]
        else:
            continue
        yield from (name for name in names if name in known)


def circle(graph: Graph) -> list[str]:
    """A way from a module back to itself; empty where there is none."""
    done: set[str] = set()

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := search(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := search(name, []))), [])


@pytest.mark.parametrize("package", ["secure_base", "secure_server"])
def test_no_module_is_imported_by_what_it_imports(package: str) -> None:
    graph = imports(ROOT, package)
    assert sum(map(len, graph.values())) > 10
    assert circle(graph) == []


def test_a_circle_is_found_where_one_import_is_for_types_and_the_other_in_a_function(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.b import B\n"
    )
    (folder / "b.py").write_text("from package import c\n")
    (folder / "c.py").write_text("def f():\n    import package.a\n")
    assert circle(imports(tmp_path, "package")) == [
        *("package.a", "package.b", "package.c", "package.a")
    ]
