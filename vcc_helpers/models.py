"""Models of effects: a scikit-learn regressor plus a feature table.

Every model learns from a pseudobulk and predicts one, so any two can be compared and any
regressor of scikit-learn can be put in. A pseudobulk is ``(n_groups, n_genes)``, mean lognorm, the
control among its rows; features are ``(n_perts, n_features)``, effects ``(n_perts, n_genes)``,
differences of mean lognorm values. The settings of a model are the fields of a dataclass: a model
or regressor among them is cloned for a fit, never changed. What is learnt ends in an underscore.

Taught in: notebooks/03_predict_with_baselines, notebooks/12_mean_and_median,
notebooks/13_linear_baseline, notebooks/14_features_and_kernels, notebooks/15_nearest_neighbours and
notebooks/16_gains_between_contexts.
Needs: bulk.py, features.py.

>>> rows, genes = ["SOX2", "NANOG", CONTROL], ["SOX2", "NANOG"]
>>> mean = np.array([[0.1, 1.0], [0.6, 0.2], [0.7, 1.5]])
>>> bulk = anndata.AnnData(mean, pd.DataFrame(index=rows), pd.DataFrame(index=genes))
>>> mean_baseline().fit(bulk).predict(["SOX2", "NEW1"]).shape
(3, 2)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import anndata
import numpy as np
import pandas as pd
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.dummy import DummyRegressor
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances, pairwise_kernels
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import KernelCenterer
from sklearn.utils.validation import check_is_fitted, validate_data

from .bulk import (
    CONTROL,
    FallbackWarning,
    bulk_of_effects,
    control_row,
    effects,
    knockdown,
    silenced,
    some_of,
)
from .features import (
    EffectTable,
    GeneLoadings,
    Likenesses,
    gene_scores,
    near_counts,
    resolve,
    same_direction,
    same_value,
    source_mean,
)

#: How far :class:`KernelMedian` may go beyond the weighted median.
_SIZES = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8)


class BulkModel(BaseEstimator):
    """The template of all models: each says ``_learn(targets, effect, bulk)`` and ``_effect``.

    The first sees the measured targets, their effects and the pseudobulk with both; the second
    returns the effects of targets. `y` is ignored; scikit-learn's tools pass it.
    """

    def fit(self, bulk: anndata.AnnData, y: None = None) -> BulkModel:
        """Learn from the measured perturbations of one context.

        The control alone is enough for a model that can do without measured targets: zero-shot. A
        KeyError says that the control or a target's features are missing; a ValueError, that `bulk`
        holds NaN, a row twice or too few perturbations, or that a setting is out of range.
        """
        _check_bulk(bulk)
        measured = effects(bulk)
        self.var_, self.control_mean_ = bulk.var.copy(), control_row(bulk)
        self._learn(measured.obs_names, measured.X, bulk)
        return self

    def predict(self, targets: Iterable[str]) -> anndata.AnnData:
        """Predict the pseudobulk of targets, in the context that the model was fitted on.

        Returned are ``(1 + n_targets, n_genes)`` mean lognorm values: the training control's row,
        then one row per target in the order given. A KeyError names an unknown target.
        A model with a fallback predicts a mean for it, marks it in ``obs["fallback"]``, and a
        FallbackWarning names it.
        """
        check_is_fitted(self)
        if isinstance(targets, str):  # it would fall into letters
            raise TypeError(f"expected a list of targets, got one string; write [{targets!r}]")
        pred = self._predict(pd.Index(list(targets)))
        if len(fell := pred.obs_names[pred.obs["fallback"]]):
            warnings.warn(
                f"nothing is known of {len(fell)} of {pred.n_obs - 1} targets, {some_of(fell)}: "
                "they are predicted as a mean (obs['fallback'] marks them)",
                FallbackWarning,
                stacklevel=2,
            )
        return pred

    def _predict(self, targets: pd.Index) -> anndata.AnnData:
        return self._bulk(self._effect(targets), targets, self._fallback(targets))

    def _bulk(self, effect: np.ndarray, targets: pd.Index, fallback: np.ndarray):
        pred = bulk_of_effects(effect, targets, self.control_mean_, self.var_)
        pred.obs["fallback"] = [False, *fallback]
        return pred

    def _fallback(self, targets: pd.Index) -> np.ndarray:
        return np.zeros(len(targets), dtype=bool)

    def score(self, bulk: anndata.AnnData, y: None = None) -> float:
        """Return minus the MAE over targets and genes; greater is better."""
        _check_bulk(bulk)
        targets = bulk.obs_names[bulk.obs_names != CONTROL]
        error = self._predict(targets)[targets].X - bulk[targets].X.astype(np.float64)
        return -float(np.abs(error).mean())


def _check_bulk(bulk: anndata.AnnData) -> None:
    if not isinstance(bulk, anndata.AnnData):
        raise TypeError(
            f"expected a pseudobulk (AnnData), got {type(bulk).__name__}; make one of cells "
            "with vcc_helpers.pseudobulk"
        )
    if not bulk.obs_names.is_unique:
        twice = bulk.obs_names[bulk.obs_names.duplicated()].unique()
        raise ValueError(f"the pseudobulk has more than one row for {some_of(twice)}")
    if len(bad := bulk.obs_names[~np.isfinite(bulk.X).all(axis=1)]):
        raise ValueError(
            f"the pseudobulk's rows {some_of(bad)} hold NaN or infinite values; "
            "leave these rows out"
        )


class _NoChange(BulkModel):
    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        pass

    def _effect(self, targets: pd.Index) -> np.ndarray:
        return np.zeros((len(targets), len(self.var_)))


class _Around(BulkModel):
    """The template of models around another, ``model_``: each says ``_change(effect, targets)``."""

    def _predict(self, targets: pd.Index) -> anndata.AnnData:
        pred = predict_within(self.model_, targets)
        effect = pred.X[1:].astype(np.float64) - self.control_mean_
        return self._bulk(self._change(effect, targets), targets, pred.obs["fallback"].iloc[1:])


def predict_within(model: BaseEstimator, targets: pd.Index) -> anndata.AnnData:
    """Return what a model inside another predicts; of a fallback the outer one tells."""
    pred = model._predict(targets) if isinstance(model, BulkModel) else model.predict(targets)
    pred.obs["fallback"] = pred.obs.get("fallback", False)
    return pred


@dataclass(eq=False, repr=False)
class EffectModel(BulkModel):
    """Predict the effects of perturbations with any multi-output regressor.

    Parameters
    ----------
    regressor
        A scikit-learn regressor or pipeline from features to effects.
    features
        A table whose index holds targets; or a function that makes one from the training effects;
        or a mapping of names to these, which :func:`~vcc_helpers.features.join` puts side by side;
        or None where the regressor needs none.
    fallback
        For a target without features: ``None`` raises a KeyError, ``"mean"`` predicts the mean
        training effect, and says so. A training target without features counts in that mean, and
        the regressor does not see it; ``left_out_`` names these.
    scale
        Factor on what the prediction adds to the mean training effect. Below 1 is shrinkage,
        which MAE rewards; above 1 exaggeration, which PDS rewards.

    Notes
    -----
    Settings are chosen as anywhere in scikit-learn. The search can be the regressor,
    ``EffectModel(GridSearchCV(Ridge(), {"alpha": [1, 10]}), table)``; its folds are then the
    training targets. Or it can be around the model, ``GridSearchCV(EffectModel(Ridge(), table),
    {"regressor__alpha": [1, 10], "scale": [0.5, 1]}, cv=folds)``, with folds that keep the
    control's row in both parts, as ``rows`` of :class:`~vcc_helpers.splits.FewShotSplit` makes
    them; then the MAE decides (:meth:`score`), or a function ``scoring(model, bulk)``. What a
    regressor learns, such as a ``StandardScaler`` in a pipeline, it learns within each fold.
    """

    regressor: BaseEstimator
    features: pd.DataFrame | Callable | Mapping | None = None
    _: KW_ONLY
    fallback: str | None = None
    scale: float = 1.0

    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        if self.fallback not in (None, "mean"):
            raise ValueError(f"fallback={self.fallback!r}; expected None or 'mean'")
        if len(targets) == 0:
            raise ValueError("no perturbation to learn from: the pseudobulk has the control only")
        self.mean_effect_ = effect.mean(axis=0, dtype=np.float64)
        self.features_ = resolve(self.features, effects(bulk))
        covered = self._covered(targets)
        self.left_out_ = targets[~covered]
        if not covered.any():
            raise ValueError("no training target has features; nothing can be learnt")
        rows = self._rows(targets[covered])
        self.regressor_ = clone(self.regressor).fit(rows, effect[covered])

    def _effect(self, targets: pd.Index) -> np.ndarray:
        covered = self._covered(targets)
        effect = np.tile(self.mean_effect_, (len(targets), 1))
        if covered.any():
            predicted = self.regressor_.predict(self._rows(targets[covered]))
            effect[covered] = np.reshape(predicted, (-1, effect.shape[1]))
        if self.scale != 1:
            effect = self.mean_effect_ + self.scale * (effect - self.mean_effect_)
        return effect

    def _fallback(self, targets: pd.Index) -> np.ndarray:
        return ~self._covered(targets)

    def _covered(self, targets: pd.Index) -> np.ndarray:
        if self.features_ is None:
            return np.ones(len(targets), dtype=bool)
        covered = targets.isin(self.features_.index)
        if self.fallback is None and not covered.all():
            missing = targets[~covered]
            left_out = self.features_.attrs.get("left_out", {})
            where = [
                f"; {name!r} lacks {some_of(lost)}"
                for name, part in left_out.items()
                if (lost := missing[missing.isin(part)]).size
            ]
            raise KeyError(
                f"no features for {some_of(missing)}: the table covers {covered.sum()} of "
                f"{len(targets)} targets asked{''.join(where)}; leave these out, or give "
                "fallback='mean'"
            )
        return covered

    def _rows(self, targets: pd.Index) -> np.ndarray:
        if self.features_ is None:
            return np.zeros((len(targets), 1))
        return self.features_.loc[targets].to_numpy()


@dataclass(eq=False, repr=False)
class KnockedDown(_Around):
    r"""Any model, with each target's own gene set to what silencing leaves of it.

    In a screen with CRISPR interference one thing is known of every target before it is measured:
    its own expression falls. With the control's mean lognorm m, the prediction for the target's own
    gene is :math:`\log(1 + r (e^m - 1))`; all others are those of `model`, anything with
    ``fit(bulk)`` and ``predict(targets)``. `residual`, r, is the share of its expression that a
    silenced gene keeps, 0 to 1; by default the median of the training targets. PDS leaves a
    target's own gene out, so it barely changes; MAE gains a little.
    """

    model: BaseEstimator
    _: KW_ONLY
    residual: float | None = None

    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        left = knockdown(bulk).dropna()
        if self.residual is None and left.empty:
            raise ValueError(
                "no training target is a gene that the control expresses, so its typical "
                "knock-down is unknown; give residual=, such as 0.05"
            )
        self.residual_ = min(left.median(), 1.0) if self.residual is None else self.residual
        silenced(np.zeros(1), self.residual_)  # refuses what is no share
        self.model_ = clone(self.model).fit(bulk)

    def _change(self, effect: np.ndarray, targets: pd.Index) -> np.ndarray:
        column = self.var_.index.get_indexer(targets)
        row = np.flatnonzero(column >= 0)
        base = self.control_mean_[column[row]]
        effect[row, column[row]] = silenced(base, self.residual_).astype(np.float64) - base
        return effect


@dataclass(eq=False, repr=False)
class Stretched(_Around):
    r"""Any model, its predicted effects made as large as the MAE allows.

    PDS measures L1 distances, and a timid prediction is near to every weak effect. So among
    predictions with the same directions larger ones win in PDS, until they cost MAE. With the mean
    absolute predicted effect :math:`m_q` of target q, and that of the training predictions
    :math:`\bar m`,

    .. math:: \hat\Delta_q \leftarrow c \, (m_q / \bar m) \, \hat\Delta_q

    where c, ``factor_``, is the largest from 1/8 to 8 with which held-out training targets, in ten
    folds, are predicted with no larger MAE than by the mean; 1/8 where none is. Before `model`
    learns, each training effect is divided by the square root of its size, so that a few strong
    perturbations do not drown the directions of all others.
    """

    model: BaseEstimator

    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        if len(targets) < 2:
            few = f"{len(targets)} perturbation to learn from"
            raise ValueError(f"{few}; a factor needs two, one held out")
        base = self.control_mean_.astype(np.float64)
        effect = effect.astype(np.float64)
        # below 0 too: nothing is lost
        mean = np.vstack([base, base + _tempered(effect)])
        tempered = anndata.AnnData(mean, pd.DataFrame(index=[CONTROL, *targets]), bulk.var.copy())
        held_out = np.empty_like(effect)
        for known, asked in _folds(len(targets), 10):
            model = clone(self.model).fit(tempered[[0, *known + 1]])
            held_out[asked] = predict_within(model, targets[asked]).X[1:] - base
        self.size_ = np.abs(held_out).mean() or 1.0
        shaped = self._shaped(held_out)
        factors = [2.0 ** (i / 4) for i in range(-12, 13)]

        def error_of(known: np.ndarray, asked: np.ndarray) -> list[float]:
            part, truth = shaped[asked], effect[asked]
            return [np.abs(np.maximum(c * part, -base) - truth).sum() for c in factors]

        self.factor_ = _largest(factors, effect, error_of, 10)
        self.model_ = clone(self.model).fit(tempered)

    def _shaped(self, effect: np.ndarray) -> np.ndarray:
        return effect * (np.abs(effect).mean(axis=1, keepdims=True) / self.size_)

    def _change(self, effect: np.ndarray, targets: pd.Index) -> np.ndarray:
        return self.factor_ * self._shaped(effect)


def _tempered(effect: np.ndarray) -> np.ndarray:
    """Divide effects by the square root of their sizes, in units of the median."""
    size = np.linalg.norm(effect, axis=1, keepdims=True)
    return effect * (np.where(size > 0, size, 1) / (np.median(size) or 1.0)) ** -0.5


def _folds(n: int, n_folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return KFold(min(n_folds, n), shuffle=True, random_state=0).split(np.zeros(n))


def _largest(sizes: Sequence[float], effect: np.ndarray, error_of: Callable, n_folds: int):
    """Return the largest size with which held-out targets cost no more MAE than by the mean.

    ``error_of(known, asked)`` gives the sum of absolute errors with each of `sizes`, where the rows
    `asked` of `effect` are predicted from the rows `known`. Where none is cheap enough, it is the
    smallest.
    """
    error, budget = np.zeros(len(sizes)), 0.0
    for known, asked in _folds(len(effect), n_folds):
        error += error_of(known, asked)
        budget += np.abs(effect[known].mean(axis=0) - effect[asked]).sum()
    cheap = [size for size, cost in zip(sizes, error, strict=True) if cost <= budget]
    return max(cheap, default=min(sizes))


class _EffectRegressor(RegressorMixin, BaseEstimator):
    """The template of regressors from features to effects: each says ``_learn`` and ``_effect``."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> _EffectRegressor:
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self.shape_, y = y.shape[1:], y.reshape(len(y), -1).astype(np.float64)
        self.mean_ = y.mean(axis=0)
        self._learn(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self._effect(X).reshape(len(X), *self.shape_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # one gene alone has nothing to share
        return tags


@dataclass(eq=False, repr=False)
class BilinearRegressor(_EffectRegressor):
    r"""The linear model of Ahlmann-Eltze, Huber and Anders.

    `n_components` is the number of gene components, K, `ridge` the penalty, :math:`\lambda`, on
    both sides, in units of squared effects. With effects :math:`Y` (perturbations x genes), their
    mean :math:`b`, gene scores :math:`G` (genes x K, from the training effects) and perturbation
    features :math:`P` (in :func:`linear_baseline` the targets' rows of :math:`G`):

    .. math::

        Y \approx P W G^{\mathsf{T}} + b, \qquad
        W = (P^{\mathsf{T}} P + \lambda I)^{-1} P^{\mathsf{T}} (Y - b)\, G\,
        (G^{\mathsf{T}} G + \lambda I)^{-1}

    Source: Nature Methods 2025, written here with perturbations as rows.
    """

    n_components: int = 10
    _: KW_ONLY
    ridge: float = 0.1

    def _learn(self, p: np.ndarray, y: np.ndarray) -> None:
        self.gene_scores_ = g = gene_scores(y, self.n_components)
        left = np.linalg.solve(p.T @ p + self.ridge * np.eye(p.shape[1]), p.T @ (y - self.mean_))
        self.coef_ = np.linalg.solve(g.T @ g + self.ridge * np.eye(g.shape[1]), (left @ g).T).T

    def _effect(self, p: np.ndarray) -> np.ndarray:
        return p @ self.coef_ @ self.gene_scores_.T + self.mean_


@dataclass(eq=False, repr=False)
class CentredKernelRidge(_EffectRegressor):
    r"""Ridge regression around the training mean, by the similarities between targets.

    `alpha` is the penalty, above 0, in units of the centred features' mean squared length. `kernel`
    is the similarity of two targets: ``"linear"`` (plain ridge regression), ``"rbf"``,
    ``"cosine"``, or another of scikit-learn's ``pairwise_kernels``; or a function of two feature
    matrices, ``(n, n_features)`` and ``(m, n_features)``, that returns ``(n, m)``. `gamma` is its
    width, by default 1 / median squared distance of two training targets.

    With effects :math:`Y`, their mean :math:`b`, and the kernel matrix :math:`K` of the training
    targets, centred as if each feature's mean were taken off:

    .. math:: \hat y_q = b + k_q (K + \alpha \bar k I)^{-1} (Y - b), \qquad
              \bar k = \tfrac1n \operatorname{tr} K

    For a linear kernel that is ridge regression with an intercept and the penalty :math:`\alpha
    \bar k`; but it solves for n numbers per gene, not for one per feature and gene, so 36,000
    features of 150 targets take about a second.
    """

    alpha: float = 1.0
    _: KW_ONLY
    kernel: str | Callable[[np.ndarray, np.ndarray], np.ndarray] = "linear"
    gamma: float | None = None

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha}; expected above 0")
        self.X_fit_ = X
        self.gamma_ = self._width() if self.gamma is None else self.gamma
        self.centre_ = KernelCenterer()
        gram = self.centre_.fit_transform(self._similarity(X))
        penalty = self.alpha * (np.trace(gram) / len(gram) or 1.0)
        self.gram_, self.y_ = gram + penalty * np.eye(len(gram)), y - self.mean_

    def _effect(self, X: np.ndarray) -> np.ndarray:
        weights = np.linalg.solve(self.gram_, self.centre_.transform(self._similarity(X)).T)
        return weights.T @ self.y_ + self.mean_

    def _similarity(self, X: np.ndarray) -> np.ndarray:
        if callable(self.kernel):
            return self.kernel(X, self.X_fit_)
        width = {"gamma": self.gamma_, "filter_params": True}
        return pairwise_kernels(X, self.X_fit_, metric=self.kernel, **width)

    def _width(self) -> float:
        squared = euclidean_distances(self.X_fit_, squared=True)
        between = squared[np.triu_indices(len(squared), 1)]
        typical = np.median(between) if len(between) else 0
        return 1 / typical if typical > 0 else 1.0


@dataclass(eq=False, repr=False)
class ShrunkenNeighbors(_EffectRegressor):
    r"""Average the most similar training targets, and pull the average towards the mean.

    With the mean training effect :math:`b` and the k targets N(q), `n_neighbors` or all there are,
    whose features point most nearly in the query's direction (ties: the first in training order):

    .. math:: \hat y_q = b + (1 - s_q) \, \Bigl(\tfrac1k \sum_{t \in N(q)} y_t - b\Bigr)

    A `shrinkage` s of 0 takes the neighbours at their word, 1 predicts the mean, numbers between
    mix. With ``"similarity"`` it is 1 minus the neighbours' mean cosine similarity, cut to 0 to 1:
    a target unlike all others is predicted by the mean. Features whose mean is far from 0 are
    similar for all; ``make_pipeline(StandardScaler(), ShrunkenNeighbors())`` centres them.
    """

    n_neighbors: int = 5
    _: KW_ONLY
    shrinkage: float | str = 0.5

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        if self.n_neighbors < 1:
            raise ValueError(f"n_neighbors={self.n_neighbors}; expected 1 or more")
        word = isinstance(self.shrinkage, str)
        if self.shrinkage != "similarity" and (word or not 0 <= self.shrinkage <= 1):
            raise ValueError(
                f"shrinkage={self.shrinkage!r}; expected a number from 0 to 1, or 'similarity'"
            )
        self.X_fit_, self.y_ = X, y

    def _effect(self, X: np.ndarray) -> np.ndarray:
        distance = cosine_distances(X, self.X_fit_)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.n_neighbors]
        average = np.stack([self.y_[rows].mean(axis=0) for rows in nearest])
        if isinstance(self.shrinkage, str):
            kept = np.clip(1 - np.take_along_axis(distance, nearest, axis=1).mean(axis=1), 0, 1)
            return self.mean_ + kept[:, None] * (average - self.mean_)
        return self.mean_ + (1 - self.shrinkage) * (average - self.mean_)


@dataclass(eq=False, repr=False)
class GainRegressor(_EffectRegressor):
    r"""Features are effects already; learn how much to trust each block of them.

    The features, ``(n_perts, n_blocks * n_genes)``, are blocks :math:`x_c` of effects, such as
    those in source contexts. With the means over training targets :math:`\bar x_c` and :math:`b`,
    which is also what the new context adds to every effect,

    .. math:: \hat y_t = b + \sum_c g_c (x_{ct} - \bar x_c)

    where ``gain_`` and `shrinkage` are as in :class:`vcc_helpers.adapt.ContextGain`: that many
    training targets the starting point is worth, equal gains that sum to 1.
    """

    _: KW_ONLY
    shrinkage: float = 1.0

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        if X.shape[1] % y.shape[1]:
            raise ValueError(
                f"{X.shape[1]} features are not whole blocks of {y.shape[1]} genes; expected "
                "effects on the genes of the training data, such as features.source_effects makes"
            )
        self.centre_ = X.mean(axis=0)
        blocks = self._blocks(X)
        prior = np.full(len(blocks), 1.0 / len(blocks))
        products = gain_products(blocks, y - self.mean_)
        self.gain_ = shrunken_gains(*products, prior=prior, shrinkage=self.shrinkage)

    def _effect(self, X: np.ndarray) -> np.ndarray:
        return self.mean_ + np.tensordot(self.gain_, self._blocks(X), axes=1)

    def _blocks(self, X: np.ndarray) -> np.ndarray:
        blocks = (X - self.centre_).reshape(len(X), -1, self.mean_.size)
        return blocks.swapaxes(0, 1)


def gain_products(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all that gains depend on, target by target, so that one can be left out.

    `x` are effects in each source, ``(n_sources, n_targets, n_genes)``, `y` those to explain: sums
    of products, ``(n_targets, n_sources, n_sources)``, and with `y`, ``(n_targets, n_sources)``.
    """
    x = x.swapaxes(0, 1)
    return x @ x.swapaxes(1, 2), (x @ y[:, :, None])[:, :, 0]


def shrunken_gains(
    gram: np.ndarray, product: np.ndarray, *, prior: np.ndarray, shrinkage: float
) -> np.ndarray:
    """Fit one gain a source by least squares, and shrink them towards `prior`, ``(n_sources,)``.

    `gram` and `product` are those of :func:`gain_products`; :class:`vcc_helpers.adapt.ContextGain`
    has the formula. Without any target the prior is returned.
    """
    if not shrinkage >= 0:
        raise ValueError(f"shrinkage={shrinkage}; expected 0 or more")
    if np.isinf(shrinkage):
        return prior
    n_targets, gram = len(gram), gram.sum(axis=0)
    weight = shrinkage * np.trace(gram) / len(prior) / max(n_targets, 1)
    # lstsq, since without shrinkage two sources that agree leave the split between them open
    penalised, missed = gram + weight * np.eye(len(prior)), product.sum(axis=0) - gram @ prior
    return prior + np.linalg.lstsq(penalised, missed, rcond=None)[0]


@dataclass(eq=False, repr=False)
class KernelMedian(_EffectRegressor):
    r"""The weighted median of the training effects, similar targets weighing more.

    Parameters
    ----------
    kernel
        The similarity of two targets: a name of scikit-learn's ``pairwise_kernels``, or a function
        of two matrices, ``(n, n_features)`` and ``(m, n_features)``, that returns ``(n, m)``. With
        ``"precomputed"`` the features are similarities already, one column a training target, in
        one or several blocks, as :class:`~vcc_helpers.features.Likenesses` makes them.
    sizes
        Values of kappa to choose from, 0 or above.

    Attributes
    ----------
    weights_ : ndarray
        Weight of each block of similarities, 0 or above, learnt from the training targets.
    size_ : float
        The kappa in use.

    Notes
    -----
    With effects :math:`y_i` of n training targets:

    1. Strong effects are tempered, :math:`t_i = y_i (|y_i| / \tilde y)^{-1/2}` with the median
       length :math:`\tilde y`, and centred.
    2. Haseman-Elston regression weighs the similarities: non-negative least squares of :math:`t_i
       \cdot t_j`, in units of the mean :math:`|t|^2`, on them, centred, over all pairs of targets.
       One that says nothing of the effects gets the weight 0.
    3. Kernel ridge regression with the penalty :math:`\max(1 - \operatorname{tr} K / n, 0.1)`
       gives a target weights :math:`v_i` of the training targets, shifted to the sum 1.
    4. The prediction of a gene minimises :math:`\sum_i w_i |p - y_i|` with
       :math:`w_i = 1/n + \kappa (v_i - 1/n)`, and lies at a training value even where a weight is
       negative. :math:`\kappa = 0` is the median, 1 the weighted median, more exaggerates what
       sets the target apart.
    5. :math:`\kappa` is the largest of `sizes` with which held-out training targets, in five
       folds, are predicted with no larger MAE than by the mean; the smallest where none is.
    """

    kernel: str | Callable[[np.ndarray, np.ndarray], np.ndarray] = "rbf"
    _: KW_ONLY
    sizes: Sequence[float] = _SIZES

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        if not len(self.sizes) or not min(self.sizes) >= 0:
            raise ValueError(f"sizes={self.sizes}; expected at least one, each 0 or above")
        if self.kernel == "precomputed" and X.shape[1] % len(X):
            raise ValueError(
                f"{X.shape[1]} features are not whole blocks of {len(X)} training targets; "
                "expected similarities to these, such as features.Likenesses makes"
            )
        self.X_fit_ = X
        alike = self._alike(X)
        self.fitted_ = _Weighing(alike, y)
        self.weights_ = self.fitted_.weights

        def error_of(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
            fold = _Weighing(alike[:, known[:, None], known], y[known])
            error, truth = np.zeros(len(self.sizes)), y[asked].T
            blocks = fold.medians(alike[:, asked[:, None], known], self.sizes, np.float32)
            for genes, found in blocks:
                error += np.abs(found - truth[genes]).sum(axis=(1, 2))
            return error

        search = len(self.sizes) > 1 and len(y) > 2
        self.size_ = _largest(self.sizes, y, error_of, 5) if search else min(self.sizes)

    def _alike(self, X: np.ndarray) -> np.ndarray:
        if self.kernel == "precomputed":
            return X.reshape(len(X), -1, len(self.X_fit_)).swapaxes(0, 1)
        if callable(self.kernel):
            return self.kernel(X, self.X_fit_)[None]
        return pairwise_kernels(X, self.X_fit_, metric=self.kernel)[None]

    def _effect(self, X: np.ndarray) -> np.ndarray:
        blocks = self.fitted_.medians(self._alike(X), [self.size_])
        return np.vstack([found[0] for _, found in blocks]).T


class _Weighing:
    """Weights of the training targets for any target, and the medians that they give.

    `alike` are similarities, ``(n_kernels, n, n)``, `y` effects, ``(n, n_genes)``.
    """

    def __init__(self, alike: np.ndarray, y: np.ndarray):
        self.y, n = y, len(y)
        t = _tempered(y)
        t -= t.mean(axis=0)
        products = t @ t.T
        products /= np.trace(products) / n or 1
        self.centres = [KernelCenterer() for _ in alike]
        grams = [c.fit_transform(k) for c, k in zip(self.centres, alike, strict=True)]
        pairs = np.triu_indices(n, k=1)
        design = np.stack([gram[pairs] for gram in grams], axis=1)
        self.weights = nnls(design, products[pairs])[0] if len(design) else np.zeros(len(grams))
        gram = np.tensordot(self.weights, grams, axes=1)
        penalty = max(1 - np.trace(gram) / n, 0.1)
        self.solved = np.linalg.inv(gram + penalty * np.eye(n))

    def medians(
        self, alike: np.ndarray, sizes: Sequence[float], dtype: type = np.float64
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield blocks of genes, and their weighted medians, ``(n_sizes, n_genes, n_asked)``.

        `alike` are similarities to the training targets, ``(n_kernels, n_asked, n)``; `dtype` is
        that of the sums which are compared.
        """
        n = len(self.y)
        centred = [c.transform(k) for c, k in zip(self.centres, alike, strict=True)]
        duals = np.tensordot(self.weights, centred, axes=1) @ self.solved
        duals += (1 - duals.sum(axis=1, keepdims=True)) / n
        apart = (2 * (duals.T - 1 / n)).astype(dtype)
        even = (2 * np.arange(1, n) / n - 1)[:, None]
        block = max(2**17 // duals.size, 1)  # genes: what they need stays in the cache
        for start in range(0, self.y.shape[1], block):
            genes = slice(start, start + block)
            order = np.argsort(self.y[:, genes], axis=0)
            values = np.take_along_axis(self.y[:, genes], order, axis=0)
            steps = np.diff(values, axis=0)
            # by how much the sum of errors rises from the least value on: between two values its
            # slope is twice the weight up to there, minus 1, which is linear in kappa
            median, rest = np.zeros((2, steps.shape[1], len(duals), n), dtype)
            median[..., 1:] = np.cumsum(even * steps, axis=0).T[:, None]
            slope = apart[order[:-1]]
            _sum_along(slope)
            slope *= steps[..., None].astype(dtype)
            rest[..., 1:] = _sum_along(slope).transpose(1, 2, 0)
            found, cost = np.empty((len(sizes), *rest.shape[:2])), np.empty_like(rest)
            for medians, size in zip(found, sizes, strict=True):
                np.add(median, np.multiply(rest, size, out=cost), out=cost)
                medians[:] = np.take_along_axis(values.T, cost.argmin(axis=2), axis=1)
            yield genes, found


def _sum_along(steps: np.ndarray) -> np.ndarray:
    """Sum up along the first axis, in place; numpy.cumsum would go across the others, slowly."""
    for before, now in zip(steps, steps[1:], strict=False):
        now += before
    return steps


def no_change() -> BulkModel:
    """Return the model that predicts the control for every target; it needs nothing measured."""
    return _NoChange()


def mean_baseline() -> EffectModel:
    """Return the model that predicts the mean training effect for every target.

    :func:`vcc_helpers.scoring.official_baseline`, the contest's, counts the control in as one more.
    """
    return EffectModel(DummyRegressor())


def median_baseline() -> EffectModel:
    """Return the model that predicts the median training effect, gene by gene, for every target.

    The sum of absolute errors is least at a median, and a few strong perturbations barely move it:
    the MAE is a little lower than that of :func:`mean_baseline`.
    """
    return EffectModel(DummyRegressor(strategy="median"))


def linear_baseline(n_components: int = 10, *, ridge: float = 0.1) -> EffectModel:
    """Return :class:`BilinearRegressor` as a model; it predicts any target that is a gene here."""
    return EffectModel(BilinearRegressor(n_components, ridge=ridge), GeneLoadings(n_components))


def crispr_mean(*, residual: float | None = None) -> KnockedDown:
    """Return the CRISPR-informed mean: :class:`KnockedDown` of the mean effect."""
    return KnockedDown(mean_baseline(), residual=residual)


def ridge(features: pd.DataFrame, *, alpha: float = 1.0) -> EffectModel:
    """Return ridge regression around the training mean: :class:`CentredKernelRidge` as a model."""
    return EffectModel(CentredKernelRidge(alpha), features)


def kernel_ridge(features: pd.DataFrame, *, alpha: float = 1.0) -> EffectModel:
    """Return the same as :func:`ridge`, with a Gaussian kernel (rbf)."""
    return EffectModel(CentredKernelRidge(alpha, kernel="rbf"), features)


def knn_baseline(
    features: pd.DataFrame, n_neighbors: int = 5, *, shrinkage: float | str | None = None
) -> EffectModel:
    """Return :class:`ShrunkenNeighbors`, or without `shrinkage` scikit-learn's own, as a model."""
    if shrinkage is None:
        return EffectModel(KNeighborsRegressor(n_neighbors, metric="cosine"), features)
    return EffectModel(ShrunkenNeighbors(n_neighbors, shrinkage=shrinkage), features)


def several_likenesses(annotation: pd.DataFrame, counts: pd.DataFrame | None = None) -> KnockedDown:
    """Return kernel ridge regression on several likenesses of targets, stretched.

    Targets are alike by `annotation`, a table of gene features; half as much each by the first
    three letters of the name and by `counts`, the published numbers, columns n_cells and
    median_umi_per_cell. A target that a table lacks is predicted as the mean, and said to be. The
    settings were tried out on a hundred real H1 targets.
    """
    parts = _likenesses(annotation, counts)
    names = parts["annotation"][0].index
    family = pd.DataFrame({"family": pd.factorize(names.str[:3])[0]}, names)
    weights = dict.fromkeys(parts, 0.5) | {"annotation": 1.0, "family": 0.5}
    likenesses = Likenesses(parts | {"family": (family, same_value)}, weights)
    regressor = CentredKernelRidge(0.3, kernel="precomputed")
    return KnockedDown(Stretched(EffectModel(regressor, likenesses, fallback="mean")))


def kernel_median(annotation: pd.DataFrame, counts: pd.DataFrame | None = None) -> KnockedDown:
    """Return :class:`KernelMedian` as a model; the tables are as for :func:`several_likenesses`."""
    likenesses = Likenesses(_likenesses(annotation, counts))
    return KnockedDown(EffectModel(KernelMedian("precomputed"), likenesses, fallback="mean"))


def _likenesses(annotation: pd.DataFrame, counts: pd.DataFrame | None) -> dict:
    if counts is None:
        return {"annotation": (annotation, same_direction)}
    annotation = annotation[annotation.index.isin(counts.index)]  # so all is small
    counts = counts[["n_cells", "median_umi_per_cell"]]
    return {"annotation": (annotation, same_direction), "counts": (counts, near_counts)}


def control_covariance(covariance: pd.DataFrame, *, shrinkage: float = 1.0) -> EffectModel:
    """Return the model that predicts from how genes vary together in control cells.

    `covariance` is what :func:`vcc_helpers.stream.control_covariance` made; of it
    :class:`GainRegressor` learns one gain, common to all targets.
    """
    return EffectModel(GainRegressor(shrinkage=shrinkage), EffectTable(covariance))


def additive(sources: Mapping[str, anndata.AnnData]) -> EffectModel:
    """Return the additive model: what the context adds to all, plus what the target does anywhere.

    The prediction is the target's :func:`~vcc_helpers.features.source_mean`, plus the mean over
    training targets of how much more they did in the new context.
    """
    return EffectModel(GainRegressor(shrinkage=np.inf), EffectTable(source_mean(sources)))
