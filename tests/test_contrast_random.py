"""Awkward cells, drawn at random: the same answer from any layout, type, memory and threads."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import KEY, STORAGES, stored
from scipy import sparse
from test_contrast import assert_same, least_memory
from test_ranksum import with_scipy

from vcc_helpers import pseudobulk
from vcc_helpers.stream import contrast, open_cells

LAYOUTS = (*STORAGES, "gzip", "big-endian", "zarr")
INTEGERS = ("bool", "int8", "uint8", "int32", "uint64")
FLOATS = ("float32", "float64")
NAMES = ("SOX2", "Ärger", "遺伝子", "7", "1.0", "a b", "nan?", "-", "é")


def draw(rng):
    """Draw counts or lognorm values, dense, with labels; many groups, genes and cells are odd."""
    n_groups, n_genes = int(rng.integers(2, 8)), int(rng.choice([1, 2, 20, 33]))
    sizes = rng.choice([1, 2, 7, 8, 9, 40], n_groups)
    labels = rng.permutation(np.repeat(rng.choice(NAMES, n_groups, replace=False), sizes))
    values = rng.poisson(rng.gamma(0.5, 2.0, n_genes), (len(labels), n_genes)).astype(np.float64)
    if rng.random() < 0.3:  # few ties, so that small groups are tested exactly
        values *= rng.integers(1, 1000, values.shape)
    values[rng.random(len(values)) < 0.1] = 0  # empty cells
    values[:, rng.random(n_genes) < 0.2] = 0  # silent genes
    values[:, rng.random(n_genes) < 0.1] = 1  # the same in every cell
    dtype = str(rng.choice(INTEGERS + FLOATS))
    if dtype in INTEGERS:
        values = np.minimum(values, np.iinfo(np.int8).max if dtype != "bool" else 1)
    elif rng.random() < 0.5:
        values = np.log1p(values * rng.uniform(0.2, 3.0))
        values[0, 0] = 0.75  # or, were all 0, they would be counts
    return values.astype(dtype), labels


def annotated(matrix, labels):
    obs = pd.DataFrame({KEY: labels}, index=[f"c{i}" for i in range(len(labels))])
    names = [f"G{i}" for i in range(matrix.shape[1])]
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=names))


def lay_out(cells, layout, folder):
    """Return the cells in another storage, or the path of a file."""
    if layout in STORAGES:
        return stored(cells, layout, folder)
    path = folder / f"cells.{'zarr' if layout == 'zarr' else 'h5ad'}"
    rows = stored(cells, "csr", folder)
    if layout == "zarr":
        rows.write_zarr(path)
        return path
    rows.write_h5ad(path, compression="gzip" if layout == "gzip" else None)
    if layout == "big-endian" and rows.X.dtype != bool:
        with h5py.File(path, "r+") as file:
            for name in ("data", "indices", "indptr"):
                turned = file["X"][name][:]
                del file["X"][name]
                file["X"][name] = turned.astype(turned.dtype.newbyteorder(">"))
    return path


def lognormed(values):
    """Log-normalise in the precision that the values call for, one plain step after the other."""
    real = np.float64 if values.dtype.kind == "f" and values.dtype.itemsize == 8 else np.float32
    values = values.astype(real)
    if (values % 1 > 1e-3).any():
        return values
    size = values.sum(axis=1, dtype=np.float64)
    target = np.median(size[size > 0]) if size.any() else 1.0
    factor = size.astype(real) / real(target)
    factor[factor == 0] = 1
    return np.log1p(values / factor[:, None])


def assert_is_plain(found, values, labels, control):
    """Compare with NumPy and SciPy, a group and a gene at a time."""
    logged = lognormed(values)
    assert found.groups.tolist() == sorted(set(labels)) and found.control == control
    assert found.mean.dtype == found.mean_as_summed.dtype == found.variance.dtype == logged.dtype
    bits = 4 * np.finfo(logged.dtype).eps
    for i, group in enumerate(found.groups):
        mine = logged[labels == group].astype(np.float64)
        assert found.n_cells[i] == len(mine)
        np.testing.assert_allclose(found.mean[i], mine.mean(axis=0), rtol=bits)
        by_gene = np.ascontiguousarray(logged[labels == group].T)
        np.testing.assert_array_equal(found.mean_as_summed[i], by_gene.mean(axis=1))
        if len(mine) > 1:
            expected = mine.var(axis=0, ddof=1)
            np.testing.assert_allclose(found.variance[i], expected, rtol=1e-5, atol=1e-12)
        else:
            assert np.isnan(found.variance[i]).all()
        if group != control:
            _, p = with_scipy(mine, logged[labels == control])
            row = found.p_value[i - (group > control)]
            np.testing.assert_allclose(row, p, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("seed", range(len(LAYOUTS)))
def test_any_cells_any_way(seed, tmp_path, short_of_memory):
    rng = np.random.default_rng(seed)
    values, labels = draw(rng)
    control, threads = str(rng.choice(labels)), int(rng.integers(1, 4))
    kw = {"control": control, "threads": threads}
    expected = contrast(annotated(values, labels), control=control, threads=1)
    assert_is_plain(expected, values, labels, control)
    cells = open_cells(lay_out(annotated(values, labels), LAYOUTS[seed], tmp_path))
    least = least_memory(cells, **kw)  # scratch disk, and several passes
    assert_same(contrast(cells, memory=least, **kw), expected)
    bulk = pseudobulk(cells)
    np.testing.assert_array_equal(bulk.X, expected.mean)
    np.testing.assert_array_equal(bulk.layers["variance"], expected.variance)


def test_more_genes_than_two_bytes_can_number(tmp_path):
    values, few = np.zeros((30, 2**16 + 40), np.float32), [0, 13001, 2**16, 2**16 + 39]
    values[:, few] = np.random.default_rng(0).poisson(2, (30, 4))
    cells = annotated(sparse.csr_matrix(values), np.repeat(["A", "C"], [10, 20]))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    found, logged = contrast(tmp_path / "cells.h5ad", control="C"), lognormed(values[:, few])
    _, p = with_scipy(logged[:10], logged[10:])
    np.testing.assert_allclose(found.p_value[0, few], p, rtol=1e-12)


def test_gene_numbers_of_two_bytes_and_libraries_above_what_float32_counts_exactly(tmp_path):
    values = np.random.default_rng(3).poisson(1.0, (3000, 60)).astype(np.float32) * 2_000_003
    cells = annotated(sparse.csr_matrix(values), np.repeat(["A", "B", "C"], 1000))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        small = file["X"]["indices"][:].astype(np.uint16)
        del file["X"]["indices"]
        file["X"]["indices"] = small
    found = contrast(tmp_path / "cells.h5ad", control="C")
    assert_same(found, contrast(cells, control="C"))
    np.testing.assert_array_equal(pseudobulk(cells).X, found.mean)
