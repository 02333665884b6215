"""Score a prediction as the leaderboard does, with baseline, chance and ceiling beside it.

Taught in: notebooks/08_metrics_by_hand and notebooks/09_first_submission.
Needs: cells.py, contrast.py, de.py, effects.py, emit.py, files.py, metrics.py, presets.py and what
these need.

>>> import vcc_helpers as vcc
>>> cells = vcc.datasets.load_h1_sample()
>>> score(cells, cells).summary.to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import fsum
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from . import metrics
from .cells import (
    CONTROL,
    PERTURBATION_KEY,
    check_cells,
    check_same,
    inspect_values,
    labels_of,
    open_cells,
    parse_memory,
    problems,
    row_blocks,
    take_cells,
)
from .contrast import Question, contrast
from .de import DETable, de_of_contrast, de_of_counts
from .effects import (
    Scaling,
    control_row,
    lognorm_blocks,
    pseudobulk,
    pseudobulk_of_blocks,
    stack_blocks,
)
from .emit import negative_binomial, replicate, resample_and_shift
from .files import write_whole
from .presets import PRESETS, VCC2025, VCC2026, Preset, get_preset

#: Perturbations that a notebook shows of each end of a long score card.
SHOWN = 5


@dataclass(frozen=True)
class ScoreCard:
    """The result of scoring one prediction.

    Attributes
    ----------
    preset
        Name of the rules.
    per_perturbation
        Index target_gene, sorted; one column a metric. NaN where a metric has no value for a
        perturbation; a metric of the whole panel has the same number in each row.
    settings
        What the numbers depend on besides the data.
    anchors
        What to hold the means against, from :func:`anchors`, where it was asked for.
    """

    preset: str
    per_perturbation: pd.DataFrame
    settings: Mapping[str, object] = field(default_factory=dict)
    anchors: pd.DataFrame | None = None

    @property
    def summary(self) -> pd.Series:
        """Mean of each metric over the perturbations that have a value, index metric, float64."""
        # fsum, so that the order of the perturbations does not show in the last digit
        known = {name: values.dropna() for name, values in self.per_perturbation.items()}
        means = {name: fsum(v) / len(v) if len(v) else np.nan for name, v in known.items()}
        return pd.Series(means, name="mean", dtype=np.float64).rename_axis("metric")

    def overall(self, baseline: ScoreCard) -> float:
        """Return the leaderboard's number: 0 is the baseline, 100 the best.

        Parameters
        ----------
        baseline
            The score card of the official mean baseline against the same truth. By the rules of
            2026, which take a repeat of the experiment for 100, from :func:`baseline`, which keeps
            the replicate's scores beside it.

        Raises
        ------
        ValueError
            The baseline was scored by other rules or on other perturbations; or it lacks the
            replicate that the rules want.
        """
        mine, theirs = self.per_perturbation.index, baseline.per_perturbation.index
        if baseline.preset != self.preset or set(mine) != set(theirs):
            raise ValueError(
                f"the baseline is of preset {baseline.preset!r} with {len(theirs)} perturbations, "
                f"this card of {self.preset!r} with {len(mine)}: score both against the same truth"
            )
        return metrics.overall(self.summary, baseline.summary, *baseline.scale)

    @property
    def scale(self) -> tuple[Mapping[str, float], Mapping[str, tuple[float, float]]]:
        """What is 1 where this card is 0, for each metric, and the limits of the scaled values.

        Raises
        ------
        ValueError
            The rules take a replicate for 1, and this card has none beside it, or one that is no
            better on some metric.
        """
        rules = PRESETS.get(self.preset, VCC2025)
        if rules.top == "perfect":
            return metrics.BEST, rules.limits
        if self.anchors is None or REPLICATE not in self.anchors.index:
            raise ValueError(
                f"the overall score of {rules.name} takes a repeat of the experiment for 100, and "
                "this baseline was scored without; make it with "
                f"scoring.baseline(real, {rules.name!r})"
            )
        top, mean = self.anchors.loc[REPLICATE], self.summary
        gain = {n: (top[n] - mean[n]) * (1 if metrics.BEST[n] else -1) for n in rules.limits}
        if bad := [name for name, by in gain.items() if not by > 0]:
            ends = ", ".join(f"{n} {top[n]:.3g} against {mean[n]:.3g}" for n in bad)
            raise ValueError(
                f"no scale: a repeat of the experiment is no better than the mean on {ends}; the "
                "truth needs more cells, or more perturbations with an effect"
            )
        return top, rules.limits

    def to_dict(self) -> dict:
        """Return the card as plain numbers and strings, in the layout of the JSON file.

        A value that there is not (a correlation over no gene) is None there, null in the file.
        """
        card = {
            "preset": self.preset,
            "n_perturbations": len(self.per_perturbation),
            "summary": _plain(self.summary.to_frame().T)["mean"],
            "per_perturbation": _plain(self.per_perturbation),
            "settings": dict(self.settings),
        }
        return card if self.anchors is None else card | {"anchors": _plain(self.anchors)}

    def to_json(self, path: str | Path) -> None:
        """Write the card to a file, whole or not at all.

        Parameters
        ----------
        path
            File to write; one that exists is replaced.
        """
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | Path) -> ScoreCard:
        """Read a card that :meth:`to_json` or ``vcc score --json`` wrote.

        Parameters
        ----------
        path
            File to read.

        Raises
        ------
        ValueError
            The file is no score card.
        """
        try:
            card = json.loads(Path(path).read_text(encoding="utf-8"))
            table = _table(card["per_perturbation"], "target_gene")
            beside = _table(card["anchors"], "anchor") if "anchors" in card else None
            return cls(card["preset"], table, card["settings"], beside)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a score card ({error!r}); expected a file that vcc score --json "
                "wrote"
            ) from error

    def __repr__(self) -> str:
        """Show the means, how many perturbations they are over, and what stands beside them."""
        head = f"ScoreCard {self.preset}, {len(self.per_perturbation)} perturbations (mean)"
        if self.anchors is not None:
            return f"{head}\n{self._beside().to_string(float_format='{:.4f}'.format, na_rep='')}"
        width = max(5, *(len(name) + 1 for name in self.per_perturbation))
        lines = [f"  {name:<{width}}{value:8.4f}" for name, value in self.summary.items()]
        return "\n".join([head, *lines])

    def _beside(self) -> pd.DataFrame:
        mean = self.summary.to_frame().T.set_axis(["this prediction"])
        return mean if self.anchors is None else pd.concat([mean, self.anchors])

    def _repr_html_(self) -> str:
        first = next((n for n in self.per_perturbation if n.startswith("pds")), None)
        rows = self.per_perturbation.sort_values(first) if first else self.per_perturbation
        shown = "each perturbation"
        if len(rows) > 2 * SHOWN:
            shown = f"{SHOWN} perturbations from each end of {len(rows)}: per_perturbation has all"
            rows = pd.concat([rows[:SHOWN], rows[-SHOWN:]])
        body = pd.concat([self._beside(), rows]).to_html(float_format="{:.3f}".format, na_rep="")
        return f"<p><b>Score card</b>, {self.preset}, mean and {shown}</p>{body}"


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    rows = table.astype(object).where(table.notna(), None)
    return rows.to_dict(orient="index")


def _table(rows: Mapping[str, Mapping], name: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict(dict(rows), orient="index").astype(np.float64).rename_axis(name)


class Digest(NamedTuple):
    """What scoring needs of a file: its pseudobulk, and its differential expression.

    Attributes
    ----------
    bulk
        Pseudobulk, ``(1 + n_perts, n_genes)``, mean lognorm; by the rules of 2026 log1p of scaled
        sums of counts, and ``obs["sampling"]`` holds the sampling variance, summed over genes.
    de
        Differential expression of each perturbation against the file's own controls; in 2026
        against the real ones.
    """

    bulk: anndata.AnnData
    de: DETable


def score(
    pred: anndata.AnnData | str | Path,
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
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

    Parameters
    ----------
    pred, real
        Cells with controls, ``(n_pred_cells, n_genes)`` and ``(n_real_cells, n_genes)``, or paths
        of ``.h5ad`` or ``.zarr`` files, each read once; dense, CSR, CSC, a view or backed; counts
        or lognorm, each on its own. The same genes in the same order, and the same perturbations.
    preset
        The rules, by name or as a record.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.
    memory, threads, cache, client, progress
        Most memory to use, number of threads, a folder for what is finished (the truth's half is
        then there for the next prediction), a Dask cluster, progress bars: as for
        :func:`~vcc_helpers.contrast.contrast`. None changes a bit of the result.
    ceiling
        Put chance, the mean baseline, the split-half ceiling and perfect predictions beside the
        result: :func:`anchors`, in the card's `anchors`.

    Returns
    -------
    ScoreCard
        One row a perturbation, one column a metric.

    Raises
    ------
    ValueError
        A file is unusable, or the two do not match; every problem has a line of its own.
    FileNotFoundError
        There is no such file.

    Notes
    -----
    With ``"vcc2025"``, equal to cell-eval 0.6.6 with pdex 0.1.27; with ``"vcc2026"`` to cell-eval2
    0.20.0. That takes counts only, and the controls of `real` for both sides: those of `pred` are
    not looked at, and may be missing.

    Taught in: notebooks/08_metrics_by_hand.
    """
    rules = get_preset(preset)
    _check_pair(open_cells(pred), open_cells(real), perturbation_key, control, rules)
    question = {"perturbation_key": perturbation_key, "control": control}
    means = {"memory": memory, "threads": threads, "cache": cache, "client": client}
    halves = [
        digest(cells, rules, name=name, controls=controls, progress=progress, **question, **means)
        for name, cells, controls in (
            ("pred", pred, real if rules.real_controls else None),
            ("real", real, None),
        )
    ]
    beside = None
    if ceiling:
        beside = anchors(real, rules, **question, memory=memory, threads=threads, cache=cache)
    settings = question | {"source": rules.source}
    return ScoreCard(rules.name, compare(*halves, rules, control=control), settings, beside)


def _check_pair(pred, real, perturbation_key: str, control: str, rules: Preset) -> None:
    key = {"perturbation_key": perturbation_key}
    found = problems(pred, name="pred", **key, control=None if rules.real_controls else control)
    found += problems(real, name="real", **key, control=control)
    if found:
        raise ValueError("\n".join(found))
    check_same(pred, real, **key, besides=control if rules.real_controls else None)
    targets = labels_of(real, perturbation_key).unique()
    if rules.leave_out_own_gene and not targets.isin(real.var_names).any():
        raise ValueError(
            f"real: none of the {len(targets) - 1} perturbations is named after a gene, the first "
            f"is {min(targets[targets != control])!r}, the first gene {real.var_names[0]!r}; "
            f"{rules.name} leaves the silenced genes out: label cells by gene symbol"
        )
    if rules.leave_out_own_gene and real.var_names.isin(targets).all():
        raise ValueError(
            f"real: each of the {real.n_vars} genes is a target, and {rules.name} leaves the genes "
            "of all targets out, so that none is left to compare; give cells with more genes"
        )


def digest(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    name: str = "cells",
    **settings,
) -> Digest:
    """Reduce a file to what scoring needs of it.

    Parameters
    ----------
    cells
        Counts or lognorm, ``(n_cells, n_genes)``, or a path.
    preset
        The rules, by name or as a record.
    name
        What messages call this file.
    **settings
        perturbation_key, control, memory, threads, cache, client, progress: as for :func:`score`;
        controls: as for :func:`~vcc_helpers.contrast.contrast`.

    Returns
    -------
    Digest
        Pseudobulk and differential expression.

    Notes
    -----
    Taught in: notebooks/08_metrics_by_hand.
    """
    rules = get_preset(preset)
    asked = {name: getattr(rules, name) for name in Question._fields}
    found = contrast(cells, name=name, question=Question(**asked), **settings)
    names = pd.Index(found.groups.astype(str))
    obs, var = pd.DataFrame({"n_cells": found.n_cells}, names), pd.DataFrame(index=found.genes)
    call = {"fdr": rules.fdr, "fdr_family": rules.fdr_family}
    if not rules.bulk_target_sum:
        bulk = anndata.AnnData(found.mean, obs, var, layers={"variance": found.variance})
        return Digest(bulk, de_of_contrast(found, clip=rules.fold_change_clip, **call))
    size = found.counts.sum(axis=1, keepdims=True)
    profile = np.log1p(rules.bulk_target_sum / np.where(size > 0, size, 1) * found.counts)
    obs["sampling"] = np.maximum(found.sampling.sum(axis=1), 0)
    call |= {"pseudocount": rules.pseudocount, "least_cpm": rules.least_cpm}
    return Digest(anndata.AnnData(profile, obs, var), de_of_counts(found, **call))


class _Pair(NamedTuple):
    """Two files, side by side: row i of every array is the same perturbation."""

    pred: DETable | None
    real: DETable | None
    names: pd.Index
    pred_mean: np.ndarray
    real_mean: np.ndarray
    pred_effect: np.ndarray
    real_effect: np.ndarray
    own_gene: np.ndarray
    sampled: Mapping[str, metrics.Sampled]
    genes: np.ndarray

    @property
    def calls(self) -> tuple[metrics.Calls, metrics.Calls]:
        """Predicted and real calls, without each perturbation's own gene."""
        return tuple(_calls(table, self.own_gene) for table in (self.pred, self.real))


def _calls(table: DETable, own_gene: np.ndarray) -> metrics.Calls:
    called, has = table.significant.copy(), np.flatnonzero(own_gene >= 0)
    called[has, own_gene[has]] = False
    return metrics.Calls(called, table.log2_fold_change, table.p_value, table.fdr)


#: How each metric is computed from two files; one number a perturbation, or one for all of them.
MEASURES: Mapping[str, Callable[[_Pair], np.ndarray | float]] = {
    "des": lambda p: metrics.des(p.pred.significant, p.pred.log2_fold_change, p.real.significant),
    "pds": lambda p: metrics.pds(p.pred_effect, p.real_effect, p.own_gene),
    "mae": lambda p: metrics.mae(p.pred_mean, p.real_mean),
    "deg_count_spearman": lambda p: metrics.deg_count_spearman(
        p.pred.significant, p.real.significant
    ),
    "lfc_spearman": lambda p: metrics.lfc_spearman(
        p.pred.fold_change, p.real.fold_change, p.real.significant
    ),
    "pr_auc": lambda p: metrics.pr_auc(p.pred.fdr, p.real.significant),
    "pearson_delta": lambda p: metrics.pearson_delta(p.pred_effect, p.real_effect),
    "pds_cosine": lambda p: metrics.pds_cosine(p.pred_effect, p.real_effect, p.own_gene),
    "mse_normalized": lambda p: metrics.mse_normalized(
        p.sampled["pred"], p.sampled["real"], control=p.sampled["control"], own_gene=p.own_gene
    ),
    "direction_fidelity": lambda p: metrics.direction_fidelity(*p.calls),
    "direction_reach": lambda p: metrics.direction_reach(*p.calls, p.genes),
    "significant_jaccard": lambda p: metrics.significant_jaccard(*(c.significant for c in p.calls)),
    "lfc_nmae": lambda p: metrics.lfc_nmae(
        p.pred.log2_fold_change, p.real.log2_fold_change, p.calls[1].significant
    ),
}


def compare(
    pred: Digest, real: Digest, preset: str | Preset = "vcc2025", *, control: str = CONTROL
) -> pd.DataFrame:
    """Compute every metric of a preset from two digests.

    Parameters
    ----------
    pred, real
        Digests over the same genes and perturbations.
    preset
        The rules, by name or as a record.
    control
        Name of the control's row.

    Returns
    -------
    DataFrame
        Index target_gene, sorted; the preset's metrics as columns. A metric of the whole panel
        (deg_count_spearman, mse_normalized) has the same number in each row.

    Notes
    -----
    Taught in: notebooks/08_metrics_by_hand.
    """
    pair = _side_by_side(pred.bulk, real.bulk, control)._replace(pred=pred.de, real=real.de)
    return _measured(pair, get_preset(preset).metrics)


def compare_pseudobulk(
    pred: anndata.AnnData,
    real: anndata.AnnData,
    names: Iterable[str] = ("pds", "mae"),
    *,
    control: str = CONTROL,
) -> pd.DataFrame:
    """Compute metrics that need no cells.

    Parameters
    ----------
    pred, real
        Pseudobulk with a control row each, ``(n_groups, n_genes)``, mean lognorm, over the same
        genes; perturbations of `real` that `pred` lacks are an error, others are ignored.
    names
        Which: pds, mae, pearson_delta.
    control
        Name of the control's row.

    Returns
    -------
    DataFrame
        Index target_gene, sorted; columns `names`.

    Raises
    ------
    KeyError
        A control row or a perturbation is missing.
    ValueError
        The genes differ.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    return _measured(_side_by_side(pred, real, control), names)


def _measured(pair: _Pair, names: Iterable[str]) -> pd.DataFrame:
    columns = {name: MEASURES[name](pair) for name in names}
    return pd.DataFrame(columns, index=pair.names, dtype=np.float64)


def _side_by_side(pred: anndata.AnnData, real: anndata.AnnData, control: str) -> _Pair:
    if not np.array_equal(pred.var_names, real.var_names):
        raise ValueError("pred and real must have the same genes in the same order")
    names = sorted(real.obs_names[real.obs_names != control])
    missing = sorted(set(names) - set(pred.obs_names))
    if missing:
        raise KeyError(f"pred has no row for {', '.join(map(repr, missing[:5]))}")
    mean = [b.X[b.obs_names.get_indexer(names)] for b in (pred, real)]
    effect = [m - control_row(b, control) for m, b in zip(mean, (pred, real), strict=True)]
    own_gene, genes = real.var_names.get_indexer(names), real.var_names.to_numpy()
    index = pd.Index(names, name="target_gene")
    sampled = {}
    if "sampling" in real.obs:
        rows = {"pred": (pred, names), "real": (real, names), "control": (real, [control])}
        for side, (bulk, some) in rows.items():
            place = bulk.obs_names.get_indexer(some)
            sampled[side] = metrics.Sampled(bulk.X[place], bulk.obs["sampling"].to_numpy()[place])
    return _Pair(None, None, index, *mean, *effect, own_gene, sampled, genes)


#: The value that a prediction expects which knows nothing, where there is a closed form.
CHANCE: Mapping[str, Callable[[_Pair], float]] = {
    "des": lambda p: float(p.real.significant.mean()),
    "pds": lambda p: metrics.pds_chance(len(p.names)),
    "deg_count_spearman": lambda p: 0.0,
    "lfc_spearman": lambda p: 0.0,
    "pr_auc": lambda p: float(np.nanmean(_share_where_some(p.real.significant))),
    "pds_cosine": lambda p: 0.5,
    "direction_fidelity": lambda p: 0.5,
}


def _share_where_some(significant: np.ndarray) -> np.ndarray:
    share = significant.mean(axis=1)
    return np.where((share > 0) & (share < 1), share, np.nan)


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
    real
        Real cells, ``(n_cells, n_genes)``, or the path of a file.
    preset
        The rules, by name or as a record.
    n_halvings
        How many times the cells are dealt into halves.
    seed
        Seed of the deals and of the resampled cells.
    perturbation_key, control, memory, **settings
        As for :func:`score`.

    Returns
    -------
    DataFrame
        Index anchor; a column a metric, means over perturbations. Rows:

        - *chance*: what a prediction that knows nothing expects, where there is a closed form:
          :func:`~vcc_helpers.metrics.pds_chance`; for des the share of genes that are significant,
          which a list drawn at random hits; for pr_auc that share where some but not all are; 0
          for rank correlations. NaN elsewhere;
        - *mean of these*: :func:`official_baseline` of these very cells;
        - *half against half* and its *sd*: the split-half ceiling over `n_halvings` deals;
        - *real cells*: a perfect prediction, the cells themselves;
        - *their means, replicated* and *their means, resampled*: perfect means, written as cells;
          by the rules of 2026 as counts, so *drawn* in place of resampled.

        Rows that need cells made, which are dense, are left out where these do not fit `memory`.

    Raises
    ------
    ValueError
        The cells are unusable; every problem is listed.

    Notes
    -----
    A perfect prediction has a DES below 1 where perturbations have no significant gene at all: the
    rules give these 0. Perfect means, replicated, lose more: cells without spread make nearly
    every gene significant, and then the largest fold changes are kept, which are not the surest
    ones. So no submission of replicated means can have a DES above that row's.

    Taught in: notebooks/08_metrics_by_hand.
    """
    rules, question = get_preset(preset), {"perturbation_key": perturbation_key, "control": control}
    means = question | {"memory": memory} | settings
    truth = digest(real, rules, name="real", **means)
    perfect = compare(truth, truth, rules, control=control)
    pair = _side_by_side(truth.bulk, truth.bulk, control)._replace(pred=truth.de, real=truth.de)
    deals = _deals(real, rules, n_halvings, seed, means)
    rows = {"chance": {name: CHANCE[name](pair) for name in rules.metrics if name in CHANCE}}
    if _dense_bytes(open_cells(real)) < parse_memory(memory):
        written = _written_as_counts if rules.counts_only else _written
        controls = real if rules.real_controls else None
        for name, pred in written(open_cells(real), truth.bulk, seed, **question):
            made = digest(pred, _lenient(rules), name=name, controls=controls, **means)
            rows[name] = compare(made, truth, rules, control=control).mean()
    rows[REPLICATE] = deals.mean()
    rows["half against half, sd"] = deals.std(ddof=1)
    rows["real cells"] = perfect.mean()
    order = [name for name in ANCHORS if name in rows]
    found = pd.DataFrame(rows, index=list(rules.metrics), dtype=np.float64).T
    return found.loc[order].rename_axis("anchor")


#: Name of the replicate's row.
REPLICATE = "half against half"
#: Counts of a cell that stands for a mean.
AS_MANY_COUNTS = 9e5
#: Rows of :func:`anchors`, in their order.
ANCHORS = (
    "chance",
    "mean of these",
    REPLICATE,
    "half against half, sd",
    "their means, resampled",
    "their means, drawn",
    "their means, replicated",
    "real cells",
)


def _deals(real, rules: Preset, n_halvings: int, seed: int, means: Mapping) -> pd.DataFrame:
    """Score halves against halves: by the rule of the season, where it has one."""
    if rules.top == "replicate":
        return replicates(real, rules, n_splits=n_halvings, seed=seed, **means)
    seeds = range(seed, seed + n_halvings)
    return pd.DataFrame([split_half_ceiling(real, rules, seed=s, **means).summary for s in seeds])


def _dense_bytes(cells) -> float:
    """Return what as many dense cells take, made and looked at."""
    return 8.0 * cells.n_obs * cells.n_vars


def _written(cells, bulk, seed: int, **question) -> Iterator[tuple[str, anndata.AnnData]]:
    """Yield the mean baseline and perfect means, written as cells."""
    yield "mean of these", official_baseline(cells, **question)
    is_control = labels_of(cells, question["perturbation_key"]) == question["control"]
    kw = question | {
        "controls": take_cells(cells, np.flatnonzero(is_control)),
        "n_cells": bulk.obs["n_cells"].drop(question["control"]),
        "target_sum": Scaling.of(inspect_values(cells)).target_sum,
    }
    yield "their means, resampled", resample_and_shift(bulk, seed=seed, **kw)
    yield "their means, replicated", replicate(bulk, **kw)


def _written_as_counts(cells, bulk, seed: int, **question):
    """Yield the mean baseline and perfect means, written as counts."""
    yield "mean of these", official_baseline(cells, VCC2026, seed=seed, **question)
    key, control = question["perturbation_key"], question["control"]
    labels = labels_of(cells, key)
    n_cells = bulk.obs["n_cells"].drop(control)
    kw = question | {"controls": take_cells(cells, np.flatnonzero(labels == control))}
    drawn = negative_binomial(
        pseudobulk(cells, perturbation_key=key), n_cells=n_cells, seed=seed, **kw
    )
    yield "their means, drawn", drawn
    share = np.expm1(bulk[n_cells.index].X)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    whole = np.rint(AS_MANY_COUNTS * share).astype(np.float32)  # so many that rounding is nothing
    rows = np.repeat(np.arange(len(whole)), n_cells)
    obs = pd.DataFrame({key: n_cells.index[rows]}, index=[f"pred_{i}" for i in range(len(rows))])
    yield "their means, replicated", anndata.AnnData(whole[rows], obs, cells.var.copy())


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
    cells
        Counts or lognorm, ``(n_cells, n_genes)``: the measured perturbations and controls.
    preset
        The rules, by name or as a record.
    n_cells
        Cells to make for each target; by default the targets and numbers of `cells`.
    seed
        Seed of the draw, where the rules want counts.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.

    Returns
    -------
    AnnData
        Shape ``(sum of n_cells + n_controls, n_genes)``: by the rules of 2025 lognorm, identical
        cells for all targets; by those of 2026 counts, which are not whole: control cells drawn at
        random, each gene scaled so that the mean is right. Then the controls of `cells`.

    Raises
    ------
    ValueError
        Labels, gene names or values are unusable; every problem is listed.

    Notes
    -----
    In 2025 the mean is over the groups' means, the control's row counted in as one group, as
    ``cell-eval baseline`` does it. In 2026 it is over the perturbations' mean counts, each without
    its own gene, as ``build_generic_baseline`` of cell-eval2 0.20.0 does it. Fractions are refused
    in a submission: :func:`baseline` scores this one.

    Taught in: notebooks/09_first_submission and notebooks/15_score_by_the_rules_of_2026.
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
    targets = pd.DataFrame(index=pd.Index(pd.Series(n_cells).index).drop(control, errors="ignore"))
    pred = anndata.AnnData(np.tile(mean, (len(targets), 1)), obs=targets, var=cells.var.copy())
    is_control = np.flatnonzero(labels == control)
    controls = anndata.AnnData(
        stack_blocks(blocks)[is_control], obs=cells.obs.iloc[is_control], var=cells.var
    )
    return replicate(
        pred, controls=controls, n_cells=n_cells, perturbation_key=perturbation_key, control=control
    )


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

    Where the rules take a repeat of the experiment for the 1, its scores are the card's `anchors`.

    Parameters
    ----------
    real
        Real cells, ``(n_cells, n_genes)``, or the path of a file.
    preset
        The rules, by name or as a record.
    **settings
        As for :func:`score`.

    Returns
    -------
    ScoreCard
        For ``card.overall(baseline)``.

    Notes
    -----
    By the rules of 2026 the fractions of :func:`official_baseline` are let pass, and the replicate
    is the mean of :func:`replicates`, which takes five times as long as the score.

    Taught in: notebooks/15_score_by_the_rules_of_2026.
    """
    rules = get_preset(preset)
    question = {n: v for n, v in settings.items() if n in ("perturbation_key", "control")}
    made = official_baseline(real, rules, **question)
    card = score(made, real, _lenient(rules), **settings)
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

    Parameters
    ----------
    real
        Real cells, ``(n_cells, n_genes)``, or the path of a file.
    preset
        The rules, by name or as a record.
    n_splits, seed
        How many splits, and the seed from which theirs come.
    perturbation_key, control, **settings
        As for :func:`score`.

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

    Taught in: notebooks/15_score_by_the_rules_of_2026.
    """
    rules = replace(get_preset(preset), real_controls=False)
    question = {"perturbation_key": perturbation_key, "control": control}
    cells, means = open_cells(real), {}
    whole = digest(cells, rules, **question, **settings) if "lfc_nmae" in rules.metrics else None
    for split in np.random.SeedSequence(seed).generate_state(n_splits):
        first, other = (
            digest(half, rules, **question, **settings)
            for half in _disjoint_halves(cells, perturbation_key, int(split))
        )
        table = compare(other, first, rules, control=control)
        if whole:
            table["lfc_nmae"] = _change_between(first, other, whole, control)
        means[int(split)] = ScoreCard(rules.name, table).summary
    return pd.DataFrame(means).T.rename_axis("seed")


def _disjoint_halves(cells: anndata.AnnData, key: str, seed: int) -> Iterator[anndata.AnnData]:
    """Deal each group's cells into halves of equal size, an odd one left out."""
    rng, halves = np.random.default_rng(seed), ([], [])
    for rows in cells.obs.groupby(key, observed=True).indices.values():
        shuffled, half = rng.permutation(rows), len(rows) // 2
        halves[0].append(shuffled[:half])
        halves[1].append(shuffled[half : 2 * half])
    return (cells[np.sort(np.concatenate(half))] for half in halves)


def _change_between(first: Digest, other: Digest, whole: Digest, control: str) -> np.ndarray:
    """Return the error of fold changes between halves, over the genes that all cells call."""
    own = _side_by_side(whole.bulk, whole.bulk, control).own_gene
    called, size = _calls(whole.de, own).significant, whole.de.log2_fold_change
    halves = (np.nan_to_num(half.de.log2_fold_change) for half in (first, other))
    return metrics.lfc_nmae(size + np.subtract(*halves), size, called)


def split_half(
    cells: anndata.AnnData,
    *,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Deal the cells of every group at random into two halves.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``; at least two cells in every group.
    seed
        Seed of the draw.
    perturbation_key
        The column of ``obs`` to group by.

    Returns
    -------
    tuple of AnnData
        Two views, sizes equal to within one cell a group.

    Raises
    ------
    ValueError
        A group has one cell only.

    Notes
    -----
    Scoring one half against the other shows what a repeat of the experiment, with half of the
    cells, would score: a ceiling for honest predictions, though not a hard limit.

    Taught in: notebooks/04_mean_baseline.
    """
    rng = np.random.default_rng(seed)
    groups = pd.Series(np.arange(cells.n_obs)).groupby(labels_of(cells, perturbation_key))
    halves: tuple[list, list] = ([], [])
    for name, rows in groups:
        if len(rows) < 2:
            raise ValueError(f"{name!r} has one cell only; a split needs two in every group")
        shuffled = rng.permutation(rows.to_numpy())
        halves[0].append(shuffled[::2])
        halves[1].append(shuffled[1::2])
    return tuple(cells[np.sort(np.concatenate(half))] for half in halves)


def split_half_ceiling(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    **settings,
) -> ScoreCard:
    """Score one half of the real cells as a prediction of the other.

    Parameters
    ----------
    cells
        Real cells, ``(n_cells, n_genes)``, or the path of a file.
    seed
        Seed of the split.
    preset, perturbation_key, **settings
        As for :func:`score`.

    Returns
    -------
    ScoreCard
        What a repeat of the experiment with half of the cells would score.

    Notes
    -----
    Taught in: notebooks/08_metrics_by_hand.
    """
    halves = split_half(open_cells(cells), seed=seed, perturbation_key=perturbation_key)
    return score(*halves, preset, perturbation_key=perturbation_key, **settings)
