"""One reading, any memory, the same bits; and nothing half done whatever happens."""

import bisect
import hashlib
import os
import resource
import shutil
import tempfile
from importlib import import_module

import anndata
import h5py
import numpy as np
import pytest
from conftest import CONTROL, KEY, make_cells, stored

from vcc_helpers import lognorm, score
from vcc_helpers.stream import contrast, keep, needs, open_cells

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


def least_memory(cells, threads=2, control=CONTROL):
    """Return the smallest memory that is accepted, to 1 kB."""
    cells = open_cells(cells)

    def fits(kilobytes):
        try:
            return bool(needs(cells, memory=1000 * kilobytes, threads=threads, control=control))
        except ValueError:
            return False

    return 1000 * bisect.bisect_left(range(2**16), True, key=fits)


# --- what is computed; more in test_contrast_random.py ---


def test_a_mean_is_summed_as_numpy_sums_a_row():
    """NumPy sums eight at a time, and by halves from 128 on: the last digit hangs on it."""
    cells = make_cells(n_cells=(127, 128, 129, 1000, 2001), n_genes=4)
    found, logged = contrast(cells), lognorm(cells)
    for i, group in enumerate(found.groups):
        by_gene = np.ascontiguousarray(logged[(cells.obs[KEY] == group).to_numpy()].T)
        np.testing.assert_array_equal(found.mean_as_summed[i], by_gene.mean(axis=1))


@pytest.mark.parametrize("value", [300, 70_000, 2.0005])  # fractions up to 0.001 are counts still
def test_counts_of_any_size_and_fractions_survive_the_shelf(value, cells, tmp_path):
    cells.X[3, 5] = value
    assert_same(contrast(stored(cells, "backed csr", tmp_path)), contrast(cells))


def test_little_memory_costs_passes_but_no_bit(tmp_path, scratch):
    """One perturbation alone is larger than the memory."""
    cells = make_cells(n_genes=200, n_cells=(2000, 5, 5, 5, 20), dtype="uint16")
    path = stored(cells, "backed csr", tmp_path).filename
    with pytest.raises(ValueError, match="too small for 2,035 cells .* give at least '[0-9]+MB'"):
        contrast(path, memory=1)
    memory = least_memory(path)
    planned = needs(path, memory=memory, threads=2)
    assert planned.scratch > 0 and planned.genes < 200  # several passes over scratch
    assert memory < (2 + 4) * np.count_nonzero(cells.X[(cells.obs[KEY] == "G0").to_numpy()])
    assert_same(contrast(path, memory=memory, threads=2), contrast(cells))
    assert not list(scratch.iterdir())


# --- what is kept ---


def kept_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_is_kept_is_found_again(cells, on_disk, tmp_path):
    kw = {"cache": tmp_path / "kept"}
    assert_same(contrast(on_disk, **kw), contrast(cells))
    (kept,) = (tmp_path / "kept").iterdir()
    other = contrast(make_cells(seed=1))
    keep.save(kept, other)
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


def test_a_cache_that_is_a_file_is_refused(cells, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(NotADirectoryError, match="kept is no folder; name another"):
        contrast(cells, cache=tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "mine"


# --- what goes wrong ---


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
    with pytest.raises(ValueError, match="cells: memory of 1 MB is too small .* give at least"):
        needs(on_disk, memory="1MB")
    with pytest.raises(ValueError, match="obs has no column 'guide'"):
        needs(on_disk, perturbation_key="guide")


def test_half_precision_is_computed_in_single(cells):
    cells.X = np.log1p(cells.X).astype(np.float16)
    single = anndata.AnnData(cells.X.astype(np.float32), obs=cells.obs, var=cells.var)
    assert_same(contrast(cells), contrast(single))
