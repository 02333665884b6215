"""The few-shot adapter at its ends, where the answer is known."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL
from sklearn.base import clone

from vcc_helpers import effects
from vcc_helpers.adapt import ContextGain

GENES = [f"G{i}" for i in range(15)]
TARGETS = [f"T{i}" for i in range(8)]
BASE = 50.0  # high enough that no prediction is cut at 0


def frame(values, names):
    return anndata.AnnData(values, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=GENES))


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


def test_zero_shot_is_the_mean_of_the_sources(sources, bulk):
    model = ContextGain(sources).fit(bulk[[CONTROL]])
    np.testing.assert_allclose(model.gain_, [1 / 3] * 3)
    expected = np.mean([s.X for s in sources.values()], axis=0)
    np.testing.assert_allclose(effects(model.predict(TARGETS)).X, expected, atol=1e-5)


def test_without_shrinkage_it_is_least_squares(sources, bulk):
    support = TARGETS[:3]
    model = ContextGain(sources, shrinkage=0).fit(bulk[[CONTROL, *support]])
    x = np.stack([s[support].X.ravel() for s in sources.values()], axis=1)
    y = effects(bulk)[support].X.ravel()
    np.testing.assert_allclose(model.gain_, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-8)
    np.testing.assert_allclose(model.gain_, [1.5, 0.5, -1], atol=0.1)
    assert model.gain_.index.tolist() == list(sources)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_shrinkage_minimises_what_the_docstring_says(alpha, sources, bulk):
    support = TARGETS[:4]
    x = np.stack([s[support].X.ravel() for s in sources.values()], axis=1)
    y = effects(bulk)[support].X.ravel()
    scale = np.mean([(s[support].X ** 2).sum(axis=1) for s in sources.values()])
    prior = np.full(3, 1 / 3)
    stacked = np.vstack([x, np.sqrt(alpha * scale) * np.eye(3)])
    expected = np.linalg.lstsq(stacked, np.r_[y, np.sqrt(alpha * scale) * prior], rcond=None)[0]
    found = ContextGain(sources, shrinkage=alpha).fit(bulk[[CONTROL, *support]]).gain_
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_much_shrinkage_is_zero_shot(sources, bulk):
    model = ContextGain(sources, shrinkage=1e9).fit(bulk)
    np.testing.assert_allclose(model.gain_, [1 / 3] * 3, atol=1e-6)


def test_two_equal_sources_share_the_gain(sources, bulk):
    twins = {"a": sources["K562"], "b": sources["K562"]}
    gain = ContextGain(twins, shrinkage=0).fit(bulk).gain_
    assert gain["a"] == pytest.approx(gain["b"], rel=1e-8)


def test_a_target_that_some_source_lacks_is_predicted_from_the_others(sources, bulk):
    part = sources | {"RPE1": sources["RPE1"][1:]}
    model = ContextGain(part).fit(bulk[[CONTROL]])
    found = effects(model.predict(["T0", "T1"])).X
    np.testing.assert_allclose(
        found[0], np.mean([sources[n]["T0"].X[0] for n in ("K562", "HepG2")], axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        found[1], np.mean([s["T1"].X[0] for s in sources.values()], axis=0), atol=1e-5
    )
    fitted = ContextGain(part).fit(bulk[[CONTROL, "T0", "T2"]]).gain_
    pd.testing.assert_series_equal(fitted, ContextGain(part).fit(bulk[[CONTROL, "T2"]]).gain_)


def test_predictions_have_the_agreed_form(sources, bulk):
    pred = ContextGain(sources).fit(bulk).predict(["T5", "T2"])
    assert pred.obs_names.tolist() == [CONTROL, "T5", "T2"]
    np.testing.assert_array_equal(pred.X[0], np.full(15, BASE, dtype=np.float32))


def test_it_clones(sources, bulk):
    model = ContextGain(sources, shrinkage=0.5).fit(bulk)
    fresh = clone(model)
    assert not hasattr(fresh, "gain_") and fresh.shrinkage == 0.5
    pd.testing.assert_series_equal(fresh.fit(bulk).gain_, model.gain_)


def test_what_cannot_be_used(sources, bulk):
    with pytest.raises(ValueError, match="no source context"):
        ContextGain({}).fit(bulk)
    with pytest.raises(ValueError, match="shrinkage=-1; expected 0 or more"):
        ContextGain(sources, shrinkage=-1).fit(bulk)
    with pytest.raises(ValueError, match="source 'K562' has other genes .* or another order"):
        ContextGain(sources).fit(bulk[:, ::-1])
    with pytest.raises(KeyError, match="no control row"):
        ContextGain(sources).fit(bulk[TARGETS])
    model = ContextGain(sources).fit(bulk)
    with pytest.raises(KeyError, match="no source context measured 'NEW': 1 of 2 targets"):
        model.predict(["NEW", "T0"])
    with pytest.raises(TypeError, match=r"write \['T0'\]"):
        model.predict("T0")
