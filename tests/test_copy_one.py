"""Each file at the root works in another project, with the siblings that its first lines name.

It is copied with these, and with nothing else, flat into an empty folder, the dots of its imports
taken off as the book tells readers, and its examples run there.
"""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "vcc_helpers"
WHOLE = ("__init__.py", "__main__.py", "_lazy.py", "cli.py")  # the package and its command
KIT = sorted(path.stem for path in PACKAGE.glob("*.py") if path.name not in WHOLE)
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
NEEDS = re.compile(r"^Needs:? (.*?)(?:\n\n|\"\"\")", re.DOTALL | re.MULTILINE)
#: What only the folders import; AnnData itself imports some of it.
MACHINE = {"h5py", "numba", "tqdm", "dask", "distributed", "zarr"}
WITHOUT_ANNDATA = ("counts", "metrics", "names", "plot", "presets", "ranks", "splits")
# libraries are loaded once; each file runs in a child of its own, which finds its own folder only
RUN = """
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
    """Return the siblings that a module's first lines name."""
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
        [sys.executable, "-c", RUN, ",".join(blocked), loaded, *modules],
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
