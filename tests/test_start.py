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
