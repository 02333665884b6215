"""Log-normalising equals scanpy's, averages equal a plain loop, in every storage."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, refuses, stored
from scipy import sparse

from vcc_helpers import effect_strength, effects, knockdown, lognorm, pseudobulk
from vcc_helpers.stream import lognorm_blocks
from vcc_helpers.stream.pseudobulk import _SMALL_COUNTS


@pytest.mark.filterwarnings("ignore")  # scanpy's own
@pytest.mark.parametrize(("storage", "dtype"), [("dense", "float64"), ("csr", "int16")])
def test_lognorm_is_scanpys_to_the_last_bit(dtype, storage, tmp_path):
    sc = pytest.importorskip("scanpy", reason="scanpy comes with the book extra")
    cells = make_cells(dtype=dtype)
    if storage == "dense":
        cells.X[3] = 0  # an empty cell; scanpy 1.11 counts it in the median of sparse files
    expected = stored(cells, storage, tmp_path)
    found = lognorm(expected)
    sc.pp.normalize_total(expected)
    sc.pp.log1p(expected)
    assert found.dtype == (np.float64 if dtype == "float64" else np.float32) == expected.X.dtype
    np.testing.assert_array_equal(dense_of(found), dense_of(expected.X))
    assert (storage == "dense") == isinstance(found, np.ndarray)


def test_lognorm_by_hand():
    cells = anndata.AnnData(np.array([[1.0, 1.0], [3.0, 1.0], [0.0, 0.0], [0.0, 8.0]]))
    # library sizes 2, 4 and 8, the empty cell left out: median 4
    expected = np.log1p([[2, 2], [3, 1], [0, 0], [0, 4]])
    np.testing.assert_allclose(lognorm(cells), expected, rtol=1e-15)
    np.testing.assert_allclose(lognorm(cells, target_sum=8)[1], np.log1p([6, 2]), rtol=1e-15)


@pytest.fixture
def storage_kept(any_storage, snapshot):
    """Cells in any storage, which nothing may change; what is backed is opened read only."""
    take, same = snapshot
    before = None if any_storage.isbacked else take(any_storage)
    yield any_storage
    if before:
        same(any_storage, before)


def test_log_values_come_back_unchanged(storage_kept):
    logged = anndata.AnnData(lognorm(storage_kept))
    again = lognorm(logged)
    np.testing.assert_array_equal(dense_of(again), dense_of(logged.X))
    (again.data if hasattr(again, "indptr") else again)[:] = -1
    assert dense_of(logged.X).min() == 0  # a result of its own, not the caller's matrix


def test_pseudobulk_equals_a_plain_loop(storage_kept, capsys):
    bulk, plain = pseudobulk(storage_kept, progress=True), pseudobulk(make_cells())
    shown = set(re.findall(r"(\w+): 100%", capsys.readouterr().err))
    assert {"inspect", "average"} <= shown
    np.testing.assert_array_equal(bulk.X, plain.X)
    np.testing.assert_array_equal(bulk.layers["variance"], plain.layers["variance"])
    values = pd.DataFrame(lognorm(make_cells()).astype(np.float64), columns=make_cells().var_names)
    groups = values.groupby(make_cells().obs[KEY].to_numpy())
    assert bulk.obs["n_cells"].to_dict() == groups.size().to_dict()
    np.testing.assert_allclose(bulk.to_df(), groups.mean(), rtol=1e-6)
    np.testing.assert_allclose(bulk.layers["variance"], groups.var(), rtol=1e-5, atol=1e-9)
    assert bulk.X.dtype == bulk.layers["variance"].dtype == np.float32
    pd.testing.assert_frame_equal(bulk.var, make_cells().var)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_counts_and_large_ones_are_scaled_alike(dtype):
    """Small counts are looked up in a table; no bit may tell."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (100, 50)) * rng.integers(0, 2000, (100, 50))
    counts[::3, 0] = rng.integers(_SMALL_COUNTS - 2, _SMALL_COUNTS + 2, 34)
    counts = counts.astype(dtype)
    counts[4, 3] = 2.0005  # still counts, by the official rule
    size = counts.sum(axis=1, keepdims=True, dtype=dtype)
    expected = np.log1p(counts / (size / np.median(size).astype(dtype)))
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    ((_, found),) = lognorm_blocks(cells)
    np.testing.assert_array_equal(found.toarray(), expected)
    np.testing.assert_array_equal(lognorm(cells).toarray(), expected)


def test_a_group_of_one_cell_has_no_variance():
    bulk = pseudobulk(make_cells(n_cells=(1, 5, 5, 5, 9)))
    table = effect_strength(bulk)
    assert table.loc["G0", ["noise", "norm_denoised"]].isna().all()
    assert table.loc["G1"].notna().all() and np.isfinite(table.loc["G0", "norm"])


@pytest.mark.parametrize("function", [effects, effect_strength, knockdown])
def test_the_callers_pseudobulk_is_never_changed(function, bulk, snapshot):
    take, same = snapshot
    before = take(bulk)
    result = function(bulk)
    if function is effects:
        result.X[:] = 99
        result.var["new"], result.obs["new"] = 1, 1
    same(bulk, before)
    refuses("no control row 'non-targeting'; its rows are 'G0'", function, bulk[:4], error=KeyError)


def test_effects_and_norms_by_hand(bulk):
    delta, table = effects(bulk), effect_strength(bulk)
    assert delta.obs_names.tolist() == table.index.tolist() == ["G0", "G1", "G2", "no gene"]
    np.testing.assert_array_equal(delta.X, bulk[delta.obs_names].X - bulk[CONTROL].X)
    norm = np.linalg.norm(delta.X, axis=1)
    noise2 = (bulk.layers["variance"] / bulk.obs[["n_cells"]].to_numpy()).sum(axis=1)
    noise2 = pd.Series(noise2, bulk.obs_names)[table.index] + noise2[bulk.obs_names == CONTROL]
    np.testing.assert_allclose(table["norm"], norm, rtol=1e-6)
    np.testing.assert_allclose(table["noise"], np.sqrt(noise2), rtol=1e-5)
    denoised = np.sqrt(np.maximum(norm**2 - noise2, 0))
    np.testing.assert_allclose(table["norm_denoised"], denoised, rtol=1e-4)


def test_knockdown_by_hand(bulk):
    left = knockdown(bulk)
    for name in ("G0", "G1", "G2"):
        ratio = np.expm1(bulk[name, name].X[0, 0]) / np.expm1(bulk[CONTROL, name].X[0, 0])
        assert left[name] == pytest.approx(ratio, rel=1e-6) and left[name] < 0.5
    bulk.X[bulk.obs_names == CONTROL, 1] = 0
    assert knockdown(bulk)[["G1", "no gene"]].isna().all()
