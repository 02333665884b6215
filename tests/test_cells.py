"""Cells of every storage are read, measured and sampled alike, and what is wrong is said."""

import glob
import os
import sys
import threading
import zlib

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, refuses, rewrite, stored
from scipy import sparse

from vcc_helpers import sort_cells
from vcc_helpers.bulk import some_of
from vcc_helpers.stream import blocks as stored_as
from vcc_helpers.stream import check_cells, inspect_values, open_cells, read_rows, row_blocks
from vcc_helpers.stream.look import qc_table, sample_cells
from vcc_helpers.stream.open import parse_memory


def whole(cells, **kw):
    return np.vstack([dense_of(block) for _, block in row_blocks(cells, **kw)])


def test_every_storage_is_read_alike(any_storage):
    values = make_cells().X
    for block_rows in (None, 10):
        starts = [start for start, _ in row_blocks(any_storage, block_rows=block_rows)]
        assert starts == list(range(0, any_storage.n_obs, block_rows or 4096))
        np.testing.assert_array_equal(whole(any_storage, block_rows=block_rows), values)
    for rows in ([130], [0, 2, 3, 50, 53, 130], range(131)):
        found = dense_of(read_rows(any_storage, np.array(rows)))
        np.testing.assert_array_equal(found, values[np.array(rows)])
    found = inspect_values(any_storage)
    assert found.scale == "counts"
    np.testing.assert_array_equal(found.library_size, values.sum(axis=1))
    check_cells(any_storage)


def test_wide_files_come_in_small_blocks():
    wide = anndata.AnnData(sparse.csr_matrix((1100, 2**15), dtype=np.float32))
    assert [start for start, _ in row_blocks(wide)] == [0, 512, 1024]


def test_an_integer_that_float32_cannot_hold_is_refused():
    cells = make_cells(dtype="int64")
    cells.X[3, 5] = 2**24
    assert next(row_blocks(cells))[1][3, 5] == 2**24
    cells.X[3, 5] += 1
    refuses(f"{cells.obs_names[3]}.*'G5'.*16777217 is above", list, row_blocks(cells, block_rows=2))


@pytest.mark.parametrize(
    ("shuffle", "skipped", "chunks"),
    [(False, 0, (37, 3)), (False, 1, (37, 3)), (True, 0, (37, 3)), (True, 1, (37, 3)),
     (True, 2, (10, 24)), (True, 3, (10, 24))],
)  # fmt: skip
def test_dense_files_packed_with_gzip(skipped, shuffle, chunks, tmp_path):
    """Also where a writer skipped a filter for one chunk, and where it wrote no chunk at all."""
    cells, path = make_cells(), tmp_path / "x.h5ad"
    values = cells.X.copy()
    values[-20:] = 0
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        options = {"chunks": chunks, "compression": "gzip", "shuffle": shuffle}
        rewrite(file, "X", shape=cells.shape, dtype=np.float32, **options)
        (data := file["X"])[:-20] = values[:-20]
        file.flush()
        part = values[chunks[0] : 2 * chunks[0], : chunks[1]]
        raw = part.tobytes()
        if shuffle and not skipped & 1:
            raw = np.ascontiguousarray(part.ravel().view(np.uint8).reshape(-1, 4).T).tobytes()
        if not skipped >> shuffle & 1:
            raw = zlib.compress(raw)
        data.id.write_direct_chunk((chunks[0], 0), raw, skipped)
    found = anndata.read_h5ad(path, backed="r")
    np.testing.assert_array_equal(found.X[:], values)
    np.testing.assert_array_equal(whole(found, block_rows=9), values)


def test_csc_files_of_many_slabs_and_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_as, "BLOCK_VALUES", 150)
    found = stored(make_cells(), "backed csc", tmp_path)
    for block_rows in (None, 5):
        np.testing.assert_array_equal(whole(found, block_rows=block_rows), make_cells().X)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where open files can be listed")
def test_the_copy_of_a_csc_file_has_no_name(tmp_path):
    """So a process that is killed leaves none."""
    found = stored(make_cells(), "backed csc", tmp_path)
    (scratch := tmp_path / "scratch").mkdir()
    blocks = stored_as.stored_blocks(found, block_rows=5, scratch=scratch)

    def is_open():
        links = [os.readlink(link) for link in glob.glob("/proc/self/fd/*") if os.path.islink(link)]
        return any(link.startswith(str(scratch)) for link in links)

    next(blocks)
    assert is_open() and not list(scratch.iterdir())
    blocks.close()
    assert not is_open()


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("rows", [np.arange(3, 131, 3), np.random.default_rng(0).permutation(50)])
def test_a_view_of_a_file_in_any_order(rows, kind, tmp_path):
    cells = make_cells()
    stored(cells, kind, tmp_path).write_h5ad(tmp_path / "x.h5ad")
    view = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")[rows, [3, 1, 7]]
    expected = cells.X[rows][:, [3, 1, 7]]
    np.testing.assert_array_equal(whole(view, block_rows=7), expected)
    np.testing.assert_array_equal(dense_of(read_rows(view, np.arange(3, 9))), expected[3:9])


def test_a_file_of_parts_whose_sums_are_whole_is_counts(tmp_path):
    """Only the sum of repeated entries tells the scale, on disk as in memory."""
    indices, data = np.array([0, 0, 1, 1], dtype=np.int32), np.array([0.5, 0.5, -1, 3], "f4")
    parts = anndata.AnnData(sparse.csr_matrix((data, indices, [0, 4]), shape=(1, 2)))
    parts.write_h5ad(tmp_path / "x.h5ad")
    found = inspect_values(open_cells(tmp_path / "x.h5ad"))
    assert found.scale == inspect_values(parts).scale == "counts"
    assert found.library_size.tolist() == [3]
    assert dense_of(next(row_blocks(parts))[1]).tolist() == [[1, 2]]
    assert parts.X.nnz == 4  # the caller keeps the parts


def test_parse_memory():
    texts = ["4 gb", "1.5GiB", "64KiB", "12B", 1e9]
    assert [parse_memory(text) for text in texts] == [4 * 10**9, 3 * 2**29, 2**16, 12, 10**9]
    for text in ("", "GB", "-1GB", 0, "4GBB", None, "nan"):
        refuses("number of bytes or a text like '4GB'", parse_memory, text)


@pytest.mark.parametrize("storage", ["dense", "backed csr"])
def test_what_is_no_exact_count_is_seen_in_every_storage(storage, tmp_path):
    logged = make_cells()
    logged.X = np.log1p(logged.X)
    assert inspect_values(stored(logged, storage, tmp_path)).scale == "lognorm"
    large = make_cells(dtype="int64")
    large.X[3, 5] = 2**24 + 1
    refuses("'G5': the integer 16777217 is above", inspect_values, stored(large, storage, tmp_path))


@pytest.mark.parametrize(
    ("value", "scale"),
    [(3.0, "counts"), (3.0005, "counts"), (3.002, "lognorm"), (2.9995, "lognorm"), (0, "counts")],
)
def test_a_fraction_above_a_thousandth_makes_log_values(value, scale):
    cells = anndata.AnnData(np.array([[1.0, value], [0.0, 2.0]]))
    assert inspect_values(cells).scale == scale


def test_log_values_stay_below_fifteen():
    assert inspect_values(anndata.AnnData(np.array([[0.5, 14.999]]))).scale == "lognorm"
    with pytest.raises(ValueError, match="reach 15, and log1p values stay below 15"):
        inspect_values(anndata.AnnData(np.array([[0.5, 15.0]])))


def test_some_of():
    assert some_of([]) == "nothing"
    assert some_of("ab") == "'a', 'b'"
    assert some_of(range(7)) == "'0', '1', '2', '3', '4' and 2 more"


def test_who_asks_for_no_more_does_not_wait_for_those_who_read_ahead():
    """Or it waits for ever, if it holds the lock that they wait for, as HDF5's."""
    lock = threading.Lock()

    def read(number):
        if number:
            with lock:
                pass
        return number

    with lock:
        blocks = stored_as.ahead(read, [(0,), (1,), (2,)])
        assert next(blocks) == 0
        closing = threading.Thread(target=blocks.close, daemon=True)
        closing.start()
        closing.join(timeout=20)
        assert not closing.is_alive()


@pytest.mark.parametrize("storage", ["dense", "backed csr", "explicit zeros"])
def test_figures_by_hand(storage, cells, tmp_path):
    counts, table = cells.X, qc_table(stored(cells, storage, tmp_path), columns=[KEY])
    np.testing.assert_array_equal(table["depth"], counts.sum(axis=1))
    np.testing.assert_array_equal(table["n_genes"], (counts > 0).sum(axis=1))
    assert table.index.equals(cells.obs_names)
    assert table[KEY].tolist() == cells.obs[KEY].tolist()


def test_a_missing_column_is_named(cells):
    with pytest.raises(KeyError, match="no column 'batch'; it has 'target_gene'"):
        qc_table(cells, columns=["batch"])


def test_what_is_no_count_is_placed(cells):
    cells.X[3, 5] = -1
    refuses(f"the first in cell '{cells.obs_names[3]}', gene 'G5'", qc_table, cells)


@pytest.mark.parametrize("storage", ["dense", "backed csr", "backed view"])
def test_sample_takes_at_most_so_many_and_keeps_rows_whole(storage, cells, tmp_path):
    kept = stored(cells, storage, tmp_path)
    drawn = sample_cells(kept, at_most=10, controls=25)
    assert drawn.obs[KEY].value_counts().to_dict() == {
        "G0": 10, "G1": 10, "G2": 10, "no gene": 9, CONTROL: 25
    }  # fmt: skip
    rows = kept.obs_names.get_indexer(drawn.obs_names)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(dense_of(drawn.X), cells.X[rows])
    assert not drawn.isbacked and not drawn.is_view


def test_sample_of_a_sorted_file_is_the_same(cells, tmp_path):
    sort_cells(cells, tmp_path / "sorted.h5ad")
    one = sample_cells(cells, at_most=7, seed=3)
    other = sample_cells(tmp_path / "sorted.h5ad", at_most=7, seed=3)
    assert set(one.obs_names) == set(other.obs_names)
    np.testing.assert_array_equal(dense_of(one[other.obs_names].X), dense_of(other.X))


def test_the_draw_hangs_on_the_seed_and_on_no_other_group(cells):
    def names(source, seed=0):
        drawn = sample_cells(source, at_most=7, seed=seed)
        return set(drawn.obs_names[drawn.obs[KEY] == "G1"])

    assert names(cells) == names(cells) == names(cells[cells.obs[KEY] != "G0"].copy())
    assert names(cells) != names(cells, seed=1)
    even = make_cells(n_cells=(30, 30, 12, 9, 60), shuffle=False)
    rows = even.obs_names.get_indexer(sample_cells(even, at_most=7).obs_names)
    assert set(rows[:7]) != set(rows[7:14] - 30)  # groups of one size are no copies of a draw


def test_only_targets_or_only_controls_but_not_nothing(cells):
    for kw in ({"at_most": -1}, {"at_most": 0}, {"controls": -2}):
        refuses("expected some cells to draw", sample_cells, cells, **kw)
    assert set(sample_cells(cells, at_most=0, controls=5).obs[KEY]) == {CONTROL}
    assert CONTROL not in set(sample_cells(cells, at_most=5, controls=0).obs[KEY])


def test_a_sample_of_simulated_cells_still_says_so(cells):
    cells.uns["simulated"] = True
    drawn = sample_cells(cells, at_most=1000)
    pd.testing.assert_frame_equal(drawn.obs, cells.obs)
    assert drawn.uns["simulated"] is True and drawn.uns is not cells.uns
