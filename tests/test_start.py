"""The package and its command start at once: what is heavy is loaded when it is touched."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, make_cells

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
    shutil.copytree(ROOT / "vcc_helpers", site / "vcc_helpers", ignore=built)
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
