"""No module of the package imports itself, by way of any other: each can be read, and loaded, before those above it."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

import copilot_sync

Graph = Dict[str, Set[str]]


def modules_in(package: Path) -> Dict[str, Path]:
    """The modules of a package by their full names."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(package: Path) -> Graph:
    """Which module imports which, at the top or inside of a function; from source, so nothing is imported here."""
    modules = modules_in(package)
    return {name: set(_imported(name, path, modules)) - {name} for name, path in modules.items()}


def _imported(importer: str, path: Path, modules: Dict[str, Path]) -> Iterator[str]:
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield from [name for name in (full, base) if name in modules][:1]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def find_cycle(graph: Graph) -> List[str]:
    """A way from a module back to it, with that module at both ends; empty if there is none."""
    finished: Set[str] = set()

    def follow(path: List[str]) -> List[str]:
        for name in sorted(graph[path[-1]] - finished):
            found = [*path[path.index(name) :], name] if name in path else follow([*path, name])
            if found:
                return found
        finished.add(path[-1])
        return []

    cycles = (follow([name]) for name in sorted(graph))
    return next(filter(None, cycles), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside of functions count: they hide a circle and don't open it."""
    cycle = find_cycle(import_graph(Path(copilot_sync.__file__).parent))
    assert not cycle, " imports ".join(cycle)


@pytest.mark.parametrize(
    "sources, cycle",
    [
        ({"a": "import package.b", "b": "", "c": "from package import a, b"}, ""),
        ({"a": "import package.b", "b": "from package.a import thing"}, "a b a"),
        ({"a": "from package import b", "b": "def f():\n    from . import c", "c": "from .a import thing"}, "a b c a"),
        ({"a": "from package import b, c", "b": "", "c": "from package.d import x", "d": "import package.c"}, "c d c"),
        ({"a": "from os import path", "b": "import b.a", "c": "from package import thing"}, ""),
    ],
    ids=["none", "two", "inside of a function", "away from the first", "others' modules"],
)
def test_a_circle_is_found_however_it_is_written(tmp_path: Path, sources: Dict[str, str], cycle: str) -> None:
    """And named from one end to the other."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    assert find_cycle(import_graph(package)) == [f"package.{name}" for name in cycle.split()]


def test_a_package_may_be_part_of_a_circle(tmp_path: Path) -> None:
    """Its ``__init__`` is a module as any other, from which relative imports count one step less."""
    inner = tmp_path / "package" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("")
    (inner / "__init__.py").write_text("from .part import thing")
    (inner / "part.py").write_text("from ..inner import other")
    names = ["package.inner", "package.inner.part", "package.inner"]
    assert find_cycle(import_graph(tmp_path / "package")) == names
