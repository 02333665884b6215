"""Each module works in another project, together with the siblings that its first lines name.

It is copied with these, and with no other, into an empty folder, and its doctests run there. The
bundled cells are data, not code: their loader comes along for the doctests that need some cells.
"""

import multiprocessing
import os
import re
import shutil
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("processes are forked, as POSIX systems do", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vcc_helpers"
WHOLE = ("__init__.py", "cli.py")  # the package and its command: there is nothing to copy alone
MODULES = sorted(path.name for path in PACKAGE.glob("*.py") if path.name not in WHOLE)
NEEDS = re.compile(r"^Needs:? (.*?)(?:\n\n|\"\"\")", re.DOTALL | re.MULTILINE)
#: Gives `vcc.score` and its like, as the real package does, out of the modules that were copied.
INIT = """
from importlib import import_module
from pathlib import Path

from . import datasets

for name in sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__"):
    for word, value in vars(import_module(f".{name}", __name__)).items():
        if getattr(value, "__module__", None) == f"{__name__}.{name}" and word[0] != "_":
            globals()[word] = value
"""
DATASETS = "from ._bundled import load_h1_sample, load_hipsc_screen\n"


def named(module: str) -> set[str]:
    """Return the siblings that a module's first lines name."""
    text = (PACKAGE / module).read_text(encoding="utf-8")
    found = NEEDS.search(text)
    assert found, f"{module} does not say what it needs"
    return set(re.findall(r"\b(\w+\.py)\b", found.group(1)))


def with_siblings(module: str) -> set[str]:
    """Return a module and all that it needs, directly or not."""
    found, new = set(), {module}
    while new:
        found |= new
        new = set().union(*(named(name) for name in new)) - found
    return found


def run_there(folder: str, module: str, queue) -> None:
    """Run the doctests of a copied module, in a process that knows no other package."""
    import doctest
    import warnings

    warnings.simplefilter("ignore")
    sys.path.insert(0, folder)
    os.chdir(folder)
    import vcc_helpers

    assert Path(vcc_helpers.__file__).is_relative_to(folder)
    copied = __import__(f"vcc_helpers.{module}", fromlist=[""])
    result = doctest.testmod(copied, verbose=False)
    queue.put((result.failed, result.attempted))


SERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def server():
    SERVER.set_forkserver_preload(["anndata", "scipy.stats", "sklearn.linear_model", "numba"])
    forkserver.ensure_running()


def copy(module: str, folder: Path) -> None:
    """Copy a module, what it needs, and the bundled cells."""
    package = folder / "vcc_helpers"
    (package / "datasets").mkdir(parents=True)
    (package / "__init__.py").write_text(INIT)
    for name in with_siblings(module):
        shutil.copy2(PACKAGE / name, package / name)
    compiled = PACKAGE / "__pycache__"
    for path in compiled.glob("kernels.*.nb?"):  # compiled code of Numba, to save a minute
        (package / "__pycache__").mkdir(exist_ok=True)
        shutil.copy2(path, package / "__pycache__" / path.name)
    (package / "datasets/__init__.py").write_text(DATASETS)
    shutil.copy2(PACKAGE / "datasets/_bundled.py", package / "datasets/_bundled.py")
    shutil.copytree(PACKAGE / "datasets/data", package / "datasets/data")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_works_with_the_siblings_it_names(module, tmp_path):
    copy(module, tmp_path)
    queue = SERVER.SimpleQueue()
    stem = module.removesuffix(".py")
    process = SERVER.Process(target=run_there, args=(str(tmp_path), stem, queue))
    process.start()
    process.join(300)
    assert process.exitcode == 0, "see the traceback above"
    failed, attempted = queue.get()
    assert failed == 0
    text = (PACKAGE / module).read_text(encoding="utf-8")
    assert attempted == len(re.findall(r"^ *>>> ", text, re.MULTILINE))


def test_a_module_names_no_sibling_too_many():
    for module in MODULES:
        text = (PACKAGE / module).read_text(encoding="utf-8")
        assert all((PACKAGE / name).exists() for name in named(module)), module
        used = set(re.findall(r"^ *from \.(\w+) import", text, re.MULTILINE))
        used |= set(re.findall(r"^ *from \. import (\w+)", text, re.MULTILINE))
        assert {f"{name}.py" for name in used} <= with_siblings(module) | {"datasets.py"}, module
