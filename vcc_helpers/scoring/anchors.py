"""What to hold a score against: the mean baseline, a repeat of the experiment, perfect predictions.

Taught in: notebooks/04_mean_baseline, notebooks/08_metrics_by_hand, notebooks/09_first_submission
and notebooks/15_score_by_the_rules_of_2026.

>>> from vcc_helpers.datasets import load_h1_sample
>>> half, other = split_half(load_h1_sample())
>>> half.n_obs + other.n_obs
600
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from .. import metrics
from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..counts import Scaling, stack
from ..emit import negative_binomial, replicate, resample_and_shift
from ..presets import Preset, get_preset
from ..stream.blocks import row_blocks, take_cells
from ..stream.look import inspect_values
from ..stream.open import check_cells, labels_of, open_cells, parse_memory
from ..stream.pseudobulk import lognorm_blocks, pseudobulk, pseudobulk_of_blocks
from .card import REPLICATE, ScoreCard
from .digest import Digest, _score, _Sides, compare, counted, digest

#: The value that a prediction expects which knows nothing, where there is a closed form.
_CHANCE: Mapping[str, Callable[[_Sides], float]] = {
    "des": lambda s: float(s.real.de.significant.mean()),
    "pds": lambda s: metrics.pds_chance(len(s.means.names)),
    "deg_count_spearman": lambda s: 0.0,
    "lfc_spearman": lambda s: 0.0,
    "pr_auc": lambda s: _share_where_some(s.real.de.significant),
    "pds_cosine": lambda s: 0.5,
    "direction_fidelity": lambda s: 0.5,
}
#: Counts of a cell that is a mean: so many that rounding makes no difference.
AS_MANY_COUNTS = 9e5


def _share_where_some(significant: np.ndarray) -> float:
    share = significant.mean(axis=1)
    some = share[(share > 0) & (share < 1)]
    return float(some.mean()) if some.size else np.nan


def anchors(
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    n_halvings: int = 5,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    **settings,
) -> pd.DataFrame:
    """Return what to hold a score against: chance, the mean, a repeat, and perfect predictions.

    Parameters
    ----------
    real, preset, perturbation_key, control, memory, **settings
        As for :func:`~.scoring.score`.
    n_halvings
        How many times the cells are split into halves.
    seed
        Seed of the splits and of the resampled cells.

    Returns
    -------
    DataFrame
        Index anchor; a column a metric, means over perturbations. Rows:

        - *chance*: what a prediction that knows nothing expects, where there is a closed form:
          :func:`~vcc_helpers.metrics.pds_chance`; for des the share of genes that are significant,
          which a list drawn at random hits; for pr_auc that share where some but not all are; 0
          for rank correlations. NaN elsewhere;
        - *mean of these*: :func:`official_baseline` of these very cells;
        - *half against half* and its *sd*: the split-half ceiling over `n_halvings` splits;
        - *their means, resampled* and *their means, replicated*: perfect means, written as cells;
          by the rules of 2026 as counts, so *drawn* in place of resampled;
        - *real cells*: a perfect prediction, the cells themselves.

        Rows that need cells made, which are dense, are left out where these do not fit `memory`.

    Warns
    -----
    UserWarning
        A group has one cell only: there are no halves, and their rows are left out.

    Notes
    -----
    A perfect prediction has a DES below 1 where perturbations have no significant gene at all: the
    rules give these 0. Perfect means, replicated, lose more: cells without spread make nearly
    every gene significant, and then the largest fold changes are kept, which are not the surest
    ones. So no submission of replicated means can have a DES above that row's.
    """
    rules, question = get_preset(preset), {"perturbation_key": perturbation_key, "control": control}
    means = question | {"memory": memory} | settings
    truth = digest(real, rules, name="real", **means)

    def scored(pred: anndata.AnnData) -> pd.Series:
        controls = real if rules.real_controls else None
        made = digest(pred, _lenient(rules), controls=controls, **means)
        table = compare(made, truth, rules, control=control)
        return counted(table, truth, rules, control=control).mean()

    both = _Sides(truth, truth, control)
    rows = {"chance": {name: _CHANCE[name](both) for name in rules.metrics if name in _CHANCE}}
    cells = open_cells(real)
    fits = 8.0 * cells.n_obs * cells.n_vars < parse_memory(memory)  # made, and looked at
    if fits:
        rows["mean of these"] = scored(official_baseline(cells, rules, seed=seed, **question))
    if alone := _alone(cells, perturbation_key):
        warnings.warn(f"no {REPLICATE}: {alone}", stacklevel=2)
    else:
        halves = _scores_of_halves(real, rules, n_halvings, seed, **means)
        rows[REPLICATE], rows[f"{REPLICATE}, sd"] = halves.mean(), halves.std(ddof=1)
    if fits:
        made = _perfect_means(cells, rules, truth.bulk, seed, **question)
        rows |= {f"their means, {how}": scored(pred) for how, pred in made}
    rows["real cells"] = compare(truth, truth, rules, control=control).mean()
    found = pd.DataFrame(rows, index=list(rules.metrics), dtype=np.float64)
    return found.T.rename_axis("anchor")


def _scores_of_halves(real, rules: Preset, n: int, seed: int, **means) -> pd.DataFrame:
    """Score half against half, as the season does it where it has a rule for that."""
    if rules.top == "replicate":
        return replicates(real, rules, n_splits=n, seed=seed, **means)
    cards = (split_half_ceiling(real, rules, seed=s, **means) for s in range(seed, seed + n))
    return pd.DataFrame([card.summary for card in cards])


def _alone(cells: anndata.AnnData, perturbation_key: str) -> str:
    """Say which groups have one cell only, and so no halves; nothing if none has."""
    sizes = labels_of(cells, perturbation_key).value_counts()
    alone = sorted(sizes.index[sizes < 2])
    return f"a group of one cell has no halves: {some_of(alone)}" if alone else ""


def _check_halves(cells: anndata.AnnData, perturbation_key: str) -> None:
    if alone := _alone(cells, perturbation_key):
        raise ValueError(f"{alone}; leave it out, or give more cells of it")


def _perfect_means(
    cells, rules: Preset, bulk, seed: int, perturbation_key: str, control: str
) -> Iterator[tuple[str, anndata.AnnData]]:
    """Yield the means in `bulk`, written as cells with spread, and as cells without any."""
    is_control = labels_of(cells, perturbation_key) == control
    n_cells = bulk.obs["n_cells"].drop(control)
    kw = {"controls": take_cells(cells, np.flatnonzero(is_control)), "n_cells": n_cells}
    kw |= {"perturbation_key": perturbation_key, "control": control}
    if not rules.counts_only:
        kw["target_sum"] = Scaling.of(inspect_values(cells)).target_sum
        yield "resampled", resample_and_shift(bulk, seed=seed, **kw)
        yield "replicated", replicate(bulk, **kw)
        return
    lognorm = pseudobulk(cells, perturbation_key=perturbation_key)
    yield "drawn", negative_binomial(lognorm, seed=seed, **kw)
    share = np.expm1(bulk[n_cells.index].X)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    whole = np.rint(AS_MANY_COUNTS * share).astype(np.float32)
    rows = np.repeat(np.arange(len(whole)), n_cells)
    names = [f"pred_{i}" for i in range(len(rows))]
    obs = pd.DataFrame({perturbation_key: n_cells.index[rows]}, index=names)
    yield "replicated", anndata.AnnData(whole[rows], obs, cells.var.copy())


def official_baseline(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    n_cells: Mapping[str, int] | pd.Series | None = None,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Make the contest's mean baseline: one mean for every perturbation, written as cells.

    Parameters
    ----------
    cells, preset, perturbation_key, control
        As for :func:`~.scoring.score`: the measured perturbations and controls.
    n_cells
        Cells to make for each target; by default the targets and numbers of `cells`.
    seed
        Seed of the draw, where the rules want counts.

    Returns
    -------
    AnnData
        Shape ``(sum of n_cells + n_controls, n_genes)``: by the rules of 2025 lognorm, identical
        cells for all targets; by those of 2026 counts, which are not whole: control cells drawn at
        random, each gene scaled so that the mean is right. Then the controls of `cells`.

    Notes
    -----
    In 2025 the mean is over the groups' means, the control's row counted in as one group, as
    ``cell-eval baseline`` does it. In 2026 it is over the perturbations' mean counts, each without
    its own gene, as ``build_generic_baseline`` of cell-eval2 0.20.0 does it. Fractions are refused
    in a submission: :func:`baseline` scores this one.
    """
    cells = open_cells(cells)
    check_cells(cells, perturbation_key=perturbation_key, control=control)
    labels = labels_of(cells, perturbation_key)
    if get_preset(preset).counts_only:
        return _scaled_controls(cells, labels, n_cells, seed, perturbation_key, control)
    blocks = list(lognorm_blocks(cells))
    bulk = pseudobulk_of_blocks(blocks, labels, cells.var)
    if n_cells is None:
        n_cells = bulk.obs["n_cells"].drop(control)
    mean = bulk.X.mean(axis=0, dtype=np.float64).astype(bulk.X.dtype)
    targets = pd.DataFrame(index=pd.Series(n_cells).index.drop(control, errors="ignore"))
    pred = anndata.AnnData(np.tile(mean, (len(targets), 1)), obs=targets, var=cells.var.copy())
    rows = np.flatnonzero(labels == control)
    controls = anndata.AnnData(
        stack([block for _, block in blocks])[rows], cells.obs.iloc[rows], cells.var
    )
    question = {"perturbation_key": perturbation_key, "control": control}
    return replicate(pred, controls=controls, n_cells=n_cells, **question)


def _scaled_controls(cells, labels, n_cells, seed: int, key: str, control: str):
    """Draw control cells and scale each gene, so that the mean is that of all perturbations."""
    blocks = ((start, block.astype(np.float64)) for start, block in row_blocks(cells))
    bulk = pseudobulk_of_blocks(blocks, labels, cells.var)
    groups, mean = bulk.obs_names, bulk.X
    is_control = groups == control
    own = cells.var_names.get_indexer(groups)
    counted = np.ones(mean.shape, bool)
    counted[own >= 0, own[own >= 0]] = False
    counted[is_control] = False
    if not counted.any(axis=0).all():
        gene = cells.var_names[~counted.any(axis=0)][0]
        raise ValueError(
            f"the baseline leaves out each silenced gene's own perturbation, and of {gene!r} no "
            "other is there; give cells of at least two perturbations"
        )
    profile, base = (mean * counted).sum(axis=0) / counted.sum(axis=0), mean[is_control][0]
    scale = np.divide(profile, base, out=np.zeros_like(base), where=base > 0)
    pool = take_cells(cells, np.flatnonzero(labels == control))
    if n_cells is None:
        n_cells = bulk.obs["n_cells"]
    sizes = pd.Series(n_cells).drop(control, errors="ignore").sort_index()
    rng, values = np.random.default_rng(seed), sparse.csr_matrix(pool.X)
    made = values[np.concatenate([rng.integers(0, pool.n_obs, size=n) for n in sizes])]
    made.data = (made.data * scale[made.indices]).astype(np.float32)
    obs = pd.DataFrame({key: [*np.repeat(sizes.index, sizes), *[control] * pool.n_obs]})
    obs.index = [*(f"pred_{i}" for i in range(made.shape[0])), *pool.obs_names]
    return anndata.AnnData(sparse.vstack([made, values], format="csr"), obs, cells.var.copy())


def baseline(
    real: anndata.AnnData | str | Path, preset: str | Preset = "vcc2025", **settings
) -> ScoreCard:
    """Score the official mean baseline of some cells against these cells: the 0 of the scale.

    For ``card.overall(baseline)``; parameters are those of :func:`~.scoring.score`. Where the rules
    take a repeat of the experiment for the 1, its scores are the card's `anchors`: the mean of
    :func:`replicates`, which takes five times as long. By the rules of 2026 the fractions of
    :func:`official_baseline` are let pass.
    """
    rules = get_preset(preset)
    question = {n: v for n, v in settings.items() if n in ("perturbation_key", "control")}
    if rules.top == "replicate":
        _check_halves(open_cells(real), question.get("perturbation_key", PERTURBATION_KEY))
    made = official_baseline(real, rules, **question)
    card = _score(made, real, _lenient(rules), **settings)
    if rules.top == "perfect":
        return card
    repeats = replicates(real, rules, **settings)
    beside = pd.DataFrame({REPLICATE: repeats.mean()}).T.rename_axis("anchor")
    return replace(card, anchors=beside)


def _lenient(rules: Preset) -> Preset:
    """Let counts pass that are not whole, where counts are wanted."""
    return replace(rules, tolerance=np.inf) if rules.counts_only else rules


def replicates(
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2026",
    *,
    n_splits: int = 5,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    **settings,
) -> pd.DataFrame:
    """Score halves of the real cells against the other halves, again and again.

    Parameters are those of :func:`~.scoring.score`, the number of splits, and the seed from which
    theirs come.

    Returns
    -------
    DataFrame
        A row a split, index its seed, a column a metric: means over perturbations. Their mean is
        the 1 of the scale of 2026.

    Notes
    -----
    Each half is measured against its own controls, so that the two share no noise. A half calls
    fewer genes than the whole, so `lfc_nmae` takes the genes, and the size of their changes, from
    all cells. Source: cell-eval2 0.20.0, ``compute_replicate_anchor``.
    """
    rules = replace(get_preset(preset), real_controls=False)
    question = {"perturbation_key": perturbation_key, "control": control}
    cells, means = open_cells(real), {}
    _check_halves(cells, perturbation_key)
    groups = cells.obs.groupby(perturbation_key, observed=True).indices.values()
    whole = digest(cells, rules, **question, **settings) if "lfc_nmae" in rules.metrics else None
    for split in np.random.SeedSequence(seed).generate_state(n_splits):
        first, other = (
            digest(half, rules, **question, **settings)
            for half in _halves(cells, groups, _equal, int(split))
        )
        table = compare(other, first, rules, control=control)
        if whole:
            table["lfc_nmae"] = _change_between(first, other, whole, control)
        means[int(split)] = ScoreCard(rules.name, table).summary
    return pd.DataFrame(means).T.rename_axis("seed")


def _halves(cells: anndata.AnnData, groups: Iterable[np.ndarray], cut: Callable, seed: int):
    """Shuffle the rows of one group after the other, and cut each into two."""
    rng, halves = np.random.default_rng(seed), ([], [])
    for rows in groups:
        for half, part in zip(halves, cut(rng.permutation(rows)), strict=True):
            half.append(part)
    return tuple(cells[np.sort(np.concatenate(half))] for half in halves)


def _equal(rows: np.ndarray) -> list[np.ndarray]:
    """Cut into halves of equal size, as the official replicate does: an odd cell is left out."""
    half = len(rows) // 2
    return [rows[:half], rows[half : 2 * half]]


def _alternating(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[::2], rows[1::2]]


def _change_between(first: Digest, other: Digest, whole: Digest, control: str) -> np.ndarray:
    """Return the error of fold changes between halves, over the genes that all cells call."""
    called = _Sides(whole, whole, control).calls[1].significant
    size = whole.de.log2_fold_change
    halves = (np.nan_to_num(half.de.log2_fold_change) for half in (first, other))
    return metrics.lfc_nmae(size + np.subtract(*halves), size, called)


def split_half(
    cells: anndata.AnnData, *, seed: int = 0, perturbation_key: str = PERTURBATION_KEY
) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Split the cells of every group at random into two halves, views of `cells`.

    Scoring one half against the other shows what a repeat of the experiment, with half of the
    cells, would score: a ceiling for honest predictions, though not a hard limit. Sizes are equal
    to within one cell a group; a group of one cell is a ValueError.
    """
    _check_halves(cells, perturbation_key)
    groups = pd.Series(range(cells.n_obs)).groupby(labels_of(cells, perturbation_key)).indices
    return _halves(cells, groups.values(), _alternating, seed)


def split_half_ceiling(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    **settings,
) -> ScoreCard:
    """Score one half of the real cells, from :func:`split_half`, as a prediction of the other.

    Other parameters are those of :func:`~.scoring.score`.
    """
    halves = split_half(open_cells(cells), seed=seed, perturbation_key=perturbation_key)
    return _score(*halves, get_preset(preset), perturbation_key=perturbation_key, **settings)
