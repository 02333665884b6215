"""One reading, any memory, the same bits; and nothing half done whatever happens."""

import bisect
import hashlib
import os
import resource
import shutil
import tempfile
from importlib import import_module

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import KEY, STORAGES, annotated, dense_of, make_cells, refuses, rewrite, stored
from scipy import sparse
from scipy.stats import mannwhitneyu

from vcc_helpers import lognorm, pseudobulk, score
from vcc_helpers.ranks import mann_whitney
from vcc_helpers.stream import _keep, contrast, needs, open_cells, rank_sum, sort_cells

whole = import_module("vcc_helpers.stream.contrast")

TABLES = ("n_cells", "mean", "variance", "mean_as_summed", "p_value")


def assert_same(found, expected):
    assert found.groups.tolist() == expected.groups.tolist()
    assert found.control == expected.control
    for name in TABLES:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.fixture
def on_disk(cells, tmp_path):
    """The cells as a CSR file, 131 cells in no order."""
    stored(cells, "csr", tmp_path).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def scratch(monkeypatch, tmp_path, short_of_memory):
    """Return the folder for scratch data, which there are when memory is short."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def least_memory(cells, threads=2, control="non-targeting"):
    """Return the smallest memory that is accepted, to 1 kB."""
    cells = open_cells(cells)

    def fits(kilobytes):
        try:
            return bool(needs(cells, memory=1000 * kilobytes, threads=threads, control=control))
        except ValueError:
            return False

    return 1000 * bisect.bisect_left(range(2**16), True, key=fits)


def test_a_mean_is_summed_as_numpy_sums_a_row(tmp_path):
    """NumPy sums eight at a time, and by halves from 128 on: the last digit hangs on it.

    Other sums are in double, over many blocks of cells; in another order they are nearly the same.
    """
    cells = make_cells(n_cells=(127, 128, 129, 1000, 5001), n_genes=4)
    found, logged, bulk = contrast(cells), lognorm(cells), pseudobulk(cells)
    for i, group in enumerate(found.groups):
        by_gene = np.ascontiguousarray(logged[(cells.obs[KEY] == group).to_numpy()].T)
        np.testing.assert_array_equal(found.mean_as_summed[i], by_gene.mean(axis=1))
        np.testing.assert_array_equal(found.mean[i], by_gene.mean(axis=1, dtype="f8").astype("f4"))
    np.testing.assert_array_equal(bulk.X, found.mean)
    np.testing.assert_array_equal(bulk.layers["variance"], found.variance)
    other = pseudobulk(sort_cells(cells, tmp_path / "sorted.h5ad"))
    np.testing.assert_allclose(bulk.X, other.X, rtol=1e-6)
    np.testing.assert_allclose(bulk.layers["variance"], other.layers["variance"], rtol=1e-5)


@pytest.mark.parametrize("value", [300, 70_000, 2.0005])  # fractions up to 0.001 are counts still
def test_counts_of_any_size_and_fractions_survive_the_shelf(value, cells, tmp_path):
    cells.X[3, 5] = value
    assert_same(contrast(stored(cells, "backed csr", tmp_path)), contrast(cells))


def test_little_memory_costs_passes_but_no_bit(tmp_path, scratch):
    """One perturbation alone is larger than the memory."""
    cells = make_cells(n_genes=200, n_cells=(2000, 5, 5, 5, 20), dtype="uint16")
    path = stored(cells, "backed csr", tmp_path).filename
    refuses("too small for 2,035 cells .* give at least '[0-9]+MB'", contrast, path, memory=1)
    memory = least_memory(path)
    planned = needs(path, memory=memory, threads=2)
    assert planned.scratch > 0 and planned.genes < 200  # several passes over scratch
    assert memory < (2 + 4) * np.count_nonzero(cells.X[(cells.obs[KEY] == "G0").to_numpy()])
    assert_same(contrast(path, memory=memory, threads=2), contrast(cells))
    assert not list(scratch.iterdir())


def kept_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_is_kept_is_found_again(cells, on_disk, tmp_path):
    kw = {"cache": tmp_path / "kept"}
    assert_same(contrast(on_disk, **kw), contrast(cells))
    (kept,) = (tmp_path / "kept").iterdir()
    other = contrast(make_cells(seed=1))
    _keep.save(kept, other)
    os.utime(on_disk, (1, 1))  # touched, but not changed
    assert_same(contrast(on_disk, **kw), other)


def test_what_is_kept_is_never_out_of_date(cells, on_disk, tmp_path):
    kept = tmp_path / "kept"
    contrast(cells, cache=kept)
    value, label, gene, order = cells.copy(), cells.copy(), cells.copy(), cells[::-1].copy()
    value.X[0, 0] += 1
    label.obs[KEY] = label.obs[KEY].where(label.obs_names != label.obs_names[0], "G7")
    gene.var_names = ["other", *cells.var_names[1:]]
    for n, changed in enumerate((value, label, gene, order), start=2):
        assert_same(contrast(changed, cache=kept), contrast(changed))
        assert len(kept_in(kept)) == n
    assert contrast(cells, cache=kept, control="G0").control == "G0"
    contrast(on_disk, cache=kept)
    before = os.stat(on_disk)
    with h5py.File(on_disk, "r+") as file:
        file["X"]["data"][0] += 1
    os.utime(on_disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(on_disk).st_size == before.st_size
    assert_same(contrast(on_disk, cache=kept), contrast(on_disk))


def test_what_is_kept_and_damaged_is_computed_anew(tmp_path):
    """Wherever it is: in a value, a name, a header or the list of the tables."""
    cells = make_cells(n_genes=1500)
    expected = contrast(cells, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    sound = kept.read_bytes()
    shorter = sound.replace(b", 1500)", b", 1400)", 1)  # NumPy does not come to its checksum
    damaged = [sound[:-100], b"", b"no", shorter]
    for place in [*range(0, len(sound), len(sound) // 4), len(sound) - 20]:
        damaged.append(sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1 :])
    for raw in damaged:
        kept.write_bytes(raw)
        assert_same(contrast(cells, cache=tmp_path / "kept"), expected)


def test_the_truth_is_computed_once_for_many_predictions(cells, tmp_path):
    other = make_cells(seed=1)
    score(cells, cells, cache=tmp_path)
    assert len(kept_in(tmp_path)) == 1
    found = score(other, cells, cache=tmp_path)
    assert len(kept_in(tmp_path)) == 2
    np.testing.assert_array_equal(found.per_perturbation, score(other, cells).per_perturbation)


def test_what_is_kept_follows_no_link(on_disk, tmp_path):
    """The name of what is kept can be known, and a link put in its place."""
    expected = contrast(on_disk, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.unlink()
    (tmp_path / "thesis").write_text("years")
    kept.symlink_to(tmp_path / "thesis")
    for _ in range(2):
        assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)
        assert (tmp_path / "thesis").read_text() == "years"
        assert kept_in(tmp_path / "kept") == {kept.name}


def test_a_cache_that_is_a_file_is_refused(cells, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(NotADirectoryError, match="kept is no folder; name another"):
        contrast(cells, cache=tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_file_that_changes_after_it_was_hashed(on_disk, monkeypatch, tmp_path):
    digest = hashlib.file_digest

    def hashed(*args):
        found = digest(*args)
        with on_disk.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(hashlib, "file_digest", hashed)
    with pytest.raises(ValueError, match=r"pred: .*cells\.h5ad was changed while it was read"):
        contrast(on_disk, cache=tmp_path / "kept", name="pred")
    assert not kept_in(tmp_path / "kept")


def test_too_little_disk_is_told_before_the_start(on_disk, monkeypatch, scratch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="scratch disk are needed in .* and 0.0 GB are free"):
        contrast(on_disk, memory=least_memory(on_disk), threads=2)


def test_a_disk_that_runs_full(on_disk, scratch):
    memory, before = least_memory(on_disk), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the system refuses more
    try:
        with pytest.raises(OSError, match="is full: scratch data needs more room"):
            contrast(on_disk, memory=memory, threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(scratch.iterdir())


def test_needs_tells_beforehand_without_reading(on_disk, monkeypatch, capsys):
    contrast(on_disk, progress=True, name="real")
    told = capsys.readouterr()
    assert "real: 131 cells x 24 genes will take about 0.4 GB of memory" in told.out + told.err
    monkeypatch.setattr(whole, "row_blocks", None)
    ample, little = needs(on_disk, memory="4GB"), needs(on_disk, memory="500MB")
    assert (ample.scratch, ample.genes) == (0, 24) and ample.memory <= 500e6
    assert little.memory <= 500e6
    refuses("cells: memory of 1 MB is too small .* give at least", needs, on_disk, memory="1MB")
    refuses("obs has no column 'guide'", needs, on_disk, perturbation_key="guide")


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
            for name in ("X/data", "X/indices", "X/indptr"):
                kind = file[name].dtype.newbyteorder(">")
                rewrite(file, name, data=file[name][:].astype(kind))
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
        rewrite(file, "X/indices", data=file["X/indices"][:].astype(np.uint16))
    found = contrast(tmp_path / "cells.h5ad", control="C")
    assert_same(found, contrast(cells, control="C"))
    np.testing.assert_array_equal(pseudobulk(cells).X, found.mean)


def with_scipy(values, controls, **kw):
    """U and p of every gene, computed in double; p = 1 where there is no answer."""
    pairs = zip(values.T.astype("f8"), controls.T.astype("f8"), strict=True)
    with np.errstate(all="ignore"):
        u, p = np.transpose([mannwhitneyu(x, y, **kw) for x, y in pairs])
    return u, np.nan_to_num(p, nan=1.0)


def assert_is_scipys(matrix, labels, values=None):
    found = rank_sum(matrix, pd.Index(labels), control="control", threads=1)
    values = dense_of(matrix) if values is None else values
    assert found.groups.tolist() == sorted(set(labels) - {"control"})
    for row, group in enumerate(found.groups):
        u, p = with_scipy(values[labels == group], values[labels == "control"])
        np.testing.assert_array_equal(found.statistic[row], u)
        np.testing.assert_allclose(found.p_value[row], p, rtol=1e-12, atol=0)
    return found


def ranked_counts(n_genes=25):
    rng, labels = np.random.default_rng(0), np.repeat(["10", "9", "control"], [20, 13, 31])
    values = rng.poisson(rng.gamma(0.6, 2.0, n_genes), (len(labels), n_genes)).astype(np.float32)
    values[:, 0], values[:, 1] = 0, 3  # constants
    values[labels == "9", 2] += 40  # no overlap at all
    order = rng.permutation(len(labels))
    return values[order], labels[order]


def stored_zeros(values):
    matrix = sparse.csr_matrix(values)
    matrix.data[::3] = 0
    return matrix


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [(np.asarray, "f4"), (np.asarray, "f8"), (np.asfortranarray, "f4"), (sparse.csr_matrix, "u1"),
     (sparse.csc_matrix, "f4"), (sparse.csr_array, "f4"), (stored_zeros, "f8")],
)  # fmt: skip
def test_counts_with_many_ties_and_the_callers_matrix_is_left_alone(storage, dtype):
    values, labels = ranked_counts()
    matrix = storage(values.astype(dtype))
    before = matrix.copy()
    assert_is_scipys(matrix, labels)
    np.testing.assert_array_equal(dense_of(matrix), dense_of(before))
    assert getattr(matrix, "nnz", 0) == getattr(before, "nnz", 0)


def test_entries_that_repeat_a_place_are_summed():
    values, labels = ranked_counts()
    rows, columns = np.nonzero(values)
    half = values[rows, columns] / 2
    order = np.argsort(np.r_[rows, rows], kind="stable")
    entries = np.r_[half, half][order], np.r_[columns, columns][order]
    indptr = 2 * sparse.csr_matrix(values).indptr
    twice = sparse.csr_matrix((*entries, indptr), shape=values.shape)
    assert_is_scipys(twice, labels, values=values)
    assert twice.nnz == 2 * len(rows)  # the caller's matrix is left alone


@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (3, 8), (8, 9), (9, 8), (9, 9)])
def test_small_groups_without_ties_are_exact(sizes):
    n_group, n_control = sizes
    rng = np.random.default_rng(n_group + 100 * n_control)
    labels = np.repeat(["A", "control"], [n_group, n_control])
    values = rng.normal(5, 1, (len(labels), 8))
    values[:, :3] = np.round(values[:, :3])  # and some genes with ties
    found = assert_is_scipys(values, labels)
    if min(n_group, n_control) <= 8:
        _, exact = with_scipy(*np.split(values[:, 3:], [n_group]), method="exact")
        np.testing.assert_array_equal(found.p_value[0, 3:], exact)


@pytest.mark.parametrize(("matrix", "labels", "words"), [
    (np.ones((4, 2)), ["A"] * 4, "a test needs cells labelled 'control' and others"),
    (np.ones((4, 2)), ["control"] * 4, "a test needs cells labelled 'control' and others"),
    (np.ones((4, 2)), ["A", "control"] * 3, "6 labels for cells x genes of shape"),
    (np.ones(6), ["A", "control"] * 3, "6 labels for cells x genes of shape"),
    (np.ones((6, 2), "c8"), ["A", "control"] * 3, "have no order"),
])  # fmt: skip
def test_what_cannot_be_tested(matrix, labels, words):
    refuses(words, rank_sum, matrix, pd.Index(labels), control="control")


def test_the_plain_test_of_the_chapter_has_the_same_numbers():
    values, labels = ranked_counts()
    found = rank_sum(values, pd.Index(labels), control="control")
    for row, group in enumerate(found.groups):
        u, p = mann_whitney(values[labels == group], values[labels == "control"])
        np.testing.assert_array_equal(found.statistic[row], u)
        np.testing.assert_array_equal(found.p_value[row], p)


def test_groups_without_room_next_to_the_bits_of_a_value_are_ranked_in_turns():
    """Values over hundreds of powers of two leave two of 64 bits for the number of a group."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 100, (90, 4)) * (rng.random((90, 4)) < 0.7)
    values[5:50] = values[45:90]
    labels = np.repeat([f"G{i:02}" for i in range(30)], 2).tolist() + ["C"] * 30
    found = rank_sum(values, labels, control="C")
    for i in range(30):
        u, p_value = mann_whitney(values[2 * i : 2 * i + 2], values[60:])
        np.testing.assert_array_equal(found.statistic[i], u)
        np.testing.assert_allclose(found.p_value[i], p_value, rtol=1e-12)
