"""A read-only installation, used by somebody without a home: a cluster, a container."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_cells

PACKAGE = Path(__file__).resolve().parents[1] / "vcc_helpers"

COMMANDS = """
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
    site, place, words = tmp_path / "site", tmp_path / "place", [sys.executable, "-c", COMMANDS]
    if not os.geteuid():  # so that the rights of files hold: root is above them
        setpriv = shutil.which("setpriv") or pytest.skip("nothing takes root's rights away here")
        words = [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *words]
    shutil.copytree(PACKAGE, site / "vcc_helpers", ignore=shutil.ignore_patterns("__pycache__"))
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
