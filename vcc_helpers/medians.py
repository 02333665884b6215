r"""Medians of effects: the middle of what the training targets did, near or far from a target.

MAE is the sum of absolute errors, and what makes such a sum smallest is a median, not a mean. A
few strong perturbations pull a mean towards them; a median hardly moves.

Taught in: notebooks/04_mean_baseline.
Needs: bulk.py, features.py, models.py.

>>> y = np.array([[0.0, 1.0], [0.2, 1.2], [9.0, 0.9]])
>>> KernelMedian(sizes=(0,)).fit(np.arange(3.0)[:, None], y).predict([[5.0]])
array([[0.2, 1. ]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls
from sklearn.dummy import DummyRegressor
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.model_selection import KFold
from sklearn.preprocessing import KernelCenterer

from .models import EffectModel, _EffectRegressor

#: A similarity of targets, and the columns of the features that it is computed from.
Kernel = tuple[str | Callable[[np.ndarray, np.ndarray], np.ndarray], Sequence[int] | slice]

SIZES = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8)


def median_baseline() -> EffectModel:
    """Return the model that predicts, gene by gene, the median training effect for every target."""
    return EffectModel(DummyRegressor(strategy="median"))


class KernelMedian(_EffectRegressor):
    r"""The weighted median of the training effects, similar targets weighing more.

    Parameters
    ----------
    kernels
        Pairs of a similarity and the columns of the features that it sees: a name of
        scikit-learn's ``pairwise_kernels``, or a function of two matrices, ``(n, n_features)``
        and ``(m, n_features)``, that returns ``(n, m)``. By default one Gaussian kernel (rbf) of
        all columns.
    sizes
        Values of kappa to choose from, 0 or above.

    Attributes
    ----------
    weights_ : ndarray
        Weight of each kernel, 0 or above, learnt from the training targets.
    size_ : float
        The kappa in use.

    Notes
    -----
    With effects :math:`y_i` of n training targets:

    1. Strong effects are tempered, :math:`t_i = y_i (|y_i| / \tilde y)^{-1/2}` with the median
       length :math:`\tilde y`, and centred.
    2. The weights of the kernels come from the effects themselves, by Haseman-Elston
       regression: non-negative least squares of :math:`t_i \cdot t_j`, in units of the mean
       :math:`|t|^2`, on the centred kernels over all pairs of targets. So a kernel that says
       nothing of the effects gets the weight 0.
    3. Kernel ridge regression with the penalty :math:`\max(1 - \operatorname{tr} K / n, 0.1)`
       gives a target weights :math:`v_i` of the training targets, shifted to the sum 1.
    4. The prediction of a gene minimises :math:`\sum_i w_i |p - y_i|` with
       :math:`w_i = 1/n + \kappa (v_i - 1/n)`. The minimum lies at one of the training values, also
       where a weight is negative. :math:`\kappa = 0` is the median, 1 the weighted median, more
       exaggerates what sets the target apart.
    5. :math:`\kappa` is the largest of `sizes` with which held-out training targets, in five
       folds, are predicted with no larger MAE than by the mean; the smallest where none is.
    """

    def __init__(self, kernels: Sequence[Kernel] | None = None, *, sizes: Sequence[float] = SIZES):
        self.kernels = kernels
        self.sizes = sizes

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        fitted = _Weighing(self.kernels or [("rbf", slice(None))], X, y)
        self.fitted_, self.weights_ = fitted, fitted.weights
        sizes = sorted(self.sizes)
        self.size_ = sizes[0]
        if len(sizes) > 1 and len(y) > 2:
            self.size_ = self._largest(X, y, sizes)

    def _largest(self, X: np.ndarray, y: np.ndarray, sizes: list[float]) -> float:
        error, budget = np.zeros(len(sizes)), 0.0
        for known, asked in KFold(min(5, len(y)), shuffle=True, random_state=0).split(X):
            fold = _Weighing(self.kernels or [("rbf", slice(None))], X[known], y[known])
            budget += np.abs(y[known].mean(axis=0) - y[asked]).sum()
            for row, predicted in zip(asked, fold.medians(X[asked], sizes), strict=True):
                error += np.abs(predicted - y[row]).sum(axis=1)
        return max((s for s, e in zip(sizes, error, strict=True) if e <= budget), default=sizes[0])

    def _effect(self, X: np.ndarray) -> np.ndarray:
        return np.array([found[0] for found in self.fitted_.medians(X, [self.size_])])


class _Weighing:
    """Weights of the training targets for any target, and the medians that they give."""

    def __init__(self, kernels: Sequence[Kernel], X: np.ndarray, y: np.ndarray):
        self.kernels, self.X = kernels, X
        n, length = len(y), np.linalg.norm(y, axis=1)
        temper = (np.where(length > 0, length, 1) / (np.median(length) or 1)) ** -0.5
        t = y * temper[:, None]
        t -= t.mean(axis=0)
        alike = t @ t.T
        alike /= np.trace(alike) / n or 1
        self.centres = [KernelCenterer() for _ in kernels]
        grams = [c.fit_transform(k) for c, k in zip(self.centres, self._similar(X), strict=True)]
        pairs = np.triu_indices(n, k=1)
        design = np.stack([gram[pairs] for gram in grams], axis=1)
        self.weights = nnls(design, alike[pairs])[0] if len(design) else np.zeros(len(grams))
        gram = np.tensordot(self.weights, grams, axes=1)
        penalty = max(1 - np.trace(gram) / n, 0.1)
        self.solved = np.linalg.inv(gram + penalty * np.eye(n))
        self.order = np.argsort(y.T, axis=1)
        self.values = np.take_along_axis(y.T, self.order, axis=1)
        self.steps = np.diff(self.values, axis=1)
        self.even = self._rise(np.full(n, 1 / n)[self.order])

    def _similar(self, X: np.ndarray) -> list[np.ndarray]:
        return [
            kernel(X[:, columns], self.X[:, columns])
            if callable(kernel)
            else pairwise_kernels(X[:, columns], self.X[:, columns], metric=kernel)
            for kernel, columns in self.kernels
        ]

    def _rise(self, weights: np.ndarray) -> np.ndarray:
        """Return how far the sum of absolute errors lies above that of the first sorted value."""
        slope = 2 * np.cumsum(weights, axis=1)[:, :-1] - 1  # the weights have the sum 1
        rise = np.zeros(weights.shape)
        np.cumsum(slope * self.steps, axis=1, out=rise[:, 1:])
        return rise

    def medians(self, X: np.ndarray, sizes: Sequence[float]):
        """Yield for each row of X the weighted medians, ``(n_sizes, n_genes)``."""
        similar = [c.transform(k) for c, k in zip(self.centres, self._similar(X), strict=True)]
        duals = np.tensordot(self.weights, similar, axes=1) @ self.solved
        duals += (1 - duals.sum(axis=1, keepdims=True)) / len(self.X)
        genes = np.arange(len(self.values))
        for dual in duals:
            apart = self._rise(dual[self.order]) - self.even
            lowest = [(self.even + size * apart).argmin(axis=1) for size in sizes]
            yield self.values[genes, np.array(lowest)]
