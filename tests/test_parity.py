"""Every score equals the official one: cell-eval 0.6.6 with pdex 0.1.27, installed and run here."""

import numpy as np
import parity_cases
import pytest

from vcc_helpers import datasets, lognorm, metrics, scoring

pytest.importorskip(
    "cell_eval",
    reason="the official scorer (the oracle extra) is absent; it does not install on Python 3.13",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # the oracle's own

TOLERANCE = 1e-6
METRICS = list(parity_cases.OFFICIAL)


@pytest.fixture(scope="module")
def sample():
    return datasets.load_h1_sample()


@pytest.fixture(scope="module")
def halves(sample):
    return parity_cases.Case("halves", *scoring.split_half(sample))


def assert_equal(case):
    gap = parity_cases.difference(case)
    assert len(gap), "nothing was compared"
    assert gap[METRICS].to_numpy().max() <= TOLERANCE, gap


@pytest.mark.parametrize("seed", range(24))
def test_random_case_equals_the_official_scorer(seed):
    assert_equal(parity_cases.random_case(seed))


def test_the_random_cases_are_awkward():
    """The cases must hold what makes scoring hard, or their agreement shows little."""
    seen = {name: 0 for name in ("exact", "clipped", "none significant", "not a gene", "constant")}
    for seed in range(24):
        case = parity_cases.random_case(seed)
        table = scoring.digest(case.real).de
        labels = case.real.obs["target_gene"].astype(str)
        seen["exact"] += bool((labels.value_counts() <= 8).any())
        clipped = np.isclose(np.abs(table.log2_fold_change), np.log2(20)) & table.significant
        seen["clipped"] += bool((clipped.sum(axis=1) > 1).any())
        seen["none significant"] += bool((~table.significant.any(axis=1)).any())
        seen["not a gene"] += bool((~table.perturbations.isin(case.real.var_names)).any())
        seen["constant"] += bool((case.pred.obs_names.str.startswith("pred_")).any())
    assert min(seen.values()) >= 3, seen


def test_real_halves_equal_the_official_scorer(halves):
    assert_equal(halves)


@pytest.mark.parametrize("scale", ["counts", "lognorm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_cells_in_every_precision(halves, scale, dtype):
    pair = []
    for cells in (halves.pred, halves.real):
        cells = cells.copy()
        cells.X = cells.X.astype(dtype)
        if scale == "lognorm":
            cells.X = lognorm(cells)
        pair.append(cells)
    assert_equal(parity_cases.Case(f"{scale} {dtype}", *pair))


def test_official_baseline_equals_the_official_one(sample):
    """Their baseline file and ours get the same scores, from either scorer."""
    from cell_eval import build_base_mean_adata

    theirs = build_base_mean_adata(sample.copy())
    ours = scoring.official_baseline(sample)
    first = ours[ours.obs["target_gene"] == "SRC"].X[:1].toarray()
    np.testing.assert_allclose(
        first, theirs[theirs.obs["target_gene"] == "SRC"].X[:1].toarray(), rtol=1e-6
    )
    assert_equal(parity_cases.Case("their baseline", theirs, sample))
    assert_equal(parity_cases.Case("our baseline", ours, sample))


def test_overall_score_is_exactly_the_official_one(halves):
    baseline = scoring.official_baseline(halves.real)
    card, base = (scoring.score(cells, halves.real) for cells in (halves.pred, baseline))
    assert card.overall(base) == parity_cases.official_overall(halves, baseline)


@pytest.mark.parametrize("seed", range(20))
def test_overall_formula_is_exactly_the_official_one(seed):
    import polars as pl
    from cell_eval import score_agg_metrics

    rng = np.random.default_rng(seed)
    draws = [{m: rng.choice([0.0, 1.0, rng.random()]) for m in metrics.LEADERBOARD} for _ in "ub"]
    user, base = draws
    frames = [
        pl.DataFrame({"statistic": ["mean"]} | {parity_cases.OFFICIAL[m]: [d[m]] for m in d})
        for d in (user, base)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        card = score_agg_metrics(*frames)
    theirs = 100 * card.filter(card["metric"] == "avg_score")["from_baseline"][0]
    assert metrics.overall(user, base) == pytest.approx(theirs, abs=1e-12)


def test_ties_at_the_clip_keep_the_order_of_the_genes():
    """Below 21 called genes the official sort is stable, and so must ours be."""
    import anndata
    import pandas as pd

    rng = np.random.default_rng(0)
    labels = np.repeat(["A", "B", "non-targeting"], [40, 40, 60])
    real = rng.poisson(5.0, (140, 30)).astype(float)
    real[:, :14] = 0
    real[:40, :6] = rng.poisson(5.0, (40, 6)) + 1  # 6 genes that only A expresses
    pred = real.copy()
    pred[:40, :14] = rng.poisson(5.0, (40, 14)) + 1  # predicted: 14 of them, all at the clip
    obs = pd.DataFrame({"target_gene": labels}, index=[f"c{i}" for i in range(140)])
    var = pd.DataFrame(index=[f"G{i}" for i in rng.permutation(30)])
    pair = [anndata.AnnData(x.astype(np.float32), obs=obs, var=var) for x in (pred, real)]
    table = scoring.de_table(pair[0])
    tied = np.isclose(table.log2_fold_change[0], np.log2(20)) & table.significant[0]
    assert 14 <= tied.sum() <= 20
    assert_equal(parity_cases.Case("ties", *pair))
    assert 0 < scoring.score(*pair).per_perturbation.loc["A", "des"] <= 1
