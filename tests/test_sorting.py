"""A sorted file holds exactly the source's rows, whatever the storage.

What interrupts a sort, and a full disk, is in test_faults.py.
"""

import re
import tracemalloc

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import KEY, STORAGES, annotated, dense_of, make_cells, refuses, stored
from scipy import sparse

from vcc_helpers import pseudobulk
from vcc_helpers.stream import _shelf, blocks, sort, sort_cells

pytestmark = pytest.mark.filterwarnings("error:not carried over")


def assert_sorted(path, source, obs=None):
    """Groups by name, the source's order within; every row and label as in the dense source."""
    found, obs = anndata.read_h5ad(path), source.obs if obs is None else obs
    order = np.argsort(source.obs[KEY].astype(str).to_numpy(), kind="stable")
    np.testing.assert_array_equal(dense_of(found.X), source.X[order])
    pd.testing.assert_frame_equal(
        found.obs, obs.iloc[order], check_categorical=False, check_dtype=False
    )
    pd.testing.assert_frame_equal(found.var, source.var)
    assert found.X.has_canonical_format and found.X.data.all()  # no zero is stored
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]
    return found


@pytest.mark.parametrize("storage", STORAGES)
def test_random_files_in_every_storage(storage, tmp_path, monkeypatch):
    rng = np.random.default_rng(STORAGES.index(storage))
    for name in ("_CHUNK", "BLOCK_VALUES"):
        monkeypatch.setattr(sort, name, int(rng.integers(1, 300)))
    cells = make_cells(n_cells=rng.integers(1, 60, 5), n_genes=int(rng.integers(4, 40)))
    cells.X[rng.random(cells.shape) < rng.random()] = 0
    source = stored(cells, storage, tmp_path)
    assert_sorted(sort_cells(source, tmp_path / "sorted.h5ad"), cells, source.obs)


def test_no_cells_cannot_be_sorted(cells, tmp_path):
    empty = cells[:0].copy()
    refuses(r"nothing to sort: shape \(0, 24\)", sort_cells, empty, tmp_path / "x.h5ad")


@pytest.mark.parametrize(("values", "dtype", "expected"), [
    ([1, 255], "float32", "uint8"),
    ([1, 256], "float32", "uint16"),
    ([1, 65536], "float64", "uint32"),
    ([1, 2**32 - 1], "int64", "uint32"),
    ([1, 2**32], "int64", "int64"),
    ([-1, 3], "int32", "int32"),
    ([0.5, 3], "float32", "float32"),
    ([0.1, 3], "float64", "float64"),
    ([np.inf, 1], "float32", "float32"),
    ([True, False], "bool", "uint8"),
    ([0, 0], "float32", "uint8"),
    ([1, 100], "int8", "uint8"),
])  # fmt: skip
def test_the_smallest_type_that_holds_every_value(values, dtype, expected, tmp_path):
    matrix = np.repeat(np.array(values, dtype)[:, None], 3, axis=1)
    cells = annotated(sparse.csr_matrix(matrix), ["B", "A"])
    path = sort_cells(cells, tmp_path / "x.h5ad")
    found = anndata.read_h5ad(path)
    assert found.X.dtype == expected
    np.testing.assert_array_equal(found.X.toarray(), matrix[::-1])


def test_types_that_differ_between_blocks(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(sort, "BLOCK_VALUES", 10 * cells.n_vars)
    cells.X[2, 3], cells.X[70, 1] = 300, 70_000
    path = sort_cells(stored(cells, "csr", tmp_path), tmp_path / "x.h5ad")
    assert assert_sorted(path, cells).X.dtype == np.uint32
    cells.X[70, 1] = 0.25
    path = sort_cells(stored(cells, "csr", tmp_path), tmp_path / "x.h5ad")
    assert assert_sorted(path, cells).X.dtype == np.float32


def test_repeated_entries_are_summed_beyond_their_type(tmp_path):
    data, indices = np.array([200, 100, 4], dtype=np.uint8), np.array([1, 1, 0], dtype=np.int32)
    matrix = sparse.csr_matrix((data, indices, [0, 3]), shape=(1, 2))
    path = sort_cells(annotated(matrix, ["A"]), tmp_path / "x.h5ad")
    assert anndata.read_h5ad(path).X.toarray().tolist() == [[4, 300]]


def test_all_that_describes_cells_and_genes_goes_along(cells, tmp_path):
    n = cells.n_obs
    cells.obs["batch"] = pd.Categorical(np.arange(n) % 3, categories=[2, 1, 0, 9])
    cells.obsm["place"] = np.arange(2 * n).reshape(n, 2)
    cells.obsp["near"] = sparse.csr_matrix(np.arange(n * n).reshape(n, n) % 7)
    cells.varm["load"] = np.arange(cells.n_vars)[:, None]
    cells.uns["note"] = {"simulated": True}
    cells.layers["more"] = cells.X.copy()
    with pytest.warns(UserWarning, match=r"not carried over .*: layers\['more'\]"):
        path = sort_cells(cells, tmp_path / "x.h5ad")
    found, expected = anndata.read_h5ad(path), cells[anndata.read_h5ad(path).obs_names]
    assert found.obs["batch"].tolist() == expected.obs["batch"].tolist()
    assert found.obs["batch"].cat.categories.tolist() == [2, 1, 0, 9]
    np.testing.assert_array_equal(found.obsm["place"], expected.obsm["place"])
    np.testing.assert_array_equal(dense_of(found.obsp["near"]), dense_of(expected.obsp["near"]))
    np.testing.assert_array_equal(found.varm["load"], cells.varm["load"])
    assert found.uns["note"]["simulated"] and not found.layers


def test_the_same_bytes_from_any_memory_and_sorted_again(cells, tmp_path):
    source = stored(cells, "csr", tmp_path)
    once = sort_cells(source, tmp_path / "once.h5ad")
    other = sort_cells(source, tmp_path / "other.h5ad", memory="400MB")
    twice = sort_cells(once, tmp_path / "twice.h5ad")
    assert once.read_bytes() == other.read_bytes()
    with h5py.File(once) as one, h5py.File(twice) as again:
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(one["X"][part][:], again["X"][part][:])
    assert anndata.read_h5ad(once).obs_names.equals(anndata.read_h5ad(twice).obs_names)


@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_memory_is_bounded_by_the_caller_not_by_the_file(kind, tmp_path, monkeypatch):
    """A million places; as CSR they would take 4 MB as read and as much in order."""
    for module, name, value in (
        (sort, "_LIBRARIES", 0), (sort, "_LEAST_ROOM", 0), (sort, "_CHUNK", 2**11),
        (_shelf, "_STACK", 2**14), (blocks, "BLOCK_VALUES", 2**15),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, (3000, 350)).astype(np.float32)
    cells = annotated(counts, rng.choice(list("ABC"), 3000))
    stored(cells, kind, tmp_path).write_h5ad(tmp_path / "x.h5ad")
    del counts, cells
    source = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError) as told:
        sort_cells(source, tmp_path / "sorted.h5ad", memory=1)
    memory = 10**6 * int(re.search("'([0-9]+)MB'", str(told.value))[1]) + 2_000_000
    tracemalloc.start()
    sort_cells(source, tmp_path / "sorted.h5ad", memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory
    found = [pseudobulk(cells).X for cells in (source, tmp_path / "sorted.h5ad")]
    np.testing.assert_allclose(*found, rtol=1e-6)
