"""A panel: some cells of a file, by ranges, from a server on the loopback address."""

import gc
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import cli
from vcc_helpers.datasets import (
    Size,
    _official,
    _panel,
    _remote,
    fetch_h1,
    fetch_panel,
    open_world,
    read_contexts,
    read_screen,
    write_h1_like,
)

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
        server, wanted, content = self.server, self.headers["Range"], self.server.content
        if server.root is not None:  # a tree of files
            path = server.root / self.path.lstrip("/")
            content = path.read_bytes() if path.is_file() else None
        start, last = 0, len(content or b"") - 1
        if wanted:
            first, _, end = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(len(content) - int(end), 0)
            last = min(int(end), last) if first and end else last
        with server.lock:
            server.paths.append(self.path)
            fault = server.fault(len(server.paths)) or ({"status": 404} if content is None else {})
            server.asked.append((start, start if "status" in fault else last + 1))
        body = fault.get("change", lambda body: body)((content or b"")[start : last + 1])
        size, shift = fault.get("size", len(content or b"")), fault.get("shift", 0)
        span = f"bytes {start + shift}-{last}/{size}"
        self.send_response(fault.get("status", 206 if wanted else 200))
        self.send_header("Content-Range", span)
        self.send_header("Content-Type", fault.get("type", "binary/octet-stream"))
        self.send_header("ETag", fault.get("etag", '"one"'))
        self.send_header("Content-Length", str(fault.get("length", len(body))))
        self.end_headers()
        self.wfile.write(body[: fault.get("cut", len(body))])
        server.over.wait(fault.get("stall", 0))
        self.close_connection = bool(fault)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(source, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in {"ATTEMPTS": 3, "PAUSE": 0.001, "NEAR": 0}.items():
        monkeypatch.setattr(_remote, name, value)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.lock, running.root = source.read_bytes(), threading.Lock(), None
    running.asked, running.paths = [], []
    running.clear = lambda: (running.asked.clear(), running.paths.clear())
    running.fault, running.over = lambda number: None, threading.Event()
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.over.set()
    running.shutdown()
    running.server_close()


def fetch(server, folder, what="train", **how):
    options = {**HOW, "folder": folder, "base_url": server.url, "progress": False, **how}
    return fetch_h1(what, **options)


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


def test_the_three_parts_make_a_world(server, tmp_path):
    for part in ("validation", "test", "train"):
        path = write_h1_like(tmp_path / "whole.h5ad", size=SMALL, part=part, progress=False)
        server.content = path.read_bytes()
        panel = anndata.read_h5ad(fetch(server, tmp_path, what=part))
        whole = anndata.read_h5ad(path)[panel.obs["source_row"].to_numpy()]
        assert (panel.X != whole.X).nnz == 0 and panel.obs_names.equals(whole.obs_names)
    split = open_world(tmp_path, sources=False).split
    assert [len(split[part]) for part in ("train", "validation", "test")] == [6, 2, 2]


def test_draws_differ_with_the_seed_only(tmp_path):
    labels = np.repeat(["A", "B", "non-targeting"], (50, 3, 90))
    draw = {"cells_per_target": 9, "controls": 30}
    first, again, other = (_panel.choose(labels, **draw, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.bincount(np.searchsorted([50, 53], other, side="right")).tolist() == [9, 3, 30]


def test_each_cell_of_a_target_is_as_likely_as_any_other():
    """Also where the file is sorted by batch: what is drawn together comes from all of them."""
    rng, seeds = np.random.default_rng(0), range(1000)
    labels = rng.choice(["A", "B", "non-targeting"], 500, p=[0.2, 0.05, 0.75])
    draw = {"cells_per_target": 20, "controls": 60}
    drawn = sum(np.bincount(_panel.choose(labels, **draw, seed=s), minlength=500) for s in seeds)
    for name, wanted in (("A", 20), ("non-targeting", 60)):
        own = drawn[labels == name]
        share = wanted / len(own)
        noise = np.sqrt(len(seeds) * share * (1 - share))
        assert abs((own - own.mean()) / noise).max() < 4.5 and own.sum() == wanted * len(seeds)
    assert (drawn[labels == "B"] > 0).all()
    large = rng.choice([*range(150), "non-targeting"], 48 * 4610, p=[0.83 / 150] * 150 + [0.17])
    rows = _panel.choose(large, cells_per_target=60, controls=2000, seed=0)
    batches = pd.Series(rows // 4610)
    controls = batches[large[rows] == "non-targeting"].value_counts()
    assert len(controls) == 48 and controls.min() > 2000 / 48 / 3
    spread = batches.groupby(large[rows]).nunique().drop("non-targeting")
    assert spread.mean() > 0.95 * 48 * (1 - (1 - 1 / 48) ** 60)  # as of cells drawn one by one


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
    [{"status": 503}, {"cut": 10}, {"cut": 10, "stall": 9}, {"shift": 1}, {"status": 429}],
    ids=["busy", "cut", "stalls", "another part", "too many"],
)
def test_what_passes_is_tried_again(fault, server, tmp_path, monkeypatch):
    monkeypatch.setattr(_remote, "TIMEOUT", 1 if "stall" in fault else 60)
    server.fault = once(5, **fault)
    disturbed = fetch(server, tmp_path / "disturbed")
    server.fault = lambda number: None
    assert disturbed.read_bytes() == fetch(server, tmp_path / "quiet").read_bytes()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 404}, "answers 404"),
        ({"status": 400, "change": lambda _: b"<Code>Need</Code>a project"}, r"\(Need a project\)"),
        ({"status": 200, "type": "text/html; charset=utf-8"}, "a web page came in place"),
        ({"status": 200}, "fetch the whole one, without cells_per_target="),
        ({"status": 500}, "given up after 3 attempts"),
        ({"cut": 10, "stall": 9}, "given up after 3 attempts"),
        ({"etag": '"two"'}, "was replaced by another file"),
        ({"size": 5}, "was replaced by another file"),
    ],
    ids=[
        "gone",
        "wants an account",
        "login page",
        "no ranges",
        "always busy",
        "stalls",
        "another version",
        "another size",
    ],
)
def test_what_does_not_pass_is_told_and_nothing_is_half(
    fault, words, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(_remote, "TIMEOUT", 1 if "stall" in fault else 60)
    server.fault = lambda number: fault if number > 4 else None
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
    with pytest.raises(ValueError, match="no values of 300 genes"):
        fetch(server, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("byte", [b"\0", b"<html>"])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_structure_that_is_none_is_told(number, byte, server, tmp_path):
    wrong = {"change": lambda body: (byte * len(body))[: len(body)]}
    server.fault = lambda n: wrong if n > number else None
    with pytest.raises(ValueError, match="cannot be read as a file of cells"):
        fetch(server, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.__delitem__("X/data"), "data"),
        (lambda file: file["X/indices"].resize((9,)), "row pointers"),
        (lambda file: file["X"].attrs.__setitem__("encoding-type", "csc_matrix"), "as CSR"),
    ],
    ids=["no values", "too few columns", "by genes"],
)
def test_a_file_of_another_form_is_told(spoil, words, server, source, tmp_path):
    path = tmp_path / "other.h5ad"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        spoil(file)
    server.content = path.read_bytes()
    with pytest.raises(ValueError, match=f"cannot be read as a file.*{words}"):
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
    monkeypatch.setattr(_remote, "THREADS", 2)
    whole = fetch(server, tmp_path / "whole")
    n_requests = len(server.asked)
    server.fault = lambda number: {"status": 404} if number > n_requests // 2 else None
    server.clear()
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
    monkeypatch.setattr(_panel, "THREADS", 2)
    whole = fetch(server, tmp_path / "whole")
    n_whole, stop = len(server.asked), 2 * len(server.asked) // 3
    server.clear()
    server.fault = lambda number: {"status": 404} if number > stop else None
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path / "cut")
    answered = {span for span in server.asked[:stop] if span[0] % _remote.BLOCK}
    server.fault = lambda number: None
    server.clear()
    assert fetch(server, tmp_path / "cut").read_bytes() == whole.read_bytes()
    assert len(server.asked) < n_whole
    begun = 2 * 8 + 2  # a part that was not whole, and what was on its way
    assert len(answered) > 2 * begun and len(answered & set(server.asked)) <= begun


def test_a_panel_that_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / f".{NAME}.another.parts").mkdir()
    first = fetch(server, tmp_path)
    server.clear()
    assert fetch(server, tmp_path) == first and not server.asked
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{NAME}.fetch", NAME]
    with pytest.raises(FileExistsError, match="cells_per_target 5, wanted 6"):
        fetch(server, tmp_path, cells_per_target=6)
    first.write_bytes(server.content)
    with pytest.raises(FileExistsError, match="is no panel: the whole file"):
        fetch(server, tmp_path)


def other_cells(source, log=False):
    """Cells with other words than ours; `log`: as the lines of the support set have them."""
    cells = anndata.read_h5ad(source)
    cells.obs["line"] = np.where(np.arange(cells.n_obs) % 3, "A549", "HeLa")
    cells.obs["gene"] = cells.obs.pop("target_gene").astype(str).astype("category")
    if log:
        cells.X = np.log1p(cells.X.toarray() / 3).astype(np.float32)
    else:
        names = {"non-targeting": "DMSO_TF"}
        cells.obs["drug"] = cells.obs.pop("gene").cat.rename_categories(names)
    cells.uns = {}
    return cells


WAYS = {
    "gzip": lambda cells, path: cells.write_h5ad(path, compression="gzip"),
    "plain": lambda cells, path: cells.write_h5ad(path),
    "dense": lambda cells, path: cells.write_h5ad(path, as_dense="X"),
    "dense, gzip": lambda cells, path: cells.write_h5ad(path, as_dense="X", compression="gzip"),
    "zarr": lambda cells, path: cells.write_zarr(path, chunks=(50, 300)),
}


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:The codec", "ignore:Consolidated")
@pytest.mark.parametrize(
    ("way", "where"), [*((way, "address") for way in WAYS), ("gzip", "path"), ("zarr", "path")]
)
def test_a_panel_of_any_file(way, where, server, source, tmp_path):
    """As of an atlas: a plate of drugs, cell lines side by side, compressed or in Zarr's files."""
    cells = other_cells(source)
    path = tmp_path / ("plate.zarr" if way == "zarr" else "plate.h5ad")
    WAYS[way](cells, path)
    server.root = path.parent
    drugs = ["DMSO_TF", *cells.obs["drug"].cat.categories[:3]]
    choice = {"perturbation_key": "drug", "control": "DMSO_TF", "columns": ["batch"]}
    choice |= {"only": {"drug": drugs, "line": ["A549"]}, "cells_per_target": 7, "controls": 15}
    found = f"{server.url}/{path.name}" if where == "address" else path
    out = fetch_panel(found, tmp_path / "out.h5ad", **choice, progress=False)
    panel, rows = read_screen(out, perturbation_key="drug", control="DMSO_TF"), None
    rows = panel.obs["source_row"].to_numpy()
    assert panel.obs["target_gene"].value_counts().to_dict().pop("non-targeting") == 15
    assert (panel.obs["target_gene"].value_counts().drop("non-targeting") == 7).all()
    assert (panel.X != sparse.csr_matrix(cells.X)[rows]).nnz == 0
    assert (cells.obs["line"].to_numpy()[rows] == "A549").all()
    assert {"line", "batch"} < set(panel.obs) and "guide_id" not in panel.obs
    assert anndata.read_h5ad(out).X.dtype == np.uint16
    server.clear()
    assert fetch_panel(found, out, **choice, progress=False) == out and not server.asked
    with pytest.raises(ValueError, match="'drug' has no control 'DMSO'; it has .*'DMSO_TF'"):
        fetch_panel(found, tmp_path / "x.h5ad", **{**choice, "control": "DMSO"})
    for words in ({"columns": "batch"}, {"genes": "SOX2"}, {"only": {"line": "A549"}}):
        with pytest.raises(ValueError, match="must be a list of names, such as"):
            fetch_panel(found, tmp_path / "x.h5ad", **choice | words)
    with pytest.raises(KeyError, match="obs has no 'dose'; it has .*'drug'"):
        fetch_panel(found, tmp_path / "x.h5ad", **{**choice, "only": {"dose": ["1"]}})
    for lines in (["CHO"], ["A549", "CHO"]):
        with pytest.raises(ValueError, match="'line' has no 'CHO', it has .*'HeLa'"):
            fetch_panel(found, tmp_path / "x.h5ad", **{**choice, "only": {"line": lines}})


DRUGS = {"perturbation_key": "drug", "control": "DMSO_TF", "cells_per_target": 3, "controls": 9}


@pytest.fixture(params=["version 2", "version 3", "shards"])
def store(request, server, source, tmp_path):
    """A store with cells in an order that makes few of its parts hold a chosen one."""
    zarr, path = pytest.importorskip("zarr"), tmp_path / "plate.zarr"
    cells = other_cells(source)
    cells = cells[np.argsort(cells.obs["drug"].astype(str), kind="stable")].copy()
    with anndata.settings.override(zarr_write_format=2 + (request.param != "version 2")):
        cells.write_zarr(path)
    group = zarr.open_group(path, mode="a")
    for name in ("data", "indices"):
        values = group[f"X/{name}"][:]
        shards = {"shards": (20_000,)} if request.param == "shards" else {}
        group["X"].create_array(name, data=values, chunks=(1000,), **shards, overwrite=True)
    zarr.consolidate_metadata(path)
    server.root = tmp_path
    return cells, path


@pytest.mark.filterwarnings("ignore:Writing zarr", "ignore:The codec", "ignore:Consolidated")
def test_of_a_zarr_store_at_an_address_the_parts_with_chosen_cells_travel(store, server, capsys):
    cells, path = store
    out = fetch_panel(f"{server.url}/plate.zarr", path.with_name("out.h5ad"), **DRUGS)
    panel = anndata.read_h5ad(out)
    rows = panel.obs["source_row"].to_numpy()
    assert (panel.X != cells.X[rows]).nnz == 0 and panel.obs_names.equals(cells.obs_names[rows])
    ends = np.stack([cells.X.indptr[rows], cells.X.indptr[rows + 1] - 1]) // 1000
    holding = len({part for low, high in ends.T for part in range(low, high + 1)})
    share = holding / (cells.X.nnz / 1000)
    there = sum(file.stat().st_size for file in (path / "X/data").rglob("*") if file.is_file())
    asked = list(zip(server.paths, server.asked, strict=True))
    sent = [stop - start for name, (start, stop) in asked if "/X/data/" in name]
    assert (
        share < 0.4 and sum(sent) <= 1.15 * share * there + 2**12 and len(set(asked)) == len(asked)
    )
    assert f"in {2 * holding} pieces" in capsys.readouterr().err and len(sent) <= 1.5 * holding


@pytest.mark.filterwarnings("ignore:Writing zarr", "ignore:The codec", "ignore:Consolidated")
def test_a_zarr_store_that_breaks_is_told_and_the_next_run_goes_on(store, server, tmp_path):
    cells, path = store
    source, out = f"{server.url}/plate.zarr", tmp_path / "out.h5ad"
    for fault, error, words in (
        (lambda n: {"status": 500} if n > 30 else None, ConnectionError, "given up after 3"),
        (lambda n: {"change": lambda body: b"<html>" + body[6:]}, ValueError, "login page"),
        (lambda n: {"length": 10**13}, ConnectionError, "would send 10000000000000 b"),
        (lambda n: {"status": 403}, ConnectionError, "answers 403 Forbidden"),
        (lambda n: {"status": 404}, ConnectionError, "has no zarr.json or .zmetadata"),
        (
            lambda n: {"status": 404} if "/X/data/" in server.paths[-1] else None,
            ConnectionError,
            "404",
        ),
    ):
        server.clear()
        server.fault = fault
        with pytest.raises(error, match=words):
            fetch_panel(source, out, **DRUGS, progress=False)
        assert not out.exists()
    server.fault = once(20, status=503)
    panel = anndata.read_h5ad(fetch_panel(source, out, **DRUGS, progress=False))
    assert (panel.X != cells.X[panel.obs["source_row"].to_numpy()]).nnz == 0


def atlas_tree(source, folder):
    """Samples as scBaseCount publishes them: a file for each accession, with layers of counts."""
    cells = other_cells(source)
    tree = folder / "scbasecount/2026-01-12/h5ad/GeneFull_Ex50pAS/Homo_sapiens"
    tree.mkdir(parents=True)
    cells.obs = pd.DataFrame(
        {"SRX_accession": "", "cell_type": pd.Categorical(cells.obs["line"])},
        index=[f"AAAC{i:04d}" for i in range(cells.n_obs)],
    )
    whole = {}
    for i, name in enumerate(["SRX1", "ERX2", "NRX3"]):
        part = cells[150 * i : 150 * (i + 1)].copy()
        part.obs["SRX_accession"], part.obs_names = name, cells.obs_names[: part.n_obs]
        part.layers["UniqueAndMult-EM"] = part.X / 2
        part = part[part.obs["cell_type"] == "HeLa"].copy() if name == "NRX3" else part
        part.write_h5ad(tree / f"{name}.h5ad", compression="gzip")
        whole[name] = part
    return tree.relative_to(folder), whole


def test_samples_of_a_tree_of_files_become_one_panel(server, source, tmp_path):
    tree, whole = atlas_tree(source, tmp_path)
    server.root, out = tmp_path, tmp_path / "panel.h5ad"
    sources = [f"{server.url}/{tree}/{name}.h5ad" for name in whole]
    choice = {"perturbation_key": "cell_type", "cells_per_target": 6, "progress": False}
    only = {"cell_type": ["A549"]}
    server.fault = lambda n: {"status": 404} if "ERX2" in server.paths[-1] else None
    with pytest.raises(ConnectionError, match="ERX2.h5ad: the server answers 404"):
        fetch_panel(sources, out, **choice, only=only)
    server.fault = lambda n: None
    server.clear()
    panel = anndata.read_h5ad(fetch_panel(sources, out, **choice, only=only))
    assert not [path for path in server.paths if "SRX1" in path]  # is not fetched again
    assert panel.obs["source_file"].value_counts().to_dict() == {"SRX1": 6, "ERX2": 6}
    for name in ("SRX1", "ERX2"):
        part = panel[panel.obs["source_file"] == name]
        there = whole[name][part.obs["source_row"].to_numpy()]
        assert (part.X != there.X).nnz == 0 and set(part.obs["SRX_accession"]) == {name}
    assert panel.obs_names.is_unique and not panel.layers
    sizes = pd.concat(part.obs["cell_type"] for part in whole.values()).value_counts()
    assert panel.uns["panel_of"].loc["A549"].tolist() == [sizes["A549"], 12]
    assert visible(tmp_path) == ["panel.h5ad", "scbasecount"]
    both = fetch_panel(
        [tmp_path / tree / f"{n}.h5ad" for n in whole], tmp_path / "x.h5ad", **choice
    )
    assert anndata.read_h5ad(both).obs["cell_type"].value_counts().to_dict() == {
        "A549": 12,
        "HeLa": 18,
    }
    with pytest.raises(FileExistsError, match="only .*A549.*wanted .*CHO"):
        fetch_panel(sources, out, **choice, only={"cell_type": ["CHO"]})
    with pytest.raises(
        ValueError, match="leaves no cell of 3 files; the last .*no 'CHO', it has 'HeLa'"
    ):
        fetch_panel(sources, tmp_path / "z.h5ad", **choice, only={"cell_type": ["CHO"]})
    whole["ERX2"][:, ::-1].copy().write_h5ad(tmp_path / tree / "ERX2.h5ad")
    with pytest.raises(ValueError, match="ERX2.h5ad has other genes than the files before it"):
        fetch_panel(sources, tmp_path / "z.h5ad", **choice)


def archive(source, folder, packing):
    """The support set: a zip archive of lines, dense and as logarithms, in a folder of its own."""
    cells, found = other_cells(source, log=True), io.BytesIO()
    with zipfile.ZipFile(found, "w", packing) as packed:
        for i, name in enumerate(["competition_train", *_panel.LINES]):
            cells[i:].write_h5ad(folder / "line.h5ad")
            packed.write(folder / "line.h5ad", f"competition_support_set/{name}.h5")
    return cells, found.getvalue()


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_panels_of_the_other_lines(packing, server, source, tmp_path, monkeypatch, capsys):
    cells, whole = archive(source, tmp_path, packing)
    monkeypatch.setattr(_remote, "MUCH", 2**14)
    monkeypatch.setattr(_remote, "BLOCK", 2**12)
    server.content, how = whole, {"folder": tmp_path / "h1", "base_url": server.url, **HOW}
    server.fault = lambda number: {"status": 404} if number > 25 else None
    with pytest.raises(ConnectionError):
        fetch_h1("support_set", **how)
    server.fault = lambda number: None
    n_before = n_bytes(server)
    folder = fetch_h1("support_set", **how)
    said = capsys.readouterr().err
    assert ("deflated, so all its" in said) == (packing == zipfile.ZIP_DEFLATED)
    if packing == zipfile.ZIP_DEFLATED:  # and nothing travels twice, but the end of the archive
        assert n_bytes(server) < len(whole) and n_before > 2**17
    else:
        assert n_bytes(server) - n_before < len(whole) / 3
    contexts = read_contexts(folder)
    assert list(contexts) == ["HepG2", "Jurkat", "K562", "RPE1"]
    for i, line in enumerate(contexts.values(), start=1):
        rows = line.obs["source_row"].to_numpy()
        assert np.array_equal(line.X[:].toarray(), cells.X[i:][rows])
        assert line.obs["target_gene"].value_counts()["non-targeting"] == HOW["controls"]
    server.content = source.read_bytes()
    assert open_world(fetch(server, tmp_path / "h1").parent).sources == list(contexts)
    assert not [p for p in (tmp_path / "h1").rglob("*") if ".part" in p.name]
    server.clear()
    assert fetch_h1("support_set", **how) == folder and not server.asked
    with pytest.raises(FileExistsError, match="seed 0, wanted 1"):
        fetch_h1("support_set", **how, seed=1)


def test_an_archive_that_is_none_or_does_not_unpack_is_told(server, source, tmp_path):
    how = {"folder": tmp_path / "h1", "base_url": server.url, **HOW, "progress": False}
    with pytest.raises(ValueError, match="cannot be read as the support set"):
        fetch_h1("support_set", **how)
    _, whole = archive(source, tmp_path, zipfile.ZIP_DEFLATED)
    second = whole.index(b"hepg2") + 5000
    server.content = whole[:second] + bytes(300) + whole[second + 300 :]
    with pytest.raises(ValueError, match="hepg2.h5: the bytes .* do not unpack"):
        fetch_h1("support_set", **how)
    assert visible(tmp_path / "h1" / "contexts") == []
    server.content = whole
    assert len(visible(fetch_h1("support_set", **how))) == 4


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


def test_no_thread_collects_garbage_while_hdf5_waits_for_it(server, tmp_path, monkeypatch):
    """It would wait for HDF5's lock, and HDF5 for the thread: seen on Python 3.11."""
    once, seen = _remote.Server._once, []
    monkeypatch.setattr(
        _remote.Server,
        "_once",
        lambda *asked: seen.append((threading.current_thread(), gc.isenabled())) or once(*asked),
    )
    fetch(server, tmp_path)
    threads = [runs for thread, runs in seen if thread is not threading.main_thread()]
    assert len(threads) > 5 and not any(threads) and gc.isenabled()


def test_without_a_network_three_attempts_are_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_remote, "PAUSE", 0.001)
    with pytest.raises(ConnectionError, match="no connection .*; given up after 3 attempts"):
        fetch_h1("train", **HOW, folder=tmp_path, base_url="http://no.such.host.invalid:1")
    assert not visible(tmp_path)


def test_the_command_names_its_own_options(tmp_path, capsys):
    (tmp_path / NAME).write_bytes(b"another file")
    words = ["fetch", "train", "--cells-per-target", "5", "--folder", str(tmp_path)]
    assert cli.main(words) == 1 and "another folder with --folder\n" in capsys.readouterr().err
    assert cli.main(["fetch", "train", "--verify-panel", "--folder", str(tmp_path / "no")]) == 1
    assert "fetch one with --cells-per-target 60\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "how", "words"),
    [
        ("gene_names", {}, "no panel of 'gene_names'"),
        ("sample", {}, "no panel of 'sample'"),
        ("train", {"cells_per_target": 0}, "cells_per_target must be a whole number"),
        ("train", {"controls": 1.5}, "controls must be a whole number"),
        ("train", {"cells_per_target": None, "genes": ["A"]}, "for a panel only"),
    ],
)
def test_a_wrong_wish_is_told_before_anything_travels(what, how, words, server, tmp_path):
    with pytest.raises(ValueError, match=words):
        fetch_h1(what, **{**HOW, **how}, folder=tmp_path, base_url=server.url)
    assert not server.asked
