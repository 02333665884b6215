"""Means become cells again: sizes, labels, means, and the same draw for the same seed."""

from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, annotated, dense_of, make_cells, refuses, stored
from scipy import sparse, stats

from vcc_helpers import de_table, emit, lognorm, pseudobulk, submission

EMITTERS = [emit.replicate, emit.resample_and_shift, emit.negative_binomial]


@pytest.fixture
def controls(cells):
    return cells[cells.obs[KEY] == CONTROL].copy()


@pytest.mark.parametrize("make", EMITTERS)
def test_sizes_and_labels(make, bulk, controls, snapshot, tmp_path):
    (take, same), bulk = snapshot, bulk[::-1].copy()  # an order that no sorting gives
    before, counts = [take(x) for x in (bulk, controls)], make is emit.negative_binomial
    sizes = {"no gene": 4, "G2": 3, "G1": 2, "G0": 1}
    for n_cells in (3, sizes | {"another": 9}, pd.Series(sizes)[::-1]):
        made = make(bulk, controls=controls, n_cells=n_cells)
        expected = dict.fromkeys(sizes, 3) if isinstance(n_cells, int) else sizes
        names = np.repeat([*expected, CONTROL], [*expected.values(), controls.n_obs])
        assert made.obs[KEY].tolist() == names.tolist() and made.obs_names.is_unique
        pd.testing.assert_frame_equal(made.var, bulk.var)
        tail = controls.X if counts else lognorm(controls)
        np.testing.assert_array_equal(made.X[-controls.n_obs :], tail)
        if make is emit.replicate:
            g2 = made[made.obs[KEY] == "G2"].X
            np.testing.assert_array_equal(g2, [bulk["G2"].X[0]] * expected["G2"])
        else:
            seeds = (make(bulk, controls=controls, n_cells=n_cells, seed=s).X for s in (0, 4))
            assert [(x == made.X).all() for x in seeds] == [True, False]
    packed = make(bulk, controls=stored(controls, "csc", tmp_path), n_cells=n_cells)
    assert sparse.issparse(packed.X) and packed.X.dtype == np.float32
    np.testing.assert_array_equal(packed.X.toarray(), made.X)
    made.X[:], made.var["new"] = 7, 1
    for x, old in zip((bulk, controls), before, strict=True):
        same(x, old)
    bulk.obs_names = bulk.obs_names.str.replace(CONTROL, "ctrl")
    controls.obs = pd.DataFrame(index=controls.obs_names)
    made = make(bulk, controls=controls, n_cells=2, perturbation_key="gene", control="ctrl")
    assert made.obs["gene"].value_counts().to_dict() == dict.fromkeys(sizes, 2) | {"ctrl": 60}


@pytest.mark.parametrize("make", EMITTERS)
@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "view"])
def test_cells_in_a_file_are_those_in_memory(make, kind, bulk, controls, tmp_path, monkeypatch):
    monkeypatch.setattr(emit, "_BLOCK_VALUES", 7 * 24)  # of seven cells
    given = stored(controls, f"backed {kind}", tmp_path)
    asked = {"n_cells": {"G2": 17, "G1": 3, "G0": 8, "no gene": 1}}
    expected, path = make(bulk, controls=controls, **asked), tmp_path / "made.h5ad"
    submission.write(bulk, path, controls=given, emitter=make, **asked)
    made = anndata.read_h5ad(path)
    np.testing.assert_array_equal(dense_of(made.X), dense_of(expected.X))
    assert made.obs[KEY].tolist() == expected.obs[KEY].tolist()
    assert made.obs_names[:29].equals(expected.obs_names[:29])
    other = controls[::2].copy()
    means = {"A": bulk, "B": bulk[::-1].copy()}
    submission.write(means, path, controls={"B": other, "A": given}, emitter=make, **asked)
    made = anndata.read_h5ad(path)
    assert made.obs_names.is_unique and made.obs["context"].tolist() == ["A"] * 29 + ["B"] * 29
    for name, cells in (("A", controls), ("B", other)):
        whole = make(means[name], controls=cells, **asked)[:29]
        part = made[made.obs["context"] == name]
        np.testing.assert_array_equal(dense_of(part.X), dense_of(whole.X))
        assert part.obs[KEY].tolist() == whole.obs[KEY].tolist()
    before = path.read_bytes()
    asked_of = partial(submission.write, bulk, path, controls=controls, emitter=partial(make))
    refuses("expected a function of vcc_helpers.emit itself", asked_of, n_cells=1, error=TypeError)
    for match, out, some in [
        ("of one context, or both of each", path, controls),
        ("none of the contexts 'B'; give those of each", path, {"A": controls}),
        ("of context 'B' are not those of the first", path, {"A": controls, "B": controls}),
        ("is read by the same command", given.filename, {"A": given, "B": given}),
    ]:
        means["B"] = bulk[:, ::-1] if "first" in match else bulk
        refuses(match, submission.write, means, out, controls=some, emitter=make, **asked)
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", EMITTERS)
def test_what_cannot_be_used(make, bulk, controls):
    for error, match, n_cells, given in [
        (ValueError, "n_cells must be 1 or more; 'G0'", 0, controls),
        (KeyError, "no number of cells for 'G2', 'no gene'", {"G0": 1, "G1": 1}, controls),
        (ValueError, "same genes in the same order", 1, controls[:, ::-1]),
        (ValueError, "71 of 131 are .*'G0'.* select them with cells", 1, make_cells()),
        (ValueError, "empty", 1, controls[:0]),
    ]:
        refuses(match, make, bulk, controls=given, n_cells=n_cells, error=error)
    if make is emit.resample_and_shift:
        refuses("no control row", make, bulk[:4], controls=controls, n_cells=1, error=KeyError)
    else:
        assert make(bulk[:4], controls=controls, n_cells=1).n_obs == 64


def test_what_counts_cannot_be_drawn_from(bulk, controls):
    logged, silent = controls.copy(), controls.copy()
    logged.X, silent.X[:] = lognorm(controls), 0
    for match, given, dispersion in [
        ("give the control cells as they were read", logged, None),
        ("all control cells are empty", silent, None),
        ("two cells at least", controls[:1], None),
        ("dispersion must be one number, or one for each", controls, -0.1),
        ("dispersion must be one number, or one for each", controls, np.ones(3)),
        ("dispersion must be one number, or one for each", controls, np.full(24, np.nan)),
    ]:
        with pytest.raises(ValueError, match=match):
            emit.negative_binomial(bulk, controls=given, n_cells=1, dispersion=dispersion)


def test_resampling_shifts_real_controls(bulk, controls):
    made = emit.resample_and_shift(bulk, controls=controls, n_cells=30, seed=1)
    cells = made[made.obs[KEY] == "G1"].X
    shifted = lognorm(controls) + (bulk["G1"].X[0] - bulk[CONTROL].X[0])
    assert shifted.min() < 0 and len(np.unique(cells, axis=0)) > 10
    for cell in cells:
        assert (np.abs(np.maximum(shifted, 0) - cell).max(axis=1) < 1e-5).any()


@pytest.mark.parametrize("make", EMITTERS[:2])  # the third appends counts, which keep no scale
def test_controls_can_be_put_on_the_scale_of_the_prediction(make, cells, bulk, controls):
    median = np.median(cells.X.sum(axis=1))  # of the whole file, not of the controls alone
    made = make(bulk, controls=controls, n_cells=2, target_sum=median)
    tail = lognorm(cells)[(cells.obs[KEY] == CONTROL).to_numpy()]
    np.testing.assert_array_equal(made.X[-controls.n_obs :], tail)


def flat_bulk(cells, names="ABCD"):
    """A prediction of no change: every target has the controls' own mean."""
    base = pseudobulk(cells)
    flat = anndata.AnnData(np.repeat(base.X, len(names) + 1, axis=0), var=base.var)
    flat.obs_names = [CONTROL, *names]
    return flat


def draw_controls(rate, phi, *, n_cells=1200, seed=0):
    """Control cells that are negative binomial by construction."""
    rng = np.random.default_rng(seed)
    mu = rng.lognormal(0, 0.3, (n_cells, 1)) * rate
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * mu)).astype(np.float32)
    return annotated(counts, [CONTROL] * n_cells)


@pytest.mark.parametrize(("rate", "phi", "depth"), [(0.01, 0.5, 1), (50, 8, 0.5), (1e4, 1e-4, 2)])
def test_the_mean_is_the_sum_over_all_counts(rate, phi, depth):
    law = stats.nbinom(1 / phi, 1 / (1 + phi * rate * depth))
    counts = np.arange(int(law.ppf(1 - 1e-13)) + 10)
    expected = (law.pmf(counts) * np.log1p(counts / depth)).sum()
    found = emit._mean_lognorm(rate, phi, np.array([depth]))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_rates_give_the_wanted_mean():
    rng = np.random.default_rng(0)
    phi, depth = np.exp(rng.uniform(np.log(1e-4), np.log(10), 400)), rng.lognormal(0, 0.3, 300)
    wanted = np.r_[0.0, rng.uniform(1e-4, 5, 398), 99.0]
    rate = emit._RateSolver(phi, depth, 50_000.0).rates(wanted, phi)
    np.testing.assert_allclose(
        emit._mean_lognorm(rate[:-1], phi[:-1], depth), wanted[:-1], atol=2e-3
    )
    assert rate[0] == 0 and rate[-1] == pytest.approx(50_000)  # all of a cell's counts, no more


@pytest.mark.parametrize("storage", ["dense", "backed csr"])
def test_dispersion_is_the_formula_in_every_storage(storage, controls, tmp_path):
    given = stored(controls, storage, tmp_path)
    found = emit._nb_dispersion(given)
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
    back, base = pseudobulk(made, target_sum=scale), emit._nb_dispersion(controls)
    for name in ("SOX2", "POU5F1"):
        sampling = np.sqrt(back[name].layers["variance"][0] / 4000)
        gap = back[name].X[0] - bulk[name].X[0]
        assert np.abs(gap).mean() < 2 * sampling.mean()
        moved = bulk[name].X[0] - bulk[CONTROL].X[0]
        assert np.corrcoef(moved + gap, moved)[0, 1] > 0.99
        assert np.abs(gap).mean() < np.abs(moved).mean() / 5
        # the dispersion of the real cells is never told: it follows, since rates must add up
        real, drawn = (
            (emit._nb_dispersion(x[x.obs[KEY] == name]) / base)[bulk[name].X[0] > 0.5].median()
            for x in (day5, made)
        )
        assert 1.7 < real == pytest.approx(drawn, rel=0.3)


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


def test_the_means_tell_how_dispersed_the_cells_were():
    """Cells of twice the dispersion: the rates add up for theirs, not for the controls'."""
    rate, phi = np.geomspace(0.5, 50, 200), np.full(200, 0.3)
    controls = draw_controls(rate, phi)
    other = draw_controls(rate[::-1], phi * 2, seed=1)
    other.obs[KEY] = "A"
    scale = float(np.median(controls.X.sum(axis=1)))
    bulk = pseudobulk(other, target_sum=scale)
    recipe = {"controls": controls, "n_cells": 1200, "target_sum": scale}
    made, fixed = (emit.negative_binomial(bulk, **recipe, dispersion=d) for d in (None, 0.3))
    found = emit._nb_dispersion(made[made.obs[KEY] == "A"])
    assert found.median() == pytest.approx(0.6, rel=0.1)
    drawn = [np.log(np.ravel(x.X.sum(axis=1))).std() for x in (made[:1200], made[1200:])]
    assert drawn[0] == pytest.approx(drawn[1], rel=0.1)  # library sizes are those of the controls
    gap = [np.abs(pseudobulk(x, target_sum=scale)["A"].X - bulk.X).mean() for x in (made, fixed)]
    assert gap[0] < 0.02
    assert gap[0] < 0.8 * gap[1]
