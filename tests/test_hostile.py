"""Files that lie: every reader says what is wrong or reads what is right, and nothing dies."""

import multiprocessing
import pickle
import sys
import tracemalloc
import warnings
import zlib
from multiprocessing import forkserver
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, matrix_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from vcc_helpers import pseudobulk
from vcc_helpers.stream import inspect_values, open_cells, read_rows, row_blocks

if not sys.platform.startswith("linux"):
    pytest.skip("the bound of memory is that of Linux", allow_module_level=True)

import hostile_driver  # noqa: E402

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["hostile_driver"])


def cells(*, dense=False):
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (30, 8)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame({KEY: ["A", "B", CONTROL] * 10}, index=[f"c{i}" for i in range(30)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(8)])
    return anndata.AnnData(counts if dense else sparse.csr_matrix(counts), obs=obs, var=var)


def replaced(group, name, data, **kw):
    attributes = dict(group[name].attrs)
    del group[name]
    group.create_dataset(name, data=data, **kw)
    group[name].attrs.update(attributes)


def set_attribute(place, name, value):
    def change(file):
        file[place].attrs[name] = value

    return change


def names_too_long(file):
    """Repeat three names; AnnData 0.13 stores them as a group of values and a mask."""
    nullable = isinstance(file["obs/_index"], h5py.Group)
    for place in ("obs/_index/values", "obs/_index/mask") if nullable else ("obs/_index",):
        change_array(place, lambda names: np.append(names, names[:3]))(file)


def change_array(place, change):
    def spoil(file):
        group, name = place.rsplit("/", 1)
        replaced(file[group], name, change(file[place][:]))

    return spoil


def at(index, value):
    def change(array):
        array = array.astype(np.int64)
        array[index] = value
        return array

    return change


def huge(place, shape):
    """Declare an array that no machine could hold, and store nothing of it."""

    def spoil(file):
        group, name = place.rsplit("/", 1)
        attributes, dtype = dict(file[place].attrs), file[place].dtype
        del file[place]
        chunks = (1000,) * len(shape)
        file[group or "/"].create_dataset(name, shape, dtype, chunks=chunks)
        file[place].attrs.update(attributes)

    return spoil


def without(*places):
    def spoil(file):
        for place in places:
            del file[place]

    return spoil


def link(place, target):
    def spoil(file):
        del file[place]
        file[place] = target

    return spoil


def into_dtype(dtype):
    return change_array("X/data", lambda data: data.astype(dtype))


def loop(file):
    file["obs/loop"] = h5py.SoftLink("/obs/loop")


def itself(file):
    file["X/again"] = file["X"]


def compound(file):
    data = np.zeros(file["X/data"].shape, dtype=[("a", "f4"), ("b", "i4")])
    replaced(file["X"], "data", data)


def strings(file):
    data = np.full(file["X/data"].shape, "1", dtype=object)
    replaced(file["X"], "data", data, dtype=h5py.string_dtype())


def references(file):
    data = np.array([file["X"].ref] * file["X/data"].shape[0], dtype=h5py.ref_dtype)
    replaced(file["X"], "data", data, dtype=h5py.ref_dtype)


def pickled(file):
    payload = np.void(pickle.dumps(print))
    file["uns"].create_dataset("payload", data=payload)


def category_codes(value):
    def spoil(file):
        codes = file[f"obs/{KEY}/codes"][:].astype(np.int64)
        codes[0] = value
        replaced(file[f"obs/{KEY}"], "codes", codes)

    return spoil


SHORT = zlib.compress(bytes(8))


def short_chunk(place, packing, packed=SHORT):
    """Let a chunk unpack to less than it should; HDF5 fills the rest with what lay in memory."""

    def spoil(file):
        data, attributes = file[place][:], dict(file[place].attrs)
        del file[place]
        chunks = (5,) * data.ndim
        file.create_dataset(place, data=data, chunks=chunks, **packing)
        file[place].attrs.update(attributes)
        file[place].id.write_direct_chunk((5,) + (0,) * (data.ndim - 1), packed)

    return spoil


GZIP, SHUFFLED = {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}
REFUSED = {
    "shape too wide": set_attribute("X", "shape", (30, 10**12)),
    "shape too tall": set_attribute("X", "shape", (10**12, 8)),
    "shape negative": set_attribute("X", "shape", (-30, 8)),
    "shape of text": set_attribute("X", "shape", "thirty"),
    "column too large": change_array("X/indices", at(3, 10**6)),
    "column negative": change_array("X/indices", at(3, -5)),
    "pointer falls": change_array("X/indptr", at(5, 0)),
    "pointer beyond the data": change_array("X/indptr", at(-1, 10**9)),
    "pointer negative": change_array("X/indptr", at(2, -4)),
    "pointer too short": change_array("X/indptr", lambda p: p[:-3]),
    "pointer too long": change_array("X/indptr", lambda p: np.append(p, p[-1:])),
    "fewer columns than values": change_array("X/indices", lambda i: i[:-5]),
    "huge data": huge("X/data", (10**12,)),
    "huge pointer": huge("X/indptr", (10**12,)),
    "values of a short chunk": short_chunk("X/data", GZIP),
    "columns of a short chunk": short_chunk("X/indices", SHUFFLED),
    "no data": without("X/data"),
    "no indices": without("X/indices"),
    "no indptr": without("X/indptr"),
    "no X": without("X"),
    "no obs": without("obs"),
    "no var": without("var"),
    "no names of genes": without("var/_index"),
    "unknown encoding": set_attribute("X", "encoding-type", "made-up"),
    "strings": strings,
    "compound values": compound,
    "references": references,
    "complex values": into_dtype("complex64"),
    "labels of a lost category": category_codes(10**6),
    "dangling link": link("X", h5py.SoftLink("/nowhere")),
    "link to itself": link("X", h5py.SoftLink("/X")),
    "a group that holds itself": itself,
    "uns that holds the whole": lambda file: file["uns"].__setitem__("again", file["/"]),
    "obs too long": names_too_long,
}  # fmt: skip
READ = {
    "nothing wrong": lambda file: None,
    "big-endian": into_dtype(">f4"),
    "bytes": into_dtype("uint8"),
    "wide integers": into_dtype("int64"),
    "half precision": into_dtype("float16"),
    "truth values": lambda file: replaced(file["X"], "data", file["X/data"][:] > 0),
    "a pickle in uns": pickled,
    "wide pointers": change_array("X/indptr", lambda p: p.astype(np.uint64)),
}  # fmt: skip


WRONG_CHUNKS = {
    "unpacks to 8 bytes, not 100": SHORT,
    "unpacks to more than 100": zlib.compress(bytes(2**26)),
    "ends before its checksum": zlib.compress(bytes(100))[:-4],
}
DENSE = {
    f"{words}{' shuffled' * shuffled}": short_chunk("X", SHUFFLED if shuffled else GZIP, packed)
    for words, packed in WRONG_CHUNKS.items()
    for shuffled in (False, True)
}
#: Files of kilobytes that declare petabytes of zeros: read a block at a time, or refused.
PETABYTES = {
    "petabytes, dense": huge("/X", (10**6, 10**6)),
    "petabytes, sparse": huge("X/data", (10**14,)),
}


def external(file):
    del file["X"]
    file["X"] = h5py.ExternalLink("truth.h5ad", "X")


def virtual(file):
    attributes, shape = dict(file["X"].attrs), file["X"].shape
    del file["X"]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource("truth.h5ad", "X/data", shape=shape)
    file.create_virtual_dataset("X", layout).attrs.update(attributes)


OTHERS = {"external link": external, "virtual data": virtual}
CASES = REFUSED | READ | DENSE | PETABYTES | OTHERS


def written(folder, name):
    path = folder / "lies.h5ad"
    folder.mkdir(exist_ok=True)
    cells(dense=name in DENSE or name in OTHERS or "dense" in name).write_h5ad(path)
    with h5py.File(path, "a") as file:
        CASES[name](file)
    return path


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each file with each reader, in a process that may die: then in another one."""
    folder, found = tmp_path_factory.mktemp("hostile"), {}
    cells().write_h5ad(folder / "truth.h5ad")
    paths = {name: written(folder / str(i), name) for i, name in enumerate(CASES)}
    for name in OTHERS:
        (paths[name].parent / "truth.h5ad").symlink_to(folder / "truth.h5ad")
    before = {name: path.read_bytes() for name, path in paths.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
    while waiting := {name: path for name, path in paths.items() if name not in found}:
        receiver, sender = SERVER.Pipe(duplex=False)
        process = SERVER.Process(target=hostile_driver.probe, args=(waiting, sender))
        process.start()
        sender.close()
        try:
            while True:
                name, outcome = receiver.recv()
                found[name] = outcome
        except EOFError:
            process.join(60)
        if process.exitcode:
            name = next(name for name in waiting if name not in found)
            found[name] = {"interpreter": ("finding", f"died with {process.exitcode}")}
    changed = [name for name, path in paths.items() if path.read_bytes() != before[name]]
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not changed and left == {"lies.h5ad", "truth.h5ad"}
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_a_lie_is_refused_in_words(name, outcomes):
    found = outcomes[name]
    assert {kind for kind, _ in found.values()} <= {"read", "refused"}, found
    judges = [found[reader][0] for reader in ("blocks", "means", "scored", "sorted_file")]
    assert judges == ["refused"] * 4, found


@pytest.mark.parametrize("name", DENSE)
def test_a_wrong_chunk_of_a_dense_matrix_is_refused(name, outcomes):
    for reader in ("check", "blocks", "means", "scored", "sorted_file"):
        kind, text = outcomes[name][reader]
        assert kind == "refused" and name.removesuffix(" shuffled") in text, (reader, kind, text)


def test_a_chunk_that_unpacks_to_much_more_fills_no_memory(tmp_path):
    path = written(tmp_path, "unpacks to more than 100")
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than 100"):
        list(row_blocks(open_cells(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("name", READ)
def test_what_is_odd_but_true_is_read(name, outcomes):
    found, expected = outcomes[name], cells().X.sum()
    if name == "truth values":
        expected = (cells().X > 0).sum()
    assert {kind for kind, _ in found.values()} <= {"read", "refused"}, found
    assert found["blocks"] == ("read", str(float(expected))), found["blocks"]
    assert found["means"][0] == found["scored"][0] == "read", found


@pytest.mark.filterwarnings("ignore:.*without encoding metadata")
def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    hostile_driver.check(written(tmp_path, "nothing wrong"))  # Numba's own, once
    monkeypatch.setattr("pickle.loads", lambda *_: pytest.fail("a pickle was opened"))
    hostile_driver.check(written(tmp_path, "a pickle in uns"))


@pytest.mark.parametrize("name", PETABYTES)
def test_a_matrix_larger_than_memory_is_not_allocated(name, outcomes):
    assert {kind for kind, _ in outcomes[name].values()} == {"refused"}, outcomes[name]


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_shows_another_is_not_opened_for_others(name, outcomes):
    kind, text = outcomes[name]["opened"]
    assert kind == "refused" and ("is a link" in text or "shows another file" in text)


# What is true of every matrix

DTYPES = ["u1", "u2", "i4", "i8", "f4", "f8", ">f4", ">i2"]
LAYOUTS = ["dense", "fortran", "csr", "csc", "unsorted", "zeros", "doubled"]


@st.composite
def matrices(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 6)))
    values = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 120)))
    keep = draw(arrays.arrays(bool, shape))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    return (values * keep).astype(dtype), draw(st.sampled_from(LAYOUTS))


def laid_out(dense, layout):
    if layout in ("dense", "fortran"):
        return matrix_of(dense, layout)
    native = dense.astype(dense.dtype.newbyteorder("="))
    if layout != "doubled":
        return matrix_of(native, layout)
    matrix = sparse.csr_matrix(native)  # each entry as two that add up to it
    half = matrix.data // 2
    parts = np.stack([half, matrix.data - half], axis=1).ravel().astype(native.dtype)
    entries = parts, np.repeat(matrix.indices, 2), matrix.indptr * 2
    return sparse.csr_matrix(entries, shape=matrix.shape)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(matrices(), st.sampled_from(["memory", "view", "file", "gzip"]), st.integers(1, 5))
def test_every_layout_says_the_same(tmp_path_factory, matrix, where, block_rows):
    dense, layout = matrix
    n, n_genes = dense.shape
    labels = [CONTROL if i % 2 else "A" for i in range(n)]
    obs = pd.DataFrame({KEY: labels}, index=[f"c{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    made = anndata.AnnData(laid_out(dense, layout), obs=obs, var=var)
    if where in ("file", "gzip"):
        path = tmp_path_factory.mktemp("any") / "x.h5ad"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.write_h5ad(path, compression="gzip" if where == "gzip" else None)
        made = open_cells(path)
    elif where == "view":
        made = made[:]
    expected = dense.astype(np.float64)
    blocks = [b.toarray() if sparse.issparse(b) else b
              for _, b in row_blocks(made, block_rows=block_rows)]  # fmt: skip
    np.testing.assert_array_equal(np.vstack(blocks), expected)
    rows = np.arange(0, n, 2)
    some = read_rows(made, rows)
    np.testing.assert_array_equal(some.toarray() if sparse.issparse(some) else some, expected[rows])
    summary = inspect_values(made)
    assert summary.scale == "counts"
    np.testing.assert_array_equal(summary.library_size, expected.sum(axis=1))
    totals = expected.sum(axis=1)
    target = np.median(totals[totals > 0]) if (totals > 0).any() else 1.0
    logs = np.log1p(expected / np.where(totals == 0, 1, totals / target)[:, None])
    bulk = pseudobulk(made)
    for label in bulk.obs_names:
        mean = logs[np.array(labels) == label].mean(axis=0)
        np.testing.assert_allclose(bulk[[label]].X[0], mean, rtol=1e-5, atol=1e-6)
