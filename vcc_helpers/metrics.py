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
from scipy import stats
from scipy.spatial.distance import cdist

#: The three of the leaderboard of 2025, whose scaled values make the overall score.
LEADERBOARD = ("mae", "des", "pds")
#: The value of a perfect prediction, for each metric.
BEST = {
    "mae": 0.0,
    "des": 1.0,
    "pds": 1.0,
    "deg_count_spearman": 1.0,
    "lfc_spearman": 1.0,
    "pr_auc": 1.0,
    "pearson_delta": 1.0,
}


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


def deg_count_spearman(pred_significant: np.ndarray, real_significant: np.ndarray) -> float:
    r"""Rank correlation of how many genes each perturbation changes: are strong ones known?

    Parameters
    ----------
    pred_significant, real_significant
        Genes called in the predicted and in the real cells, ``(n_perts, n_genes)``, bool.

    Returns
    -------
    float
        One number for the whole panel, -1 to 1. Best 1, worst -1, chance 0; higher is better.
        Ties share their mean rank. NaN where fewer than two perturbations count, or where all have
        the same number; 1 where no perturbation counts.

    Notes
    -----
    Spearman's correlation of the numbers of significant genes, over the perturbations that have
    any in the real cells. Source: cell-eval 0.6.6, ``de_spearman_sig``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    counts = [called.sum(axis=1) for called in (pred_significant, real_significant)]
    counts = [count[real_significant.any(axis=1)] for count in counts]
    return _spearman(*counts) if len(counts[0]) else 1.0


def lfc_spearman(
    pred_fold_change: np.ndarray, real_fold_change: np.ndarray, real_significant: np.ndarray
) -> np.ndarray:
    r"""Rank correlation of fold changes over the genes that really changed.

    Parameters
    ----------
    pred_fold_change, real_fold_change
        Ratio of back-transformed means, ``(n_perts, n_genes)``. A logarithm keeps the order, so
        the rank correlation of log fold changes is the same.
    real_significant
        Genes called in the real cells, same shape, bool.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, -1 to 1. Best 1, worst -1, chance 0; higher is better. Ties share
        their mean rank. NaN where fewer than two genes are significant, or all fold changes of one
        side are equal, as for a prediction of no change.

    Notes
    -----
    Source: cell-eval 0.6.6, ``de_spearman_lfc_sig``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    rows = zip(pred_fold_change, real_fold_change, real_significant, strict=True)
    return np.array([_spearman(pred[called], real[called]) for pred, real, called in rows])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2:
        return np.nan
    a, b = (rank - rank.mean() for rank in (stats.rankdata(a), stats.rankdata(b)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else np.nan


def pr_auc(pred_fdr: np.ndarray, real_significant: np.ndarray) -> np.ndarray:
    r"""Area under the precision-recall curve: are the really changed genes the surest ones?

    Parameters
    ----------
    pred_fdr
        False discovery rate of each gene in the predicted cells, ``(n_perts, n_genes)``, float32:
        the smaller, the surer. An exact 0 counts as 1e-10.
    real_significant
        Genes called in the real cells, same shape, bool.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, 0 to 1. Best 1; higher is better; chance is the share of genes that
        are significant. Equal rates are one step of the curve. NaN where no gene is significant,
        or all are.

    Notes
    -----
    .. math:: \mathrm{AP} = \sum_n (R_n - R_{n-1}) \, P_n

    with precision P and recall R after each step down the list (average precision; no line is
    drawn between the points). Source: cell-eval 0.6.6, ``pr_auc``. There, too, a rate of exactly 0
    is less sure than one below 1e-10.

    Taught in: notebooks/08_metrics_by_hand.
    """
    rate = np.where(pred_fdr == 0, np.float32(1e-10), pred_fdr).astype(np.float32)
    found = [
        _average_precision(-np.log10(r), t) for r, t in zip(rate, real_significant, strict=True)
    ]
    return np.array(found)


def _average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    n_true = int(truth.sum())
    if not 0 < n_true < len(truth):
        return np.nan
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of each step
    hits = np.cumsum(truth[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) / n_true * (hits / (last + 1))))


def pearson_delta(pred_effect: np.ndarray, real_effect: np.ndarray) -> np.ndarray:
    r"""Correlation of effects: do the genes move in the right directions and proportions?

    Parameters
    ----------
    pred_effect, real_effect
        Effects, ``(n_perts, n_genes)``, each against its own file's control, mean lognorm.

    Returns
    -------
    ndarray
        Shape ``(n_perts,)``, -1 to 1. Best 1, worst -1; higher is better. Blind to size. Chance is
        no 0: what all perturbations share is enough to be above it. NaN where one effect is
        constant over genes, as for no change.

    Notes
    -----
    All genes count, the silenced one included. Source: cell-eval 0.6.6, ``pearson_delta``.

    Taught in: notebooks/08_metrics_by_hand.
    """
    pred, real = (np.asarray(x, dtype=np.float64) for x in (pred_effect, real_effect))
    pred, real = (x - x.mean(axis=1, keepdims=True) for x in (pred, real))
    size = np.linalg.norm(pred, axis=1) * np.linalg.norm(real, axis=1)
    together = (pred * real).sum(axis=1)
    return np.divide(together, size, out=np.full(len(size), np.nan), where=size > 0)


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
    missing = [name for name in LEADERBOARD if name not in summary or name not in baseline]
    if missing:
        raise KeyError(
            f"the overall score needs {', '.join(LEADERBOARD)} of the prediction and of the "
            f"baseline; {', '.join(missing)} missing"
        )
    shares = [scaled(summary[name], baseline[name], BEST[name]) for name in LEADERBOARD]
    return 100 * float(np.mean(shares))
