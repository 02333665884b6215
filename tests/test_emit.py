"""Means become cells again: sizes, labels, means, and the same draw for the same seed."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, stored
from scipy import sparse, stats

from vcc_helpers import datasets, de_table, emit, lognorm, pseudobulk

EMITTERS = [emit.replicate, emit.resample_and_shift, emit.negative_binomial]
SEEDED = EMITTERS[1:]


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
    counts = make is emit.negative_binomial
    expected = controls.X if counts else lognorm(controls)
    np.testing.assert_array_equal(made.X[-controls.n_obs :], expected)
    if make is emit.replicate:
        np.testing.assert_array_equal(made[made.obs[KEY] == "G2"].X, [bulk["G2"].X[0]] * 3)


@pytest.mark.parametrize("make", EMITTERS)
def test_sparse_stays_sparse(make, bulk, controls, tmp_path):
    made = make(bulk, controls=stored(controls, "csc", tmp_path), n_cells=3)
    assert sparse.issparse(made.X) and made.X.dtype == np.float32
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


@pytest.mark.parametrize("make", SEEDED)
def test_the_seed_fixes_the_draw(make, bulk, controls):
    one, same, other = (make(bulk, controls=controls, n_cells=5, seed=s).X for s in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("make", EMITTERS[:2])  # the third appends counts, which keep no scale
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
    if make is emit.resample_and_shift:
        with pytest.raises(KeyError, match="no control row"):
            make(bulk[:4], controls=controls, n_cells=1)
    else:
        assert make(bulk[:4], controls=controls, n_cells=1).n_obs == 64


# --- negative binomial ---------------------------------------------------------------------------


def flat_bulk(cells, names="ABCD"):
    """A prediction of no change: every target has the controls' own mean."""
    base = pseudobulk(cells)
    flat = anndata.AnnData(np.repeat(base.X, len(names) + 1, axis=0), var=base.var)
    flat.obs_names = [CONTROL, *names]
    return flat


def draw_controls(rate, phi, *, n_cells=400, depth_sd=0.3, seed=0):
    """Control cells that are negative binomial by construction."""
    rng = np.random.default_rng(seed)
    mu = rng.lognormal(0, depth_sd, (n_cells, 1)) * rate
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * mu)).astype(np.float32)
    var = pd.DataFrame(index=[f"G{i}" for i in range(len(rate))])
    obs = pd.DataFrame({KEY: CONTROL}, index=[f"c{i}" for i in range(n_cells)])
    return anndata.AnnData(counts, obs=obs, var=var)


@pytest.fixture(scope="module")
def day5():
    """Real stem cells: the control cells and the pseudobulk of day 5."""
    screen = datasets.load_hipsc_screen()
    return screen[screen.obs["day"] == 5].copy()


@pytest.mark.parametrize(
    ("rate", "phi", "depth"),
    [(0.01, 0.5, 1.0), (50, 8.0, 0.5), (1e4, 1e-4, 2.0)],
)
def test_the_mean_is_the_sum_over_all_counts(rate, phi, depth):
    law = stats.nbinom(1 / phi, 1 / (1 + phi * rate * depth))
    counts = np.arange(int(law.ppf(1 - 1e-13)) + 10)
    expected = (law.pmf(counts) * np.log1p(counts / depth)).sum()
    found = emit.mean_lognorm(rate, phi, np.array([depth]))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_rates_give_the_wanted_mean():
    rng = np.random.default_rng(0)
    phi, depth = np.exp(rng.uniform(np.log(1e-4), np.log(10), 400)), rng.lognormal(0, 0.3, 300)
    wanted = np.r_[0.0, rng.uniform(1e-4, 5, 398), 99.0]
    rate = emit._RateSolver(phi, depth, 50_000.0).rates(wanted, phi)
    np.testing.assert_allclose(
        emit.mean_lognorm(rate[:-1], phi[:-1], depth), wanted[:-1], atol=2e-3
    )
    assert rate[0] == 0 and rate[-1] == pytest.approx(50_000)  # all of a cell's counts, no more


def test_dispersion_is_found_again():
    rate, phi = np.geomspace(1, 20, 800), np.tile([0.05, 0.3, 1.0, 2.0], 200)
    found = emit.nb_dispersion(draw_controls(rate, phi, n_cells=1000)).to_numpy()
    for value in np.unique(phi):
        assert np.median(found[phi == value]) == pytest.approx(value, rel=0.1)
    poisson = emit.nb_dispersion(draw_controls(rate, np.full(800, 1e-4), n_cells=1000))
    assert poisson.median() < 0.005


def test_a_gene_with_few_counts_takes_the_usual_dispersion():
    rate = np.r_[np.full(50, 20.0), np.full(50, 1e-3), 0.0]
    found = emit.nb_dispersion(draw_controls(rate, np.full(101, 0.4), n_cells=500))
    usual = found.iloc[:50].median()
    assert usual == pytest.approx(0.4, rel=0.1)
    np.testing.assert_allclose(found.iloc[50:], usual, rtol=0.1)


@pytest.mark.parametrize("storage", ["dense", "backed csr"])
def test_dispersion_is_the_formula_in_every_storage(storage, controls, tmp_path):
    given = stored(controls, storage, tmp_path)
    found = emit.nb_dispersion(given)
    if given.isbacked:
        given.file.close()
    x = controls.X.astype(np.float64)
    n, depth = len(x), x.sum(axis=1)
    mu = np.outer(depth, x.sum(axis=0) / x.sum())
    excess = n / (n - 1) * ((x - mu) ** 2).sum(axis=0) - x.sum(axis=0)
    sure = (mu**2).sum(axis=0) > 10
    usual = max(np.median(excess[sure] / (mu**2).sum(axis=0)[sure]), 0)
    expected = (excess + 10 * usual) / ((mu**2).sum(axis=0) + 10)
    np.testing.assert_allclose(found, np.clip(expected, 1e-4, 10), rtol=1e-9)
    assert found.index.equals(controls.var_names)


def test_many_drawn_cells_average_to_the_prediction(day5):
    """Real effects, added to the real control's mean; compared on the prediction's scale."""
    bulk = pseudobulk(day5)[[CONTROL, "SOX2", "POU5F1"]]
    controls = day5[day5.obs[KEY] == CONTROL].copy()
    scale = float(np.median(np.asarray(day5.X.sum(axis=1))))
    made = emit.negative_binomial(bulk, controls=controls, n_cells=4000, target_sum=scale, seed=1)
    back = pseudobulk(made, target_sum=scale)
    for name in ("SOX2", "POU5F1"):
        sampling = np.sqrt(back[name].layers["variance"][0] / 4000)
        gap = back[name].X[0] - bulk[name].X[0]
        assert np.abs(gap).mean() < 2 * sampling.mean()
        moved = bulk[name].X[0] - bulk[CONTROL].X[0]
        assert np.corrcoef(moved + gap, moved)[0, 1] > 0.99
        assert np.abs(gap).mean() < np.abs(moved).mean() / 5


def test_the_cells_vary_as_controls_do(day5):
    controls = day5[day5.obs[KEY] == CONTROL].copy()
    made = emit.negative_binomial(flat_bulk(controls, "A"), controls=controls, n_cells=2000)
    back = pseudobulk(made)
    seen = back[CONTROL].X[0] > 0.05
    ratio = (back["A"].layers["variance"][0] / back[CONTROL].layers["variance"][0])[seen]
    assert 0.95 < np.median(ratio) < 1.05
    assert ((ratio > 0.8) & (ratio < 1.25)).mean() > 0.9
    depth = pd.Series(np.asarray(made.X.sum(axis=1)).ravel()).groupby(made.obs[KEY].to_numpy())
    for share in (0.05, 0.5, 0.95):  # library sizes are those of the controls
        assert depth.quantile(share)["A"] == pytest.approx(depth.quantile(share)[CONTROL], rel=0.1)


def test_no_effect_makes_no_more_genes_significant_than_chance(day5):
    controls = day5[day5.obs[KEY] == CONTROL].copy()
    called, small = {}, {}
    for make in EMITTERS:
        table = de_table(make(flat_bulk(controls), controls=controls, n_cells=150))
        called[make.__name__] = table.significant.mean()
        small[make.__name__] = (table.p_value < 0.05).mean()
    assert called["negative_binomial"] < 0.01 and small["negative_binomial"] < 0.08
    assert called["resample_and_shift"] < 0.01 and small["resample_and_shift"] < 0.08
    assert called["replicate"] > 0.2


def test_a_true_effect_is_called_as_often_as_in_real_cells(day5):
    """Of two strong targets: twice too many or half as many would be another picture."""
    real = day5[day5.obs[KEY].isin([CONTROL, "SOX2", "POU5F1"])].copy()
    controls = real[real.obs[KEY] == CONTROL].copy()
    bulk = pseudobulk(real)
    made = emit.negative_binomial(bulk, controls=controls, n_cells=bulk.obs["n_cells"])
    share = [de_table(cells).significant.mean() for cells in (made, real)]
    assert share[1] > 0.3
    assert 0.7 < share[0] / share[1] < 1.4


def test_given_dispersions_are_taken_as_they_are(day5):
    controls = day5[day5.obs[KEY] == CONTROL].copy()
    flat, found = flat_bulk(controls, "A"), []
    for phi in (0, 0.1, np.full(103, 1.0)):
        made = emit.negative_binomial(flat, controls=controls, n_cells=500, dispersion=phi)
        found.append(emit.nb_dispersion(made[made.obs[KEY] == "A"]).median())
    np.testing.assert_allclose(found, [0, 0.1, 1.0], rtol=0.15, atol=0.01)


@pytest.mark.parametrize("name", ["SOX2", "POU5F1"])
def test_strong_effects_come_with_the_dispersion_of_their_real_cells(name, day5):
    """It is never told: it follows from the mean profile, since rates must add up."""
    controls = day5[day5.obs[KEY] == CONTROL].copy()
    scale = float(np.median(np.asarray(day5.X.sum(axis=1))))
    bulk = pseudobulk(day5)[[name]]
    made = emit.negative_binomial(bulk, controls=controls, n_cells=1000, target_sum=scale)
    cells = (controls, day5[day5.obs[KEY] == name], made[made.obs[KEY] == name])
    base, real, drawn = (emit.nb_dispersion(x).to_numpy()[bulk.X[0] > 0.5] for x in cells)
    assert np.median(real / base) > 1.7
    assert np.median(drawn / base) == pytest.approx(np.median(real / base), rel=0.3)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_the_means_tell_how_dispersed_the_cells_were(factor):
    """Cells of another dispersion: the rates add up for theirs, not for the controls'."""
    rate, phi = np.geomspace(0.5, 50, 200), np.full(200, 0.3)
    controls = draw_controls(rate, phi, n_cells=1200)
    other = draw_controls(rate[::-1], phi * factor, n_cells=1200, seed=1)
    other.obs[KEY] = "A"
    scale = float(np.median(controls.X.sum(axis=1)))
    bulk = pseudobulk(other, target_sum=scale)
    made = emit.negative_binomial(bulk, controls=controls, n_cells=1200, target_sum=scale)
    found = emit.nb_dispersion(made[made.obs[KEY] == "A"])
    assert found.median() == pytest.approx(0.3 * factor, rel=0.1)
    fixed = emit.negative_binomial(
        bulk, controls=controls, n_cells=1200, target_sum=scale, dispersion=0.3
    )
    gap = [np.abs(pseudobulk(x, target_sum=scale)["A"].X - bulk.X).mean() for x in (made, fixed)]
    assert gap[0] < 0.02
    assert gap[0] < 0.8 * gap[1]


def test_what_counts_cannot_be_drawn_from(bulk, controls):
    logged = controls.copy()
    logged.X = lognorm(controls)
    with pytest.raises(ValueError, match="give the control cells as they were read"):
        emit.negative_binomial(bulk, controls=logged, n_cells=1)
    for bad in (-0.1, np.ones(3), np.full(24, np.nan)):
        with pytest.raises(ValueError, match="dispersion must be one number, or one for each"):
            emit.negative_binomial(bulk, controls=controls, n_cells=1, dispersion=bad)
    silent = controls.copy()
    silent.X[:] = 0
    with pytest.raises(ValueError, match="all control cells are empty"):
        emit.negative_binomial(bulk, controls=silent, n_cells=1)
    with pytest.raises(ValueError, match="two cells at least"):
        emit.nb_dispersion(controls[:1])
