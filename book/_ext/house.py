"""The package drawn from its own imports: which file may know of which.

The page house.md shows the drawing, and tests/test_start.py holds what it shows.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from matplotlib.axes import Axes

import vcc_helpers
from vcc_helpers.course.sketches import _PALE, _box, _sheet
from vcc_helpers.plot import BLUE, GREY, ORANGE

PACKAGE = Path(vcc_helpers.__file__).parent
#: Where each room is drawn, from left to right; its floor follows from the imports.
_COLUMN = {
    "splits": 0, "metrics": 1, "bulk": 2.1, "counts": 3.2, "ranks": 4.4, "presets": 5.6,
    "names": 7, "plot": 9, "intervals": 1.1, "features": 2.1, "emit": 3.4, "evaluation": 0.9,
    "models": 2.3, "stream/": 5, "adapt": 2.3, "scoring/": 3.8, "submission/": 5.9,
    "datasets/": 7.2, "classroom/": 4.5, "cli": 6.2, "course/": 8.6,
}  # fmt: skip


def _imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Read from the source which files of a package each file imports; nothing is run.

    Names have dots, such as ``"stream.open"``; an ``__init__.py`` goes by its folder's name, that
    of the package itself by an empty one. Imports for type checkers alone are left out.
    """
    files = {_name(path, package): path for path in package.rglob("*.py")}
    return {name: _imported(name, path, files) - {name} for name, path in files.items()}


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(name: str, path: Path, files: Mapping[str, Path]) -> set[str]:
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    here = name.split(".") if path.name != "__init__.py" else [*name.split("."), ""]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = [*here[: len(here) - node.level], *filter(None, [node.module])]
            for alias in node.names:
                full = ".".join(filter(None, [*start, alias.name]))
                found.add(full if full in files else full.rpartition(".")[0])
    return found


def rooms(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Put together what lies in one folder: each room, and the rooms that it imports.

    A file at the root goes by its name, a folder has a slash: ``"stream/"``. The doors, files that
    begin with an underscore, are left out.
    """
    found = {}
    for name, imported in _imports(package).items():
        if not name.startswith("_") and name:
            found.setdefault(_room(name, package), set()).update(
                _room(other, package) for other in imported if other and not other.startswith("_")
            )
    return {room: others - {room} for room, others in sorted(found.items())}


def _room(name: str, package: Path) -> str:
    first = name.split(".")[0]
    return f"{first}/" if (package / first).is_dir() else first


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Give each room a floor: one above the highest of those that it imports.

    `graph` holds rooms, and the rooms that each imports. What imports nothing is on floor 0. A
    ValueError names a circle.
    """
    found = {}
    try:
        for room in TopologicalSorter(graph).static_order():
            found[room] = max((found[other] + 1 for other in graph[room]), default=0)
    except CycleError as error:
        raise ValueError(f"a circle of imports among {', '.join(error.args[1])}") from None
    return found


def _without_detours(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Keep of each room's imports those that no other of its imports leads to."""

    def below(room: str) -> set[str]:
        return set().union(*({other} | below(other) for other in graph[room]))

    return {room: others - set().union(*map(below, others)) for room, others in graph.items()}


def draw() -> Axes:
    """Draw the rooms, each above what it imports; an arrow that follows from others is left out.

    Blue are files in memory, to copy; orange are folders of files, streams and engines. A KeyError
    says that a room has no place in the drawing yet.
    """
    graph = rooms()
    level = floors(graph)
    place = {room: (11 * _COLUMN[room] + 7, 10 * level[room] + 4) for room in graph}
    title = "Blue is the kit: no blue box needs an orange one"
    ax = _sheet(113, 10 * max(level.values()) + 8, title)
    for room, others in _without_detours(graph).items():
        for other in others:
            (x, y), (to_x, to_y) = place[room], place[other]
            look = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (to_x, to_y + 2), (x, y - 2), arrowprops=look)
    for room, (x, y) in place.items():
        colour = ORANGE if room.endswith("/") else _PALE if room == "cli" else BLUE
        _box(ax, x - 5, y - 2, 10, 4, colour, room)
    return ax
