"""Means become cells again: sizes, labels, means, and the same draw for the same seed."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, stored
from scipy import sparse

from vcc_helpers import emit, lognorm, pseudobulk

EMITTERS = [emit.replicate, emit.resample_and_shift]


@pytest.fixture
def controls(cells):
    return cells[cells.obs[KEY] == CONTROL].copy()


@pytest.mark.parametrize("make", EMITTERS)
@pytest.mark.parametrize(
    "n_cells",
    [
        3,
        {"G0": 1, "G1": 2, "G2": 3, "no gene": 4, "another": 9},
        pd.Series([4, 3, 2, 1], ["no gene", "G2", "G1", "G0"]),
    ],
)
def test_sizes_and_labels(make, n_cells, bulk, controls):
    made = make(bulk, controls=controls, n_cells=n_cells)
    expected = {"G0": 1, "G1": 2, "G2": 3, "no gene": 4}
    expected = dict.fromkeys(expected, 3) if isinstance(n_cells, int) else expected
    found = made.obs[KEY].value_counts().to_dict()
    assert found == expected | {CONTROL: controls.n_obs}
    assert made.obs[KEY].tolist() == [
        *(name for name, size in expected.items() for _ in range(size)),
        *[CONTROL] * controls.n_obs,
    ]
    assert made.obs_names.is_unique
    pd.testing.assert_frame_equal(made.var, bulk.var)
    np.testing.assert_array_equal(made.X[-controls.n_obs :], lognorm(controls))


def test_replicate_keeps_the_means_exactly(bulk, controls):
    made = emit.replicate(bulk, controls=controls, n_cells=4)
    np.testing.assert_array_equal(pseudobulk(made)[:4].X, pseudobulk(made)[bulk.obs_names[:4]].X)
    for name in ("G0", "no gene"):
        np.testing.assert_array_equal(made[made.obs[KEY] == name].X, [bulk[name].X[0]] * 4)


@pytest.mark.parametrize("make", EMITTERS)
@pytest.mark.parametrize("storage", ["dense", "csr", "csc"])
def test_sparse_stays_sparse(make, storage, bulk, controls, tmp_path):
    made = make(bulk, controls=stored(controls, storage, tmp_path), n_cells=3)
    assert sparse.issparse(made.X) == (storage != "dense")
    assert made.X.dtype == np.float32
    same = make(bulk, controls=controls, n_cells=3)
    np.testing.assert_array_equal(dense_of(made.X), same.X)


@pytest.mark.parametrize("make", EMITTERS)
def test_the_callers_data_are_never_changed(make, bulk, controls, snapshot):
    take, same = snapshot
    before = [take(x) for x in (bulk, controls)]
    made = make(bulk, controls=controls, n_cells=2)
    made.X[:], made.var["new"] = 7, 1
    for x, old in zip((bulk, controls), before, strict=True):
        same(x, old)


def test_resampling_shifts_real_controls(bulk, controls):
    pool = lognorm(controls)
    made = emit.resample_and_shift(bulk, controls=controls, n_cells=30, seed=1)
    cells = made[made.obs[KEY] == "G1"].X
    shift = bulk["G1"].X[0] - bulk[CONTROL].X[0]
    for cell in cells:
        assert (np.abs(np.maximum(pool + shift, 0) - cell).max(axis=1) < 1e-5).any()
    assert len(np.unique(cells, axis=0)) > 10
    assert cells.min() == 0  # the cut
    assert (np.maximum(pool + shift, 0) != pool + shift).any()


def test_the_seed_fixes_the_draw(bulk, controls):
    one, same, other = (
        emit.resample_and_shift(bulk, controls=controls, n_cells=5, seed=s).X for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_shift_of_nothing_gives_controls(bulk, controls):
    flat = anndata.AnnData(np.tile(bulk[CONTROL].X, (2, 1)), var=bulk.var)
    flat.obs_names = [CONTROL, "T"]
    made = emit.resample_and_shift(flat, controls=controls, n_cells=6)
    pool = {row.tobytes() for row in lognorm(controls)}
    assert all(row.tobytes() in pool for row in made[made.obs[KEY] == "T"].X)


@pytest.mark.parametrize("make", EMITTERS)
def test_controls_can_be_put_on_the_scale_of_the_prediction(make, cells, bulk, controls):
    """Control counts alone have another median library size than the whole file."""
    median = np.median(cells.X.sum(axis=1))
    assert median != np.median(controls.X.sum(axis=1))
    made = make(bulk, controls=controls, n_cells=2, target_sum=median)
    np.testing.assert_array_equal(
        made[made.obs[KEY] == CONTROL].X, lognorm(cells)[(cells.obs[KEY] == CONTROL).to_numpy()]
    )
    np.testing.assert_allclose(pseudobulk(made)[CONTROL].X, bulk[CONTROL].X, rtol=1e-6)


@pytest.mark.parametrize("make", EMITTERS)
def test_other_names(make, bulk, controls):
    bulk.obs_names = bulk.obs_names.str.replace(CONTROL, "ctrl")
    controls.obs = pd.DataFrame(index=controls.obs_names)
    made = make(bulk, controls=controls, n_cells=2, perturbation_key="gene", control="ctrl")
    assert made.obs["gene"].value_counts()["ctrl"] == controls.n_obs
    assert (made.obs["gene"] != "ctrl").sum() == 8


@pytest.mark.parametrize("make", EMITTERS)
def test_what_cannot_be_used(make, bulk, controls):
    with pytest.raises(ValueError, match="n_cells must be 1 or more; 'G0'"):
        make(bulk, controls=controls, n_cells=0)
    with pytest.raises(KeyError, match="no number of cells for 'G2', 'no gene'"):
        make(bulk, controls=controls, n_cells={"G0": 1, "G1": 1})
    with pytest.raises(ValueError, match="same genes in the same order"):
        make(bulk, controls=controls[:, ::-1], n_cells=1)
    with pytest.raises(ValueError, match="71 of 131 are .*'G0'.* select them with cells"):
        make(bulk, controls=make_cells(), n_cells=1)
    with pytest.raises(ValueError, match="empty"):
        make(bulk, controls=controls[:0], n_cells=1)


def test_resampling_needs_the_control_of_the_prediction(bulk, controls):
    with pytest.raises(KeyError, match="no control row"):
        emit.resample_and_shift(bulk[:4], controls=controls, n_cells=1)
    assert emit.replicate(bulk[:4], controls=controls, n_cells=1).n_obs == 64
