"""Medians of effects: the minimum that they claim, the weights that they learn, the size chosen."""

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import KFold

from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.models import KernelMedian, _Weighing, median_baseline

TARGETS = [f"T{i}" for i in range(9)]


def test_the_median_baseline_is_the_median_of_the_effects():
    rng = np.random.default_rng(0)
    bulk = anndata.AnnData(rng.random((10, 4)) + 1, pd.DataFrame(index=[*TARGETS, CONTROL]))
    predicted = effects(median_baseline().fit(bulk).predict(["NEW"])).X[0]
    np.testing.assert_allclose(predicted, np.median(effects(bulk).X, axis=0), atol=1e-6)


def screen(seed, n=24, n_genes=30):
    """Two features, and effects that follow the first feature."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    alike = np.exp(-((X[:, :1] - X[:, 0]) ** 2) / 2) + 1e-6 * np.eye(n)
    y = np.linalg.cholesky(alike) @ rng.normal(size=(n, n_genes))
    return X, y + 0.3 * rng.normal(size=y.shape)


def alike(X, others):
    """Two kernels, one block each, as ``"precomputed"`` has them."""
    return np.hstack([rbf_kernel(X[:, [c]], others[:, [c]]) for c in (0, 1)])


def blocks(X, others):
    return alike(X, others).reshape(len(X), 2, -1).swapaxes(0, 1)


def fitted(X, y, **kw):
    return KernelMedian("precomputed", **kw).fit(alike(X, X), y)


@pytest.mark.parametrize("seed", range(5))
def test_each_prediction_is_the_least_sum_of_weighted_errors(seed):
    X, y = screen(seed)
    asked, sizes = screen(seed + 100)[0], [0, 1, 2.5, 8]
    fold, known = _Weighing(blocks(X, X), y), blocks(X, X)
    gram = sum(w * (k - k.mean(0) - k.mean(1)[:, None] + k.mean())
               for w, k in zip(fold.weights, known, strict=True))  # fmt: skip
    inverse = np.linalg.inv(gram + max(1 - np.trace(gram) / len(y), 0.1) * np.eye(len(y)))
    ((genes, medians),) = fold.medians(blocks(asked[:6], X), sizes)
    assert genes.start == 0 and medians.shape == (4, 30, 6)
    for row, found in zip(asked[:6], medians.transpose(2, 0, 1), strict=True):
        new = blocks(row[None], X)
        similar = [k[0] - f.mean(0) - k.mean() + f.mean() for k, f in zip(new, known, strict=True)]
        dual = inverse @ np.tensordot(fold.weights, similar, axes=1)
        dual += (1 - dual.sum()) / len(y)
        for size, predicted in zip(sizes, found, strict=True):
            weights = 1 / len(y) + size * (dual - 1 / len(y))
            cost = np.einsum("i,ijg->jg", weights, np.abs(y[:, None] - y[None]))
            own = (weights[:, None] * np.abs(y - predicted)).sum(axis=0)
            np.testing.assert_allclose(own, cost.min(axis=0), atol=1e-9)


def test_a_likeness_that_says_nothing_weighs_next_to_nothing():
    weights = np.mean([fitted(*screen(s)).weights_ for s in range(8)], axis=0)
    assert weights[0] > 0.4 and weights[1] < 0.15


def test_size_zero_is_the_median_and_likeness_helps():
    X, y = screen(3, n=25)
    plain = fitted(X, y, sizes=[0]).predict(alike(X[:3], X))
    np.testing.assert_array_equal(plain, np.tile(np.median(y, axis=0), (3, 1)))
    error = {0: [], 1: []}
    for seed in range(5):
        X, y = screen(seed, n=60)
        for size in error:
            pred = fitted(X[:40], y[:40], sizes=[size]).predict(alike(X[40:], X[:40]))
            error[size].append(np.abs(pred - y[40:]).mean())
    assert np.mean(error[1]) < 0.9 * np.mean(error[0])


def test_the_size_is_the_largest_that_keeps_the_error_of_the_mean():
    X, y = screen(1, n=60)
    y += 0.5 * np.random.default_rng(0).normal(size=y.shape)
    sizes = [1, 2, 3, 4, 8]
    chosen = fitted(X, y, sizes=sizes).size_
    error = dict.fromkeys(sizes, 0.0)
    mean = 0.0
    for known, asked in KFold(5, shuffle=True, random_state=0).split(X):
        mean += np.abs(y[known].mean(axis=0) - y[asked]).sum()
        for size in sizes:
            pred = fitted(X[known], y[known], sizes=[size]).predict(alike(X[asked], X[known]))
            error[size] += np.abs(pred - y[asked]).sum()
    assert 1 < chosen < 8
    assert error[chosen] <= mean < min(e for size, e in error.items() if size > chosen)


def test_strong_effects_do_not_pull():
    X, y = screen(2)
    before = KernelMedian(sizes=[0]).fit(X, y).predict(X[:1])
    y[np.argmax(np.linalg.norm(y, axis=1))] *= 100
    after = KernelMedian(sizes=[0]).fit(X, y).predict(X[:1])
    assert np.abs(after - before).max() < 1


@pytest.mark.parametrize("sizes", [[], [-1, 1]])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match="expected at least one, each 0 or above"):
        KernelMedian(sizes=sizes).fit(*screen(0))


def test_kernels_are_named_given_or_precomputed():
    X, y = screen(0)
    one = KernelMedian().fit(X, y).predict(X[:4])
    given = KernelMedian(lambda a, b: rbf_kernel(a, b)).fit(X, y).predict(X[:4])
    np.testing.assert_array_equal(one, given)
    whole = KernelMedian("precomputed").fit(rbf_kernel(X), y)
    np.testing.assert_allclose(whole.predict(rbf_kernel(X)[:4]), one, atol=1e-12)
    with pytest.raises(ValueError, match="3 features are not whole blocks of 24 training targets"):
        KernelMedian("precomputed").fit(y[:, :3], y)
