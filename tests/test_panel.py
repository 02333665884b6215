"""A panel: some cells of an official file, by ranges, from a server on the loopback address."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import cli
from vcc_helpers.datasets import Size, _official, _panel, _remote, fetch_h1, write_h1_like

NAME = "adata_Training.h5ad"
HOW = {"cells_per_target": 5, "controls": 20}
SMALL = Size(n_genes=300, n_targets=(6, 2, 2), n_controls=80, cells_per_target=40)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / NAME
    return write_h1_like(path, size=SMALL, part="train", progress=False)


class Handler(BaseHTTPRequestHandler):
    """Serve the bytes that are asked for; or do what the server's fault says to this request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        start, last = map(int, wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(server.content) - 1)
        with server.lock:
            server.asked.append((start, last + 1))
            fault = server.fault(len(server.asked)) or {}
        body = fault.get("change", lambda body: body)(server.content[start : last + 1])
        size, shift = fault.get("size", len(server.content)), fault.get("shift", 0)
        span = f"bytes {start + shift}-{last}/{size}"
        self.send_response(fault.get("status", 206))
        self.send_header("Content-Range", span)
        self.send_header("ETag", fault.get("etag", '"one"'))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: fault.get("cut", len(body))])
        self.close_connection = bool(fault)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(source, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_remote, "ATTEMPTS", 3)
    monkeypatch.setattr(_remote, "PAUSE", 0.001)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.lock, running.asked = source.read_bytes(), threading.Lock(), []
    running.fault = lambda number: None
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def fetch(server, folder, **how):
    options = {**HOW, "folder": folder, "base_url": server.url, "progress": False, **how}
    return fetch_h1("train", **options)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def n_bytes(server):
    return sum(stop - start for start, stop in server.asked)


def test_a_panel_holds_the_rows_of_the_file(server, source, tmp_path):
    panel, whole = anndata.read_h5ad(fetch(server, tmp_path)), anndata.read_h5ad(source)
    rows = panel.obs["source_row"].to_numpy()
    assert (panel.X != whole.X[rows]).nnz == 0 and panel.X.dtype == np.uint16
    assert panel.obs_names.equals(whole.obs_names[rows]) and panel.var.equals(whole.var)
    for column in ("target_gene", "guide_id", "batch"):
        there = whole.obs[column].astype(str).to_numpy()
        assert (panel.obs[column].astype(str) == there[rows]).all()
    sizes, there = (cells.obs["target_gene"].value_counts() for cells in (panel, whole))
    wanted = pd.Series({name: 20 if name == "non-targeting" else 5 for name in there.index})
    assert (sizes[there.index] == np.minimum(wanted, there)).all()
    assert panel.obs["target_gene"].is_monotonic_increasing
    assert panel.uns["simulated"] and panel.uns["panel"]["etag"] == '"one"'
    assert panel.uns["panel"]["bytes"] == len(server.content)


def test_little_more_travels_than_the_chosen_cells(server, source, tmp_path, monkeypatch):
    monkeypatch.setattr(_remote, "BLOCK", 2**12)
    panel = anndata.read_h5ad(fetch(server, tmp_path, cells_per_target=30, controls=60))
    with h5py.File(source) as file:
        values = np.diff(file["X/indptr"][:])[panel.obs["source_row"]].sum()
        size = sum(file[f"X/{name}"].dtype.itemsize for name in ("data", "indices"))
        labels = sum(file[name].id.get_storage_size() for name in ("X/indptr", "obs/_index"))
    assert n_bytes(server) <= 1.15 * (values * size + labels) + 2**17


def test_draws_differ_with_the_seed_only(tmp_path):
    labels = np.repeat(["A", "B", "non-targeting"], (50, 3, 90))
    draw = {"cells_per_target": 9, "controls": 30}
    first, again, other = (_panel.choose(labels, **draw, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.bincount(np.searchsorted([50, 53], other, side="right")).tolist() == [9, 3, 30]


def test_genes_are_kept_in_the_given_order(server, source, tmp_path):
    names = anndata.read_h5ad(source).var_names[[7, 3, 250]].tolist()
    panel = anndata.read_h5ad(fetch(server, tmp_path, genes=names))
    whole = anndata.read_h5ad(source)[panel.obs["source_row"], names]
    assert panel.var_names.tolist() == names and (panel.X != whole.X).nnz == 0
    with pytest.raises(ValueError, match="NOPE.*not in the file"):
        fetch(server, tmp_path / "other", genes=[*names, "NOPE"])


@pytest.mark.parametrize("chunks", [(1000,), None], ids=["chunks", "contiguous"])
def test_any_layout_that_is_not_compressed(chunks, server, source, tmp_path):
    cells = anndata.read_h5ad(source)
    cells.X = sparse.csr_matrix(cells.X.astype(np.int64))
    path = tmp_path / "other.h5ad"
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name in ("data", "indices"):
            values = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            file["X"].create_dataset(name, data=values, chunks=chunks)
    server.content = path.read_bytes()
    panel = anndata.read_h5ad(fetch(server, tmp_path / "panel"))
    assert (panel.X != cells.X[panel.obs["source_row"].to_numpy()]).nnz == 0


def once(number, **fault):
    """Return a server's fault that hits one request only."""
    return lambda n: fault if n == number else None


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"cut": 10}, {"shift": 1}, {"status": 429}],
    ids=["busy", "cut", "another part", "too many"],
)
def test_what_passes_is_tried_again(fault, server, tmp_path):
    server.fault = once(12, **fault)
    disturbed = fetch(server, tmp_path / "disturbed")
    server.fault = lambda number: None
    assert disturbed.read_bytes() == fetch(server, tmp_path / "quiet").read_bytes()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 404}, "answers 404"),
        ({"status": 200}, "fetch the whole one, without cells_per_target"),
        ({"status": 500}, "given up after 3 attempts"),
        ({"etag": '"two"'}, "was replaced by another file"),
        ({"size": 5}, "was replaced by another file"),
    ],
    ids=["gone", "no ranges", "always busy", "another version", "another size"],
)
def test_what_does_not_pass_is_told_and_nothing_is_half(fault, words, server, tmp_path):
    server.fault = lambda number: fault if number > 20 else None
    with pytest.raises(ConnectionError, match=words):
        fetch(server, tmp_path)
    assert visible(tmp_path) == []
    server.fault = lambda number: None
    fetch(server, tmp_path)
    assert visible(tmp_path) == [NAME]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")]


@pytest.mark.parametrize("where", ["data", "indices"])
def test_bytes_that_are_no_counts_are_refused(where, server, source, tmp_path):
    with h5py.File(source) as file:
        first = file[f"X/{where}"].id.get_chunk_info(0).byte_offset
    wrong = bytearray(server.content)
    wrong[first : first + 2**18] = b"\xff" * 2**18
    server.content = bytes(wrong)
    with pytest.raises(ValueError, match="no counts of 300 genes"):
        fetch(server, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("byte", [b"\0", b"<html>"])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_structure_that_is_none_is_told(number, byte, server, tmp_path):
    wrong = {"change": lambda body: (byte * len(body))[: len(body)]}
    server.fault = lambda n: wrong if n > number else None
    with pytest.raises(ValueError, match="cannot be read as an official file of cells"):
        fetch(server, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.__delitem__("X/data"), "data"),
        (lambda file: file["obs"].__delitem__("target_gene"), "target_gene"),
        (lambda file: file["X/indices"].resize((9,)), "row pointers"),
        (lambda file: file["X"].attrs.__setitem__("encoding-type", "csc_matrix"), "as CSR"),
    ],
    ids=["no values", "no labels", "too few columns", "by genes"],
)
def test_a_file_of_another_form_is_told(spoil, words, server, source, tmp_path):
    path = tmp_path / "other.h5ad"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        spoil(file)
    server.content = path.read_bytes()
    with pytest.raises(ValueError, match=f"cannot be read as an official.*{words}"):
        fetch(server, tmp_path / "panel")


def test_values_that_were_never_written_are_refused(server, source, tmp_path):
    path = tmp_path / "hollow.h5ad"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        n = len(file["X/data"])
        del file["X/data"]
        file["X"].create_dataset("data", (n,), np.float32, chunks=(1000,))[: n // 2] = 1
    server.content = path.read_bytes()
    with pytest.raises(ValueError, match="never written"):
        fetch(server, tmp_path / "panel")


def test_a_damaged_part_is_fetched_again_and_a_link_is_not_followed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_panel, "CELLS", 8)
    whole = fetch(server, tmp_path / "whole")
    server.fault = lambda number: {"status": 404} if number > 200 else None
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path / "cut")
    (folder,) = (tmp_path / "cut").glob(".*.parts")
    next(folder.iterdir()).write_bytes(b"no archive")
    server.fault = lambda number: None
    assert fetch(server, tmp_path / "cut").read_bytes() == whole.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / folder.name).symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="is a link"):
        fetch(server, tmp_path / "linked")
    assert not list(elsewhere.iterdir())


def test_a_run_that_stopped_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_panel, "CELLS", 8)
    whole = fetch(server, tmp_path / "whole")
    server.asked.clear()
    server.fault = lambda number: {"status": 404} if number > 80 else None
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path / "cut")
    answered = {span for span in server.asked[:80] if span[0] % _remote.BLOCK}
    server.fault = lambda number: None
    server.asked.clear()
    assert fetch(server, tmp_path / "cut").read_bytes() == whole.read_bytes()
    begun = 2 * 8 + _remote.THREADS  # a part that was not whole, and what was on its way
    assert len(answered) > 2 * begun and len(answered & set(server.asked)) <= begun


def test_a_panel_that_is_there_is_not_fetched_again(server, tmp_path):
    first = fetch(server, tmp_path)
    server.asked.clear()
    assert fetch(server, tmp_path) == first and not server.asked
    with pytest.raises(FileExistsError, match="cells_per_target 5, wanted 6"):
        fetch(server, tmp_path, cells_per_target=6)


def test_a_compressed_file_has_no_panel(server, source, tmp_path):
    path = tmp_path / "packed.h5ad"
    anndata.read_h5ad(source).write_h5ad(path, compression="gzip")
    server.content = path.read_bytes()
    with pytest.raises(ValueError, match="compressed"):
        fetch(server, tmp_path / "panel")


def test_the_published_size_is_expected_at_the_published_address(server, tmp_path, monkeypatch):
    official = _official.OFFICIAL["train"]._replace(base=server.url + "/")
    monkeypatch.setitem(_official.OFFICIAL, "train", official)
    with pytest.raises(ConnectionError, match=f"expected {official.n_bytes:,}"):
        fetch(server, tmp_path, base_url=None)


def test_the_command_fetches_a_panel_and_verifies_it(server, tmp_path, monkeypatch, capsys):
    official = _official.OFFICIAL["train"]
    here = official._replace(base=server.url + "/", n_bytes=len(server.content))
    monkeypatch.setitem(_official.OFFICIAL, "train", here)
    words = ["fetch", "train", "--cells-per-target", "5", "--controls", "20"]
    assert cli.main([*words, "--folder", str(tmp_path), "--verify-panel"]) == 0
    out = capsys.readouterr().out
    assert visible(tmp_path) == [NAME]
    again = ["fetch", "train", "--folder", str(tmp_path), "--verify-panel"]
    assert cli.main(again) == 0 and capsys.readouterr().out == out  # and nothing is fetched
    assert cli.main(["fetch", "test", *again[2:]]) == cli.main([*again[:3], "/none", again[4]]) == 1
    assert "fetch train\n" in (said := capsys.readouterr().err) and "no panel at /none" in said
    figures = _panel.verify_panel(tmp_path / NAME)
    assert figures.to_string() in out and figures["published"].to_dict() == _panel._PUBLISHED
    assert figures.loc[["targets", "genes", "control cells"], "here"].tolist() == ["6", "300", "80"]
    sizes = anndata.read_h5ad(tmp_path / NAME).uns["panel_of"]
    assert sizes.loc["non-targeting"].tolist() == [80, 20] and sizes["fetched"].max() == 20


@pytest.mark.parametrize(
    ("what", "how", "words"),
    [
        ("support_set", {}, "no panel of 'support_set'"),
        ("train", {"cells_per_target": 0}, "cells_per_target must be a whole number"),
        ("train", {"controls": 1.5}, "controls must be a whole number"),
        ("train", {"cells_per_target": None, "genes": ["A"]}, "for a panel only"),
    ],
)
def test_a_wrong_wish_is_told_before_anything_travels(what, how, words, server, tmp_path):
    with pytest.raises(ValueError, match=words):
        fetch_h1(what, **{**HOW, **how}, folder=tmp_path, base_url=server.url)
    assert not server.asked
