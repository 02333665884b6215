"""Measuring models: nothing leaks, statistics equal closed forms or SciPy, references are right."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, frame, make_cells, refuses
from scipy import stats

from vcc_helpers import adapt, emit, intervals, metrics, models, pseudobulk, score, scoring
from vcc_helpers import evaluation as ev
from vcc_helpers.bulk import FallbackWarning, bulk_of_effects, effect_strength, effects
from vcc_helpers.scoring import split_half
from vcc_helpers.splits import FewShotSplit, few_shot_split, k_fold

equal = np.testing.assert_allclose
TARGETS = [f"T{i}" for i in range(12)]


def make_bulk(seed=0, names=TARGETS):
    """Effects of random size on means high enough that no prediction is cut at 0."""
    rng, genes = np.random.default_rng(seed), pd.DataFrame(index=[f"G{i}" for i in range(30)])
    effect = rng.normal(size=(len(names), 30)) * rng.uniform(0.2, 2, (len(names), 1))
    bulk = bulk_of_effects(effect, pd.Index(names), np.full(30, 50.0), genes)
    bulk.obs["n_cells"] = 40
    bulk.layers["variance"] = np.full(bulk.shape, 0.4, dtype=np.float32)
    return bulk


@pytest.fixture
def bulk():
    return make_bulk()


def long_table(values, model="m", metric="mae", split=0):
    names = [f"T{i:03d}" for i in range(len(values))]
    where = {"model": model, "split": split, "n_support": 5}
    return pd.DataFrame(where | {"target_gene": names, "metric": metric, "value": values})


def test_scores_are_those_of_scoring_and_scipy(bulk):
    other = make_bulk(seed=1)
    found = ev.evaluate(other[[*TARGETS[::-1], CONTROL]], bulk)
    assert found.index.tolist() == sorted(TARGETS)
    equal(found.loc[TARGETS, "mae"], np.abs(other.X - bulk.X)[1:].mean(axis=1))
    nothing = models.no_change().fit(bulk).predict(TARGETS)
    assert (ev.evaluate(nothing, bulk)["pearson"] == 0).all()
    own = np.full(12, -1)
    cosine = metrics.pds_cosine(*(effects(b)[sorted(TARGETS)].X for b in (other, bulk)), own)
    equal(found["pds_cosine"], cosine)
    for name in TARGETS:
        pair = [effects(b)[name].X[0].astype(float) for b in (other, bulk)]
        assert found.loc[name, "pearson"] == pytest.approx(stats.pearsonr(*pair)[0], abs=1e-9)


def test_the_common_slope_is_least_squares(bulk):
    other = make_bulk(seed=1)
    x, y = (effects(b)[sorted(TARGETS)].X.astype(float) for b in (other, bulk))
    slope, table = ev.calibration(other, bulk)
    assert slope == pytest.approx(np.linalg.lstsq(x.reshape(-1, 1), y.ravel(), rcond=None)[0][0])
    own = [np.linalg.lstsq(a[:, None], b, rcond=None)[0][0] for a, b in zip(x, y, strict=True)]
    norms = np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1)
    assert table.columns.tolist() == ["real_norm", "pred_norm", "ratio", "slope"]
    equal(table.T, [*norms, norms[1] / norms[0], own], rtol=1e-5)
    nothing = models.no_change().fit(bulk).predict(TARGETS)
    assert np.isnan(ev.calibration(nothing, bulk).slope)


def test_the_table_holds_every_model_split_target_and_metric(bulk, snapshot):
    take, same = snapshot
    before, folds = take(bulk), k_fold(TARGETS, n_splits=3)
    chosen = {"none": models.no_change(), "mean": models.mean_baseline()}
    table = ev.repeated(chosen, bulk, folds)
    keys = ["model", "split", "target_gene", "metric"]
    assert len(table) == 2 * 12 * 4 and not table.duplicated(keys).any()
    assert set(table) == {*keys, "n_support", "value"} and (table["n_support"] == 8).all()
    for number, fold in enumerate(folds):
        pred = models.mean_baseline().fit(bulk[[CONTROL, *fold.support]]).predict(fold.query)
        expected = ev.evaluate(pred, bulk[[CONTROL, *fold.query]])
        found = wide(table[(table["split"] == number) & (table["model"] == "mean")])
        equal(found[expected.columns].loc[expected.index], expected)
    assert not hasattr(chosen["mean"], "regressor_")
    same(bulk, before)


def wide(table):
    return table.pivot(index="target_gene", columns="metric", values="value")


class Spy:
    """Keeps what it was given, and predicts no change; no scikit-learn estimator."""

    seen: list = []

    def fit(self, bulk):
        self.bulk = bulk
        type(self).seen.append(bulk)

    def predict(self, targets):
        base = self.bulk[CONTROL].X[0]
        effect = np.zeros((len(targets), len(base)))
        return bulk_of_effects(effect, pd.Index(targets), base, self.bulk.var)


def test_only_support_targets_reach_a_model(bulk):
    """All numbers and names that can be reached from what a model is given."""
    bulk.uns["answers"], bulk.varm["effects"] = bulk.X.copy(), bulk.X.T.copy()
    bulk.var["mean over all"] = bulk.X.mean(axis=0)
    bulk.raw = bulk.copy()
    Spy.seen = []
    splits = [few_shot_split(TARGETS, n_support=n, seed=n) for n in (0, 3, 7)]
    ev.repeated({"spy": Spy()}, bulk, splits)
    for seen, split in zip(Spy.seen, splits, strict=True):
        assert seen.obs_names.tolist() == [CONTROL, *split.support]
        assert not seen.is_view and seen._adata_ref is None and seen.raw is None
        others = (seen.uns, seen.obsm, seen.varm, seen.obsp, seen.varp, seen.var.columns)
        assert not any(map(len, others))
        arrays, part = [seen.X, seen.layers["variance"]], bulk[seen.obs_names]
        assert all(a.base is None or a.base.size == a.size for a in arrays)
        for one, other in zip(arrays, (part.X, part.layers["variance"]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_truth_of_its_own_is_scored_against_its_own_control(bulk):
    truth = make_bulk(seed=5, names=["N0", "T3", "N2"])
    truth.X += 7
    Spy.seen, model = [], {"mean": models.mean_baseline(), "spy": Spy()}
    table = ev.learning_curve(model, bulk, [11], n_repeats=1, truth=truth)
    (seen,) = Spy.seen  # all there is, but for what is asked
    assert set(seen.obs_names) == {CONTROL, *TARGETS} - {"T3"}
    pred = models.mean_baseline().fit(seen).predict(["N0", "T3", "N2"])
    expected = ev.evaluate(pred, truth)
    found = wide(table[table["model"] == "mean"])
    equal(found[expected.columns].loc[expected.index], expected)


def test_a_learning_curve_changes_the_size_alone(bulk):
    Spy.seen, models_ = [], {"mean": models.mean_baseline(), "spy": Spy()}
    table = ev.learning_curve(models_, bulk, [1, 4, 8], n_repeats=3, seed=2, least={"mean": 2})
    asked = table.groupby(["split", "n_support"])["target_gene"].agg(lambda x: sorted(set(x)))
    assert asked.map(len).eq(4).all()
    sizes = table.groupby("model")["n_support"].unique().map(sorted).to_dict()
    assert sizes == {"mean": [4, 8], "spy": [1, 4, 8]}
    for split in range(3):
        assert asked[split].map(str).nunique() == 1
        supports = [set(seen.obs_names) for seen in Spy.seen[3 * split : 3 * split + 3]]
        assert supports[0] < supports[1] < supports[2]
        assert not supports[2] & set(asked[split].iloc[0])
        expected = few_shot_split(TARGETS, n_support=8, seed=2 + split)
        assert supports[2] == {CONTROL, *expected.support}


def test_what_cannot_be_measured(bulk):
    chosen, model = {"mean": models.mean_baseline()}, models.mean_baseline()
    both = FewShotSplit(["T0", "T1"], ["T1", "T2"])
    none = ev.repeated({"none": models.no_change()}, bulk, k_fold(TARGETS))
    lonely = bulk.copy()
    lonely.obs["n_cells"] = 1
    less, few = bulk[[CONTROL, *TARGETS[2:]]], make_cells(n_cells=(1, 5, 5, 5, 9))
    for error, match, call in [
        (ValueError, "'T1' in the support and in", lambda: ev.repeated(chosen, bulk, [both])),
        (ValueError, "'T1' in the support and in", lambda: ev.cross_predict(model, bulk, [both])),
        (KeyError, "'X' of the query set or the control: no such row",
         lambda: ev.repeated(chosen, bulk, [FewShotSplit(["T0"], ["X"])])),
        (KeyError, "'non-targeting' of the support set or the control",
         lambda: ev.repeated(chosen, bulk[TARGETS], k_fold(TARGETS))),
        (ValueError, "nothing was measured", lambda: ev.repeated({}, bulk, k_fold(TARGETS))),
        (ValueError, "nothing was measured", lambda: ev.repeated(chosen, bulk, [])),
        (ValueError, "have one cell only", lambda: ev.ceiling(none, lonely)),
        (ValueError, "a group of one cell has no halves", lambda: scoring.halves(few)),
        (ValueError, "fewer than two", lambda: ev.dealt(bulk, bulk[[CONTROL, "T1"]])),
        (KeyError, "no row for 'T0', 'T1'", lambda: ev.calibration(less, bulk)),
    ]:  # fmt: skip
        refuses(match, call, error=error)
    for name, call in [
        ("mean", lambda: ev.learning_curve(chosen, bulk, [0, 2], n_repeats=1)),
        ("EffectModel", lambda: ev.cross_predict(model, bulk, [FewShotSplit([], ["T1"])])),
    ]:
        with pytest.raises(ValueError, match="the control only") as caught:
            call()
        assert caught.value.__notes__ == [f"model {name!r}, with 0 support targets"]


def test_a_cross_prediction_is_that_of_each_split(bulk):
    folds = k_fold(TARGETS, n_splits=3)
    found = ev.cross_predict(models.mean_baseline(), bulk, folds)
    assert found.obs_names.tolist() == bulk.obs_names.tolist() and found.X.dtype == np.float32
    np.testing.assert_array_equal(found[CONTROL].X, bulk[CONTROL].X)
    for fold in folds:
        expected = [effects(bulk)[fold.support].X.mean(axis=0)] * len(fold.query)
        equal(effects(found)[fold.query].X, expected, atol=1e-4)
    part = ev.cross_predict(models.mean_baseline(), bulk, folds[:1])
    assert part.obs_names.tolist() == [n for n in bulk.obs_names if n in (CONTROL, *folds[0].query)]


def test_des_is_that_of_the_scorer():
    cells = make_cells()
    bulk, sources = pseudobulk(cells), {"other": effects(pseudobulk(make_cells(1)))}
    split, model = FewShotSplit(["no gene"], ["G0", "G1", "G2"]), adapt.ContextGain(sources)
    measure = scoring.measure_cells(cells, emitter=partial(emit.resample_and_shift, seed=3))
    found = wide(ev.repeated({"gain": model}, bulk, [split], measure=measure))
    pred = model.fit(bulk[[CONTROL, *split.support]]).predict(split.query)
    truth = cells[cells.obs[KEY].isin([CONTROL, *split.query])].copy()
    kw = {"controls": cells[cells.obs[KEY] == CONTROL].copy()}
    kw["n_cells"] = bulk.obs["n_cells"][split.query]
    scale = float(np.median(cells.X.sum(axis=1)))
    made = emit.resample_and_shift(pred, seed=3, target_sum=scale, **kw)
    expected = score(made, truth).per_perturbation["des"]
    assert set(found) == {"pds", "mae", "pearson", "pds_cosine", "des"} and 0 < expected.mean() < 1
    np.testing.assert_array_equal(found["des"][expected.index], expected)


class Guess(Spy):
    """Predicts large effects that know nothing."""

    rng = np.random.default_rng(0)

    def predict(self, targets):
        effect = 30 * self.rng.normal(size=(len(targets), 30))
        return bulk_of_effects(effect, pd.Index(targets), self.bulk[CONTROL].X[0], self.bulk.var)


def test_chance_is_what_guessing_gets():
    names = [f"T{i}" for i in range(30)]
    splits = [FewShotSplit([], names[:n]) for n in (4, 10, 30)]
    table = ev.repeated({"guess": Guess()}, make_bulk(names=names), splits * 10)
    expected = ev.chance(table)
    assert set(expected["model"]) == {intervals.CHANCE}
    level = expected.groupby("split")["value"].unique().map(list).iloc[:3].tolist()
    assert level == [[5 / 8], [11 / 20], [31 / 60]]
    found = table[table["metric"] == "pds"].set_index(["split", "target_gene"])["value"]
    gap = found - expected.set_index(["split", "target_gene"])["value"]
    by_size = gap.groupby(gap.index.get_level_values("split") % 3)
    assert (by_size.mean().abs() < 4 * by_size.std() / np.sqrt(by_size.size())).all()


def test_the_ceiling_is_half_against_half():
    cells = make_cells()
    splits = k_fold(["G0", "G1", "G2", "no gene"], n_splits=2)
    table = ev.repeated({"none": models.no_change()}, pseudobulk(cells), splits)
    found = ev.ceiling(table, scoring.halves(cells, n_halvings=2, seed=4))
    assert set(found["model"]) == {intervals.CEILING} and len(found) == len(table)
    pairs = [[pseudobulk(half) for half in split_half(cells, seed=s)] for s in (4, 5)]
    for number, fold in enumerate(splits):
        rows = [CONTROL, *fold.query]
        expected = sum(ev.evaluate(a[rows], b[rows]) for a, b in pairs) / 2
        part = wide(found[found["split"] == number])
        equal(part[expected.columns].loc[expected.index], expected)


def test_halves_from_a_pseudobulk_differ_as_halves_of_cells_do(bulk):
    """By sqrt(4 / n) of the cells' spread."""
    table = ev.repeated({"none": models.no_change()}, bulk, [FewShotSplit([], TARGETS)])
    found = wide(ev.ceiling(table, bulk))["mae"].mean()
    gap = np.sqrt(4 * 0.4 / 40)  # a normal difference: its mean size is sqrt(2 / pi) of its sd
    assert found == pytest.approx(gap * np.sqrt(2 / np.pi), rel=0.05)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=25)
    found = intervals.interval(long_table(values)).loc[("m", "mae")]
    settings = {"method": "percentile", "n_resamples": 20_000, "rng": 1}
    expected = stats.bootstrap((values,), np.mean, **settings).confidence_interval
    assert found["mean"] == pytest.approx(values.mean()) and found["n_targets"] == 25
    spread = values.std() / np.sqrt(25)
    equal(found[["low", "high"]], expected, atol=0.1 * spread)


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    """Targets differ by 1; the same target's splits by 0.3. The true mean is 0."""
    rng, hits, naive = np.random.default_rng(0), [], []
    for _ in range(40):
        own = rng.normal(size=40)
        splits = [long_table(own + 0.3 * rng.normal(size=40), split=s) for s in range(6)]
        table = pd.concat(splits, ignore_index=True)
        rows = table.assign(target_gene=table["target_gene"] + table["split"].astype(str))
        for kept, source in ((hits, table), (naive, rows)):
            found = intervals.interval(source).iloc[0]
            kept.append(found["low"] < 0 < found["high"])
    assert np.mean(hits) > 0.85
    assert np.mean(naive) < 0.7  # splits taken for so many more perturbations


def test_a_comparison_finds_a_known_difference():
    base = np.random.default_rng(0).normal(5, 2, 30)
    table = pd.concat([long_table(base), long_table(base - 0.25, "other")])
    found = intervals.compare(table, "m").loc[("other", "mae")]
    assert found[["difference", "low", "high"]].tolist() == pytest.approx([-0.25] * 3)
    assert found["won"] == 1 and found["n_targets"] == 30
    assert intervals.compare(table.assign(metric="pds"), "m")["won"].tolist() == [0]
    same = pd.concat([long_table(base), long_table(base, "other")])
    assert intervals.compare(same, "m")["won"].tolist() == [0.5]


def test_only_pairs_of_the_same_split_and_target_are_compared():
    first, second = long_table([1.0, 2.0, 3.0]), long_table([2.0, 4.0], "other")
    apart = long_table([9.0], "other", split=7)
    table = pd.concat([first, second, apart])
    found = intervals.compare(table, "m").loc[("other", "mae")]
    assert found["difference"] == 1.5 and found["n_targets"] == 2
    curve = pd.concat([first, first.assign(n_support=9, value=7.0)])
    lacks = r"lacks a column, perhaps one of \['n_support'\]"
    for error, match, call in [
        (ValueError, "share no target of the same split",
         lambda: intervals.compare(pd.concat([first, apart]), "m")),
        (KeyError, "no model 'x' to compare with; there are 'm', 'other'",
         lambda: intervals.compare(table, "x")),
        (ValueError, lacks, lambda: intervals.interval(curve)),
        (ValueError, lacks, lambda: intervals.compare(curve, "m")),
        (ValueError, "values are NaN, of 'm mae'",
         lambda: intervals.interval(long_table([1.0, np.nan]))),
    ]:  # fmt: skip
        refuses(match, call, error=error)
    by_size = intervals.interval(curve, by=("model", "n_support", "metric"))
    assert by_size["mean"].to_dict() == {("m", 5, "mae"): 2, ("m", 9, "mae"): 7}
    more = pd.concat([long_table([1.0, 3.0]), long_table([1.0], split=1)])
    assert intervals.interval(more).loc[("m", "mae"), "mean"] == 2  # targets count alike


def test_strata_are_quantiles_of_the_asked_targets(bulk):
    table = ev.repeated({"mean": models.mean_baseline()}, bulk, k_fold(TARGETS, n_splits=2))
    norm = effect_strength(bulk)["norm"]
    found = intervals.by_stratum(table, pd.concat([norm, pd.Series({"never asked": 1e9})]))
    place = found.drop_duplicates("target_gene").set_index("target_gene")["stratum"].cat.codes
    order = norm.sort_values().index
    assert place[order].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and found["stratum"].cat.ordered
    low, high = norm[order[4]], norm[order[7]]
    assert found["stratum"].cat.categories[1] == f"{low:.3g} to {high:.3g}"
    pd.testing.assert_frame_equal(found.drop(columns="stratum"), table)
    n_cells = pd.Series([5] * 9 + [50] * 3, TARGETS)  # equal numbers stay together
    found = intervals.by_stratum(table, n_cells, n_strata=4)
    sizes = found.groupby("stratum", observed=True)["target_gene"].nunique()
    assert sizes.to_dict() == {"5 to 5": 9, "50 to 50": 3}
    refuses("no number for 'T0'", intervals.by_stratum, table, n_cells.drop("T0"), error=KeyError)


def test_dealt_is_the_mean_and_spread_over_all_permutations():
    values, names = np.random.default_rng(0).normal(size=(2, 5, 6)), [CONTROL, *"ABCD"]
    genes = ["B", "A", "G0", "G1", "G2", "G3"]  # two targets are genes
    real, pred = (frame(x, names, genes) for x in values)
    scores = []
    for order in itertools.permutations(range(1, 5)):
        shuffled = pred.copy()
        shuffled.X[1:] = pred.X[list(order)]
        scores.append(ev.evaluate(shuffled, real)["pds"].mean())
    equal(ev.dealt(pred, real), [np.mean(scores), np.std(scores)], rtol=1e-12)


def test_a_perfect_model_is_off_by_the_sampling_of_cells(bulk):
    """As cells that are drawn many times over say."""
    table = ev.repeated({"none": models.no_change()}, bulk, [few_shot_split(TARGETS, n_support=3)])
    bulk.layers["variance"][1:] *= np.arange(12)[:, None]  # the control's does not count
    found = ev.floor(table, bulk)
    assert set(found["model"]) == {intervals.FLOOR} and set(found["metric"]) == {"mae"}
    assert (found["n_support"] == 3).all()
    sd = np.sqrt(bulk.layers["variance"][:, :1])
    drawn = np.random.default_rng(0).normal(0, sd, (2000, 13, 40)).mean(axis=2)
    expected = pd.Series(np.abs(drawn).mean(axis=0), bulk.obs_names)[found["target_gene"]]
    equal(found["value"], expected, rtol=0.1)
    equal(found["value"].mean(), expected.mean(), rtol=0.05)
    del bulk.layers["variance"]
    refuses("no layers", ev.floor, table, bulk)


def test_a_fallback_is_told_once_for_all_splits(bulk):
    known = pd.DataFrame({"a": range(1, 11)}, TARGETS[:10])
    kNN = models.knn_baseline(known, 1).set_params(fallback="mean")
    named = {"kNN": kNN, "mean": models.mean_baseline()}
    with pytest.warns(FallbackWarning, match="a mean was .*: 'kNN' of 'T10', 'T11'$") as told:
        ev.repeated(named, bulk, k_fold(TARGETS, n_splits=4))
    assert [w.category for w in told].count(FallbackWarning) == 1


def test_summaries_are_laid_out_in_their_own_order():
    rows = [([1.0, 1.0], "z", "pds"), ([0.5, 0.5], "a", "pds"), ([10.04, 10.04], "z", "mae")]
    table = pd.concat([long_table(*row) for row in rows])
    shown = intervals.with_intervals(intervals.interval(table), digits={"mae": 1})
    assert shown.index.tolist() == ["z", "a"] and shown.columns.tolist() == ["pds", "mae"]
    assert shown.loc["z"].tolist() == ["1.000 [1.000, 1.000]", "10.0 [10.0, 10.0]"]
    assert shown.loc["a"].tolist() == [".500 [.500, .500]", ""]
    gap = intervals.with_intervals(intervals.compare(table, "z"), digits=2)
    assert gap.loc["a", "pds"] == "-.50 [-.50, -.50]"
