"""Few-shot adapters: exact at their ends, short of nothing in between, and blind to the query."""

import pickle
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, frame, refuses
from sklearn.base import clone
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vcc_helpers import adapt, effects, features, models, splits
from vcc_helpers.adapt import Blend, ContextGain, ResidualRidge, SourceBilinear, ZeroShot
from vcc_helpers.bulk import FallbackWarning
from vcc_helpers.models import EffectModel, KnockedDown

TARGETS = [f"T{i}" for i in range(8)]
BASE = 50.0  # high enough that no prediction is cut at 0
RIDGES = [ResidualRidge, SourceBilinear]
equal, same_bits = np.testing.assert_allclose, np.testing.assert_array_equal


@pytest.fixture
def sources():
    rng = np.random.default_rng(0)
    return {name: frame(rng.normal(size=(8, 15)), TARGETS) for name in ("K562", "RPE1", "HepG2")}


@pytest.fixture
def bulk(sources):
    """The new context: 1.5, 0.5 and -1 times the sources, with noise."""
    rng = np.random.default_rng(1)
    effect = sum(g * s.X for g, s in zip((1.5, 0.5, -1), sources.values(), strict=True))
    mean = BASE + np.vstack([np.zeros(15), effect + rng.normal(0, 0.1, effect.shape)])
    return frame(mean, [CONTROL, *TARGETS])


@pytest.mark.parametrize("alpha", [0, 0.3, 1e9])
def test_shrinkage_minimises_what_the_docstring_says(alpha, sources, bulk):
    support = TARGETS[:4]
    x = np.stack([s[support].X.ravel() for s in sources.values()], axis=1)
    weight = np.sqrt(alpha * np.mean([(s[support].X ** 2).sum(axis=1) for s in sources.values()]))
    stacked = np.vstack([x, weight * np.eye(3)])
    wanted = np.r_[effects(bulk)[support].X.ravel(), weight * np.full(3, 1 / 3)]
    found = ContextGain(sources, shrinkage=alpha).fit(bulk[[CONTROL, *support]]).gain_
    equal(found, np.linalg.lstsq(stacked, wanted, rcond=None)[0], rtol=1e-8)
    assert found.index.tolist() == list(sources)


def test_a_target_that_some_source_lacks_is_predicted_from_the_others(sources, bulk):
    two, prior = {"a": sources["K562"], "b": sources["RPE1"][:4]}, {"b": 1, "a": 3}
    model = ContextGain(two, prior=prior).fit(bulk[[CONTROL]])
    assert model.gain_.to_dict() == {"a": 0.75, "b": 0.25}
    found = effects(model.predict(["T1", "T6"])).X
    both = 0.75 * two["a"]["T1"].X[0] + 0.25 * two["b"]["T1"].X[0]
    equal(found, [both, two["a"]["T6"].X[0]], atol=1e-5)
    ridge = ResidualRidge(two, prior=prior).fit(bulk[[CONTROL]])
    equal(ridge.predict(["T1"]).X, model.predict(["T1"]).X, atol=1e-6)
    fitted = ContextGain(two).fit(bulk[[CONTROL, "T6", "T2"]]).gain_  # T6 teaches nothing
    pd.testing.assert_series_equal(fitted, ContextGain(two).fit(bulk[[CONTROL, "T2"]]).gain_)


def test_what_cannot_be_used(sources, bulk):
    two, weight = {"a": sources["K562"], "b": sources["RPE1"]}, "a weight above 0 for each of 'a', "
    for match, model, data in [
        ("no source context", ContextGain({}), bulk),
        ("source 'K562' has other genes .* or another order", ContextGain(sources), bulk[:, ::-1]),
        ("fallback='zero'; expected None", ContextGain(sources, fallback="zero"), bulk),
        ("shrinkage=-1; expected 0 or more", ResidualRidge(sources, shrinkage=-1), bulk),
        (weight, ContextGain(two, prior={"a": 1}), bulk),
        (weight, ContextGain(two, prior={"a": 0, "b": 1}), bulk),
        (weight, ResidualRidge(two, prior={"a": 1, "x": 1}), bulk),
        ("expected above 0", ResidualRidge(sources, alpha=[1, 0]), bulk),
        ("no strength to choose from", SourceBilinear(sources, alpha=[]), bulk),
        ("one source context; how far", ZeroShot({"a": sources["K562"]}), bulk),
        ("shrinkage=-1; expected 0 or more", ZeroShot(sources, shrinkage=-1), bulk),
        ("n0=-1; expected 0 or more", Blend(ContextGain(sources), None, n0=-1), bulk),
    ]:
        refuses(match, model.fit, data)


@pytest.mark.parametrize("adapter", [ContextGain, *RIDGES])
def test_a_target_that_no_source_measured_needs_a_fallback(adapter, sources, bulk):
    model = adapter(sources).fit(bulk[[CONTROL]])
    with pytest.raises(KeyError, match="no source context measured 'NEW': 1 of 2 targets"):
        model.predict(["NEW", "T0"])
    fallen = adapter(sources, fallback="mean").fit(bulk[[CONTROL]])
    with pytest.warns(FallbackWarning, match="'NEW'"):
        found = fallen.predict(["NEW", "T0"])
    assert found.obs["fallback"].tolist() == [False, True, False]
    expected = np.mean([s.X.mean(axis=0) for s in sources.values()], axis=0)
    equal(effects(found)["NEW"].X[0], expected, atol=1e-5)
    same_bits(found["T0"].X, model.predict(["T0"])["T0"].X)
    part = {name: s[1:] for name, s in sources.items()}  # T0 teaches nothing
    support = (["T0", "T1", "T2"], ["T1", "T2"])
    one, other = (adapter(part).fit(bulk[[CONTROL, *names]]) for names in support)
    assert one.support_.tolist() == ["T1", "T2"]
    same_bits(one.predict(["T5"]).X, other.predict(["T5"]).X)


def test_the_size_is_kept(sources, bulk):
    plain = ContextGain(sources).fit(bulk[[CONTROL, "T1", "T2"]]).gain_
    kept = ContextGain(sources, keep_size=True).fit(bulk[[CONTROL, "T1", "T2"]]).gain_
    assert (plain < 0).any() and (kept >= 0).all()
    positive = plain.clip(lower=0)
    pd.testing.assert_series_equal(kept, positive / positive.sum())
    opposite = bulk.copy()
    opposite.X = 2 * BASE - opposite.X  # every source is wrong about the sign
    against = ContextGain({"K562": sources["K562"]}, keep_size=True, shrinkage=0).fit(opposite)
    assert against.gain_.tolist() == [1]


def plain_mean(sources, names):
    return np.mean([s[names].X for s in sources.values()], axis=0)


@pytest.mark.parametrize("adapter", [ContextGain, *RIDGES])
def test_adapters_start_at_the_mean_of_the_sources(adapter, sources, bulk):
    model = adapter(sources).fit(bulk[[CONTROL]])
    equal(model.gain_, [1 / 3] * 3)
    zero = model.predict(TARGETS)
    equal(effects(zero).X, plain_mean(sources, TARGETS), atol=1e-5)
    if adapter in RIDGES:
        held = adapter(sources, alpha=np.inf, shrinkage=np.inf).fit(bulk).predict(TARGETS)
        same_bits(held.X, zero.X)
        nearly = adapter(sources, alpha=1e9, shrinkage=np.inf).fit(bulk).predict(TARGETS)
        equal(nearly.X, zero.X, atol=1e-4)


def test_the_residual_ridge_is_its_formula(sources, bulk):
    support, query = TARGETS[:4], TARGETS[4:]
    start = ContextGain(sources, shrinkage=2, keep_size=True).fit(bulk[[CONTROL, *support]])
    z = effects(start.predict(TARGETS)).to_df()
    phi = features.source_components(sources, 3)
    phi = phi / np.sqrt((phi**2).sum(axis=1).mean())
    k = 1 + phi @ phi.T
    residual = (effects(bulk).to_df() - z).loc[support].to_numpy()
    solved = np.linalg.solve(k.loc[support, support] + 0.7 * np.eye(4), residual)
    model = ResidualRidge(sources, n_components=3, alpha=0.7, shrinkage=2)
    found = effects(model.fit(bulk[[CONTROL, *support]]).predict(query)).X
    expected = z.loc[query] + k.loc[query, support].to_numpy() @ solved
    equal(found, expected, atol=1e-4)
    pd.testing.assert_series_equal(model.gain_, start.gain_)


def test_the_bilinear_adapter_stays_in_its_components(sources, bulk):
    """Differences between predictions lie in the span of the gene components."""
    model = SourceBilinear(sources, n_components=3, alpha=0.5).fit(bulk[[CONTROL, *TARGETS[:5]]])
    g = model.gene_components_
    equal(g.T @ g, np.eye(3), atol=1e-10)
    effect = effects(model.predict(TARGETS)).X.astype(float)
    apart = effect - effect.mean(axis=0)
    equal(apart @ g @ g.T, apart, atol=1e-4)
    assert np.linalg.matrix_rank(apart, tol=1e-3) == 3


def test_a_shift_of_all_effects_is_learnt(sources, bulk):
    """The context adds the same to all; that is what the 1 in the similarity is for."""
    nothing = pd.DataFrame(0.0, index=TARGETS, columns=["all alike"])
    shifted, shift = bulk.copy(), np.random.default_rng(2).normal(size=15)
    shifted.X[1:] = BASE + plain_mean(sources, TARGETS) + shift
    for adapter in RIDGES:
        model = adapter(sources, alpha=[1, np.inf], shrinkage=np.inf, features=nothing)
        found = effects(model.fit(shifted[[CONTROL, *TARGETS[:5]]]).predict(["T7"])).X[0]
        assert model.alpha_ == 1
        expected = plain_mean(sources, ["T7"])[0] + 5 / 6 * shift  # 5 targets against a weight of 1
        equal(found, expected, atol=1e-4)


def test_features_of_the_readers_own(sources, bulk):
    table = features.source_components(sources, 3)
    for adapter in RIDGES:
        mine = adapter(sources, features=table).fit(bulk).predict(["T1"])
        same = adapter(sources, features=100 * table + 7).fit(bulk).predict(["T1"])
        equal(mine.X, same.X, rtol=1e-6)  # neither unit nor origin matters
    mine = ResidualRidge(sources, n_components=3).fit(bulk).predict(["T1"])
    same = ResidualRidge(sources, features=table).fit(bulk).predict(["T1"])
    equal(mine.X, same.X, rtol=1e-6)
    short = ResidualRidge(sources, features=table[1:]).fit(bulk)
    assert "T0" not in short.support_
    refuses("no features for 'T0': 1 of 2 targets", short.predict, ["T0", "T1"], error=KeyError)
    with pytest.warns(FallbackWarning, match="'T0'"):
        short.set_params(fallback="mean").fit(bulk).predict(["T0"])
    with pytest.raises(ValueError, match="more than one row of features for 'T0'"):
        ResidualRidge(sources, features=pd.concat([table, table[:1]])).fit(bulk)
    with pytest.raises(ValueError, match="features hold NaN"):
        ResidualRidge(sources, features=table.where(table > table.iloc[0, 0])).fit(bulk)


def leave_one_out(model, bulk, support):
    error = []
    for name in support:
        rest = [CONTROL, *(other for other in support if other != name)]
        pred = clone(model).fit(bulk[rest]).predict([name])
        error.append(np.abs(pred[name].X - bulk[name].X).mean())
    return np.mean(error)


LISTED = [
    (lambda s, v: ContextGain(s, shrinkage=v, keep_size=True), "shrinkage"),
    (lambda s, v: ResidualRidge(s, alpha=v, shrinkage=np.inf), "alpha"),
    (lambda s, v: SourceBilinear(s, alpha=v, shrinkage=np.inf, n_components=4), "alpha"),
]


@pytest.mark.parametrize(("make", "name"), LISTED)
def test_a_list_is_chosen_from_by_leave_one_out(make, name, sources, bulk):
    """The choice equals that of refitting without each support target, written out."""
    for few in ([], ["T1"]):  # without two to compare the most careful is chosen
        assert getattr(make(sources, [1, 9]).fit(bulk[[CONTROL, *few]]), f"{name}_") == 9
    same = frame(bulk.X[[0] * 9], bulk.obs_names)  # nothing but 0 to predict: all are equal
    nothing = {key: frame(0 * s.X, s.obs_names) for key, s in sources.items()}
    assert getattr(make(nothing, [1, 5, 2]).fit(same), f"{name}_") == 5
    support, values = TARGETS[:5], [0.1, 1.0, 30.0, np.inf]
    error = [leave_one_out(make(sources, v), bulk, support) for v in values]
    model = make(sources, values).fit(bulk[[CONTROL, *support]])
    chosen = getattr(model, f"{name}_")
    assert chosen == values[int(np.argmin(error))]
    same = make(sources, chosen).fit(bulk[[CONTROL, *support]])
    same_bits(model.predict(TARGETS).X, same.predict(TARGETS).X)


@pytest.mark.parametrize(
    ("n0", "n", "weight"), [(6, 4, 0.4), (3, 0, 0), (0, 0, 0), (0, 8, 1), (np.inf, 8, 0)]
)
def test_the_blend_is_its_formula(n0, n, weight, sources, bulk):
    known = bulk[[CONTROL, *TARGETS[:n]]]
    model = Blend(ContextGain(sources), models.mean_baseline(), n0=n0).fit(known)
    assert model.weight_ == pytest.approx(weight)
    zero = ContextGain(sources).fit(bulk[[CONTROL]]).predict(TARGETS).X
    mean = models.mean_baseline().fit(known).predict(TARGETS).X if n else zero
    expected = (1 - weight) * zero + weight * mean
    equal(model.predict(TARGETS).X, expected, rtol=1e-6)
    if n:
        models_ = ContextGain(sources, fallback="mean"), models.mean_baseline()
        with pytest.warns(FallbackWarning) as told:
            pred = Blend(*models_).fit(known).predict(["NEW", "T0"])
        assert pred.obs["fallback"].tolist() == [False, True, False]
        assert [w.category for w in told].count(FallbackWarning) == 1


def written_out(sources, targets, strength):
    """The formula of the docstring, a target and a pair of sources at a time."""
    x = {name: s.to_df() for name, s in sources.items()}
    mean = {name: table.mean() for name, table in x.items()}
    others = {c: np.mean([m for o, m in mean.items() if o != c], axis=0) for c in mean}
    gain = sum(mean[c] @ others[c] for c in x) / sum(o @ o for o in others.values())
    own = {t: [x[c].loc[t] - mean[c] for c in x if t in x[c].index] for t in targets}
    norm = np.linalg.norm
    cosines = {
        t: [a @ b / norm(a) / norm(b) for i, a in enumerate(d) for b in d[:i]]
        for t, d in own.items()
    }
    common = np.mean([c for t in targets for c in cosines[t]])
    found = []
    for t, d in own.items():
        k, pairs = len(d), len(cosines[t])
        a = np.clip((sum(cosines[t]) + strength * common) / (pairs + strength), 0, 1)
        weight = k * a / (1 + (k - 1) * a)
        found.append(np.clip(gain, 0, 1) * np.mean([*mean.values()], axis=0) + weight * sum(d) / k)
    return np.array(found)


@pytest.fixture
def alike():
    """Three sources that agree to a part, T0 and T1 missing from some, and genes of other names."""
    rng = np.random.default_rng(5)
    shared, line = rng.normal(size=(8, 40)), rng.normal(size=40)
    made = {
        name: frame(shared + line + rng.normal(0, sd, (8, 40)), TARGETS)
        for name, sd in {"K562": 0.7, "RPE1": 1.0, "HepG2": 1.5}.items()
    }
    made["RPE1"], made["HepG2"] = made["RPE1"][1:], made["HepG2"][2:]
    return made


def test_zero_shot_is_its_formula_and_knows_nothing_of_the_rest(alike):
    bulk = frame(np.full((1, 40), BASE), [CONTROL])
    model = ZeroShot(alike, shrinkage=2.0).fit(bulk)
    assert model.known_.loc[["T0", "T1", "T2"], "sources"].tolist() == [1, 2, 3]
    equal(effects(model.predict(TARGETS)).X, written_out(alike, TARGETS, 2.0), atol=1e-5)
    refuses("no source context measured 'NEW'", model.predict, ["NEW"], error=KeyError)
    model.set_params(fallback="mean").fit(bulk)
    mean = np.mean([s.X.mean(axis=0) for s in alike.values()], axis=0)
    found = effects(model.predict(["NEW"])).X[0]
    equal(found, model.response_gain_ * mean, atol=1e-5)
    assert 0.8 < model.response_gain_ <= 1  # all three lines have this response


def test_zero_shot_trusts_sources_that_agree_and_not_others():
    rng, bulk = np.random.default_rng(6), frame(np.full((1, 400), BASE), [CONTROL])
    x = rng.normal(size=(8, 400))
    x -= x.mean(axis=0)
    for other, weight in ((x, 1.0), (-x, 0.0), (rng.normal(size=x.shape), 0.0)):
        model = ZeroShot({"a": frame(x, TARGETS), "b": frame(other, TARGETS)}).fit(bulk)
        equal(model.known_["weight"], weight, atol=0.15)
        assert model.shrinkage_ == np.inf  # nothing to choose by, with two
    genes = [f"T{i}" for i in range(8)] + [f"x{i}" for i in range(392)]
    named = [frame(values, TARGETS) for values in (x, rng.normal(size=x.shape))]
    for delta in named:  # each silenced gene falls far, and that is no agreement
        delta.var_names = genes
        delta.X[np.arange(8), np.arange(8)] = -50
    bulk.var_names = genes
    equal(ZeroShot(dict(zip("ab", named, strict=True))).fit(bulk).known_["weight"], 0, atol=0.15)


def test_zero_shot_chooses_by_leaving_out_whole_contexts(alike):
    bulk, values = frame(np.full((1, 40), BASE), [CONTROL]), [0.0, 1.0, 20.0, np.inf]
    errors = []
    for strength in values:
        found = []
        for name, delta in alike.items():
            rest = {other: s for other, s in alike.items() if other != name}
            pred = ZeroShot(rest, shrinkage=strength, fallback="mean").fit(bulk).predict(TARGETS)
            asked = delta.obs_names.intersection(set().union(*(s.obs_names for s in rest.values())))
            found.append(np.abs(effects(pred)[asked].X - delta[asked].X).ravel())
        errors.append(np.concatenate(found).mean())
    assert ZeroShot(alike, shrinkage=values).fit(bulk).shrinkage_ == values[np.argmin(errors)]


def test_decompose_finds_the_parts_that_were_put_in():
    rng, genes = np.random.default_rng(7), 4000
    sizes = {"global": 1.0, "line": 2.0, "conserved": 3.0, "interaction": 4.0}

    def part(name, *shape):
        return rng.normal(size=(*shape, genes)) * np.sqrt(sizes[name] / genes)

    contexts, bulks = [f"c{i}" for i in range(6)], {}
    common, conserved = part("global"), part("conserved", 8)
    obs = pd.DataFrame({"n_cells": 10}, index=[CONTROL, *TARGETS])
    for name in contexts:
        effect = common + part("line") + conserved + part("interaction", 8)
        mean = BASE + np.vstack([np.zeros(genes), effect])
        noise = rng.normal(0, np.sqrt(20 / genes / 10), mean.shape)
        variance = np.full(mean.shape, 20 / genes)
        bulks[name] = anndata.AnnData(mean + noise, obs=obs, layers={"variance": variance})
    found = adapt.decompose(bulks)
    equal(found["noise"], 4, rtol=1e-6)
    equal(found.drop("noise"), list(sizes.values()), atol=0.35)
    refuses("expected two contexts", adapt.decompose, {"c0": bulks["c0"]})


NAMES = [f"G{i}" for i in range(14)]
SUPPORT, QUERY = NAMES[:9], NAMES[9:]


def world_of(query_effects=None):
    """Everything there is, which a careless model may look at; perhaps with another truth."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(14, 20))
    near = {name: truth + rng.normal(0, 0.5, truth.shape) for name in ("K562", "RPE1")}
    sources = {name: frame(values, NAMES) for name, values in near.items()}
    table = pd.DataFrame(rng.normal(size=(14, 5)), index=NAMES)
    covariance = frame(rng.normal(size=(14, 20)), NAMES).to_df()
    numbers = pd.DataFrame(rng.random((14, 2)) + 1, NAMES, ["n_cells", "median_umi_per_cell"])
    if query_effects is not None:
        truth[9:] = query_effects
    bulk = frame(5 + np.vstack([np.zeros(20), truth]), [CONTROL, *NAMES])
    bulk.var["id"] = range(20)
    tables = {"table": table, "covariance": covariance, "numbers": numbers}
    return SimpleNamespace(sources=sources, bulk=bulk, **tables)


def predictions(make, world):
    return make(world).fit(world.bulk[[CONTROL, *SUPPORT]]).predict(QUERY).X


def leaks(make):
    """Whether another truth about the query changes a single bit of a prediction."""
    wrong = world_of().bulk.X[:9:-1] - 5  # the right effects, given to the wrong targets
    others = [1e6 * np.random.default_rng(1).normal(size=(5, 20)), wrong]
    seen = predictions(make, world_of())
    return any(predictions(make, world_of(o)).tobytes() != seen.tobytes() for o in others)


def searched(world):
    """Scaling, choice of features and a setting, each learnt within the folds."""
    pipeline = make_pipeline(StandardScaler(), SelectFirst(3), Ridge())
    grid = {"regressor__ridge__alpha": [0.1, 10], "scale": [0.5, 1]}
    known = world.bulk[[CONTROL, *SUPPORT]]
    folds = [fold.rows(known) for fold in splits.k_fold(SUPPORT, n_splits=3)]
    return GridSearchCV(EffectModel(pipeline, world.table), grid, cv=folds)


class SelectFirst(SelectKBest):
    """Choose features by how well they predict the first gene."""

    def __init__(self, k):
        super().__init__(lambda x, y: f_regression(x, y[:, 0]), k=k)


HONEST = {
    "no change": lambda w: models.no_change(),
    "mean": lambda w: models.mean_baseline(),
    "CRISPR-informed mean": lambda w: models.crispr_mean(),
    "bilinear": lambda w: models.linear_baseline(3),
    "ridge": lambda w: models.ridge(w.table),
    "kNN": lambda w: models.knn_baseline(w.table, 3),
    "kNN, shrunken": lambda w: models.knn_baseline(w.table, 3, shrinkage=0.5),
    "control covariance": lambda w: models.control_covariance(w.covariance),
    "additive": lambda w: models.additive(w.sources),
    "grid search": searched,
    "gain": lambda w: ContextGain(w.sources),
    "gain, size kept": lambda w: ContextGain(w.sources, keep_size=True, shrinkage=[0, 1, 9]),
    "residual ridge": lambda w: ResidualRidge(w.sources),
    "bilinear, sources": lambda w: SourceBilinear(w.sources, n_components=4),
    "zero-shot": lambda w: ZeroShot(w.sources),
    "stretched": lambda w: models.Stretched(models.ridge(w.table)),
    "several likenesses": lambda w: models.several_likenesses(w.table, w.numbers),
    "kernel median": lambda w: models.kernel_median(w.table, w.numbers),
    "two tables": lambda w: EffectModel(
        Ridge(), {"mine": w.table, "own": features.GeneLoadings(3)}
    ),
    "blend": lambda w: KnockedDown(Blend(ResidualRidge(w.sources), models.kernel_ridge(w.table))),
}


def products_of(world):
    delta = effects(world.bulk)
    return pd.DataFrame(delta.X @ delta.X.T, delta.obs_names, delta.obs_names)


def tuned_on_the_query(world):
    tried = [models.ridge(world.table, alpha=alpha) for alpha in np.geomspace(0.001, 1000, 9)]
    known, asked = world.bulk[[CONTROL, *SUPPORT]], world.bulk[[CONTROL, *QUERY]]
    return max(tried, key=lambda model: model.fit(known).score(asked))


LEAKY = {
    "effects as features": lambda w: models.ridge(features.source_effects({"H1": effects(w.bulk)})),
    "the context is its own source": lambda w: ContextGain(w.sources | {"H1": effects(w.bulk)}),
    "setting tuned on the query": tuned_on_the_query,
    "likenesses of the effects": lambda w: EffectModel(
        models.KernelMedian("precomputed"), features.Likenesses({"all": products_of(w)})
    ),
}


@pytest.mark.parametrize("name", LEAKY)
def test_a_planted_leak_is_found(name):
    assert leaks(LEAKY[name])


@pytest.mark.parametrize("name", HONEST)
def test_models_behave_as_estimators_on_a_pseudobulk(name, snapshot):
    """Nothing leaks; settings and data stay, refits and pickles agree, as scikit-learn checks."""
    assert not leaks(HONEST[name])
    take, same = snapshot
    world = world_of()
    known = world.bulk[[CONTROL, *SUPPORT]].copy()
    model, before = HONEST[name](world), take(known)
    settings = pickle.dumps(sorted(model.get_params(deep=False))), repr(model)
    assert model.fit(known) is model
    assert (pickle.dumps(sorted(model.get_params(deep=False))), repr(model)) == settings
    # neither a clone nor the given regressor is fitted
    assert not hasattr(clone(model), "var_")
    assert not hasattr(getattr(model, "regressor", None), "n_features_in_")
    seen = model.predict(QUERY)
    assert seen.obs_names.tolist() == [CONTROL, *QUERY] and np.isfinite(seen.X).all()
    assert seen.X.dtype == np.float32
    same_bits(seen.X[0], known[CONTROL].X[0].astype(np.float32))
    pd.testing.assert_frame_equal(seen.var, known.var)
    again = clone(model).fit(known).predict(QUERY[::-1])
    equal(again[QUERY].X, seen[QUERY].X, atol=1e-5)
    if name != "grid search":  # its choice of features is a lambda, which cannot be pickled
        kept = pickle.loads(pickle.dumps(model)).predict(QUERY)
        same_bits(kept.X, seen.X)
    error = -np.abs(seen[QUERY].X - world.bulk[QUERY].X).mean()
    assert model.score(world.bulk[[CONTROL, *QUERY]]) == pytest.approx(error)
    seen.X[:], seen.var["more"] = -1, -1
    same(known, before)


def test_precision_weighs_by_the_squared_error_of_an_effect():
    obs = pd.DataFrame({"n_cells": [100, 10, 10]}, index=[CONTROL, "A", "B"])
    spread = np.repeat([[1.0], [2.0], [4.0]], 4, axis=1)
    loud = anndata.AnnData(np.ones((3, 4)), obs=obs, layers={"variance": spread})
    calm = loud.copy()
    calm.obs["n_cells"] *= 2
    # errors: (2/10 + 4/10) / 2 + 1/100 = .31, and half of all that
    found = adapt.precision({"loud": loud, "calm": calm})
    assert found == pytest.approx({"loud": 1 / 3, "calm": 2 / 3})
    with pytest.raises(KeyError, match="'calm' has no row 'non-targeting'"):
        adapt.precision({"calm": calm[1:]})
