r"""The metrics of the Virtual Cell Challenge as pure functions on arrays.

Rows are perturbations, columns are genes, and row i of every argument is the same perturbation:
means are mean lognorm, ``(n_perts, n_genes)``, effects differences of these, significant genes bool
of that shape, False for the silenced gene. `own_gene` is the column of each perturbation's target
gene, ``(n_perts,)``, int; -1 where it is not among the genes. Returned is a value a perturbation,
``(n_perts,)``, float64, where nothing else is said. A prediction that holds NaN has the worst value
wherever the truth has any. In brackets is a metric's name at its source: cell-eval 0.6.6 for the
seven of 2025, cell-eval2 0.20.0 for the six of 2026.

Taught in: notebooks/05_compute_the_metrics, notebooks/17_metrics_by_hand and
notebooks/25_score_by_the_rules_of_2026.
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
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

#: The metrics of the overall score of 2025, and the limits of their scaled values.
_LIMITS = dict.fromkeys(("mae", "des", "pds"), (0.0, np.inf))
#: The share of directions that must be right in :func:`direction_reach`.
_PURITY = 0.9
#: Fewest genes for a value of :func:`lfc_nmae`.
_FEWEST_GENES = 10
#: The value of a perfect prediction, for each metric.
BEST = {
    **dict.fromkeys(("mae", "mse_normalized", "lfc_nmae"), 0.0),
    **dict.fromkeys(("des", "pds", "deg_count_spearman", "lfc_spearman", "pr_auc"), 1.0),
    **dict.fromkeys(("pearson_delta", "pds_cosine", "direction_fidelity"), 1.0),
    **dict.fromkeys(("direction_reach", "significant_jaccard"), 1.0),
}
#: The worst value; it counts where the truth has a value and a prediction has none.
WORST = {name: 0.0 if best else np.inf for name, best in BEST.items()}
WORST |= dict.fromkeys(("deg_count_spearman", "lfc_spearman", "pearson_delta"), -1.0)


def mae(pred_mean: np.ndarray, real_mean: np.ndarray) -> np.ndarray:
    r"""Mean absolute error: how far off is the predicted mean expression, gene by gene?

    .. math:: \mathrm{MAE}_p = \frac{1}{G} \sum_g \left| \hat y_{pg} - y_{pg} \right|

    In the unit of the means; all genes count, the silenced one included. Best 0, no upper end.
    About the spread of the effects themselves means that nothing beyond the average was learnt
    (``mae``).
    """
    error = np.abs(pred_mean - real_mean).mean(axis=1).astype(np.float64)
    return np.where(np.isnan(pred_mean).any(axis=1), np.inf, error)


def pds(pred_effect: np.ndarray, real_effect: np.ndarray, own_gene: np.ndarray) -> np.ndarray:
    r"""Perturbation discrimination score: is the prediction closest to its own truth?

    .. math:: \mathrm{PDS}_p = 1 - \frac{1}{N} \#\{q : d(\hat\Delta_p, \Delta_q)
              < d(\hat\Delta_p, \Delta_p)\}, \qquad
              d(u, v) = \sum_{g \ne p} | u_g - v_g |

    Each effect is against its own file's control. The column `own_gene` is left out when its
    perturbation is ranked. Of N perturbations, from 1/N (worst) to 1 (best: the closest real effect
    is its own); chance (N + 1) / (2 N), just above 0.5. 0.9 means: on average a tenth of all
    perturbations lie closer than the right one. Of equal distances the earlier row wins
    (``discrimination_score_l1``, whose sort leaves the order of ties open).
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
        own = distance[row]
        rank = (distance < own).sum() + (distance[:row] == own).sum()
        score[row] = 1 - (rank if np.isfinite(own) else n_perts - 1) / n_perts
        if column >= 0:
            real[:, column] = kept
    return score


def pds_chance(n_perts: int) -> float:
    r"""Return the PDS that a prediction which knows nothing expects: 0.51 for 50 perturbations."""
    return (n_perts + 1) / (2 * n_perts)


def des(
    pred_significant: np.ndarray, pred_log2_fold_change: np.ndarray, real_significant: np.ndarray
) -> np.ndarray:
    r"""Differential expression score: how many of the truly changed genes are found?

    .. math:: \mathrm{DES}_p = \frac{|\hat S_p^{(k)} \cap S_p|}{k}, \qquad k = |S_p|

    where :math:`\hat S_p^{(k)}` are the at most k predicted genes of largest absolute log2 fold
    change; equal ones keep the order of the genes. 0 (worst) to 1 (best); 0, too, for a
    perturbation without any real significant gene, whatever is predicted (``overlap_at_N``; above
    20 significant genes its sort leaves the order of ties open).
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

    One number for the whole panel: Spearman's correlation of the numbers of significant genes, over
    the perturbations that have any in the real cells, -1 (worst) to 1 (best), chance 0. Ties share
    their mean rank. NaN where fewer than two perturbations count, or where all have the same
    number; 1 where no perturbation counts (``de_spearman_sig``).
    """
    counts = [called.sum(axis=1) for called in (pred_significant, real_significant)]
    counts = [count[real_significant.any(axis=1)] for count in counts]
    return _spearman(*counts) if len(counts[0]) else 1.0


def lfc_spearman(
    pred_fold_change: np.ndarray, real_fold_change: np.ndarray, real_significant: np.ndarray
) -> np.ndarray:
    r"""Rank correlation of fold changes over the genes that really changed.

    Fold changes are ratios of back-transformed means, ``(n_perts, n_genes)``; a logarithm keeps the
    order, and so the result. -1 (worst) to 1 (best), chance 0. Ties share their mean rank. NaN
    where fewer than two genes are significant, or all fold changes of one side are equal, as for a
    prediction of no change (``de_spearman_lfc_sig``).
    """
    rows = zip(pred_fold_change, real_fold_change, real_significant, strict=True)
    return np.array([_spearman(pred[called], real[called]) for pred, real, called in rows])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2:
        return np.nan
    from scipy.stats import rankdata  # takes a good part of a second to load

    lost = np.isnan(a).any()
    a, b = (rank - rank.mean() for rank in (rankdata(a), rankdata(b)))
    if lost:
        return -1.0 if b.any() else np.nan
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else np.nan


def pr_auc(pred_fdr: np.ndarray, real_significant: np.ndarray) -> np.ndarray:
    r"""Area under the precision-recall curve: are the really changed genes the surest ones?

    .. math:: \mathrm{AP} = \sum_n (R_n - R_{n-1}) \, P_n

    with precision P and recall R after each step down the list (average precision; no line is
    drawn between the points); equal rates are one step. `pred_fdr` is the false discovery rate of
    each gene in the predicted cells, ``(n_perts, n_genes)``, float32: the smaller, the more
    significant; an exact 0 counts as 1e-10, after all that is smaller. 0 (worst) to 1 (best);
    chance is the share of genes that are significant. NaN where none is significant, or all are
    (``pr_auc``).
    """
    rate = np.where(pred_fdr == 0, np.float32(1e-10), pred_fdr).astype(np.float32)
    rate[np.isnan(rate)] = 1.0
    rows = zip(-np.log10(rate), real_significant, strict=True)
    return np.array([_average_precision(score, truth) for score, truth in rows])


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

    Each effect is against its own file's control; all genes count, the silenced one included. -1
    (worst) to 1 (best). Blind to size. Chance is no 0: what all perturbations share is enough to be
    above it. NaN where one effect is constant over genes, as for no change (``pearson_delta``).
    """
    pred, real = (np.asarray(x, dtype=np.float64) for x in (pred_effect, real_effect))
    pred, real = (x - x.mean(axis=1, keepdims=True) for x in (pred, real))
    size = np.linalg.norm(pred, axis=1) * np.linalg.norm(real, axis=1)
    together = (pred * real).sum(axis=1)
    none = np.where(np.isnan(pred).any(axis=1) & real.any(axis=1), -1.0, np.nan)
    return np.divide(together, size, out=none, where=size > 0)


def pds_cosine(
    pred_effect: np.ndarray, real_effect: np.ndarray, own_gene: np.ndarray
) -> np.ndarray:
    r"""Perturbation discrimination by angle, without the genes that anyone silenced.

    .. math:: \mathrm{PDS}_p = 1 - \frac{k_p}{N - 1}, \qquad
              d(u, v) = 1 - \frac{\langle u, v \rangle}{\|u\| \|v\|}

    where k counts the real effects that are closer than the right one, and half of those that are
    as close; d is 1 where an effect is zero. Both effects are against the real control; all columns
    `own_gene` are left out of all distances. 0 (worst) to 1 (best), chance 0.5: one prediction for
    all has a mean of 0.5, and no change has 0.5 for each. 1 where there is one perturbation only
    (``pds_cosine``).
    """
    kept = np.ones(real_effect.shape[1], bool)
    kept[own_gene[own_gene >= 0]] = False
    pred, real = (np.asarray(x, np.float64)[:, kept] for x in (pred_effect, real_effect))
    size = np.linalg.norm(pred, axis=1)[:, None] * np.linalg.norm(real, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(size > 0, 1 - pred @ real.T / size, 1.0)
    own = np.diag(distance)[:, None]
    rank = (distance < own).sum(axis=1) + ((distance == own).sum(axis=1) - 1) / 2
    rank[~np.isfinite(pred).all(axis=1)] = len(rank) - 1
    return 1 - rank / max(len(rank) - 1, 1)


class Sampled(NamedTuple):
    """Profiles, log1p of scaled summed counts, and sampling variances, summed over genes."""

    profile: np.ndarray
    variance: np.ndarray


def mse_normalized(
    pred: Sampled, real: Sampled, *, control: Sampled, own_gene: np.ndarray
) -> float:
    r"""Squared error, as a share of what predicting the control would cost.

    .. math:: \frac{\sum_p \left(\|\hat b_p - b_p\|^2 - \rho \min(\hat C_p, C_p) - C_p\right) / G_p}
                   {\sum_p \left(\|b_p - b_c\|^2 - C_p - C_c\right) / G_p}

    One number for the whole panel, of predicted and real perturbations, and the real control. Best
    0, no change about 1, no upper end. NaN where the real effects are no larger than their sampling
    noise. The column `own_gene` is left out of its own perturbation. Squared distances of noisy
    profiles are too large by the noise of both, C, which is taken off. A prediction's own noise
    counts at most as much as the measurement's, and all of it together, through :math:`\rho \le 1`,
    at most as much as its profiles differ from one another: so cells whose scatter cancels in the
    sum earn nothing. The variances are those of all genes (``expr_mse_unbiased_capped_norm``).
    """
    kept = np.ones(real.profile.shape, bool)
    has = np.flatnonzero(own_gene >= 0)
    kept[has, own_gene[has]] = False
    n_genes = kept.sum(axis=1)
    weight = np.divide(1.0, n_genes, out=np.zeros(len(kept)), where=n_genes > 0)
    noise = np.minimum(pred.variance, real.variance)
    claim = float((noise * weight).sum())
    if claim > 0:
        noise = noise * min(1.0, _spread(pred.profile, kept, weight) / claim)
    off, effect = (
        (np.where(kept, real.profile - other, 0) ** 2).sum(axis=1)
        for other in (pred.profile, control.profile)
    )
    error = ((off - noise - real.variance) * weight).sum()
    whole = ((effect - real.variance - control.variance) * weight).sum()
    if not whole > 0:
        return np.nan
    return np.inf if np.isnan(error) else float(error / whole)


def _spread(profile: np.ndarray, kept: np.ndarray, weight: np.ndarray) -> float:
    off = profile - profile.mean(axis=0)
    share = weight[:, None] * kept
    total, mean, square = share.sum(axis=0), (share * off).sum(axis=0), (share * off**2).sum(axis=0)
    counts = (kept.sum(axis=0) >= 2) & (total > 0)
    return float(np.maximum(square[counts] - mean[counts] ** 2 / total[counts], 0).sum())


class Calls(NamedTuple):
    """What a rank test says of each perturbation and gene; NaN for the change if not tested."""

    significant: np.ndarray
    log2_fold_change: np.ndarray
    p_value: np.ndarray
    fdr: np.ndarray


def _same_direction(pred: Calls, real: Calls) -> tuple[np.ndarray, np.ndarray]:
    guess, truth = np.sign(pred.log2_fold_change), np.sign(real.log2_fold_change)
    has_direction = np.abs(truth) == 1  # NaN has none
    return has_direction, has_direction & (guess == truth)


def direction_fidelity(pred: Calls, real: Calls) -> np.ndarray:
    r"""Do the genes that are called move in the right direction, and are there enough of them?

    .. math:: F_p = \frac{k}{\max(\hat n, n)}

    with k of the :math:`\hat n` predicted calls in the right direction, and n real ones. To call
    more than n buys nothing, to call fewer costs in proportion. 0 (worst) to 1 (best); chance 0.5
    once as many genes are called as really changed. 0 where none is called though some changed; NaN
    where neither has any (``direction_fidelity_yield_raw``).
    """
    has_direction, same = _same_direction(pred, real)
    called = pred.significant & has_direction
    most = np.maximum(called.sum(axis=1), real.significant.sum(axis=1))
    right = (called & same).sum(axis=1)
    return np.divide(right, most, out=np.full(len(most), np.nan), where=most > 0)


def direction_reach(pred: Calls, real: Calls, genes: np.ndarray) -> np.ndarray:
    r"""How far down its own list of genes are a prediction's directions right?

    .. math:: R_p = \frac{1}{n} \max\{k : P(k) \ge 0.9\}

    The n genes that really changed are ordered by the prediction: its calls first, then by false
    discovery rate, p-value, size of the fold change and name (`genes`, ``(n_genes,)``). P(k) is the
    share of the first k in the right direction. 0 (worst) to 1 (best); chance is small and falls
    with the number of genes that changed. NaN where none did (``direction_reach_raw``).
    """
    has_direction, same = _same_direction(pred, real)
    place = np.argsort(np.argsort(np.asarray(genes, dtype=str), kind="stable"))
    reach = np.full(len(real.significant), np.nan)
    for row, truth in enumerate(real.significant):
        if not truth.any():
            continue
        some = np.flatnonzero(truth & ~np.isnan(pred.log2_fold_change[row]))
        called, rate, p, size = (
            values[row, some]
            for values in (pred.significant, pred.fdr, pred.p_value, pred.log2_fold_change)
        )
        ranked = some[np.lexsort((place[some], -np.abs(size), p, rate, ~called))]
        ranked = ranked[has_direction[row, ranked]]
        depth = np.arange(1, len(ranked) + 1)
        pure = depth[np.cumsum(same[row, ranked]) / depth >= _PURITY]
        reach[row] = pure.max(initial=0) / truth.sum()
    return reach


def significant_jaccard(pred_significant: np.ndarray, real_significant: np.ndarray) -> np.ndarray:
    r"""Are the same genes called?

    Genes called on both sides over genes called on either, 0 (worst) to 1 (best), chance near 0. 1
    where neither side calls any (``sig_jaccard``).
    """
    both = (pred_significant & real_significant).sum(axis=1)
    either = (pred_significant | real_significant).sum(axis=1)
    return np.divide(both, either, out=np.ones(len(both)), where=either > 0)


def lfc_nmae(
    pred_log2_fold_change: np.ndarray,
    real_log2_fold_change: np.ndarray,
    real_significant: np.ndarray,
) -> np.ndarray:
    r"""Error of fold changes, as a share of what predicting none would cost.

    .. math:: \frac{\sum_g |\hat\ell_g - \ell_g|}{\sum_g |\ell_g|}

    over the genes that really changed. Both fold changes, ``(n_perts, n_genes)``, are against the
    real control; a predicted NaN counts as no change. Best 0, no change 1, no upper end. NaN where
    fewer than 10 genes really changed, whatever is predicted (``lfc_nmae``).
    """
    truth = np.where(real_significant, real_log2_fold_change, 0.0)
    guess = np.where(real_significant, np.nan_to_num(pred_log2_fold_change), 0.0)
    size = np.abs(truth).sum(axis=1)
    enough = (real_significant.sum(axis=1) >= _FEWEST_GENES) & (size > 0)
    error = np.abs(guess - truth).sum(axis=1)
    return np.divide(error, size, out=np.full(len(size), np.nan), where=enough)


def scaled(
    value: float | np.ndarray,
    baseline: float | np.ndarray,
    best: float,
    limits: tuple[float, float] = (0.0, np.inf),
) -> float | np.ndarray:
    """Place a score between a baseline (0) and what counts as good (1).

    ``1 - value / baseline`` for a best of 0, else ``(value - baseline) / (best - baseline)``, held
    between `limits`. `value` and `baseline` are the metric's means over perturbations, of the
    prediction and of the baseline, or arrays of such means that fit each other; `best` is its
    perfect value, 0 or 1, or, by the rules of 2026, that of a replicate. Where the result is not a
    number, as when the baseline is perfect, it is the lower limit; without one, what a value of 0
    gets. Source: ``score`` of cell-eval, and ``score_one`` of cell-eval2.
    """
    value, baseline = np.asarray(value, np.float64), np.asarray(baseline, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1.0 - value / baseline if best == 0 else (value - baseline) / (best - baseline)
        lowest = limits[0] if np.isfinite(limits[0]) else baseline / (baseline - best)
    share = np.clip(np.where(np.isnan(share), lowest, share), *limits)
    return share if share.ndim else float(share)


def overall(
    summary: Mapping[str, float],
    baseline: Mapping[str, float],
    best: Mapping[str, float] = BEST,
    limits: Mapping[str, tuple[float, float]] = _LIMITS,
) -> float:
    """Combine metrics into the leaderboard's number.

    It is 100 times the mean of the :func:`scaled` scores; the baseline itself has 0. `summary` and
    `baseline` are means over perturbations, ``{"mae": ..., "des": ..., "pds": ...}``; `best` is
    what counts as 1 for each metric, in 2026 a replicate's means; `limits` says which metrics
    count, and between what limits. In 2025 0 to 100, best 100; the winner had 34.0. What is
    worse than the baseline counts 0 there, so that an error forty times the baseline's costs no
    more than one of its size. In 2026 a repeat of the experiment is 100, and results below 0 and
    above 100 occur.
    """
    if missing := [n for n in limits if not (n in summary and n in baseline and n in best)]:
        raise KeyError(
            f"the overall score needs {', '.join(limits)} of the prediction and of the "
            f"baseline; {', '.join(missing)} missing"
        )
    shares = [scaled(summary[n], baseline[n], best[n], limits[n]) for n in limits]
    return 100 * float(np.mean(shares))
