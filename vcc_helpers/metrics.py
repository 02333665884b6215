r"""The metrics of the Virtual Cell Challenge as pure functions on arrays.

Nothing here knows files, AnnData or presets: copy this file into any project. Rows are
perturbations, columns are genes, and row i of every argument is the same perturbation.

Taught in: notebooks/08_metrics_by_hand.
Needs no sibling module; NumPy and SciPy only.

>>> import numpy as np
>>> real = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
>>> mae(real + 0.5, real)
array([0.5, 0.5])
>>> pds(real, real, own_gene=np.array([-1, -1]))
array([1., 1.])
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import cdist

#: The value of a perfect prediction, for each metric.
BEST = {"mae": 0.0, "des": 1.0, "pds": 1.0}


def mae(pred_mean: np.ndarray, real_mean: np.ndarray) -> np.ndarray:
    r"""Mean absolute error: how far off is the predicted mean expression, gene by gene?

    Parameters
    ----------
    pred_mean, real_mean
        Pseudobulk, shape ``(n_perts, n_genes)``, mean lognorm.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, same unit. Best 0, no upper end; lower is better. About the spread
        of the effects themselves means that nothing beyond the average was learnt.

    Notes
    -----
    .. math:: \mathrm{MAE}_p = \frac{1}{G} \sum_g \left| \hat y_{pg} - y_{pg} \right|

    All genes count, the silenced one included. Source: cell-eval 0.6.6, ``mae``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    return np.abs(pred_mean - real_mean).mean(axis=1).astype(np.float64)


def pds(pred_effect: np.ndarray, real_effect: np.ndarray, own_gene: np.ndarray) -> np.ndarray:
    r"""Perturbation discrimination score: is the prediction closest to its own truth?

    Parameters
    ----------
    pred_effect, real_effect
        Effects, shape ``(n_perts, n_genes)``, each against its own file's control.
    own_gene
        Column of each perturbation's target gene, shape ``(n_perts,)``, int; -1 where the target
        is not among the genes. That column is left out when its perturbation is ranked.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, from 1/N to 1, where N is ``n_perts``. Best 1 (the closest real
        effect is its own), worst 1/N; higher is better; chance (N + 1) / (2 N), just above 0.5.
        0.9 means: on average a tenth of all perturbations lie closer than the right one.

    Notes
    -----
    .. math:: \mathrm{PDS}_p = 1 - \frac{1}{N} \#\{q : d(\hat\Delta_p, \Delta_q)
              < d(\hat\Delta_p, \Delta_p)\}, \qquad
              d(u, v) = \sum_{g \ne p} | u_g - v_g |

    Of equal distances the earlier row wins. Source: cell-eval 0.6.6,
    ``discrimination_score_l1``, whose sort leaves the order of ties open.

    Taught in: notebooks/08_metrics_by_hand.
    """
    n_perts = len(real_effect)
    real = np.array(real_effect, dtype=np.float64)
    score = np.empty(n_perts)
    for row, column in enumerate(own_gene):
        pred = np.array(pred_effect[row : row + 1], dtype=np.float64)
        if column >= 0:
            pred[:, column], kept = 0.0, real[:, column].copy()
            real[:, column] = 0.0
        distance = cdist(real, pred, metric="cityblock").ravel()
        rank = int(np.flatnonzero(np.argsort(distance, kind="stable") == row)[0])
        score[row] = 1 - rank / n_perts
        if column >= 0:
            real[:, column] = kept
    return score


def pds_chance(n_perts: int) -> float:
    r"""Return the expected PDS of a prediction that knows nothing.

    Parameters
    ----------
    n_perts
        Number of perturbations ranked, N.

    Returns
    -------
    float
        :math:`(N + 1) / (2 N)`: 0.51 for N = 50, 0.505 for N = 100.

    Notes
    -----
    The rank is then any of 0 to N - 1 with equal chance.

    Taught in: notebooks/08_metrics_by_hand.
    """
    return (n_perts + 1) / (2 * n_perts)


def des(
    pred_significant: np.ndarray,
    pred_log2_fold_change: np.ndarray,
    real_significant: np.ndarray,
) -> np.ndarray:
    r"""Differential expression score: how many of the truly changed genes are found?

    Parameters
    ----------
    pred_significant, real_significant
        Genes called in the predicted and in the real cells, ``(n_perts, n_genes)``, bool.
    pred_log2_fold_change
        In the predicted cells, same shape. Where more genes are called than are real, those of
        the largest absolute value are kept.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, 0 to 1. Best 1, worst 0; higher is better. A perturbation without
        any real significant gene scores 0 whatever is predicted.

    Notes
    -----
    .. math:: \mathrm{DES}_p = \frac{|\hat S_p^{(k)} \cap S_p|}{k}, \qquad k = |S_p|

    where :math:`\hat S_p^{(k)}` are the at most k predicted genes of largest absolute log2 fold
    change. Equal fold changes keep the order of the genes. Source: cell-eval 0.6.6,
    ``overlap_at_N``; above 20 significant genes its sort leaves the order of ties open.

    Taught in: notebooks/08_metrics_by_hand.
    """
    score = np.zeros(len(real_significant))
    for row, truth in enumerate(real_significant):
        called = np.flatnonzero(pred_significant[row])
        size = np.abs(pred_log2_fold_change[row, called])
        k = int(truth.sum())
        top = called[np.argsort(-size, kind="stable")[:k]]
        score[row] = truth[top].sum() / k if k else 0.0
    return score


def scaled(value: float, baseline: float, best: float) -> float:
    """Place a score between a baseline (0) and perfection (1); below the baseline is 0.

    Parameters
    ----------
    value, baseline
        The metric's mean over perturbations, of the prediction and of the baseline.
    best
        The metric's perfect value, 0 or 1.

    Returns
    -------
    float
        0 to 1. 0 also where the result is not a number, as when the baseline is perfect.

    Notes
    -----
    ``1 - value / baseline`` for errors (best 0), ``(value - baseline) / (1 - baseline)`` for
    scores (best 1). Source: cell-eval 0.6.6, ``score``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    value, baseline = np.float64(value), np.float64(baseline)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1.0 - value / baseline if best == 0 else (value - baseline) / (1 - baseline)
    return 0.0 if np.isnan(share) else float(max(share, 0.0))


def overall(summary: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Combine the three metrics into the leaderboard's number.

    Parameters
    ----------
    summary, baseline
        ``{"mae": ..., "des": ..., "pds": ...}``, means over perturbations.

    Returns
    -------
    float
        0 to 100: 100 times the mean of the three scaled scores. Best 100; the baseline itself,
        and whatever is below it on every metric, 0. The 2025 winner had 34.0.

    Raises
    ------
    KeyError
        A metric is missing.

    Notes
    -----
    Since :func:`scaled` stops at 0, an error forty times the baseline's costs no more than one
    of the baseline's size. Source: cell-eval 0.6.6, ``score``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    missing = [name for name in BEST if name not in summary or name not in baseline]
    if missing:
        raise KeyError(
            f"the overall score needs {', '.join(BEST)} of the prediction and of the baseline; "
            f"{', '.join(missing)} missing"
        )
    shares = [scaled(summary[name], baseline[name], best) for name, best in BEST.items()]
    return 100 * float(np.mean(shares))
