"""The rule of the package: the root is the kit, the folders are the machine, no arrow goes up."""

import pytest

from vcc_helpers.course import house


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "__init__.py").touch()
    return folder


def into_folders(rooms):
    kit = [name for name in rooms if not name.endswith("/") and name != "cli"]
    found = {name: {other for other in rooms[name] if other.endswith("/")} for name in kit}
    return {name: others for name, others in found.items() if others}


@pytest.fixture(scope="module")
def rooms():
    return house.rooms()


def test_no_kit_file_imports_a_folder(rooms):
    assert {"metrics", "bulk", "models", "stream/", "scoring/"} <= set(rooms)
    assert into_folders(rooms) == {}


def test_there_is_no_circle_between_rooms_or_files(rooms):
    assert house.floors(rooms)["metrics"] == 0
    files = {name: others - {""} for name, others in house._imports().items() if name}
    faces = {name for name in files if (house.PACKAGE / name.replace(".", "/")).is_dir()}
    inner = {name: others - faces for name, others in files.items() if name not in faces}
    assert max(house.floors(inner).values()) > 3


def test_what_the_rule_forbids_is_seen(tmp_path):
    package = write(
        tmp_path,
        kit="from .machine import engine\n",
        machine____init__="",
        machine__engine="from . import other\n",
        machine__other="from .engine import go\n",
    )
    assert into_folders(house.rooms(package)) == {"kit": {"machine/"}}
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .kit import x\n"
    assert house._imports(write(tmp_path, typed=text))["typed"] == set()
    with pytest.raises(ValueError, match="a circle of imports among"):
        house.floors(house._imports(package))


@pytest.mark.usefixtures("closed")
def test_every_room_has_its_place_in_the_drawing(rooms):
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert house._without_detours(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
    ax = house.draw()
    assert {text.get_text() for text in ax.texts} - {""} == set(rooms)
    level = house.floors(rooms)
    assert all(level[other] < level[room] for room in rooms for other in rooms[room])
    spots = [(house._COLUMN[room], level[room]) for room in rooms]
    near = [(p, q) for p in spots for q in spots if p < q and p[1] == q[1] and q[0] - p[0] < 0.95]
    assert not near
