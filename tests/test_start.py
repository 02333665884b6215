"""The package and its command start at once: what is heavy is loaded when it is touched."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vcc_helpers
from vcc_helpers import bulk, cli, course, datasets

HEAVY = {"numpy", "scipy", "pandas", "anndata", "sklearn", "h5py", "numba", "tqdm", "matplotlib"}
COMMANDS = ("score", "check", "prep", "sort", "pseudobulk", "fetch", "simulate")


def run(code, *words):
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_importing_the_package_loads_nothing_heavy():
    done = run("import sys, vcc_helpers; print(*sys.modules)")
    assert done.returncode == 0 and not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["--wrong"], *([name, "--help"] for name in COMMANDS)]
)
def test_help_and_wrong_options_load_nothing_heavy(words):
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from vcc_helpers.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = run(code, *words)
    assert done.returncode == (2 if words == ["--wrong"] else 0)
    assert not HEAVY & set(done.stderr.split())


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "vcc_helpers", "--version"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == f"vcc-helpers {vcc_helpers.__version__}\n"


def test_the_command_names_what_the_package_names():
    assert (cli.CONTROL, cli.PERTURBATION_KEY) == (bulk.CONTROL, bulk.PERTURBATION_KEY)


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
