"""Cells of every storage are read alike, and what is wrong with them is said."""

import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells
from scipy import sparse

from vcc_helpers import cells as c


def whole(cells, **kw):
    return np.vstack([dense_of(block) for _, block in c.row_blocks(cells, **kw)])


@pytest.mark.parametrize("block_rows", [None, 1, 10, 1000])
def test_blocks_hold_every_row_once_and_in_order(any_storage, block_rows):
    starts = [start for start, _ in c.row_blocks(any_storage, block_rows=block_rows)]
    assert starts == list(range(0, any_storage.n_obs, block_rows or 4096))
    np.testing.assert_array_equal(whole(any_storage, block_rows=block_rows), make_cells().X)


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8", "bool"])
def test_integers_become_float32(dtype):
    block = next(c.row_blocks(make_cells(dtype=dtype)))[1]
    assert block.dtype == np.float32


def test_wide_files_come_in_small_blocks():
    wide = anndata.AnnData(sparse.csr_matrix((1100, 2**15), dtype=np.float32))
    assert [start for start, _ in c.row_blocks(wide)] == [0, 512, 1024]


def test_repeated_entries_are_summed_and_the_caller_keeps_his():
    indices, data = np.array([0, 0, 1], dtype=np.int32), np.array([1, 2, 4], dtype=np.float32)
    twice = anndata.AnnData(sparse.csr_matrix((data, indices, [0, 3]), shape=(1, 2)))
    np.testing.assert_array_equal(next(c.row_blocks(twice))[1].data, [3, 4])
    assert twice.X.nnz == 3


def test_inspect_values_on_every_storage(any_storage):
    found = c.inspect_values(any_storage)
    assert found.scale == "counts"
    np.testing.assert_array_equal(found.library_size, make_cells().X.sum(axis=1))


@pytest.mark.parametrize(
    ("value", "scale"),
    [(3.0, "counts"), (3.0005, "counts"), (3.002, "lognorm"), (2.9995, "lognorm"), (0, "counts")],
)
def test_a_fraction_above_a_thousandth_makes_log_values(value, scale):
    cells = anndata.AnnData(np.array([[1.0, value], [0.0, 2.0]]))
    assert c.inspect_values(cells).scale == scale


@pytest.mark.parametrize("large", [14.999, 15.0])
def test_log_values_stay_below_fifteen(large):
    cells = anndata.AnnData(np.array([[0.5, large]]))
    if large < 15:
        assert c.inspect_values(cells).scale == "lognorm"
    else:
        with pytest.raises(ValueError, match="reach 15, and log1p values stay below 15"):
            c.inspect_values(cells)


def test_open_cells_returns_an_anndata_as_it_is(cells):
    assert c.open_cells(cells) is cells


def test_open_cells_leaves_a_file_on_disk(cells, tmp_path):
    cells.write_h5ad(tmp_path / "x.h5ad")
    for source in (tmp_path / "x.h5ad", str(tmp_path / "x.h5ad")):
        opened = c.open_cells(source)
        assert opened.isbacked and opened.shape == cells.shape
        opened.file.close()


def test_labels_that_are_not_strings_become_strings():
    obs = pd.DataFrame({KEY: [7, 8]}, index=["a", "b"])
    assert c.labels_of(anndata.AnnData(np.ones((2, 1)), obs=obs)).tolist() == ["7", "8"]


def test_sound_cells_have_no_problem(any_storage):
    assert c.problems(any_storage) == []
    c.check_cells(any_storage)


def test_every_problem_is_listed_at_once(cells):
    cells.var_names = ["G0", "G0", *cells.var_names[2:]]
    cells.obs[KEY] = cells.obs[KEY].replace({CONTROL: "ctrl"})
    cells.obs[KEY] = [None, *cells.obs[KEY][1:]]
    with pytest.raises(ValueError) as caught:
        c.check_cells(cells, name="mine")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("mine: ") for line in lines)


def test_check_same_lists_genes_and_perturbations(cells):
    real = cells.copy()
    pred = cells[cells.obs[KEY] != "G1", 1:].copy()
    pred.obs[KEY] = pred.obs[KEY].replace({"G2": "other"})
    with pytest.raises(ValueError) as caught:
        c.check_same(pred, real)
    genes, missing, unknown = str(caught.value).splitlines()
    assert "1 of 24 genes of real are missing: 'G0'" in genes
    assert "2 of 5 perturbations of real are missing: 'G1', 'G2'" in missing
    assert "1 perturbations are not in real: 'other'" in unknown


def test_some_of():
    assert c.some_of([]) == "nothing"
    assert c.some_of("ab") == "'a', 'b'"
    assert c.some_of(range(7)) == "'0', '1', '2', '3', '4' and 2 more"


def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, vcc_helpers; "
        "print(*[m for m in ('scanpy', 'matplotlib', 'numba', 'illico') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
