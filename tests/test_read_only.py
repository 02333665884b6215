"""A read-only installation, used by somebody without a home: a cluster, a container."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_cells

PACKAGE = Path(__file__).resolve().parents[1] / "vcc_helpers"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rights are those of POSIX systems")


def without_rights() -> list[str]:
    """Words before a command, so that the rights of files hold for it: root is above them."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("run as root, and setpriv, which takes root's rights away, is not there")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs Python's words with a copy of the package that is read-only."""
    site, place = tmp_path / "site", tmp_path / "place"
    shutil.copytree(PACKAGE, site / "vcc_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    place.mkdir()
    for path in [*site.rglob("*"), site]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "HOME": str(site / "none")}

    def call(*words):
        command = [*without_rights(), sys.executable, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)

    yield call
    for path in [site, *site.rglob("*")]:
        path.chmod(0o755)


COMMANDS = """
import vcc_helpers
from vcc_helpers.cli import main
try:
    open(vcc_helpers.__file__ + "x", "w")
except PermissionError:
    pass
else:
    raise SystemExit("the folder can be written to")
for words in ("score a.h5ad a.h5ad", "check a.h5ad"):
    assert main(words.split()) == 0, words
"""


def test_commands_work_in_silence(run, tmp_path):
    make_cells()[:, :-1].copy().write_h5ad(tmp_path / "place/a.h5ad")  # every gene is expressed
    done = run("-c", COMMANDS)  # in one process, as each compiles anew
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "site").rglob("*.nbi"))
