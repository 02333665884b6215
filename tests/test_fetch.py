"""Whatever happens on the way, a file under its final name is the published one.

The server is a real one, on the loopback address; each fault is what it does with one request.
"""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, refuses

from vcc_helpers.datasets import _download, _official
from vcc_helpers.datasets._fetch import fetch_h1

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
HALF = len(CONTENT) // 2
NAME = "adata_Training.h5ad"


class Handler(BaseHTTPRequestHandler):
    """Serve the file, with ranges; or do what the next fault of the server's list says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        faults = self.server.faults
        fault = faults.pop(0) if len(faults) > 1 else (faults or [{}])[0]
        self.close_connection = True
        if wait := fault.get("stall_first"):
            self.server.over.wait(wait)
            return
        if status := fault.get("status"):
            self.send_response(status)
            for key, value in fault.get("headers", {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_file(fault)

    def send_file(self, fault):
        content = fault.get("content", self.server.content)
        wanted, start = self.headers.get("Range"), 0
        if wanted and not fault.get("ignore_range"):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            start += fault.get("shift", 0)
            self.send_response(206)
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if not fault.get("no_length"):
            self.send_header("Content-Length", str(len(body) + fault.get("lie", 0)))
        self.end_headers()
        self.wfile.write(body[: fault.get("cut", len(body))])
        self.wfile.flush()
        if fault.get("stall"):
            self.server.over.wait(5)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.over = CONTENT, threading.Event()
    running.faults, running.asked = [], []
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.over.set()
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def small_file(monkeypatch):
    digest = hashlib.sha256(CONTENT).hexdigest()
    small = _official.OfficialFile(f"train/{NAME}", len(CONTENT), digest)
    monkeypatch.setitem(_official.OFFICIAL, "train", small)
    for name, value in {"ATTEMPTS": 3, "TIMEOUT": 0.2, "PAUSE": 0.001}.items():
        monkeypatch.setattr(_download, name, value)


def fetch(server, folder, **options):
    return fetch_h1("train", folder=folder, base_url=server.url, **{"progress": False, **options})


def visible(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


def rerun_completes(server, folder):
    """With a healthy server the next run ends with the right bytes, and nothing lies around."""
    server.faults[:] = []
    assert fetch(server, folder).read_bytes() == CONTENT
    assert visible(folder) == [NAME]


def ranges(server):
    return [headers.get("Range") for _, headers in server.asked]


def test_fetches_names_and_checks(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / NAME and path.read_bytes() == CONTENT
    assert server.asked[0][0] == f"/train/{NAME}" and ranges(server) == [None]
    assert visible(path.parent) == [NAME]


def test_a_file_that_is_there_is_neither_fetched_nor_read_again(server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    path = fetch(server, tmp_path)  # read once, and noted
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(OTHER)
    os.utime(path, ns=times)  # other bytes that look unchanged: who does not read sees no change
    assert fetch(server, tmp_path).read_bytes() == OTHER and not server.asked


@pytest.mark.parametrize("same_size", [True, False])
def test_another_file_of_that_name_is_told_and_left(server, tmp_path, same_size):
    path = fetch(server, tmp_path)
    content = OTHER if same_size else OTHER[:-1]
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))  # a change within the clock's tick is one all the same
    with pytest.raises(FileExistsError, match="not the official file.* expected .*move it away"):
        fetch(server, tmp_path)
    assert path.read_bytes() == content and len(server.asked) == 1


def test_the_folder_is_the_argument_or_the_variable_or_the_default(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VCC_DATA", str(tmp_path / "named"))
    assert fetch(server, None).parent == tmp_path / "named"
    monkeypatch.setenv("VCC_DATA", "simulated")
    assert fetch(server, None).parent == Path("data/h1")
    monkeypatch.delenv("VCC_DATA")
    assert fetch(server, None).resolve() == tmp_path / "data/h1" / NAME
    refuses("no official file 'x'; choose one of 'sample', ", fetch_h1, "x", error=KeyError)


def test_says_what_it_takes_and_shows_progress(server, tmp_path, capsys):
    fetch(server, tmp_path, progress=True)
    said = capsys.readouterr().err
    assert f"{NAME} takes 300kB more in {tmp_path}, " in said and " free" in said
    assert "300k/300k" in said and "checking" in said
    fetch(server, tmp_path / "silent", progress=False)
    assert capsys.readouterr() == ("", "")


#: Faults that pass: the same run completes.
CUT, REST = {"cut": HALF}, f"bytes={HALF}-"
PASSING = {
    "cut twice": ([{"cut": 1000}, {"cut": 1000}, {}], [None, "bytes=1000-", "bytes=2000-"]),
    "stalls in the middle": ([{"cut": HALF, "stall": True}, {}], [None, REST]),
    "stalls before the answer": ([{"stall_first": 2}, {}], [None, None]),
    "announces too few bytes": ([{"lie": -1000}, {}], [None, None]),
    "knows no ranges": ([CUT, {"ignore_range": True}], [None, REST]),
    "416, then well": ([CUT, {"status": 416}, {}], [None, REST, None]),
    "another part than asked": ([CUT, {"shift": 7}, {}], [None, REST, REST]),
    "redirected": ([CUT, {"status": 307, "headers": {"Location": "/x"}}, {}], [None, REST, REST]),
    "announces no length, cut": ([{"no_length": True, "cut": HALF}, {}], [None, REST]),
}


@pytest.mark.parametrize(("faults", "asked"), PASSING.values(), ids=PASSING)
def test_one_run_overcomes(server, tmp_path, faults, asked):
    server.faults = list(faults)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert ranges(server) == asked
    assert visible(tmp_path) == [NAME]


#: Faults that stay: the run gives up with a clear error, and the next one completes.
LASTING = {
    "no byte ever": ({"cut": 0}, ConnectionError, "given up after 3 attempts", 0),
    "stalls for ever": ({"stall_first": 2}, ConnectionError, "no connection.*timed out", None),
    "500 for ever": ({"status": 500}, ConnectionError, "answers 500.*check the connection", None),
    "404": ({"status": 404}, ConnectionError, "answers 404.*may have moved.*base_url", None),
    "wrong bytes": ({"content": OTHER}, ValueError, "not those .* published.*sha256.*again", None),
    "another size": ({"content": OTHER[:1000]}, ConnectionError, "announces 1,000 bytes, exp", 0),
}


@pytest.mark.parametrize(("fault", "error", "message", "part"), LASTING.values(), ids=LASTING)
def test_a_lasting_fault_leaves_no_file(server, tmp_path, fault, error, message, part):
    server.faults = [fault]
    refuses(message, fetch, server, tmp_path, error=error)
    assert not (tmp_path / NAME).exists()
    left = tmp_path / f"{NAME}.part"
    assert (left.stat().st_size if left.exists() else None) == part
    rerun_completes(server, tmp_path)


@pytest.mark.parametrize("left", ["full, wrong", "too long", "with a note cut short"])
def test_what_an_earlier_run_left_is_judged(server, tmp_path, left):
    part, note = tmp_path / f"{NAME}.part", tmp_path / f".{NAME}.fetch"
    part.write_bytes({"full, wrong": OTHER, "too long": CONTENT + b"!"}.get(left, CONTENT[:HALF]))
    note.write_text('{"bytes": ')
    if left == "full, wrong":
        refuses("not those that were published.*were removed", fetch, server, tmp_path)
        assert visible(tmp_path) == [] and not server.asked
    rerun_completes(server, tmp_path)


def test_attempts_are_counted_anew_after_every_success(server, tmp_path):
    server.faults = [{"cut": 1000}, {"status": 500}, {"status": 500}] * 3 + [{}]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 10


def test_pauses_grow_and_are_bounded(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(_download.time, "sleep", pauses.append)
    monkeypatch.setattr(_download, "ATTEMPTS", 9)
    monkeypatch.setattr(_download, "PAUSE", 1.0)
    server.faults = [{"status": 503}]
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_no_network_at_all_shows_soon(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "ATTEMPTS", 9)
    server.url = "http://127.0.0.1:9"  # where nothing answers
    with pytest.raises(ConnectionError, match="no connection .* after 3 attempts"):
        fetch(server, tmp_path)


def test_what_it_takes_must_fit_the_disk(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=HALF)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"takes 300kB more.*make room.*folder=") as caught:
        fetch(server, tmp_path)
    assert caught.value.errno == errno.ENOSPC and not server.asked and visible(tmp_path) == []
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:HALF])  # this half needs no room again
    assert fetch(server, tmp_path).read_bytes() == CONTENT and ranges(server) == [f"bytes={HALF}-"]


def test_the_disk_fills_up_on_the_way(server, tmp_path):
    """The operating system itself refuses to write on: a limit on the size of a file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
    try:
        with pytest.raises(OSError, match=f"cannot write in {tmp_path}: .* has arrived is kept"):
            fetch(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / f"{NAME}.part").stat().st_size == HALF
    assert visible(tmp_path) == [f"{NAME}.part"]
    rerun_completes(server, tmp_path)
    assert ranges(server)[-1] == f"bytes={HALF}-"


def test_a_folder_that_takes_no_note(server, tmp_path):
    """A file can't be fetched into it; one that is there is read each time."""
    (tmp_path / f".{NAME}.fetch").mkdir()
    refuses("cannot write into .*folder=", fetch, server, tmp_path, error=OSError)
    (tmp_path / NAME).write_bytes(CONTENT)
    for _ in range(2):
        assert fetch(server, tmp_path) == tmp_path / NAME
    assert not server.asked


def child(server, folder):
    """Arguments of a process that fetches the small file."""
    code = (
        "from vcc_helpers.datasets import _fetch, _official as o; "
        f"o.OFFICIAL['train'] = o.OfficialFile(*{tuple(_official.OFFICIAL['train'])!r}); "
        f"_fetch.fetch_h1('train', folder={str(folder)!r}, base_url={server.url!r}, "
        "progress=False)"
    )
    return {"args": [sys.executable, "-c", code], "cwd": ROOT}


def test_two_at_once_of_which_one_is_killed(server, tmp_path):
    server.faults = [{"cut": HALF, "stall": True}]
    part, end = tmp_path / f"{NAME}.part", time.monotonic() + 60
    with subprocess.Popen(**child(server, tmp_path), stderr=subprocess.DEVNULL) as process:
        while not (part.exists() and part.stat().st_size):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)
        with pytest.raises(BlockingIOError, match="another run is fetching .*run again"):
            fetch(server, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert visible(tmp_path) == [part.name] and 0 < (kept := part.stat().st_size) <= HALF
    rerun_completes(server, tmp_path)
    assert ranges(server) == [None, f"bytes={kept}-"]
