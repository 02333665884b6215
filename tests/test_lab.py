"""JupyterLab, as `make lab` starts it, serves every notebook."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(tmp_path):
    """A server on this machine alone; yields its address and token, and ends it."""
    words = re.search(r"^lab:.*\n\t@.*jupyter-lab\" (.*)$", (ROOT / "Makefile").read_text(), re.M)
    program = Path(sys.executable).with_name("jupyter-lab")
    quiet = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--port-retries=0", "--allow-root"]
    home = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("RUNTIME", "CONFIG", "DATA")}
    with open(tmp_path / "log", "w+") as log:
        server = subprocess.Popen(
            [str(program), *words[1].split(), *quiet],
            cwd=ROOT, env=os.environ | home, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            for _ in range(240):
                found = list((tmp_path / "RUNTIME").glob("jpserver-*.json"))
                if found or server.poll() is not None:
                    break
                time.sleep(0.25)
            assert found, (tmp_path / "log").read_text()[-3000:]
            about = json.loads(found[0].read_text())
            yield about["url"], {"Authorization": f"token {about['token']}"}
        finally:
            server.terminate()
            server.wait(30)


def get(lab, path):
    address, headers = lab
    with urlopen(Request(address + path, headers=headers), timeout=60) as answer:
        assert answer.status == 200
        return answer.read().decode()


def test_the_lab_opens_on_the_notebooks(lab):
    assert "JupyterLab" in get(lab, "lab")
    shown = {entry["name"] for entry in json.loads(get(lab, "api/contents"))["content"]}
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} <= shown
    assert "python3" in json.loads(get(lab, "api/kernelspecs"))["kernelspecs"]
