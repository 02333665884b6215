"""The pseudobulk, the currency of the package, and the effects that it holds.

A pseudobulk is a small AnnData, (perturbations x genes): one mean and one variance a perturbation,
the control among the rows. Models learn from one and predict one, metrics compare two. In all that
follows `bulk` is one, ``(n_groups, n_genes)``, mean lognorm; one without the control is a KeyError.

Taught in: notebooks/02_measure_effects, notebooks/07_quality_and_knockdown and
notebooks/18_from_means_to_cells.
Needs no sibling module.

>>> import anndata, numpy, pandas
>>> rows, genes = ["SOX2", "non-targeting"], ["SOX2", "NANOG"]
>>> mean = numpy.array([[0.1, 1.0], [0.7, 1.5]])
>>> bulk = anndata.AnnData(mean, pandas.DataFrame(index=rows), pandas.DataFrame(index=genes))
>>> effects(bulk).X.round(2).tolist()
[[-0.6, -0.5]]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

PERTURBATION_KEY = "target_gene"
CONTROL = "non-targeting"


class FallbackWarning(UserWarning):
    """A model knew nothing of some targets, and predicted a mean for them."""


def some_of(names: Iterable, limit: int = 5) -> str:
    """Quote the first names for a message, and say how many are left out."""
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    more = len(names) - limit
    return (shown or "nothing") + (f" and {more} more" if more > 0 else "")


def bulk_of_effects(
    effect: np.ndarray, targets: pd.Index, control_mean: np.ndarray, var: pd.DataFrame
) -> anndata.AnnData:
    """Add effects of `targets`, ``(n_perts, n_genes)``, to a control's mean, ``(n_genes,)``.

    `var` has a row per gene. Returned is a pseudobulk, float32, the control first. A mean lognorm
    value cannot be negative: what would fall below 0 is set to 0.
    """
    mean = np.vstack([control_mean, np.maximum(control_mean + effect, 0)]).astype(np.float32)
    obs = pd.DataFrame(index=pd.Index([CONTROL, *targets]).astype(str))
    return anndata.AnnData(mean, obs=obs, var=var.copy())


def effects(bulk: anndata.AnnData) -> anndata.AnnData:
    r"""Subtract the control's pseudobulk from every perturbation's.

    Returned are the rows of `bulk` without the control, ``(n_perts, n_genes)``; ``X`` is the
    effect, :math:`\Delta_{pg} = \bar y_{pg} - \bar y_{0g}`, a difference of mean lognorm values
    (about the natural logarithm of the fold change for well expressed genes).
    """
    delta, kept = bulk.X - control_row(bulk), bulk.obs_names != CONTROL
    return anndata.AnnData(delta[kept], bulk.obs.loc[kept].copy(), bulk.var.copy())


def control_row(bulk: anndata.AnnData, control: str = CONTROL) -> np.ndarray:
    """Return the control's mean lognorm expression, ``(n_genes,)``."""
    if control not in bulk.obs_names:
        raise KeyError(
            f"the pseudobulk has no control row {control!r}; its rows are "
            f"{some_of(bulk.obs_names)}; rename the control's row"
        )
    return np.asarray(bulk[control].X).ravel()


def effect_strength(bulk: anndata.AnnData) -> pd.DataFrame:
    r"""Measure how large each effect is, and how much of that the sampling of cells explains.

    `bulk` has ``layers["variance"]`` and ``obs["n_cells"]``, too. Returned is a table, index
    target_gene: ``n_cells``; ``norm``, the L2 norm of the effect over genes; ``noise``, the norm
    that sampling alone would give, :math:`\sqrt{\sum_g (s^2_{pg} / n_p + s^2_{0g} / n_0)}`;
    ``norm_denoised``, :math:`\sqrt{\max(0, \mathrm{norm}^2 - \mathrm{noise}^2)}`. A norm of about
    the noise means: with this many cells, nothing was seen. `noise` and `norm_denoised` are NaN
    where the perturbation or the control has one cell only.
    """
    delta = effects(bulk)
    spread = pd.Series(bulk.layers["variance"].sum(axis=1, dtype=np.float64), bulk.obs_names)
    noise2 = spread / bulk.obs["n_cells"]
    noise2 = noise2[delta.obs_names] + noise2[CONTROL]
    norm2 = (delta.X.astype(np.float64) ** 2).sum(axis=1)
    left = np.maximum(norm2 - noise2, 0)
    columns = {"norm": np.sqrt(norm2), "noise": np.sqrt(noise2), "norm_denoised": np.sqrt(left)}
    return delta.obs[["n_cells"]].assign(**columns).rename_axis("target_gene")


def knockdown(bulk: anndata.AnnData) -> pd.Series:
    """Return how much of each target's own expression is left, index target_gene.

    It is the ratio of ``expm1`` of the mean lognorm values, perturbed over control. 0.05 means that
    one twentieth is left; 1, that nothing was silenced. NaN where the target is not among the genes
    or is silent in the control.
    """
    base = control_row(bulk)
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    left = pd.Series(np.nan, index=targets.rename("target_gene"), name="expression_left")
    column = bulk.var_names.get_indexer(targets)
    rows = bulk.obs_names.get_indexer(targets)
    usable = (column >= 0) & (base[column] > 0)
    rows, column = rows[usable], column[usable]
    left[usable] = np.expm1(bulk.X[rows, column]) / np.expm1(base[column])
    return left


def silenced(mean: np.ndarray, residual: float) -> np.ndarray:
    """Return the mean lognorm values of genes of whose control's mean only a share is left."""
    if not 0 <= residual <= 1:
        raise ValueError(f"residual={residual}; expected 0 (all gone) to 1 (all left)")
    return np.log1p(residual * np.expm1(mean))


class Pair(NamedTuple):
    """Two pseudobulks, side by side: row i of every array is the same perturbation.

    `names` are the perturbations of the real one, sorted, and `own_gene` is the column of each
    one's own gene, -1 where it is none, ``(n_perts,)``. An effect is the difference of a mean from
    its own side's control, ``(n_perts, n_genes)``.
    """

    names: pd.Index
    pred_mean: np.ndarray
    real_mean: np.ndarray
    pred_effect: np.ndarray
    real_effect: np.ndarray
    own_gene: np.ndarray


def paired(pred: anndata.AnnData, real: anndata.AnnData, *, control: str = CONTROL) -> Pair:
    """Lay two pseudobulks side by side; perturbations that only `pred` has are ignored.

    Other genes are a ValueError, a perturbation that `pred` lacks is a KeyError.
    """
    if not np.array_equal(pred.var_names, real.var_names):
        raise ValueError("pred and real must have the same genes in the same order")
    names = sorted(real.obs_names[real.obs_names != control])
    if missing := sorted(set(names) - set(pred.obs_names)):
        raise KeyError(f"pred has no row for {some_of(missing)}")
    mean = [b.X[b.obs_names.get_indexer(names)] for b in (pred, real)]
    effect = [m - control_row(b, control) for m, b in zip(mean, (pred, real), strict=True)]
    index = pd.Index(names, name="target_gene")
    return Pair(index, *mean, *effect, real.var_names.get_indexer(names))
