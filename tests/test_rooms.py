"""The package as rooms on floors: who may import whom. Imports for types alone count."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from clone import ROOT

PACKAGE = "saebench_canon"
HOME = ROOT / PACKAGE
FACES = {PACKAGE, f"{PACKAGE}.__main__"}  # hand names on, or start the program
AT_THE_ROOT = {"__init__", "__main__", "errors", "progress", "testing"}

# From the top down. A room imports rooms of lower floors only; those of one floor stand apart.
FLOORS = (
    ("cli",),
    ("testing", "metrics"),
    (
        "plugin_kit", "latents", "metrics.fidelity", "metrics.stitching_loss",
        "metrics.meta_ladder", "metrics.meta_replace", "metrics.truth",
        "metrics.insertion", "metrics.composition",
    ),
    (
        "bench", "inputs", "metrics.meta_sae", "metrics.seed_matching", "metrics.stitching",
        "metrics.comparison", "metrics.geometry",
    ),
    ("saes.formats", "data", "suite", "questions", "reports", "metrics.shared"),
    ("saes", "tables", "trainers", "data.worlds"),
    ("plugin",),
    ("kernels", "saes.weights"),
    ("errors", "progress", "packaged"),
)  # fmt: skip


def modules(home: Path) -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(home.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each import of the package's own: the module, and the name taken from it ("" for itself)."""
    names = set(known)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names if node.module and node.module in names else ():
                inner = f"{node.module}.{alias.name}"
                yield (inner, "") if inner in names else (str(node.module), alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in names)


def room_of(module: str, known: Mapping[str, Path]) -> str:
    """The folder a module stands in; a module at the root is a room by itself."""
    inside = module.removeprefix(f"{PACKAGE}.")
    if known[module].name == "__init__.py" or "." not in inside:
        return inside
    return inside.rpartition(".")[0]


MODULES = modules(HOME)
IMPORTS = {
    name: set(imported(path, MODULES)) for name, path in MODULES.items() if name not in FACES
}
ROOMS = {name: room_of(name, MODULES) for name in MODULES if name not in FACES}
FLOOR = {room: at for at, floor in enumerate(FLOORS) for room in floor}


def test_the_root_holds_five_modules() -> None:
    assert {path.stem for path in HOME.glob("*.py")} == AT_THE_ROOT


def test_every_room_says_its_question_in_its_first_line() -> None:
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
            assert "?" in first, f"{name} says {first!r}"


def test_every_room_stands_on_a_floor() -> None:
    assert set(ROOMS.values()) - set(FLOOR) == set()
    assert set(FLOOR) - set(ROOMS.values()) == set()


@pytest.mark.parametrize("name", sorted(IMPORTS))
def test_imports_go_down(name: str) -> None:
    for module, _ in IMPORTS[name]:
        if module not in FACES and ROOMS[module] != ROOMS[name]:
            assert FLOOR[ROOMS[module]] > FLOOR[ROOMS[name]], f"{name} imports {module}"


@pytest.mark.parametrize("name", sorted(IMPORTS))
def test_a_metric_is_imported_by_metrics_alone(name: str) -> None:
    for module, _ in IMPORTS[name]:
        if module not in FACES and ROOMS[module].startswith("metrics"):
            assert ROOMS[name].startswith("metrics"), f"{name} imports {module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {module for module, _ in found} - FACES for name, found in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_nothing_outside_a_room_imports_a_private_name() -> None:
    for name, found in IMPORTS.items():
        for module, taken in found:
            if module not in FACES and ROOMS[module] != ROOMS[name]:
                private = taken.startswith("_") or module.rpartition(".")[2].startswith("_")
                assert not private, f"{name} imports {taken} of {module}"


def test_the_page_for_contributors_has_the_question_of_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in HOME.glob("*/__init__.py"):
        question = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        assert f"| `{path.parent.name}/` | {question} |" in text
