"""Quality figures and samples are the same whether the file is in memory, on disk or sorted."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, stored
from scipy import sparse

from vcc_helpers.stream import qc_table, sample_cells, sort_cells


@pytest.mark.parametrize("storage", ["dense", "backed csr", "explicit zeros"])
def test_figures_by_hand(storage, cells, tmp_path):
    counts, table = cells.X, qc_table(stored(cells, storage, tmp_path), columns=[KEY])
    np.testing.assert_array_equal(table["depth"], counts.sum(axis=1))
    np.testing.assert_array_equal(table["n_genes"], (counts > 0).sum(axis=1))
    assert table.index.equals(cells.obs_names)
    assert table[KEY].tolist() == cells.obs[KEY].tolist()


def test_repeated_entries_are_one_gene():
    indices, data = np.array([0, 0, 1], dtype=np.int32), np.array([1, 2, 4], dtype=np.float32)
    twice = anndata.AnnData(sparse.csr_matrix((data, indices, [0, 3]), shape=(1, 2)))
    assert qc_table(twice).iloc[0].tolist() == [7, 2]


def test_a_missing_column_is_named(cells):
    with pytest.raises(KeyError, match="no column 'batch'; it has 'target_gene'"):
        qc_table(cells, columns=["batch"])


def test_what_is_no_count_is_placed(cells):
    cells.X[3, 5] = -1
    with pytest.raises(ValueError, match=f"the first in cell '{cells.obs_names[3]}', gene 'G5'"):
        qc_table(cells)


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
        with pytest.raises(ValueError, match="expected some cells to draw"):
            sample_cells(cells, **kw)
    assert set(sample_cells(cells, at_most=0, controls=5).obs[KEY]) == {CONTROL}
    assert CONTROL not in set(sample_cells(cells, at_most=5, controls=0).obs[KEY])


def test_a_sample_of_simulated_cells_still_says_so(cells):
    cells.uns["simulated"] = True
    drawn = sample_cells(cells, at_most=1000)
    pd.testing.assert_frame_equal(drawn.obs, cells.obs)
    assert drawn.uns["simulated"] is True and drawn.uns is not cells.uns
