"""Every score by the rules of 2026 equals that of cell-eval2 0.20.0, installed and run here."""

import numpy as np
import parity_cases
import pytest

from vcc_helpers import datasets, metrics, scoring
from vcc_helpers.presets import VCC2026

pytest.importorskip(
    "cell_eval2",
    reason="the official scorer (the oracle extra) is absent; it does not install on Python 3.13",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # the oracle's own

TOLERANCE = 1e-9
CASES = range(24)


@pytest.fixture(scope="module")
def sample():
    return datasets.load_h1_sample()


def assert_equal(case):
    gap = parity_cases.difference_2026(case)
    assert len(gap) > 1, "nothing was compared"
    assert gap.to_numpy().max() <= TOLERANCE, gap


@pytest.mark.parametrize("seed", CASES)
def test_random_case_equals_the_official_scorer(seed):
    assert_equal(parity_cases.random_counts_case(seed))


def test_the_random_cases_are_awkward():
    """The cases must hold what makes scoring hard, or their agreement shows little."""
    seen = dict.fromkeys(("not tested", "no fidelity", "few genes", "not a gene", "tie"), 0)
    for seed in CASES:
        case = parity_cases.random_counts_case(seed)
        card = scoring.score(case.pred, case.real, "vcc2026").per_perturbation
        table = scoring.digest(case.real, "vcc2026").de
        seen["not tested"] += bool(np.isnan(table.log2_fold_change).any())
        seen["no fidelity"] += bool(card["direction_fidelity"].isna().any())
        seen["few genes"] += bool(card["lfc_nmae"].isna().any() and card["lfc_nmae"].notna().any())
        seen["not a gene"] += bool((~table.perturbations.isin(case.real.var_names)).any())
        halves = 2 * (len(card) - 1) * (1 - card["pds_cosine"])
        seen["tie"] += bool((np.round(halves) % 2 == 1).any())
    assert min(seen.values()) >= 2, seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_halves_equal_the_official_scorer(sample, dtype):
    pair = [half.copy() for half in scoring.split_half(sample)]
    for cells in pair:
        cells.X = cells.X.astype(dtype)
    assert_equal(parity_cases.Case(dtype, *pair))


def test_a_panel_without_effects_has_no_squared_error(sample):
    """The official scorer gives up there, on every metric; ours leaves out this one."""
    cells = sample[
        sample.obs["target_gene"].isin(["SRC", "STAT1", "TMSB4X", "non-targeting"])
    ].copy()
    is_control = (cells.obs["target_gene"] == "non-targeting").to_numpy()
    rows = np.random.default_rng(0).choice(np.flatnonzero(is_control), cells.n_obs)
    cells.X[~is_control] = cells.X[rows[~is_control]]
    case = parity_cases.Case("no effect", cells, cells)
    with pytest.raises(ValueError, match="no measurable aggregate effect"):
        parity_cases.official_2026(case)
    card = scoring.score(cells, cells, "vcc2026")
    assert card.per_perturbation["mse_normalized"].isna().all()
    assert (card.per_perturbation["pds_cosine"] == 1).all()


def test_real_cells_against_themselves(sample):
    assert_equal(parity_cases.Case("itself", sample, sample))


@pytest.mark.parametrize("seed", [None, 1, 5, 9])
def test_baseline_equals_the_official_one(sample, seed):
    real = sample if seed is None else parity_cases.random_counts_case(seed).real
    theirs = parity_cases.official_baseline_2026(real)
    ours = scoring.baseline(real, "vcc2026").summary
    np.testing.assert_allclose(ours, theirs[ours.index], atol=TOLERANCE)


@pytest.mark.parametrize("seed", [0, 7])
def test_replicates_equal_the_official_ones(sample, seed):
    theirs = parity_cases.official_replicates(sample, seed)
    ours = scoring.replicates(sample, seed=seed)
    np.testing.assert_allclose(ours, theirs[ours.columns], atol=TOLERANCE)
    assert ours.index.tolist() == theirs.index.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_scale_is_exactly_the_official_one(seed):
    rng = np.random.default_rng(seed)
    for name, limits in VCC2026.limits.items():
        base, top = sorted(rng.random(2), reverse=metrics.BEST[name] == 0)
        value = rng.choice([rng.random(), np.nan, 30.0, 0.0])
        theirs = parity_cases.scaled_2026(name, value, base, top)
        assert metrics.scaled(value, base, top, limits) == pytest.approx(theirs, abs=1e-12), name
