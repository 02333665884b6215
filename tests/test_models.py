"""Models, features and splits: exact where the answer is known, and nothing leaks."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator

from vcc_helpers import effects, features, models, splits
from vcc_helpers.models import BilinearRegressor, EffectModel, NoChange


def make_bulk(seed=0, n_perts=12, n_genes=20):
    """Targets G0 ... and a control; means high enough that no prediction is cut at 0."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(3, 5, n_genes) + rng.normal(0, 0.3, (n_perts + 1, n_genes))
    names = [*(f"G{i}" for i in range(n_perts)), CONTROL]
    obs = pd.DataFrame({"n_cells": 10}, index=names)
    var = pd.DataFrame({"id": range(n_genes)}, index=[f"G{i}" for i in range(n_genes)])
    return anndata.AnnData(mean, obs=obs, var=var)


@pytest.fixture
def bulk():
    return make_bulk()


@pytest.fixture
def table(bulk):
    rng = np.random.default_rng(9)
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    return pd.DataFrame(rng.normal(size=(len(targets), 4)), index=targets)


def effect_of(pred):
    return effects(pred).X


# What every regressor of ours must pass, as scikit-learn sees it.
REGRESSORS = [NoChange(), BilinearRegressor(), BilinearRegressor(3, ridge=10)]


def regressor_checks():
    for regressor in REGRESSORS:
        for estimator, check in estimator_checks_generator(regressor, mark="skip"):
            name = getattr(check, "func", check).__name__
            # needs the environment variable SCIPY_ARRAY_API, and none of ours claims that support
            if not name.startswith("check_array_api"):
                yield pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.filterwarnings("ignore")  # the checks provoke them
@pytest.mark.parametrize(("estimator", "check"), list(regressor_checks()))
def test_regressors_keep_scikit_learns_rules(estimator, check):
    check(estimator)


def every_model(table):
    return {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "linear": models.linear_baseline(3, ridge=0.5),
        "knn": models.knn_baseline(table, 2),
        "any": EffectModel(Ridge(), table, fallback="mean"),
    }


NAMES = ["no change", "mean", "linear", "knn", "any"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_round_trip_and_clone(name, bulk, table):
    model = every_model(table)[name]
    parameters = model.get_params()
    assert {"regressor", "features", "fallback", "control"} <= set(parameters)
    model.fit(bulk)
    fresh = clone(model)
    assert not hasattr(fresh, "regressor_")
    assert list(fresh.get_params()) == list(parameters)
    assert not hasattr(model.regressor, "n_features_in_")  # the given regressor is not fitted
    again = clone(fresh).set_params(**model.get_params()).fit(bulk)
    np.testing.assert_array_equal(again.predict(["G1"]).X, model.predict(["G1"]).X)
    assert repr(model)


def test_set_params_reaches_the_regressor(table):
    model = models.knn_baseline(table, 5).set_params(regressor__n_neighbors=1, fallback="mean")
    assert model.regressor.n_neighbors == 1 and model.get_params()["fallback"] == "mean"


@pytest.mark.parametrize("name", NAMES)
def test_predictions_have_the_agreed_form(name, bulk, table, snapshot):
    take, same = snapshot
    before = take(bulk)
    pred = every_model(table)[name].fit(bulk).predict(["G4", "G1"])
    assert pred.obs_names.tolist() == [CONTROL, "G4", "G1"]
    assert pred.X.dtype == np.float32
    np.testing.assert_array_equal(pred.X[0], bulk[CONTROL].X[0].astype(np.float32))
    pd.testing.assert_frame_equal(pred.var, bulk.var)
    pred.X[:], pred.var["id"] = -1, -1
    same(bulk, before)


def test_no_change_is_the_control(bulk):
    pred = models.no_change().fit(bulk).predict(["G0", "anything"])
    assert (effect_of(pred) == 0).all()


def test_the_mean_is_the_mean(bulk):
    pred = models.mean_baseline().fit(bulk).predict(["G0", "anything"])
    expected = effects(bulk).X.mean(axis=0)
    np.testing.assert_allclose(effect_of(pred), [expected] * 2, atol=1e-6)


def test_knn_by_hand(bulk):
    """Cosine: direction counts, length does not."""
    directions = pd.DataFrame([[1.0, 9.0], [0.0, 1.0], [1.0, 0.0]], index=["query", "G1", "G0"])
    model = models.knn_baseline(directions, 1).fit(bulk[["G0", "G1", CONTROL]])
    expected = effects(bulk)["G1"].X[0]
    np.testing.assert_allclose(effect_of(model.predict(["query"]))[0], expected, atol=1e-6)


def solve_directly(p, y, n_components, ridge):
    """The bilinear equation written out with inverses, and the scores from an eigensolver."""
    y = y - (mean := y.mean(axis=0))
    by_gene = (y + mean).T - (y + mean).T.mean(axis=0)
    value, vector = np.linalg.eigh(by_gene.T @ by_gene)
    g = by_gene @ vector[:, np.argsort(-value)[:n_components]]
    left = np.linalg.inv(p.T @ p + ridge * np.eye(p.shape[1]))
    right = np.linalg.inv(g.T @ g + ridge * np.eye(g.shape[1]))
    return p @ (left @ p.T @ y @ g @ right) @ g.T + mean


@pytest.mark.parametrize("ridge", [0.01, 0.1, 10])
@pytest.mark.parametrize("n_components", [1, 3, 8])
def test_bilinear_equals_a_direct_solution(n_components, ridge):
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 20))
    found = BilinearRegressor(n_components, ridge=ridge).fit(p, y).predict(p)
    np.testing.assert_allclose(found, solve_directly(p, y, n_components, ridge), rtol=1e-8)


def test_bilinear_with_a_huge_penalty_is_the_mean():
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 20))
    found = BilinearRegressor(ridge=1e12).fit(p, y).predict(p)
    np.testing.assert_allclose(found, [y.mean(axis=0)] * 12, atol=1e-6)


def test_bilinear_without_penalty_and_with_all_components_is_least_squares_in_their_space():
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 20))
    found = BilinearRegressor(12, ridge=1e-12).fit(p, y).predict(p)
    centred = y - y.mean(axis=0)
    fit = p @ np.linalg.lstsq(p, centred, rcond=None)[0]
    scores = y.T - y.T.mean(axis=0)
    in_span = fit @ scores @ np.linalg.pinv(scores.T @ scores) @ scores.T
    np.testing.assert_allclose(found, in_span + y.mean(axis=0), atol=1e-6)


def test_the_linear_baseline_is_its_equation(bulk):
    delta = effects(bulk)
    pred = models.linear_baseline(4, ridge=0.3).fit(bulk).predict(delta.obs_names)
    g = features.gene_scores(delta.X, 4)
    p = g[delta.var_names.get_indexer(delta.obs_names)]
    np.testing.assert_allclose(effect_of(pred), solve_directly(p, delta.X, 4, 0.3), atol=1e-5)


def test_predictions_do_not_fall_below_zero():
    found = models.bulk_of_effects(
        np.array([[-5.0, 1.0]]), ["A"], np.ones(2), pd.DataFrame(index=["G0", "G1"])
    )
    np.testing.assert_array_equal(found.X, [[1, 1], [0, 2]])


@pytest.mark.parametrize("name", ["mean", "linear", "knn", "any"])
@pytest.mark.parametrize("n_splits", [3, 12])
def test_cross_predict_leaks_nothing(name, n_splits, table):
    """A row that changes by a million must not change its own prediction, only others'."""
    bulk, changed = make_bulk(), make_bulk()
    changed.X[3] += 1e6 * (1 + np.arange(20))
    model = every_model(table)[name]
    one, other = (models.cross_predict(model, b, n_splits=n_splits) for b in (bulk, changed))
    np.testing.assert_array_equal(one["G3"].X, other["G3"].X)
    assert np.abs(one.X - other.X).max() > 1e3
    assert not hasattr(model, "regressor_")


def test_cross_predict_is_leave_one_out_when_asked(bulk):
    found = models.cross_predict(models.mean_baseline(), bulk, n_splits=12)
    assert found.obs_names.tolist() == bulk.obs_names.tolist()
    delta = effects(bulk)
    for name in delta.obs_names:
        expected = delta[delta.obs_names != name].X.mean(axis=0)
        np.testing.assert_allclose(effects(found)[name].X[0], expected, atol=1e-6)


def test_cross_predict_depends_on_the_seed_only(bulk):
    model = models.mean_baseline()
    one, same, other = (models.cross_predict(model, bulk, n_splits=3, seed=s).X for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    with pytest.raises(ValueError, match="n_splits=13"):
        models.cross_predict(model, bulk, n_splits=13)


def test_targets_without_features_are_named(bulk, table):
    model = models.knn_baseline(table, 2).fit(bulk)
    with pytest.raises(KeyError) as caught:
        model.predict(["G0", "NEW1", "NEW2"])
    text = caught.value.args[0]
    assert "'NEW1', 'NEW2'" in text and "covers 1 of 3" in text and "fallback='mean'" in text
    with pytest.raises(KeyError, match="no features for 'G11': the table covers 11 of 12"):
        models.knn_baseline(table.iloc[:-1], 2).fit(bulk)


def test_the_fallback_is_the_mean_training_effect(bulk, table):
    model = EffectModel(KNeighborsRegressor(1), table.iloc[:-1], fallback="mean").fit(bulk)
    found = effect_of(model.predict(["NEW", "G0"]))
    np.testing.assert_allclose(found[0], effects(bulk).X.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[1], effects(bulk)["G0"].X[0], atol=1e-6)


def test_what_cannot_be_fitted(bulk, table):
    with pytest.raises(ValueError, match="fallback='median'; expected None or 'mean'"):
        EffectModel(DummyRegressor(), fallback="median").fit(bulk)
    with pytest.raises(ValueError, match="the control only"):
        models.mean_baseline().fit(bulk[[CONTROL]])
    with pytest.raises(KeyError, match="no control row"):
        models.mean_baseline().fit(bulk[["G0"]])
    with pytest.raises(ValueError, match="no training target has features"):
        EffectModel(DummyRegressor(), table.loc[["G0"]], fallback="mean").fit(bulk[1:])
    with pytest.raises(ValueError, match="more than one row of features for 'G0'"):
        models.knn_baseline(pd.concat([table, table.iloc[:1]]), 2).fit(bulk)


def test_one_string_is_no_list_of_targets(bulk):
    with pytest.raises(TypeError, match=r"write \['SOX2'\]"):
        models.mean_baseline().fit(bulk).predict("SOX2")


def test_grid_search_over_the_regressor(bulk, table):
    search = GridSearchCV(KNeighborsRegressor(), {"n_neighbors": [1, 3]}, cv=3)
    model = EffectModel(search, table).fit(bulk)
    assert model.regressor_.best_params_["n_neighbors"] in (1, 3)
    assert model.predict(["G0"]).shape == (2, 20)


def test_gene_scores_span_the_effects():
    y = np.random.default_rng(0).normal(size=(6, 15))
    scores = features.gene_scores(y, 99)
    centred = y.T - y.T.mean(axis=0)
    np.testing.assert_allclose(scores @ scores.T, centred @ centred.T, atol=1e-10)
    assert features.gene_scores(y, 2).shape == (15, 2)


def test_source_effects_keep_targets_of_every_context(bulk):
    first, second = effects(bulk)[:4], effects(bulk)[2:7, :5]
    table = features.source_effects({"K562": first, "RPE1": second})
    assert table.index.tolist() == ["G2", "G3"] and table.shape == (2, 25)
    np.testing.assert_array_equal(table["RPE1"].loc["G3"], second["G3"].X[0])
    with pytest.raises(ValueError, match="no source context"):
        features.source_effects({})
    with pytest.raises(ValueError, match=r"a: 2 targets, b: 1 targets"):
        features.source_effects({"a": first[:2], "b": second[-1:]})


def test_coverage(table):
    found = features.coverage({"mine": table}, ["G0", "NEW", "G0", "G1"])
    assert found.loc["mine"].to_dict() == {"covered": 2, "asked": 3, "missing": ["NEW"]}


@pytest.mark.parametrize("n_support", [0, 1, 5, 9])
def test_few_shot_split(n_support):
    names = [f"T{i}" for i in range(10)]
    split = splits.few_shot_split([*names, "T0"], n_support=n_support, seed=2)
    assert len(split.support) == n_support
    assert sorted([*split.support, *split.query]) == names
    assert split == splits.few_shot_split(names[::-1], n_support=n_support, seed=2)
    assert list(split.query) == sorted(split.query)


def test_larger_support_sets_contain_smaller_ones():
    names = [f"T{i}" for i in range(20)]
    nested = [set(splits.few_shot_split(names, n_support=n, seed=1).support) for n in range(20)]
    assert all(a < b for a, b in zip(nested, nested[1:], strict=False))
    other = splits.few_shot_split(names, n_support=10, seed=2).support
    assert nested[10] != set(other)


@pytest.mark.parametrize("n_support", [-1, 3, 4])
def test_a_split_that_leaves_nothing_to_predict(n_support):
    with pytest.raises(ValueError, match="of 3 targets; expected 0 to 2"):
        splits.few_shot_split("ABC", n_support=n_support)
