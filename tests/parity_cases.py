"""Seeded pairs of predicted and real cells, and the official scorer to hold ours against.

The pairs are small and awkward on purpose: every option below has decided a score somewhere.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import replace
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from vcc_helpers import datasets, lognorm, metrics, scoring
from vcc_helpers.scoring.card import REPLICATE, ScoreCard, together

CONTROL, KEY = "non-targeting", "target_gene"
OFFICIAL = {
    "des": "overlap_at_N",
    "pds": "discrimination_score_l1",
    "mae": "mae",
    "deg_count_spearman": "de_spearman_sig",
    "lfc_spearman": "de_spearman_lfc_sig",
    "pr_auc": "pr_auc",
    "pearson_delta": "pearson_delta",
}


class Case(NamedTuple):
    name: str
    pred: anndata.AnnData
    real: anndata.AnnData


def _names(rng, n_perts: int, genes: np.ndarray) -> np.ndarray:
    """Targets: genes of the panel, names that are no genes, and labels that look like numbers."""
    pool = np.concatenate([rng.permutation(genes), [f"not-a-gene {i}" for i in range(n_perts)]])
    numbers = np.array([str(i) for i in range(10, 10 + n_perts)])
    share = rng.choice([0.0, 0.3])
    pick = np.concatenate([pool[: int(n_perts * (1 - share))], numbers])[:n_perts]
    return pick if rng.random() < 0.7 else np.concatenate([pick[:-1], ["not-a-gene X"]])


def _counts(rng, labels, names, genes, *, effect, basal) -> np.ndarray:
    depth = rng.lognormal(0, 0.3, len(labels))[:, None]
    row = pd.Index(names).get_indexer(labels)
    mean = basal * np.where(row[:, None] >= 0, effect[row], 1.0) * depth
    return rng.negative_binomial(5, 5 / (5 + np.maximum(mean, 1e-12)))


def _store(rng, counts: np.ndarray, labels, genes, *, only_counts=False) -> anndata.AnnData:
    """Counts or lognorm, in one of several precisions and layouts."""
    obs = pd.DataFrame({KEY: labels}, index=[f"c{i}" for i in range(len(labels))])
    if not only_counts and rng.random() < 0.5:
        obs[KEY] = pd.Categorical(labels, categories=sorted({*labels, "label no cell bears"}))
    dtype = rng.choice(["float32", "float64", "int32"])
    var = pd.DataFrame(index=pd.Index(genes, dtype=object))
    cells = anndata.AnnData(counts.astype(dtype), obs=obs, var=var)
    if not only_counts and rng.random() < 0.5:  # log values: as we make them, or of another scale
        cells.X = lognorm(cells, target_sum=rng.choice([None, 1e4]))
    layout = rng.choice(["dense", "csr", "csc"])
    if layout != "dense":
        cells.X = sparse.csr_matrix(cells.X).asformat(layout)
    return cells[rng.permutation(cells.n_obs)].copy() if rng.random() < 0.5 else cells


def random_case(seed: int) -> Case:
    """Draw a pair of files, each of its own scale, precision, layout and row order."""
    rng = np.random.default_rng(seed)
    n_genes, n_perts = int(rng.integers(20, 120)), int(rng.integers(2, 25))
    genes = np.array([f"G{i}" for i in range(n_genes)])
    names = np.unique(_names(rng, n_perts, genes))
    basal = rng.gamma(0.5, rng.choice([2.0, 20.0]), n_genes)
    basal[rng.random(n_genes) < 0.15] = 0  # silent in the controls; some appear when perturbed
    size = rng.choice([0.0, 0.3, 1.5], (len(names), 1))
    effect = np.exp(rng.normal(0, size, (len(names), n_genes)))
    effect[rng.random(effect.shape) < 0.05] = 0  # silent in one perturbation
    pair = []
    for _ in range(2):
        labels, counts = _draw(rng, names, genes, basal, effect, sizes=(1, 2, 3, 5, 8, 9, 20, 60))
        appears = rng.random((len(labels), n_genes)) < 0.5
        some = (basal == 0) & (labels[:, None] != CONTROL) & appears
        counts += np.where(some, rng.integers(1, 4), 0) * (rng.random(n_genes) < 0.6)
        counts[counts.sum(axis=1) == 0, 0] = 1  # the official tool treats empty cells by layout
        pair.append(_store(rng, counts, labels, genes))
    pred, real = pair
    if rng.random() < 0.25:
        pred = scoring.official_baseline(real)
    return Case(f"random {seed}", pred, real)


def _draw(rng, names, genes, basal, effect, *, sizes) -> tuple[np.ndarray, np.ndarray]:
    """Draw the labels of a file's cells and their counts."""
    n_cells = rng.choice(sizes, len(names))
    labels = np.repeat([*names, CONTROL], [*n_cells, rng.choice([3, 8, 9, 50, 150])])
    seen = effect * np.exp(rng.normal(0, 0.2, effect.shape))
    return labels, _counts(rng, labels, names, genes, effect=seen, basal=basal)


def real_cells() -> anndata.AnnData:
    """The bundled H1 cells, over their targets and every fourth gene: the scorers are slow."""
    cells = datasets.load_h1_sample()
    kept = cells.var_names.isin(cells.obs[KEY])
    kept[::4] = True
    return cells[:, kept].copy()


def official(case: Case) -> pd.DataFrame:
    """Score with cell-eval 0.6.6, index target_gene, a column a metric of the seven."""
    from cell_eval import MetricsEvaluator
    from cell_eval.metrics import metrics_registry

    pair = {"adata_pred": case.pred.copy(), "adata_real": case.real.copy()}
    kw = {"control_pert": CONTROL, "pert_col": KEY, "num_threads": 1, "batch_size": 100_000}
    others = sorted(set(metrics_registry.list_metrics()) - set(OFFICIAL.values()))
    quiet = contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, quiet, _silent_logs():
        evaluator = MetricsEvaluator(**pair, **kw, outdir=folder)
        result, _ = evaluator.compute(
            profile="full", skip_metrics=others, write_csv=False, break_on_error=True
        )
    columns = {n: result[o] if o in result.columns else np.nan for n, o in OFFICIAL.items()}
    table = pd.DataFrame({n: np.asarray(v, float) for n, v in columns.items()})
    table.index = pd.Index(result["perturbation"].to_list(), name=KEY)
    return table.sort_index()


@contextlib.contextmanager
def _silent_logs():
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def tie_range(case: Case) -> pd.DataFrame:
    """Return the lowest and highest DES that any order of equal fold changes could give.

    The official tool sorts more than 20 called genes with an unstable sort, whose order of ties
    changes with the version and the number of threads of the library that sorts.
    """
    pred, real = (scoring.digest(cells).de for cells in (case.pred, case.real))
    rows = {}
    for i, name in enumerate(real.perturbations):
        truth, called = real.significant[i], pred.significant[i]
        size, k = np.abs(pred.log2_fold_change[i]), int(truth.sum())
        if called.sum() <= max(k, 20) or k == 0:
            rows[name] = (np.nan, np.nan)  # nothing is cut, or the official sort is stable
            continue
        edge = np.sort(size[called])[::-1][k - 1]
        inside, tied = called & (size > edge), called & (size == edge)
        places, hits = k - inside.sum(), (tied & truth).sum()
        low, high = max(0, places - (tied & ~truth).sum()), min(places, hits)
        rows[name] = tuple((np.array([low, high]) + (inside & truth).sum()) / k)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])


def gap_of(mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Absolute difference; both without a value is none, one of them without an infinite one."""
    if list(mine.index) != list(theirs.index):
        raise AssertionError(f"other perturbations: {list(mine.index)}, {list(theirs.index)}")
    return (mine - theirs).abs().mask(mine.isna() ^ theirs.isna(), np.inf).fillna(0.0)


def difference(case: Case) -> pd.DataFrame:
    """Absolute difference from cell-eval; of DES from :func:`tie_range` where ``open_tie``."""
    mine, theirs = (
        scoring.score(case.pred, case.real, "vcc2025-generalist").per_perturbation,
        official(case),
    )
    gap, ties = gap_of(mine, theirs), tie_range(case).reindex(mine.index)
    open_tie = (ties["high"] > ties["low"]) & (gap["des"] > 0)
    outside = np.maximum(ties["low"] - theirs["des"], theirs["des"] - ties["high"]).clip(lower=0)
    gap.loc[open_tie, "des"] = outside[open_tie]
    return gap.assign(open_tie=open_tie)


OFFICIAL_2026 = {
    "pds_cosine": "pds_cosine",
    "mse_normalized": "expr_mse_unbiased_capped_norm",
    "direction_fidelity": "de_wilcoxon_direction_fidelity_yield_raw",
    "direction_reach": "de_wilcoxon_direction_reach_raw",
    "significant_jaccard": "de_wilcoxon_sig_jaccard",
    "lfc_nmae": "de_wilcoxon_lfc_nmae",
}


def random_counts_case(seed: int) -> Case:
    """Draw a pair of files of counts, for the rules of 2026."""
    rng = np.random.default_rng([seed, 2026])
    n_genes, n_perts = int(rng.integers(30, 120)), int(rng.integers(2, 25))
    genes = np.array([f"G{i}" for i in rng.permutation(n_genes)])
    names = np.unique([genes[0], *_names(rng, n_perts, genes)])
    basal = rng.gamma(0.5, rng.choice([2.0, 20.0]), n_genes)
    basal[rng.random(n_genes) < 0.15] = 0
    basal[0] = 50  # at least one target is a gene that is tested
    if rng.random() < 0.4:  # one gene has nearly all counts, and the others few per million
        basal[rng.integers(1, n_genes)] = 3e5
    size = rng.choice([0.0, 0.3, 1.5], (len(names), 1))
    size[0] = 2.5  # else the official tool finds no effect in the whole panel, and gives up
    effect = np.exp(rng.normal(0, size, (len(names), n_genes)))
    pair = []
    for _ in range(2):
        labels, counts = _draw(rng, names, genes, basal, effect, sizes=(2, 3, 5, 8, 9, 20, 60))
        counts[counts.sum(axis=1) == 0, 0] = 1
        pair.append(_store(rng, _within_limit(counts), labels, genes, only_counts=True))
    pred, real = pair
    return Case(f"random counts {seed}", _distort(rng, pred, real), real)


def _within_limit(counts: np.ndarray) -> np.ndarray:
    """Thin cells of more than a million counts."""
    return counts // np.ceil(counts.sum(axis=1, keepdims=True) / 9e5).astype(counts.dtype)


def _distort(rng, pred: anndata.AnnData, real: anndata.AnnData) -> anndata.AnnData:
    how = rng.choice(["as it is", "one profile", "control", "copies", "large", "no controls"])
    values = pred.X.toarray() if sparse.issparse(pred.X) else np.array(pred.X)
    is_control = (pred.obs[KEY] == CONTROL).to_numpy()
    if how == "one profile":
        values[~is_control] = values[np.flatnonzero(~is_control)[0]]
    if how == "control":  # exactly no change: every distance is 1
        controls = real[real.obs[KEY] == CONTROL]
        names = sorted({*real.obs[KEY]} - {CONTROL})
        return anndata.concat({name: controls for name in [*names, CONTROL]}, label=KEY)
    if how == "copies":
        for name in set(pred.obs[KEY]) - {CONTROL}:
            rows = np.flatnonzero(pred.obs[KEY] == name)
            values[rows] = values[rows[0]]
    if how == "large":
        values[~is_control, :5] *= 30
    pred.X = _within_limit(values)
    return pred[~is_control].copy() if how == "no controls" else pred


def random_contexts_case(seed: int) -> Case:
    """Draw two files with several contexts, each with targets of its own, in any order.

    Within a context the cells keep their order: where nothing changed at all, the last digit of a
    sum decides in which direction a gene goes.
    """
    rng = np.random.default_rng([seed, 3])
    names = rng.permutation(["A", "B", "C", "K562", "mean"])[: rng.integers(2, 5)]
    cases = [random_counts_case(int(rng.integers(2**31))) for _ in names]
    how = {"label": "context", "keys": names, "index_unique": "-", "join": "outer", "fill_value": 0}
    pair = []
    for parts in ([case.pred for case in cases], [case.real for case in cases]):
        cells = anndata.concat(parts, **how)
        where = np.argsort(rng.permutation(pd.factorize(cells.obs["context"])[0]), kind="stable")
        cells = cells[np.argsort(where), np.sort(cells.var_names)].copy()
        cells.X = sparse.csr_matrix(cells.X).asformat(rng.choice(["csr", "csc"]))
        pair.append(cells)
    return Case(f"random contexts {seed}", *pair)


def difference_of_contexts(case: Case) -> pd.DataFrame:
    """Absolute difference from cell-eval2 on each context alone, index context and perturbation.

    The last row is the overall score, the mean over contexts, for a baseline and a replicate that
    are drawn at random: those of so few cells are seldom apart.
    """
    card, rng = scoring.score(case.pred, case.real, "vcc2026"), np.random.default_rng(0)
    gaps, overall, bases = {}, [], {}
    for name, mine in card.contexts.items():
        parts = (cells[cells.obs["context"] == name].copy() for cells in (case.pred, case.real))
        table, means = official_2026(Case(name, *parts))
        ours = pd.concat([mine.per_perturbation, mine.summary.to_frame("mean").T])
        gaps[name] = gap_of(ours, pd.concat([table, means.to_frame("mean").T]))
        bases[name] = base = _drawn_scale(rng, mine)
        top = base.anchors.iloc[0]
        scaled = [scaled_2026(m, means[m], base.summary[m], top[m]) for m in top.index]
        overall.append(100 * np.mean(scaled))
    gap = abs(card.overall(together(bases)) - np.mean(overall))
    return pd.concat([pd.concat(gaps), pd.DataFrame(gap, [("", "overall")], list(OFFICIAL_2026))])


def _drawn_scale(rng, card: ScoreCard) -> ScoreCard:
    """Return a baseline for a card, with a replicate that is better on every metric."""
    table, ends = card.per_perturbation.copy(), np.sort(rng.random((2, len(OFFICIAL_2026))), axis=0)
    up = np.array([metrics.BEST[name] == 1 for name in OFFICIAL_2026])
    table[:] = np.where(up, *ends)
    top = pd.DataFrame([np.where(up, *ends[::-1])], [REPLICATE], list(table))
    return ScoreCard("vcc2026", table, anchors=top)


def official_2026(case: Case) -> tuple[pd.DataFrame, pd.Series]:
    """Score with cell-eval2 0.20.0: a table, index target_gene, and the means."""
    from cell_eval2.run import aggregate_metrics, compute_metrics

    pred, controls = case.pred, case.real[case.real.obs[KEY] == CONTROL]
    if not (pred.obs[KEY] == CONTROL).any():  # the contest adds the real ones to what is handed in
        pred = anndata.concat([pred, controls])
    with _silent_logs():
        rows = compute_metrics(pred.copy(), case.real.copy(), config=_config_2026())
        means = dict(aggregate_metrics(rows).select("metric", "mean").iter_rows())
    table = rows.to_pandas().pivot(index="perturbation", columns="metric", values="value")
    for name in OFFICIAL_2026.values():
        if name not in table:
            table[name] = means.get(name, np.nan)
    table = table[list(OFFICIAL_2026.values())].set_axis(list(OFFICIAL_2026), axis=1)
    summary = pd.Series({mine: means.get(theirs) for mine, theirs in OFFICIAL_2026.items()})
    return table.astype(float).rename_axis(KEY).sort_index(), summary.astype(float)


def _config_2026():
    from cell_eval2.config import EvalConfig

    config = EvalConfig.from_preset("vcc2026")
    de = replace(config.de, backend="scanpy")  # the one that runs without a graphics card
    return replace(config, pert_col=KEY, device="cpu", de=de)


def official_baseline_2026(real: anndata.AnnData) -> pd.Series:
    """Means of the baseline that cell-eval2 makes of `real`, and scores."""
    from cell_eval2.baseline import build_generic_baseline

    with _silent_logs():
        made = build_generic_baseline(real.copy(), config=_config_2026(), allow_degenerate=True)
    row = made.agg.to_pandas().set_index("statistic").loc["mean"]
    return pd.Series({mine: row[theirs] for mine, theirs in OFFICIAL_2026.items()}, dtype=float)


def official_replicates(real: anndata.AnnData, seed: int) -> pd.DataFrame:
    """Means of the halves that cell-eval2 makes of `real`, a row a split."""
    from cell_eval2.anchor import compute_replicate_anchor

    with _silent_logs():
        splits, _ = compute_replicate_anchor(real.copy(), config=_config_2026(), base_seed=seed)
    table = splits.to_pandas().pivot(index="split_index", columns="metric", values="value")
    table.index = splits.to_pandas().drop_duplicates("split_index")["seed"]
    return table[list(OFFICIAL_2026.values())].set_axis(list(OFFICIAL_2026), axis=1)


def scaled_2026(name: str, value: float, baseline: float, replicate: float) -> float:
    """Scale a mean with cell-eval2: 0 is the baseline, 1 the replicate."""
    from cell_eval2.catalog import CATALOG
    from cell_eval2.scoring import score_one

    policy = CATALOG[OFFICIAL_2026[name]].scoring
    policy = replace(policy, anchor=float(replicate), allow_negative_baseline=False)
    return score_one(float(value), float(baseline), policy)


def difference_2026(case: Case) -> pd.DataFrame:
    """Absolute difference from cell-eval2, as :func:`gap_of`, the means in a last row."""
    card = scoring.score(case.pred, case.real, "vcc2026")
    table, means = official_2026(case)
    mine = pd.concat([card.per_perturbation, card.summary.to_frame("mean").T])
    return gap_of(mine, pd.concat([table, means.to_frame("mean").T]))
