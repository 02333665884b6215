"""Score a prediction as the leaderboard does, and what to hold a score against.

That is the mean baseline, a repeat of the experiment, chance, and perfect predictions. All
functions share the parameters of :func:`score`; `cells` are real ones, and `seed` is that of what
is drawn at random.

Taught in: notebooks/05_compute_the_metrics, notebooks/12_mean_and_median,
notebooks/17_metrics_by_hand, notebooks/18_from_means_to_cells and
notebooks/25_score_by_the_rules_of_2026.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> score(cells, cells).summary.to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
>>> half, other = split_half(cells)
>>> half.n_obs + other.n_obs
600
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache as remembered
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from .. import metrics
from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..counts import Scaling
from ..evaluation import Measure, evaluate
from ..presets import Preset, get_preset
from ..stream.blocks import part_of, row_blocks, take_cells
from ..stream.contexts import CONTEXT_KEY, has_several
from ..stream.contrast import contrast
from ..stream.look import inspect_values
from ..stream.open import check_cells, check_same, labels_of, open_cells, parse_memory, problems
from ..stream.pseudobulk import log_block, pseudobulk, pseudobulk_of_blocks
from .card import REPLICATE, ScoreCard, together
from .contexts import controls_of, each, sides
from .digest import Digest, _card, _Sides, compare, digest, digest_of, joined

#: The value that a prediction expects which knows nothing, where there is a closed form.
_CHANCE: Mapping[str, Callable[[_Sides], float]] = {
    "des": lambda s: float(s.real.de.significant.mean()),
    "pds": lambda s: metrics.pds_chance(len(s.means.names)),
    "pr_auc": lambda s: _share_where_some(s.real.de.significant),
    **dict.fromkeys(("deg_count_spearman", "lfc_spearman"), lambda s: 0.0),
    **dict.fromkeys(("pds_cosine", "direction_fidelity"), lambda s: 0.5),
}
#: Bytes of the libraries, and of what is known of a perturbation and gene, here and of the truth.
_LIBRARIES, _HELD = 400 * 10**6, 250
#: Counts of a cell that is a mean: so many that rounding makes no difference.
AS_MANY_COUNTS = 9e5


def _share_where_some(significant: np.ndarray) -> float:
    share = significant.mean(axis=1)
    some = share[(share > 0) & (share < 1)]
    return float(some.mean()) if some.size else np.nan


def score(
    pred: anndata.AnnData | str | Path,
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    context_key: str | None = None,
    controls: anndata.AnnData | str | Path | Mapping | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    threads: int | None = None,
    cache: str | Path | None = None,
    client=None,
    progress: bool = False,
    ceiling: bool = False,
) -> ScoreCard:
    """Score predicted cells against real ones.

    With ``"vcc2025"``, equal to cell-eval 0.6.6 with pdex 0.1.27; with ``"vcc2026"`` to cell-eval2
    0.20.0, which takes counts only, and the controls of `real` for both sides: `pred` needs none.
    Of several contexts each is scored as if it were alone, one after the other. A ValueError has a
    line for every problem: a file is unusable, or the two do not match.

    Parameters
    ----------
    pred, real
        Cells with controls, ``(n_pred_cells, n_genes)`` and ``(n_real_cells, n_genes)``, or paths
        of ``.h5ad``, ``.vcc`` or ``.zarr`` files, each read once; dense, CSR, CSC, a view or
        backed; counts or lognorm, each on its own. The same genes in the same order, and the same
        contexts and perturbations.
    preset
        The rules, by name or as a record.
    context_key
        The column of ``obs`` that names each cell's context. By default the one of the rules, where
        a file has it: ``context`` in 2026, none in 2025.
    controls
        Real controls for contexts of which `real` has none, where the rules let the real ones serve
        both sides: cells, a file, or the name of each context and its cells, as the official bundle
        has them.
    perturbation_key, control
        The column of ``obs`` that names each cell's perturbation, and the label of control cells.
    memory, threads, cache, client, progress
        Most memory to use, number of threads, a folder for what is finished (the truth's half is
        then there for the next prediction), a Dask cluster, progress bars: as for
        :func:`~vcc_helpers.stream.contrast`. None changes a bit of the result.
    ceiling
        Put :func:`~.scoring.anchors` next to the result, in the card's `anchors`. Where they cannot
        be had, a UserWarning says why.
    """
    rules, question = get_preset(preset), {"perturbation_key": perturbation_key, "control": control}
    means = question | {"memory": memory, "threads": threads, "cache": cache}
    watched = means | {"client": client, "progress": progress}
    key, pred, real = context_key or rules.context_key, _opened(pred), _opened(real)
    if parts := sides(real, pred, rules=rules, context_key=context_key):
        one, asked = _of_one(rules), watched | {"ceiling": ceiling}

        def score_one(real: anndata.AnnData, pred: anndata.AnnData) -> ScoreCard:
            mine = None if controls is None else controls_of(controls, real, key)
            return score(pred, real, one, controls=mine, **asked)

        return together(each(score_one, *parts))
    lent = None if controls is None else _lent(controls, open_cells(real), key, rules, **question)
    own = None if lent is not None else control
    _check_pair(open_cells(pred), open_cells(real), perturbation_key, control, rules, own)
    theirs = (real if lent is None else lent) if rules.real_controls else None
    found = digest(pred, rules, name="pred", controls=theirs, **watched)
    truth = digest(real, rules, name="real", controls=lent, **watched)
    card = _card(found, truth, rules, **question, source=rules.source)
    if not ceiling:
        return card
    try:
        known = truth if lent is None else digest(real, rules, name="real", **means)
        return replace(card, anchors=_anchors(real, rules, known, **means))
    except ValueError as error:  # the score is right nevertheless
        apart = "; anchors need real and its controls in one file, as anndata.concat makes it"
        more = "" if lent is None else apart
        warnings.warn(f"nothing to hold the score against: {error}{more}", stacklevel=2)
        return card


def _opened(cells: anndata.AnnData | str | Path) -> anndata.AnnData | str | Path:
    """Open what is best opened once, such as an archive; a folder's path tells its workers more."""
    opened = open_cells(cells)
    return opened if opened.isbacked else cells


def _lent(controls, real, key: str | None, rules: Preset, perturbation_key: str, control: str):
    """Return the controls that `real` lacks; None if it has its own."""
    if not rules.real_controls:
        raise ValueError(
            f"controls: by the rules of {rules.name} each file is held against its own controls; "
            "put them into both files"
        )
    labels = real.obs.get(perturbation_key, pd.Series(dtype=str)).astype(str)
    return None if (labels == control).any() else controls_of(controls, real, key)


def _check_pair(
    pred, real, perturbation_key: str, control: str, rules: Preset, own: str | None
) -> None:
    key = {"perturbation_key": perturbation_key}
    found = problems(pred, name="pred", **key, control=None if rules.real_controls else control)
    more = ", or give them with controls= (--bundle)" if rules.real_controls else ""
    of_real = problems(real, name="real", **key, control=own)
    found += [text + more * ("no control cells" in text) for text in of_real]
    if found:
        raise ValueError("\n".join(found))
    check_same(pred, real, **key, besides=control if rules.real_controls else None)
    targets = labels_of(real, perturbation_key).unique().drop(control, errors="ignore")
    if rules.leave_out_own_gene and not targets.isin(real.var_names).any():
        raise ValueError(
            f"real: none of the {len(targets)} perturbations is named after a gene, the first "
            f"is {min(targets)!r}, the first gene {real.var_names[0]!r}; "
            f"{rules.name} leaves the silenced genes out: label cells by gene symbol"
        )
    if rules.leave_out_own_gene and real.var_names.isin(targets).all():
        raise ValueError(
            f"real: each of the {real.n_vars} genes is a target, and {rules.name} leaves the genes "
            "of all targets out, so that none is left to compare; give cells with more genes"
        )


def anchors(
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    n_halvings: int = 5,
    seed: int = 0,
    context_key: str | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    **settings,
) -> pd.DataFrame:
    """Return what to hold a score against: chance, the mean, a repeat, and perfect predictions.

    A table, index anchor, of several contexts (context, anchor); a column per metric, means over
    perturbations. Its rows are:

    - *chance*: what a prediction that knows nothing expects, where there is a closed form:
      :func:`~vcc_helpers.metrics.pds_chance`; for des the share of genes that are significant,
      which a list drawn at random hits; for pr_auc that share where some but not all are; 0 for
      rank correlations. NaN elsewhere;
    - *mean of these*: :func:`official_baseline` of these very cells;
    - *half-data repeat* and its *sd*: :func:`split_half_ceiling` over `n_halvings` splits; left
      out, with a UserWarning, where a group has one cell only;
    - *their means, resampled* and *their means, replicated*: perfect means, written as cells; by
      the rules of 2026 as counts, so *drawn* in place of resampled;
    - *real cells*: a perfect prediction, the cells themselves.

    Cells that are made are dense: as many perturbations at a time as fit half of `memory`. Their
    rows are left out where the largest has no room next to the controls.

    A perfect prediction has a DES below 1 where perturbations have no significant gene at all: the
    rules give these 0. Perfect means, replicated, lose more: cells without spread make nearly
    every gene significant, and then the largest fold changes are kept, not the surest ones.
    """
    rules, question = get_preset(preset), {"perturbation_key": perturbation_key, "control": control}
    means = question | {"memory": memory} | settings
    if parts := sides(real, rules=rules, context_key=context_key):
        asked = means | {"n_halvings": n_halvings, "seed": seed}
        return _tables(each(partial(anchors, preset=_of_one(rules), **asked), *parts))
    truth = digest(real, rules, name="real", **means)
    return _anchors(real, rules, truth, n_halvings=n_halvings, seed=seed, **means)


def _anchors(
    real,
    rules: Preset,
    truth: Digest,
    *,
    perturbation_key: str,
    control: str,
    memory: int | float | str,
    n_halvings: int = 5,
    seed: int = 0,
    **settings,
) -> pd.DataFrame:
    question = {"perturbation_key": perturbation_key, "control": control}
    means = question | {"memory": memory} | settings
    both = _Sides(truth, truth)
    rows = {"chance": {name: _CHANCE[name](both) for name in rules.metrics if name in _CHANCE}}
    cells = open_cells(real)
    labels, n_cells = labels_of(cells, perturbation_key), truth.bulk.obs["n_cells"]
    room = _Room.of(n_cells, control, cells.n_vars, parse_memory(memory))

    def scored(make: Callable[[pd.Series], anndata.AnnData]) -> pd.Series:
        how = means | {"memory": room.left, "rules": _lenient(rules)}
        how["controls"] = real if rules.real_controls else None
        parts = [contrast(make(some), **how) for some in room.parts]
        return _card(digest_of(joined(parts), rules), truth, rules).counted.mean()

    if room.parts:
        rows["mean of these"] = scored(_baseline_maker(cells, labels, rules, seed, **question))
    if alone := _alone(cells, perturbation_key):
        warnings.warn(f"no {REPLICATE}: {alone}", stacklevel=2)
    else:
        if rules.top == "replicate":
            halves = replicates(real, rules, n_splits=n_halvings, seed=seed, **means)
        else:
            seeds = range(seed, seed + n_halvings)
            cards = [split_half_ceiling(real, rules, seed=s, **means) for s in seeds]
            halves = pd.DataFrame([card.summary for card in cards])
        rows[REPLICATE], rows[f"{REPLICATE}, sd"] = halves.mean(), halves.std(ddof=1)
    if room.parts:
        made = _perfect_means(cells, rules, truth.bulk, seed, **question)
        rows |= {f"their means, {how}": scored(make) for how, make in made}
    rows["real cells"] = compare(truth, truth, rules).mean()
    return pd.DataFrame(rows, list(rules.metrics), dtype=np.float64).T.rename_axis("anchor")


class _Room(NamedTuple):
    """What fits the memory of cells that are made, which are dense: some perturbations at a time.

    `parts` are the numbers of cells of each, by perturbation; none where the largest, with the
    controls, has no room. `left` is the memory to look at them with.
    """

    parts: list[pd.Series]
    left: int

    @classmethod
    def of(cls, n_cells: pd.Series, control: str, n_genes: int, memory: int) -> _Room:
        sizes, n_controls = n_cells.drop(control), n_cells[control]
        # a value takes four bytes, and twice as many more while it is made
        most = (memory - _HELD * len(n_cells) * n_genes - _LIBRARIES) / 2 / (12 * n_genes)
        most -= n_controls
        if most < sizes.max():
            return cls([], 0)
        part, filled = [], most + 1
        for size in sizes:
            new = filled + size > most
            filled = size + (0 if new else filled)
            part.append(new)
        parts = [some for _, some in sizes.groupby(np.cumsum(part))]
        largest = max(some.sum() for some in parts)
        return cls(parts, memory - int(4 * (largest + 2 * n_controls) * n_genes))


def _alone(cells: anndata.AnnData, perturbation_key: str) -> str:
    sizes = labels_of(cells, perturbation_key).value_counts()
    alone = sorted(sizes.index[sizes < 2])
    return f"a group of one cell has no halves: {some_of(alone)}" if alone else ""


def _check_halves(cells: anndata.AnnData, perturbation_key: str) -> None:
    if alone := _alone(cells, perturbation_key):
        raise ValueError(f"{alone}; leave it out, or give more cells of it")


def _perfect_means(
    cells, rules: Preset, bulk, seed: int, perturbation_key: str, control: str
) -> Iterator[tuple[str, Callable[[pd.Series], anndata.AnnData]]]:
    """Yield what writes the means in `bulk` as cells with spread, and as cells without any.

    To be called with the numbers of cells of some perturbations after the other, in their order.
    """
    from .. import emit  # loads much of SciPy that a score does without

    is_control = labels_of(cells, perturbation_key) == control
    kw = {"controls": _dense(take_cells(cells, np.flatnonzero(is_control)))}
    kw |= {"perturbation_key": perturbation_key, "control": control}
    rng = np.random.default_rng(seed)  # goes on from call to call

    def written(how: Callable, means: anndata.AnnData, **more) -> Callable:
        return lambda n: how(means[[control, *n.index]].copy(), n_cells=n, **kw, **more)

    if not rules.counts_only:
        kw["target_sum"] = Scaling.of(inspect_values(cells)).target_sum
        yield "resampled", written(emit.resample_and_shift, bulk, seed=rng)
        yield "replicated", written(emit.replicate, bulk)
        return
    lognorm = pseudobulk(cells, perturbation_key=perturbation_key)
    yield "drawn", written(emit.negative_binomial, lognorm, seed=rng)

    def replicated(n_cells: pd.Series) -> anndata.AnnData:
        share = np.expm1(bulk[n_cells.index].X)
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
        whole = np.rint(AS_MANY_COUNTS * share).astype(np.float32)
        rows = np.repeat(np.arange(len(whole)), n_cells)
        names = [f"pred_{i}" for i in range(len(rows))]
        obs = pd.DataFrame({perturbation_key: n_cells.index[rows]}, index=names)
        return anndata.AnnData(whole[rows], obs, cells.var.copy())

    yield "replicated", replicated


def _dense(cells: anndata.AnnData) -> anndata.AnnData:
    if sparse.issparse(cells.X):
        cells.X = cells.X.toarray()
    return cells


def official_baseline(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    n_cells: Mapping[str, int] | pd.Series | None = None,
    seed: int = 0,
    context_key: str | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Make the contest's mean baseline: one mean for every perturbation, written as cells.

    `n_cells` is how many to make for each target; by default the targets and numbers of `cells`,
    whose controls come last: ``(sum of n_cells + n_controls, n_genes)``. Of several contexts each
    has its own mean, and its cells come after those of the one before.

    By the rules of 2025 they are lognorm, identical cells for all targets; the mean is over the
    groups' means, the control's row counted in as one group, as ``cell-eval baseline`` does it. By
    those of 2026 they are counts, which are not whole: control cells drawn at random, each gene
    scaled so that the mean is right; the mean is over the perturbations' mean counts, each without
    its own gene, as ``build_generic_baseline`` of cell-eval2 0.20.0 does it. Fractions are refused
    in a submission: :func:`baseline` scores this one.
    """
    cells, question = open_cells(cells), {"perturbation_key": perturbation_key, "control": control}
    rules = get_preset(preset)
    if parts := sides(cells, rules=rules, context_key=context_key):
        asked = question | {"n_cells": n_cells, "seed": seed}
        made = each(partial(official_baseline, preset=_of_one(rules), **asked), *parts)
        how = {"label": context_key or rules.context_key, "index_unique": "-", "merge": "same"}
        return anndata.concat(made, **how)
    check_cells(cells, **question)
    labels = labels_of(cells, perturbation_key)
    if n_cells is None:
        n_cells = labels.value_counts().sort_index()
    make = _baseline_maker(cells, labels, rules, seed, dense=False, **question)
    return make(pd.Series(n_cells).drop(control, errors="ignore"))


def _baseline_maker(
    cells, labels, rules: Preset, seed: int, perturbation_key: str, control: str, dense: bool = True
) -> Callable[[pd.Series], anndata.AnnData]:
    """Return what makes the mean baseline's cells of some targets after the other."""
    question = {"perturbation_key": perturbation_key, "control": control}
    if rules.counts_only:
        return _scaled_controls(cells, labels, seed, **question)
    from .. import emit

    scaling = Scaling.of(inspect_values(cells))
    blocks = row_blocks(cells)
    logged = ((i, log_block(scaling, b, slice(i, i + b.shape[0]))) for i, b in blocks)
    bulk = pseudobulk_of_blocks(logged, labels, cells.var)
    mean = bulk.X.mean(axis=0, dtype=np.float64).astype(bulk.X.dtype)
    rows = np.flatnonzero(labels == control)
    controls = take_cells(cells, rows)
    controls.X = log_block(scaling, controls.X, rows)
    controls = _dense(controls) if dense else controls

    def make(n_cells: pd.Series) -> anndata.AnnData:
        targets = pd.DataFrame(index=n_cells.index)
        pred = anndata.AnnData(np.tile(mean, (len(targets), 1)), obs=targets, var=cells.var.copy())
        return emit.replicate(pred, controls=controls, n_cells=n_cells, **question)

    return make


def _scaled_controls(cells, labels, seed: int, perturbation_key: str, control: str) -> Callable:
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
    rng, values = np.random.default_rng(seed), sparse.csr_matrix(pool.X)

    def make(n_cells: pd.Series) -> anndata.AnnData:
        sizes = n_cells.sort_index()
        made = values[np.concatenate([rng.integers(0, pool.n_obs, size=n) for n in sizes])]
        made.data = (made.data * scale[made.indices]).astype(np.float32)
        names = [*np.repeat(sizes.index, sizes), *[control] * pool.n_obs]
        obs = pd.DataFrame({perturbation_key: names})
        obs.index = [*(f"pred_{i}" for i in range(made.shape[0])), *pool.obs_names]
        return anndata.AnnData(sparse.vstack([made, values], format="csr"), obs, cells.var.copy())

    return make


def baseline(
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    context_key: str | None = None,
    **settings,
) -> ScoreCard:
    """Score the official mean baseline of some cells against these cells: the 0 of the scale.

    For ``card.overall(baseline)``. Where the rules take a repeat of the experiment for the 1, its
    scores are the card's `anchors`: the mean of :func:`replicates`, which takes five times as long.
    By the rules of 2026 the fractions of :func:`official_baseline` are let pass. Controls that are
    in another file are split and drawn from with the cells: put both into one, by anndata.concat.
    """
    rules = get_preset(preset)
    if parts := sides(real, rules=rules, context_key=context_key):
        return together(each(partial(baseline, preset=_of_one(rules), **settings), *parts))
    question = {n: v for n, v in settings.items() if n in ("perturbation_key", "control")}
    if rules.top == "replicate":
        _check_halves(open_cells(real), question.get("perturbation_key", PERTURBATION_KEY))
    made = official_baseline(real, rules, **question)
    card = score(made, real, _lenient(rules), **settings)
    if rules.top == "perfect":
        return card
    repeats = replicates(real, rules, **settings).mean()
    return replace(card, anchors=repeats.to_frame(REPLICATE).T.rename_axis("anchor"))


def _of_one(rules: Preset) -> Preset:
    """Return the rules for one context, whose own ones are not looked for."""
    return replace(rules, context_key=None)


def _tables(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, names=["context", *next(iter(parts.values())).index.names])


def _lenient(rules: Preset) -> Preset:
    return replace(rules, tolerance=np.inf) if rules.counts_only else rules


def replicates(
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2026",
    *,
    n_splits: int = 5,
    seed: int = 0,
    context_key: str | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    **settings,
) -> pd.DataFrame:
    """Score halves of the real cells against the other halves, again and again.

    Returned is a row per split, index its seed, which comes from `seed`, of several contexts
    (context, seed), and a column per metric: means over perturbations. Their mean is the 1 of the
    scale of 2026. Each half is measured against its own controls, so that the two share no noise. A
    half calls fewer genes than the whole, so `lfc_nmae` takes the genes, and the size of their
    changes, from all cells, as the official ``compute_replicate_anchor`` does.
    """
    rules = replace(get_preset(preset), real_controls=False)
    settings |= {"perturbation_key": perturbation_key}
    if parts := sides(real, rules=rules, context_key=context_key):
        asked = settings | {"n_splits": n_splits, "seed": seed}
        return _tables(each(partial(replicates, preset=_of_one(rules), **asked), *parts))
    cells, means = open_cells(real), {}
    _check_halves(cells, perturbation_key)
    whole = digest(cells, rules, **settings) if "lfc_nmae" in rules.metrics else None
    for split in np.random.SeedSequence(seed).generate_state(n_splits):
        halves = _halves(cells, cells.obs[perturbation_key].array, int(split), equal=True)
        first, other = (digest(half, rules, **settings) for half in halves)
        table = compare(other, first, rules)
        if whole:
            table["lfc_nmae"] = _change_between(first, other, whole)
        means[int(split)] = ScoreCard(rules.name, table).summary
    return pd.DataFrame(means).T.rename_axis("seed")


def _halves(cells: anndata.AnnData, labels, seed: int, *, equal: bool):
    """Shuffle each group's rows and halve them; if equal, as officially, without an odd cell."""
    rng, halves = np.random.default_rng(seed), ([], [])
    order = pd.Series(range(cells.n_obs)).groupby(pd.Index(labels), observed=True)
    for rows in order.indices.values():
        rows, half = rng.permutation(rows), len(rows) // 2
        halves[0].append(rows[:half] if equal else rows[::2])
        halves[1].append(rows[half : 2 * half] if equal else rows[1::2])
    return tuple(part_of(cells, np.sort(np.concatenate(half))) for half in halves)


def _change_between(first: Digest, other: Digest, whole: Digest) -> np.ndarray:
    called = _Sides(whole, whole).calls[1].significant
    size = whole.de.log2_fold_change
    halves = (np.nan_to_num(half.de.log2_fold_change) for half in (first, other))
    return metrics.lfc_nmae(size + np.subtract(*halves), size, called)


def split_half(
    cells: anndata.AnnData, *, seed: int = 0, perturbation_key: str = PERTURBATION_KEY
) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Split the cells of every group at random into two halves, views of `cells`.

    With a column ``context`` of several names in ``obs``, the cells of each context are halved.

    One half scored against the other shows what a repeat of the experiment, with half of the cells,
    would score: a ceiling for honest predictions, though not a hard limit. A group of one cell is a
    ValueError.
    """
    _check_halves(cells, perturbation_key)
    labels = labels_of(cells, perturbation_key)
    if has_several(cells):
        labels += "\n" + labels_of(cells, CONTEXT_KEY)
    return _halves(cells, labels, seed, equal=False)


def split_half_ceiling(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    **settings,
) -> ScoreCard:
    """Score one half of the real cells, from :func:`split_half`, as a prediction of the other."""
    halves = split_half(open_cells(cells), seed=seed, perturbation_key=perturbation_key)
    return score(*halves, preset, perturbation_key=perturbation_key, **settings)


def measure_cells(
    cells: anndata.AnnData, *, emitter: Callable[..., anndata.AnnData] | None = None
) -> Measure:
    """Return a measure that turns predictions into cells too, so that there is a DES.

    For :func:`~.evaluation.repeated` as `measure`: it returns what :func:`~.evaluation.evaluate`
    does, and a column des, scored by the rules of vcc2025. Far slower: it tests every gene of every
    perturbation. `cells` are counts of every target to be predicted, and controls, with
    the genes of the predictions. `emitter`, a function of :mod:`vcc_helpers.emit`, by default
    :func:`~.emit.negative_binomial`, makes as many cells as there are real ones, from the real
    controls; :func:`functools.partial` sets its seed.
    """
    from .. import emit

    labels, emitter = labels_of(cells), emitter or emit.negative_binomial
    controls = cells[labels == CONTROL].copy()
    scale = Scaling.of(inspect_values(cells)).target_sum

    @remembered
    def truth(names: tuple[str, ...]) -> Digest:
        return digest(cells[labels.isin([CONTROL, *names])].copy())

    def measure(pred: anndata.AnnData, real: anndata.AnnData) -> pd.DataFrame:
        names = tuple(real.obs_names[real.obs_names != CONTROL])
        known = truth(names)
        sizes = known.bulk.obs["n_cells"].drop(CONTROL)
        asked = {"controls": controls, "n_cells": sizes, "target_sum": scale}
        made = emitter(pred[[CONTROL, *names]], **asked)
        return evaluate(pred, real).assign(des=compare(digest(made), known)["des"])

    return measure


def halves(
    cells: anndata.AnnData, *, n_halvings: int = 5, seed: int = 0
) -> list[tuple[anndata.AnnData, anndata.AnnData]]:
    """Return two pseudobulks per :func:`split_half`, for :func:`~.evaluation.ceiling`."""
    splits = (split_half(cells, seed=seed + number) for number in range(n_halvings))
    return [tuple(pseudobulk(half) for half in pair) for pair in splits]
