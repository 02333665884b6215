"""One reading, any memory, the same bits; and nothing half done whatever happens."""

import bisect
import hashlib
import os
import resource
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import anndata
import h5py
import numpy as np
import pytest
from conftest import CONTROL, KEY, make_cells, stored
from scipy import sparse

from vcc_helpers import lognorm, score
from vcc_helpers.stream import contrast, keep, needs, open_cells, sums

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
    return write(cells, tmp_path / "cells.h5ad")


def write(cells, path):
    cells = cells.copy()
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(path)
    return path


@pytest.fixture
def scratch(monkeypatch, tmp_path, short_of_memory):
    """Return the folder for scratch data, which there are when memory is short."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def least_memory(cells, threads=2, control=CONTROL):
    """Return the smallest memory that is accepted, to 1 kB."""
    cells = open_cells(cells)

    def fits(kilobytes):
        try:
            return bool(needs(cells, memory=1000 * kilobytes, threads=threads, control=control))
        except ValueError:
            return False

    return 1000 * bisect.bisect_left(range(10**6), True, key=fits)


# --- what is computed; more in test_contrast_random.py ---


def test_a_mean_is_summed_as_numpy_sums_a_row():
    """NumPy sums eight at a time, and by halves from 128 on: the last digit hangs on it."""
    cells = make_cells(n_cells=(127, 128, 129, 1000, 3001), n_genes=12)
    found, logged = contrast(cells), lognorm(cells)
    for i, group in enumerate(found.groups):
        by_gene = np.ascontiguousarray(logged[(cells.obs[KEY] == group).to_numpy()].T)
        np.testing.assert_array_equal(found.mean_as_summed[i], by_gene.mean(axis=1))


@pytest.mark.parametrize("value", [300, 70_000, 2.0005])  # fractions up to 0.001 are counts still
def test_counts_of_any_size_and_fractions_survive_the_shelf(value, cells, tmp_path):
    cells.X[3, 5] = value
    assert_same(contrast(write(cells, tmp_path / "cells.h5ad")), contrast(cells))


def test_little_memory_costs_passes_but_no_bit(tmp_path, scratch):
    """One perturbation alone is larger than the memory."""
    cells = make_cells(n_genes=200, n_cells=(2000, 5, 5, 5, 20), dtype="uint16")
    path = write(cells, tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match="too small for 2,035 cells .* give at least '[0-9]+MB'"):
        contrast(path, memory=1)
    memory = least_memory(path)
    planned = needs(path, memory=memory, threads=2)
    assert planned.scratch > 0 and planned.genes < 200  # several passes over scratch
    assert memory < 4 * np.count_nonzero(cells.X[(cells.obs[KEY] == "G0").to_numpy()])
    assert_same(contrast(path, memory=memory, threads=2), contrast(cells))
    assert not list(scratch.iterdir())


# --- what is kept ---


def kept_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_is_kept_is_found_again(on_disk, expected, tmp_path):
    kw = {"cache": tmp_path / "kept"}
    assert_same(contrast(on_disk, **kw), expected)
    (kept,) = (tmp_path / "kept").iterdir()
    other = contrast(make_cells(seed=1))
    keep.save(kept, other)
    assert_same(contrast(on_disk, **kw), other)
    os.utime(on_disk, (1, 1))  # touched, but not changed
    assert_same(contrast(on_disk, **kw), other)


@pytest.mark.parametrize("change", ["value", "label", "gene", "row order", "control"])
def test_what_is_kept_is_never_out_of_date(change, cells, tmp_path):
    kw = {"cache": tmp_path / "kept"}
    contrast(cells, **kw)
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
    assert len(kept_in(tmp_path / "kept")) == 2


def test_a_change_that_keeps_size_and_time_is_seen(on_disk, tmp_path):
    contrast(on_disk, cache=tmp_path / "kept")
    before = os.stat(on_disk)
    with h5py.File(on_disk, "r+") as file:
        file["X"]["data"][0] += 1
    os.utime(on_disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(on_disk).st_size == before.st_size
    assert_same(contrast(on_disk, cache=tmp_path / "kept"), contrast(on_disk))


def test_what_is_kept_and_damaged_is_computed_anew(tmp_path):
    """Wherever it is: in a value, a name, a header or the list of the tables."""
    cells = make_cells(n_genes=1500)
    expected = contrast(cells, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    sound = kept.read_bytes()
    shorter = sound.replace(b", 1500)", b", 1400)", 1)  # NumPy does not come to its checksum
    damaged = [sound[:-100], b"", b"no", shorter]
    for place in [*range(0, len(sound), len(sound) // 9), len(sound) - 20, len(sound) - 1]:
        damaged.append(sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1 :])
    for raw in damaged:
        kept.write_bytes(raw)
        assert_same(contrast(cells, cache=tmp_path / "kept"), expected)


def test_threads_share_a_cache(on_disk, expected, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: contrast(on_disk, cache=tmp_path / "kept"), range(4)):
            assert_same(found, expected)
    assert len(kept_in(tmp_path / "kept")) == 1


def test_the_truth_is_computed_once_for_many_predictions(cells, tmp_path):
    other = make_cells(seed=1)
    score(cells, cells, cache=tmp_path)
    assert len(kept_in(tmp_path)) == 1
    found = score(other, cells, cache=tmp_path)
    assert len(kept_in(tmp_path)) == 2
    np.testing.assert_array_equal(found.per_perturbation, score(other, cells).per_perturbation)


def test_a_cache_that_is_a_file_is_refused(cells, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(NotADirectoryError, match="kept is no folder; name another"):
        contrast(cells, cache=tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "mine"


# --- what goes wrong ---


@pytest.mark.parametrize("moment", ["while it is read", "after it was hashed"])
def test_a_file_that_changes(moment, on_disk, monkeypatch, tmp_path):
    blocks, digest = whole.row_blocks, hashlib.file_digest

    def change():
        with on_disk.open("ab") as file:
            file.write(b"more")

    def read(*args, **kw):
        yield from blocks(*args, **kw)
        change()

    def hashed(*args):
        found = digest(*args)
        change()
        return found

    if moment == "while it is read":
        monkeypatch.setattr(whole, "row_blocks", read)
    else:
        monkeypatch.setattr(hashlib, "file_digest", hashed)
    with pytest.raises(ValueError, match=r"pred: .*cells\.h5ad was changed while it was read"):
        contrast(on_disk, cache=tmp_path / "kept", name="pred")
    assert not kept_in(tmp_path / "kept")


def test_a_file_that_is_damaged(on_disk, tmp_path):
    (tmp_path / "cells.zarr").mkdir()
    (tmp_path / "cells.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match="cells.zarr cannot be read"):
        contrast(tmp_path / "cells.zarr")
    os.truncate(on_disk, os.path.getsize(on_disk) - 2000)
    with pytest.raises(ValueError, match=r"cells\.h5ad cannot be read as an \.h5ad"):
        contrast(on_disk)


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


def test_an_error_in_a_thread_ends_the_run_and_its_scratch(on_disk, scratch, monkeypatch):
    memory, seen = least_memory(on_disk), []

    def fail(*args, **kw):
        seen.append(len(list(scratch.iterdir())))
        raise RuntimeError("in a thread")

    monkeypatch.setattr(sums, "rank_groups", fail)
    with pytest.raises(RuntimeError, match="in a thread"):
        contrast(on_disk, memory=memory, threads=2)
    assert seen[0] == 1 and not list(scratch.iterdir())


def test_a_bad_value_is_named_with_its_file_and_place(cells):
    cells.X[7, 3] = np.nan
    with pytest.raises(ValueError, match=f"real: .* cell '{cells.obs_names[7]}', gene 'G3'"):
        contrast(cells, name="real")


def test_needs_tells_beforehand_without_reading(on_disk, monkeypatch, capsys):
    contrast(on_disk, progress=True, name="real")
    told = capsys.readouterr()
    assert "real: 131 cells x 24 genes will take about 0.4 GB of memory" in told.out + told.err
    monkeypatch.setattr(whole, "row_blocks", None)
    ample, little = needs(on_disk, memory="4GB"), needs(on_disk, memory="500MB")
    assert (ample.scratch, ample.genes) == (0, 24) and ample.memory <= 500e6
    assert little.memory <= 500e6
    with pytest.raises(ValueError, match="cells: memory of 1 MB is too small .* give at least"):
        needs(on_disk, memory="1MB")
    with pytest.raises(ValueError, match="obs has no column 'guide'"):
        needs(on_disk, perturbation_key="guide")


@pytest.mark.parametrize("storage", ["csr", "unsorted", "sparse view"])
def test_the_cells_of_the_caller_are_left_alone(storage, cells, snapshot, tmp_path):
    (take, same), mine = snapshot, stored(cells, storage, tmp_path)
    before = take(mine)
    contrast(mine)
    same(mine, before)


def test_half_precision_is_computed_in_single(cells):
    cells.X = np.log1p(cells.X).astype(np.float16)
    single = anndata.AnnData(cells.X.astype(np.float32), obs=cells.obs, var=cells.var)
    assert_same(contrast(cells), contrast(single))
