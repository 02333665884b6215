"""One reading, any path, the same bits; and nothing half done whatever happens."""

import bisect
import os
import resource
import shutil
import tempfile
from importlib import import_module

import anndata
import h5py
import numpy as np
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells
from scipy import sparse
from scipy.stats import mannwhitneyu

from vcc_helpers import lognorm, pseudobulk, score
from vcc_helpers.stream import contrast, job, needs, plan, sort_cells, sums, tiles

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
def expected(cells):
    return contrast(cells)


@pytest.fixture
def on_disk(cells, tmp_path):
    """The cells as a CSR file, 131 cells in no order."""
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def short_of_memory(monkeypatch):
    """Make memory tell: leave out what the libraries take, which is far more than these cells."""
    monkeypatch.setattr(plan, "LIBRARIES", 0)
    monkeypatch.setattr(plan, "RESULT", 0)
    monkeypatch.setattr(plan, "LEAST_BLOCK", 1)
    monkeypatch.setattr(plan, "FEWEST_GENES", 8)


@pytest.fixture
def plans(monkeypatch):
    """What each call planned."""
    found, needs = [], whole._plan

    def note(*args, **kw):
        found.append(needs(*args, **kw))
        return found[-1]

    monkeypatch.setattr(whole, "_plan", note)
    return found


# --- what is computed ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_number_is_what_its_name_says(dtype):
    cells = make_cells(dtype=dtype)
    found, logged = contrast(cells), lognorm(cells)
    labels = cells.obs[KEY].to_numpy()
    controls = logged[labels == CONTROL]
    for i, group in enumerate(found.groups):
        mine = logged[labels == group]
        assert found.n_cells[i] == len(mine)
        by_gene = np.ascontiguousarray(mine.T)
        np.testing.assert_array_equal(found.mean_as_summed[i], by_gene.mean(axis=1))
        np.testing.assert_allclose(found.variance[i], mine.var(axis=0, ddof=1), rtol=2e-5)
        if group != CONTROL:
            with np.errstate(all="ignore"):
                p = mannwhitneyu(mine.astype("f8"), controls.astype("f8"), axis=0).pvalue
            row = found.p_value[i - (group > CONTROL)]
            np.testing.assert_allclose(row, np.nan_to_num(p, nan=1.0), rtol=1e-12)


def test_means_and_variances_are_those_of_the_pseudobulk(any_storage):
    found, bulk = contrast(any_storage), pseudobulk(any_storage)
    assert found.groups.tolist() == bulk.obs_names.tolist()
    np.testing.assert_array_equal(found.mean, bulk.X)
    np.testing.assert_array_equal(found.variance, bulk.layers["variance"])


@pytest.mark.parametrize("n_cells", [1, 7, 8, 9, 127, 128, 129, 136, 1000, 3001])
def test_a_tile_is_averaged_as_numpy_averages_a_row(n_cells):
    """The mean of a strided tile must have the bits of the mean of a row by itself."""
    values = np.random.default_rng(n_cells).gamma(1, 1, (n_cells, 40)).astype(np.float32)
    found = sums._Sums.empty(40, np.float32)
    for part, tile in tiles([sparse.csr_matrix(values)], slice(0, 40), 16):
        found.add_up(part, tile)
    expected = [np.ascontiguousarray(column).mean() for column in values.T]
    np.testing.assert_array_equal(found.mean, expected)


# --- paths ---


def test_every_storage_gives_the_same_bits(any_storage, expected):
    assert_same(contrast(any_storage), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_type_of_counts_on_disk(dtype, compression, cells, expected, tmp_path):
    cells.X = sparse.csr_matrix(cells.X.astype(dtype))
    cells.write_h5ad(tmp_path / "cells.h5ad", compression=compression)
    assert_same(contrast(tmp_path / "cells.h5ad"), expected)


def test_counts_above_two_bytes_and_fractions_survive_the_shelf(cells, tmp_path):
    cells.X[3, 5], cells.X[4, 6] = 70_000, 2.0005  # fractions up to 0.001 are counts still
    in_memory = contrast(cells)
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(contrast(tmp_path / "cells.h5ad"), in_memory)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_leave_no_trace(threads, on_disk, expected):
    assert_same(contrast(on_disk, threads=threads), expected)


def test_sorted_cells_give_the_same_bits(on_disk, expected, tmp_path):
    assert_same(contrast(sort_cells(on_disk, tmp_path / "sorted.h5ad")), expected)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_zarr_gives_the_same_bits(kind, cells, expected, tmp_path):
    cells.X = cells.X if kind == "dense" else sparse.csr_matrix(cells.X).asformat(kind)
    cells.write_zarr(tmp_path / "cells.zarr")
    assert_same(contrast(tmp_path / "cells.zarr"), expected)


def test_a_damaged_zarr_is_explained(tmp_path):
    (tmp_path / "cells.zarr").mkdir()
    (tmp_path / "cells.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match="cells.zarr cannot be read"):
        contrast(tmp_path / "cells.zarr")


@pytest.mark.parametrize("n_genes", [64, 300])
def test_little_memory_costs_passes_but_no_bit(n_genes, tmp_path, short_of_memory, plans):
    cells = make_cells(n_genes=n_genes, n_cells=(90, 60, 30, 20, 200))
    expected = contrast(cells)
    assert plans.pop().genes == n_genes
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match="give at least '([0-9]+)MB'") as error:
        contrast(tmp_path / "cells.h5ad", memory=1)
    assert "too small for 400 cells" in str(error.value)
    least = least_memory(tmp_path / "cells.h5ad")
    plans.clear()
    found = contrast(tmp_path / "cells.h5ad", memory=least, threads=2)
    assert plans[0].scratch > 0 and plans[0].genes < n_genes  # several passes over scratch
    assert_same(found, expected)


def least_memory(path):
    """Return the smallest memory that is accepted, to 1 kB."""
    asked = job._Job.of(path, perturbation_key=KEY, control=CONTROL, threads=2)

    def fits(kilobytes):
        try:
            return bool(whole._plan(asked, 1000 * kilobytes))
        except ValueError:
            return False

    return 1000 * bisect.bisect_left(range(10**6), True, key=fits)


def test_a_perturbation_larger_than_the_memory(tmp_path, short_of_memory, plans):
    cells = make_cells(n_genes=200, n_cells=(4000, 5, 5, 5, 20), dtype="uint16")
    expected = contrast(cells)
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    largest = 4 * cells.X[(cells.obs[KEY] == "G0").to_numpy()].nnz  # its logarithms alone
    memory = 6 * largest // 10 + 4000 * 256 * 4 + 2**19
    plans.clear()
    found = contrast(tmp_path / "cells.h5ad", memory=memory, threads=1)
    assert plans[0].genes < 200
    assert_same(found, expected)


def test_scratch_data_are_gone_at_the_end(on_disk, tmp_path, monkeypatch, short_of_memory, plans):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    contrast(on_disk, memory=least_memory(on_disk), threads=2)
    assert plans[-1].scratch > 0
    assert not list((tmp_path / "scratch").iterdir())


# --- what is kept ---


@pytest.fixture
def counted(monkeypatch):
    """Count the groups that are computed, each by itself; stop with Ctrl-C after so many."""

    class Counter:
        n, limit = 0, None

    compute, needs = whole._group_sums, whole._plan
    monkeypatch.setattr(whole, "_plan", lambda *a, **k: needs(*a, **k)._replace(batch=1))

    def count(sources, *args):
        if Counter.limit is not None and Counter.n >= Counter.limit:
            raise KeyboardInterrupt
        assert len(sources) == 1
        Counter.n += 1
        return compute(sources, *args)

    monkeypatch.setattr(whole, "_group_sums", count)
    return Counter


def test_what_is_kept_is_found_again(on_disk, expected, tmp_path, counted, monkeypatch):
    assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)
    assert counted.n == 4
    monkeypatch.setattr(whole, "row_blocks", None)  # nothing is read again
    assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)
    assert counted.n == 4
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize("change", ["value", "label", "gene", "row order", "control"])
def test_what_is_kept_is_never_out_of_date(change, cells, tmp_path, counted):
    kw = {"cache": tmp_path / "kept"}
    contrast(cells, **kw)
    before = counted.n
    if change == "value":
        cells.X[0, 0] += 1
    elif change == "label":
        cells.obs[KEY] = cells.obs[KEY].where(cells.obs_names != cells.obs_names[0], "G1")
        cells.obs.iloc[0, 0] = "G2" if cells.obs.iloc[0, 0] == "G1" else "G1"
    elif change == "gene":
        cells.var_names = ["other", *cells.var_names[1:]]
    elif change == "row order":
        cells = cells[::-1].copy()
    else:
        kw["control"] = "G0"
    assert_same(contrast(cells, **kw), contrast(cells, control=kw.get("control", CONTROL)))
    assert counted.n == before + 8  # computed anew, and once more to compare


def test_a_file_that_was_touched_but_not_changed_is_known(on_disk, tmp_path, counted):
    contrast(on_disk, cache=tmp_path / "kept")
    os.utime(on_disk, (1, 1))
    contrast(on_disk, cache=tmp_path / "kept")
    assert counted.n == 4


def test_a_change_that_keeps_size_and_time_is_seen(on_disk, tmp_path, counted):
    contrast(on_disk, cache=tmp_path / "kept")
    before = os.stat(on_disk)
    with h5py.File(on_disk, "r+") as file:
        file["X"]["data"][0] += 1
    os.utime(on_disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(on_disk).st_size == before.st_size
    contrast(on_disk, cache=tmp_path / "kept")
    assert counted.n == 8


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_what_is_kept_and_damaged_is_computed_anew(damage, on_disk, expected, tmp_path, counted):
    contrast(on_disk, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes({"cut": kept.read_bytes()[:-100], "empty": b"", "text": b"no"}[damage])
    assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)
    assert counted.n == 8
    contrast(on_disk, cache=tmp_path / "kept")
    assert counted.n == 8  # and kept again


def test_a_byte_of_what_is_kept_that_flipped_changes_nothing(on_disk, expected, tmp_path):
    """Wherever it is: in a value, a name, a header or the list of the tables."""
    contrast(on_disk, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    sound = kept.read_bytes()
    for place in [*range(0, len(sound), len(sound) // 40), *range(len(sound) - 60, len(sound), 9)]:
        raw = bytearray(sound)
        raw[place] ^= 255
        kept.write_bytes(raw)
        assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_run_goes_on_where_it_was_stopped(limit, on_disk, expected, tmp_path, counted):
    counted.limit = limit
    with pytest.raises(KeyboardInterrupt):
        contrast(on_disk, cache=tmp_path / "kept", threads=1)
    assert not list((tmp_path / "kept").glob("*.npz"))  # nothing that looks finished
    counted.limit, counted.n = None, 0
    assert_same(contrast(on_disk, cache=tmp_path / "kept"), expected)
    assert counted.n == 4 - limit
    assert not list((tmp_path / "kept").glob("*.parts"))


def test_the_truth_is_computed_once_for_many_predictions(cells, tmp_path, counted):
    other = make_cells(seed=1)
    expected = score(other, cells).per_perturbation
    counted.n = 0
    score(cells, cells, cache=tmp_path)
    found = score(other, cells, cache=tmp_path)
    assert counted.n == 8
    np.testing.assert_array_equal(found.per_perturbation, expected)


def test_a_cache_that_is_a_file_is_refused(cells, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(NotADirectoryError, match="kept is no folder; name another"):
        contrast(cells, cache=tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission(cells, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="kept"):
        contrast(cells, cache=tmp_path / "kept")


# --- what goes wrong ---


def test_a_file_that_changes_while_it_is_read(on_disk, monkeypatch, tmp_path):
    blocks = whole.row_blocks

    def disturbed(*args, **kw):
        yield from blocks(*args, **kw)
        with on_disk.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(whole, "row_blocks", disturbed)
    with pytest.raises(ValueError, match=r"pred: .*cells\.h5ad was changed while it was read"):
        contrast(on_disk, cache=tmp_path / "kept", name="pred")
    assert not list((tmp_path / "kept").iterdir())


def test_a_truncated_file(on_disk):
    os.truncate(on_disk, os.path.getsize(on_disk) - 2000)
    with pytest.raises(ValueError, match=r"cells\.h5ad cannot be read as an \.h5ad"):
        contrast(on_disk)


def test_too_little_disk_is_told_before_the_start(on_disk, monkeypatch, short_of_memory):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="scratch disk are needed in .* and 0.0 GB are free"):
        contrast(on_disk, memory=least_memory(on_disk), threads=2)


def test_a_disk_that_runs_full(on_disk, monkeypatch, short_of_memory, tmp_path):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the system refuses more
    try:
        with pytest.raises(OSError, match="is full: scratch data needs more room"):
            contrast(on_disk, memory=least_memory(on_disk), threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_values_name_the_file_and_the_place(bad, cells):
    cells.X[7, 3] = bad
    with pytest.raises(ValueError, match=f"real: .* cell '{cells.obs_names[7]}', gene 'G3'"):
        contrast(cells, name="real")


def test_needs_tells_the_same_without_reading(on_disk, monkeypatch):
    monkeypatch.setattr(whole, "row_blocks", None)
    ample, little = needs(on_disk, memory="4GB"), needs(on_disk, memory="500MB")
    assert (ample.scratch, ample.genes) == (0, 24) and ample.memory <= 500e6
    assert little.memory <= 500e6
    with pytest.raises(ValueError, match="cells: memory of 1 MB is too small .* give at least"):
        needs(on_disk, memory="1MB")
    with pytest.raises(ValueError, match="obs has no column 'guide'"):
        needs(on_disk, perturbation_key="guide")


def test_it_says_beforehand_what_it_will_take(on_disk, capsys):
    contrast(on_disk, progress=True, name="real")
    told = capsys.readouterr()
    assert "real: 131 cells x 24 genes will take about 0.4 GB of memory" in told.out + told.err


def test_the_cells_of_the_caller_are_left_alone(any_storage, snapshot):
    if any_storage.isbacked:
        pytest.skip("opened read only")
    take, same = snapshot
    before = take(any_storage)
    contrast(any_storage)
    same(any_storage, before)


def test_half_precision_is_computed_in_single(cells):
    cells.X = np.log1p(cells.X).astype(np.float16)
    single = anndata.AnnData(cells.X.astype(np.float32), obs=cells.obs, var=cells.var)
    assert_same(contrast(cells), contrast(single))


def test_dense_and_sparse_agree_on_a_gene_that_nobody_has(cells):
    assert not dense_of(cells.X)[:, -1].any()
    assert (contrast(cells).p_value[:, -1] == 1).all()
