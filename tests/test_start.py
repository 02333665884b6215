"""The package starts at once, its parts depend on few others, and each file can be copied.

Each file at the root works in another project, with the siblings that its first lines name. It is
copied with these, and with nothing else, flat into an empty folder, the dots of its imports taken
off as the book tells readers, and its examples run there.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import pytest
from conftest import ROOT, make_cells, refuses

import vcc_helpers
from vcc_helpers import bulk, cli, course, datasets

PACKAGE = ROOT / "vcc_helpers"
HEAVY = {"numpy", "scipy", "pandas", "anndata", "sklearn", "h5py", "numba", "tqdm", "matplotlib"}
COMMANDS = ("score", "check", "prep", "sort", "pseudobulk", "fetch", "simulate")
RUN = """
import sys
from vcc_helpers.cli import main
for words in ([], *(line.split() for line in sys.argv[1:])):
    try:
        status = main(words) if words else 0  # at first what the import alone has loaded
    except SystemExit as end:
        status = end.code
    print(status, *sys.modules, file=sys.stderr)
"""


def test_help_and_wrong_options_load_nothing_heavy():
    lines = ["--help", "--version", *(f"{name} --help" for name in COMMANDS), "--wrong"]
    command = [sys.executable, "-c", RUN, *lines]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert f"vcc-helpers {vcc_helpers.__version__}\n" in done.stdout
    found = [line.split() for line in done.stderr.splitlines() if "vcc_helpers.cli" in line]
    assert [words[0] for words in found] == ["0"] * (len(lines)) + ["2"]
    assert not HEAVY & set(found[-1])


def test_the_command_names_what_the_package_names():
    assert (cli._CONTROL, cli._KEY) == (bulk.CONTROL, bulk.PERTURBATION_KEY)


@pytest.mark.parametrize("package", [vcc_helpers, course, datasets])
def test_editors_see_the_names_that_are_loaded_when_touched(package):
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name for node in block.body for alias in node.names}
    assert seen == set(package.__all__) == set(dir(package))
    for name in seen:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


WRITE = """
import vcc_helpers
from vcc_helpers.cli import main
try:
    open(vcc_helpers.__file__ + "x", "w")
except PermissionError:
    pass
else:
    raise SystemExit("the folder can be written to")
for words in ("check a.h5ad", "pseudobulk a.h5ad b.h5ad"):
    assert main(words.split()) == 0, words
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are those of POSIX systems")
def test_commands_work_in_silence(tmp_path):
    """Installed where nobody may write, and without a home: on a cluster, in a container."""
    site, place, words = tmp_path / "site", tmp_path / "place", [sys.executable, "-c", WRITE]
    if not os.geteuid():  # so that the rights of files hold: root is above them
        setpriv = shutil.which("setpriv") or pytest.skip("nothing takes root's rights away here")
        words = [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *words]
    built = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, site / "vcc_helpers", ignore=built)
    place.mkdir()
    make_cells()[:, :-1].copy().write_h5ad(place / "a.h5ad")  # every gene is expressed
    for path in [*site.rglob("*"), site]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "HOME": str(site / "none")}
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=place)
    for path in [site, *site.rglob("*")]:
        path.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(site.rglob("*.nbi"))


WHOLE = ("__init__.py", "__main__.py", "_lazy.py", "cli.py")  # the package and its command
KIT = sorted(path.stem for path in PACKAGE.glob("*.py") if path.name not in WHOLE)
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
NEEDS = re.compile(r"^Needs:? (.*?)(?:\n\n|\"\"\")", re.DOTALL | re.MULTILINE)
#: What only the folders import; AnnData itself imports some of it.
MACHINE = {"h5py", "numba", "tqdm", "dask", "distributed", "zarr"}
WITHOUT_ANNDATA = ("counts", "metrics", "names", "plot", "presets", "ranks", "splits")
# libraries are loaded once; each file runs in a child of its own, which finds its own folder only
RUN_EXAMPLES = """
import doctest, importlib, os, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Blocked())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
for module in sys.argv[3:]:
    child = os.fork()
    if child == 0:
        sys.path.insert(0, f"copy of {module}")
        found = doctest.testmod(importlib.import_module(module))
        print(module, found.failed, found.attempted, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def text_of(module):
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


def named(module):
    found = NEEDS.search(text_of(module))
    assert found, f"{module} does not say what it needs"
    return set(re.findall(r"\b(\w+)\.py\b", found.group(1)))


def imported(module):
    """Return what a module imports when it runs: siblings, and libraries."""
    siblings, libraries, waiting = set(), set(), [ast.parse(text_of(module))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            siblings |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            libraries.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            libraries |= {alias.name.partition(".")[0] for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return siblings, libraries


def flat(module):
    """Return a module's text with the dots of its imports taken off."""
    text = re.sub(r"^( *)from \. import ", r"\1import ", text_of(module), flags=re.MULTILINE)
    return re.sub(r"^( *)from \.(\w+) import ", r"\1from \2 import ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("anndata", [True, False])
def test_a_file_works_with_the_siblings_it_names(anndata, tmp_path):
    modules = [name for name in KIT if anndata != (name in WITHOUT_ANNDATA)]
    for module in modules:
        folder = tmp_path / f"copy of {module}"
        folder.mkdir()
        for name in (module, *named(module)):
            (folder / f"{name}.py").write_text(flat(name), encoding="utf-8")
    blocked = {"vcc_helpers", *(() if anndata else (*MACHINE, "anndata"))}
    loaded = "anndata,sklearn.neighbors" if anndata else "pandas,scipy.stats,matplotlib.pyplot"
    done = subprocess.run(
        [sys.executable, "-c", RUN_EXAMPLES, ",".join(blocked), loaded, *modules],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={"PATH": "", "MPLBACKEND": "agg", "HOME": str(tmp_path)},
    )  # fmt: skip
    examples = {name: len(re.findall(r"^ *>>> ", text_of(name), re.MULTILINE)) for name in modules}
    assert all(examples.values())
    found = [line for line in done.stdout.splitlines() if line.split()[0] in modules]
    assert found == [f"{name} 0 {examples[name]}" for name in modules], done.stdout + done.stderr


@pytest.mark.parametrize("module", KIT)
def test_a_file_imports_what_it_names_and_nothing_of_the_machine(module):
    whole, new = set(), {module}
    while new:
        whole |= new
        new = set().union(*(imported(name)[0] for name in new)) - whole
    assert named(module) == whole - {module}
    siblings, libraries = imported(module)
    assert siblings <= set(KIT) and not siblings & FOLDERS
    assert not libraries & (MACHINE | {"vcc_helpers"})


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "__init__.py").touch()
    return folder


@pytest.fixture(scope="module")
def rooms():
    return house.rooms()


def test_there_is_no_circle_between_rooms_or_files(rooms):
    assert house.floors(rooms)["metrics"] == 0
    files = {name: others - {""} for name, others in house._imports().items() if name}
    faces = {name for name in files if (house.PACKAGE / name.replace(".", "/")).is_dir()}
    inner = {name: others - faces for name, others in files.items() if name not in faces}
    assert max(house.floors(inner).values()) > 3


def test_what_the_rule_forbids_is_seen(tmp_path):
    package = write(
        tmp_path, kit="from .machine import engine\n", machine____init__="",
        machine__engine="from . import other\n", machine__other="from .engine import go\n",
    )  # fmt: skip
    assert house.rooms(package) == {"kit": {"machine/"}, "machine/": set()}
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .kit import x\n"
    assert house._imports(write(tmp_path, typed=text))["typed"] == set()
    refuses("a circle of imports among", house.floors, house._imports(package))


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
