"""Models of effects: a scikit-learn regressor plus a feature table.

Every model learns from a pseudobulk and predicts one, so any two can be compared and any
regressor of scikit-learn can be put in.

Taught in: notebooks/04_mean_baseline, 05_linear_baseline and 06_knn_baseline.
Needs: cells.py, effects.py, features.py.

>>> import vcc_helpers as vcc
>>> bulk = vcc.pseudobulk(vcc.datasets.load_h1_sample())
>>> mean_baseline().fit(bulk).predict(["SRC", "NEW1"]).shape
(3, 1000)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anndata
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.validation import check_is_fitted, validate_data

from .cells import CONTROL, some_of
from .effects import control_row, effects
from .features import GeneLoadings, gene_scores


class EffectModel(BaseEstimator):
    """Predict the effects of perturbations with any multi-output regressor.

    Parameters
    ----------
    regressor
        A scikit-learn regressor or pipeline that maps features ``(n_perts, n_features)`` to
        effects ``(n_perts, n_genes)``. It is cloned, never changed.
    features
        A table whose index holds targets; or a function that makes one from the training effects
        (``(n_perts, n_genes)`` AnnData); or None where the regressor needs no features.
    fallback
        What to predict for a target without features: ``None`` raises a KeyError, ``"mean"``
        predicts the mean training effect.
    control
        Name of the control's row in a pseudobulk.

    Attributes
    ----------
    regressor_
        The fitted regressor.
    features_
        The feature table in use; None where there is none.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """

    def __init__(
        self,
        regressor: BaseEstimator,
        features: pd.DataFrame | Callable[[anndata.AnnData], pd.DataFrame] | None = None,
        *,
        fallback: str | None = None,
        control: str = CONTROL,
    ):
        self.regressor = regressor
        self.features = features
        self.fallback = fallback
        self.control = control

    def fit(self, bulk: anndata.AnnData, y: None = None) -> EffectModel:
        """Learn from the measured perturbations of one context.

        Parameters
        ----------
        bulk
            Pseudobulk, ``(n_groups, n_genes)``, mean lognorm, the control among the rows.
        y
            Ignored; it is there because scikit-learn's tools pass it.

        Returns
        -------
        EffectModel
            Itself.

        Raises
        ------
        KeyError
            `bulk` has no control row, or a training target has no features and there is no
            fallback.
        ValueError
            `bulk` has no perturbation, or none with features; or a target has more than one row
            of features.
        """
        if self.fallback not in (None, "mean"):
            raise ValueError(f"fallback={self.fallback!r}; expected None or 'mean'")
        train = effects(bulk, control=self.control)
        if train.n_obs == 0:
            raise ValueError("no perturbation to learn from: the pseudobulk has the control only")
        self.var_, self.control_mean_ = bulk.var.copy(), control_row(bulk, self.control)
        self.mean_effect_ = train.X.mean(axis=0, dtype=np.float64)
        self.features_ = self.features(train) if callable(self.features) else self.features
        if self.features_ is not None and not self.features_.index.is_unique:
            twice = self.features_.index[self.features_.index.duplicated()].unique()
            raise ValueError(f"more than one row of features for {some_of(twice)}; keep one each")
        covered = self._covered(train.obs_names)
        if not covered.any():
            raise ValueError("no training target has features; nothing can be learnt")
        self.regressor_ = clone(self.regressor)
        self.regressor_.fit(self._rows(train.obs_names[covered]), train.X[covered])
        return self

    def predict(self, targets: Iterable[str]) -> anndata.AnnData:
        """Predict the pseudobulk of targets, in the context that the model was fitted on.

        Parameters
        ----------
        targets
            Names of perturbations.

        Returns
        -------
        AnnData
            Shape ``(1 + n_targets, n_genes)``, mean lognorm: the training control's row, then
            one row a target in the order given.

        Raises
        ------
        KeyError
            A target has no features and there is no fallback.
        TypeError
            `targets` is one string instead of a list.
        """
        check_is_fitted(self)
        targets = target_index(targets)
        covered = self._covered(targets)
        effect = np.tile(self.mean_effect_, (len(targets), 1))
        if covered.any():
            predicted = self.regressor_.predict(self._rows(targets[covered]))
            effect[covered] = np.reshape(predicted, (-1, effect.shape[1]))
        return bulk_of_effects(effect, targets, self.control_mean_, self.var_, self.control)

    def _covered(self, targets: pd.Index) -> np.ndarray:
        if self.features_ is None:
            return np.ones(len(targets), dtype=bool)
        covered = targets.isin(self.features_.index)
        if self.fallback is None and not covered.all():
            missing = targets[~covered]
            raise KeyError(
                f"no features for {some_of(missing)}: the table covers {covered.sum()} of "
                f"{len(targets)} targets asked; leave these out, or give fallback='mean'"
            )
        return covered

    def _rows(self, targets: pd.Index) -> np.ndarray:
        if self.features_ is None:
            return np.zeros((len(targets), 1))
        return self.features_.loc[targets].to_numpy()


def target_index(targets: Iterable[str]) -> pd.Index:
    """Return targets as an index; a lone string, which would fall into letters, is refused.

    Parameters
    ----------
    targets
        Names of perturbations.

    Raises
    ------
    TypeError
        `targets` is one string.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    if isinstance(targets, str):
        raise TypeError(f"expected a list of targets, got one string; write [{targets!r}]")
    return pd.Index(list(targets))


def bulk_of_effects(
    effect: np.ndarray,
    targets: pd.Index,
    control_mean: np.ndarray,
    var: pd.DataFrame,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Add effects to a control and return them as a pseudobulk.

    Parameters
    ----------
    effect
        Shape ``(n_perts, n_genes)``, differences of mean lognorm values.
    targets
        Names of the rows of `effect`.
    control_mean
        Mean lognorm value in control cells, ``(n_genes,)``.
    var
        Genes, index of length ``n_genes``.
    control
        Name to give the control's row.

    Returns
    -------
    AnnData
        Shape ``(1 + n_perts, n_genes)``, float32, the control first. A mean lognorm value cannot
        be negative: what an effect would push below 0 is set to 0.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    mean = np.vstack([control_mean, np.maximum(control_mean + effect, 0)]).astype(np.float32)
    obs = pd.DataFrame(index=pd.Index([control, *targets]).astype(str))
    return anndata.AnnData(mean, obs=obs, var=var.copy())


class _EffectRegressor(RegressorMixin, BaseEstimator):
    """What scikit-learn's tools should know of a regressor for many genes at once."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # one gene alone has nothing to share
        return tags


class NoChange(_EffectRegressor):
    """Predict an effect of zero for everything, whatever the features.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> NoChange:
        """Remember the shape of the effects.

        Parameters
        ----------
        X
            Features, ``(n_perts, n_features)``; ignored.
        y
            Effects, ``(n_perts, n_genes)``; only their shape is used.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        self.shape_ = y.shape[1:]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return zeros of shape ``(n_perts, n_genes)``.

        Parameters
        ----------
        X
            Features, ``(n_perts, n_features)``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return np.zeros((len(X), *self.shape_))


class BilinearRegressor(_EffectRegressor):
    r"""The linear model of Ahlmann-Eltze, Huber and Anders.

    Parameters
    ----------
    n_components
        Number of gene components, K.
    ridge
        Penalty, :math:`\lambda`, on both sides, in units of squared effects.

    Notes
    -----
    With effects :math:`Y` (perturbations x genes), their mean :math:`b`, gene scores :math:`G`
    (genes x K, from the training effects) and perturbation features :math:`P` (perturbations x
    L; in :func:`linear_baseline` the rows of :math:`G` that belong to the targets):

    .. math::

        Y \approx P W G^{\mathsf{T}} + b, \qquad
        W = (P^{\mathsf{T}} P + \lambda I)^{-1} P^{\mathsf{T}} (Y - b)\, G\,
        (G^{\mathsf{T}} G + \lambda I)^{-1}

    Source: Ahlmann-Eltze, Huber and Anders, Nature Methods 2025, written here with
    perturbations as rows.

    Taught in: notebooks/05_linear_baseline.
    """

    def __init__(self, n_components: int = 10, *, ridge: float = 0.1):
        self.n_components = n_components
        self.ridge = ridge

    def fit(self, X: np.ndarray, y: np.ndarray) -> BilinearRegressor:
        """Solve for W.

        Parameters
        ----------
        X
            Perturbation features P, ``(n_perts, n_features)``.
        y
            Effects Y, ``(n_perts, n_genes)``.
        """
        p, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self.shape_ = y.shape[1:]
        y = y.reshape(len(y), -1).astype(np.float64)
        self.mean_ = y.mean(axis=0)
        self.gene_scores_ = g = gene_scores(y, self.n_components)
        left = np.linalg.solve(p.T @ p + self.ridge * np.eye(p.shape[1]), p.T @ (y - self.mean_))
        self.coef_ = np.linalg.solve(g.T @ g + self.ridge * np.eye(g.shape[1]), (left @ g).T).T
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return effects, ``(n_perts, n_genes)``.

        Parameters
        ----------
        X
            Perturbation features P, ``(n_perts, n_features)``.
        """
        check_is_fitted(self)
        p = validate_data(self, X, reset=False, dtype=np.float64)
        effect = p @ self.coef_ @ self.gene_scores_.T + self.mean_
        return effect.reshape(len(p), *self.shape_)


def no_change() -> EffectModel:
    """Return the model that predicts the control for every target.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    return EffectModel(NoChange())


def mean_baseline() -> EffectModel:
    """Return the model that predicts the mean training effect for every target.

    Notes
    -----
    The contest's official baseline differs a little: it counts the control in as one more
    perturbation. That one is :func:`vcc_helpers.scoring.official_baseline`.

    Taught in: notebooks/04_mean_baseline.
    """
    return EffectModel(DummyRegressor())


def linear_baseline(n_components: int = 10, *, ridge: float = 0.1) -> EffectModel:
    """Return the bilinear model; it can predict any target that is a gene of the data.

    Parameters
    ----------
    n_components, ridge
        As for :class:`BilinearRegressor`.

    Notes
    -----
    Taught in: notebooks/05_linear_baseline.
    """
    return EffectModel(BilinearRegressor(n_components, ridge=ridge), GeneLoadings(n_components))


def knn_baseline(features: pd.DataFrame, n_neighbors: int = 5) -> EffectModel:
    """Return the model that averages the effects of the most similar training targets.

    Parameters
    ----------
    features
        Table whose index holds targets; targets are similar when their rows point in the same
        direction (cosine).
    n_neighbors
        How many training targets to average.

    Notes
    -----
    Taught in: notebooks/06_knn_baseline.
    """
    return EffectModel(KNeighborsRegressor(n_neighbors, metric="cosine"), features)


def cross_predict(
    model: BaseEstimator,
    bulk: anndata.AnnData,
    *,
    n_splits: int = 5,
    seed: int = 0,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Predict every perturbation from a model that was fitted without it.

    Parameters
    ----------
    model
        Anything with ``fit(bulk)`` and ``predict(targets)``; cloned for each fold.
    bulk
        Pseudobulk, ``(n_groups, n_genes)``, control included.
    n_splits
        Number of folds; as many as perturbations means leave-one-out.
    seed
        Seed of the shuffle that makes the folds.
    control
        Name of the control's row.

    Returns
    -------
    AnnData
        Predicted pseudobulk with the rows of `bulk`, in its order.

    Raises
    ------
    ValueError
        There are fewer perturbations than folds.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    targets = bulk.obs_names[bulk.obs_names != control]
    predicted = {control: control_row(bulk, control)}
    folds = KFold(n_splits, shuffle=True, random_state=seed)
    for train, held_out in folds.split(np.arange(len(targets))):
        fold_bulk = bulk[[control, *targets[train]]]
        pred = clone(model).fit(fold_bulk).predict(targets[held_out])
        predicted.update(zip(pred.obs_names[1:], pred.X[1:], strict=True))
    mean = np.vstack([predicted[name] for name in bulk.obs_names]).astype(np.float32)
    return anndata.AnnData(mean, obs=bulk.obs.copy(), var=bulk.var.copy())
