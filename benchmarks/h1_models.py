"""Every model of the book on real H1 effects, by repeated cross-validation.

    python benchmarks/h1_models.py PSEUDOBULK.h5ad --counts COUNTS.csv --annotation GO.npz

PSEUDOBULK.h5ad is what `vcc-helpers pseudobulk` writes: mean and variance of each perturbation and
the control. COUNTS.csv is the list of targets that the contest publishes beforehand, with their
numbers of cells and median depths (`vcc-helpers fetch train_counts`). GO.npz holds a feature table
of genes, as `vcc_helpers.features.embedding` reads it. Each model learns from four fifths of the
targets and predicts the others, ten times over with other folds; nothing of a held-out target is
used but its name and, where a model says so, its published number of cells and depth. The models
called "true size" are no models: they are told the size of the effect that they predict.

Writes benchmarks/results/h1_models.json, which the book shows.
"""

import argparse
import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from vcc_helpers import evaluation, features, intervals, models, splits
from vcc_helpers.bulk import CONTROL, FallbackWarning, effect_strength, effects

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "h1_models.json"

METRICS = ("pds", "pds_cosine", "mae", "pearson")
BEST, KERNEL_MEDIAN = "several likenesses, stretched", "kernel median"
#: Kappa of the kernel median where it is not chosen, and how many times its own size an effect has.
KAPPAS, TIMES = (0, 1, 2, 4, 8), (1, 2)


def all_models(counts, annotation):
    """Models of the book, with the settings that the package gives them."""
    annotation = annotation[annotation.index.isin(counts.index)]
    named = {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "median": models.median_baseline(),
        "mean, own gene silenced": models.crispr_mean(),
        "bilinear": models.linear_baseline(),
        "kNN": models.knn_baseline(annotation, 3),
        "kNN, shrunken": models.knn_baseline(annotation, 5, shrinkage=0.7),
        "ridge": models.ridge(annotation, alpha=10),
        "kernel ridge": models.kernel_ridge(annotation),
        BEST: models.several_likenesses(annotation, counts),
        "the same without cells and depth": models.several_likenesses(annotation),
        KERNEL_MEDIAN: models.kernel_median(annotation, counts),
    }
    for name, model in named.items():
        if "ridge" in name or "kNN" in name:
            model.set_params(fallback="mean")  # a gene without annotation gets the mean
    return named | {"bilinear, 16 times": models.linear_baseline().set_params(scale=16)}


def sizes_alone(bulk, counts, annotation):
    """Predictions that know of a target how large its effect is, and no direction of its own."""
    effect = effects(bulk)
    truth = pd.DataFrame({"size": np.abs(effect.X).mean(axis=1)}, effect.obs_names)
    known = {
        "true size": truth,
        "size from cells and depth": counts[["n_cells", "median_umi_per_cell"]],
        "size from cells": counts[["n_cells"]],
    }
    named = {}
    for name, table in known.items():
        named |= {f"{name}, {times} times": SizeAlone(table, times) for times in TIMES}
    for kappa in KAPPAS:
        model = models.kernel_median(annotation, counts)
        kernel_median = models.KernelMedian("precomputed", sizes=[kappa])
        named[f"kappa {kappa}"] = model.set_params(model__regressor=kernel_median)
    return named


class SizeAlone(models.BulkModel):
    """The mean effect's direction for every target, as large as its numbers say.

    The logarithm of the size, the mean absolute effect, is a linear function of the logarithms of
    `numbers`, learnt from the training targets.
    """

    def __init__(self, numbers, times=1):
        self.numbers, self.times = numbers, times

    def _learn(self, targets, effect, bulk):
        mean, size = effect.mean(axis=0), np.abs(effect).mean(axis=1)
        self.direction_ = mean / np.abs(mean).mean()
        self.line_ = LinearRegression().fit(np.log(self.numbers.loc[targets]), np.log(size))

    def _effect(self, targets):
        size = np.exp(self.line_.predict(np.log(self.numbers.loc[targets])))
        return self.times * size[:, None] * self.direction_


# Measuring


def measure(pred, real):
    """Scores of each target; what giving the predictions away at random would score; sizes."""
    by_chance = evaluation.dealt(pred, real)
    size = np.abs(effects(pred).to_df()).mean(axis=1)
    return evaluation.evaluate(pred, real).assign(
        dealt_mean=by_chance.mean, dealt_variance=by_chance.sd**2, size=size
    )


def run(bulk, named, *, n_repeats, n_splits):
    one = partial(one_repeat, bulk, named, n_splits)
    workers = {"initializer": threadpool_limits, "initargs": (1,)}
    with ProcessPoolExecutor(min(n_repeats, os.cpu_count()), **workers) as pool:
        return pd.concat(pool.map(one, range(n_repeats)), ignore_index=True)


def one_repeat(bulk, named, n_splits, seed):
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    folds = splits.k_fold(targets, n_splits=n_splits, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # the result names these targets
        table = evaluation.repeated(named, bulk, folds, measure=measure)
    return table.assign(split=table["split"] + n_splits * seed, repeat=seed)


def summary(table, bulk):
    """Mean of each metric with its interval, and what it is next to chance and the baselines."""
    scores = table[table["metric"].isin(METRICS)]
    found = {
        "scores": intervals.interval(scores),
        "minus no change": intervals.compare(scores, "no change"),
        "minus mean": intervals.compare(scores, "mean"),
        "dealt": dealt_at_random(table),
        "by repeat": scores.groupby(["model", "metric", "repeat"])["value"].mean().unstack(),
        "by strength": strata(scores, bulk),
        "largest gains": largest_gains(scores),
    }
    return {name: as_records(part) for name, part in found.items()}


def dealt_at_random(table):
    """PDS of each repeat, and of the same predictions given away at random, in their sd."""
    by_fold = table.pivot_table("value", ["model", "repeat", "split"], "metric")
    n_folds = by_fold.groupby(["model", "repeat"]).size()
    by_repeat = by_fold.groupby(["model", "repeat"]).mean()
    sd = np.sqrt(by_repeat["dealt_variance"] / n_folds)
    rows = by_repeat.assign(dealt_sd=sd, sds=(by_repeat["pds"] - by_repeat["dealt_mean"]) / sd)
    return rows.groupby("model", sort=False)[["pds", "dealt_mean", "dealt_sd", "sds"]].mean()


def largest_gains(scores, n_targets=8):
    """Targets whose PDS the best model lifts most over that of no change."""
    pds = scores[scores["metric"] == "pds"]
    by_target = pds.pivot_table("value", "target_gene", "model")
    return (by_target[BEST] - by_target["no change"]).nlargest(n_targets).rename("gain").to_frame()


def strata(scores, bulk):
    strength = effect_strength(bulk)["norm"]
    part = intervals.by_stratum(scores, strength, n_strata=4)
    part["stratum"] = part["stratum"].astype(str)
    return intervals.interval(part, by=("model", "metric", "stratum"))


def as_records(table):
    table = table.rename(columns=str).reset_index()
    return json.loads(table.to_json(orient="records", double_precision=6))


def of_sizes(table, bulk):
    """What the size of an effect buys, and how well sizes are known."""
    scores = table[table["metric"].isin(METRICS)]
    size = table[table["metric"] == "size"].groupby(["model", "target_gene"])["value"].mean()
    true = effects(bulk).to_df().abs().mean(axis=1)
    named = [f"size from {what}, 1 times" for what in ("cells", "cells and depth")]
    rho = {m: round(size[m].corr(true, method="spearman"), 3) for m in (*named, KERNEL_MEDIAN)}
    return {
        "scores": as_records(intervals.interval(scores)),
        "rank correlation with the true size": rho,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pseudobulk", type=Path)
    parser.add_argument("--counts", type=Path, required=True, help="cells and depth of each target")
    parser.add_argument("--annotation", type=Path, required=True, help="feature table of genes")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    bulk = anndata.read_h5ad(options.pseudobulk)
    annotation = features.embedding(options.annotation)
    counts = pd.read_csv(options.counts, index_col="target_gene")
    known = bulk, counts, annotation
    named, sizes = all_models(*known[1:]), sizes_alone(*known)
    whole = run(bulk, named | sizes, n_repeats=options.repeats, n_splits=options.folds)
    table = whole[whole["model"].isin(list(named))]
    once = table[table["repeat"] == 0]
    references = {
        "halves": evaluation.ceiling(once, bulk),
        "floor": evaluation.floor(once, bulk),
        "chance": evaluation.chance(table),
    }
    references = {name: as_records(intervals.interval(rows)) for name, rows in references.items()}
    data = {
        "targets": bulk.n_obs - 1,
        "genes": bulk.n_vars,
        "cells": int(bulk.obs["n_cells"].sum()),
        "repeats": options.repeats,
        "folds": options.folds,
        "chance": references["chance"][0]["mean"],
        "without annotation": bulk.obs_names.drop(CONTROL).difference(annotation.index).tolist(),
    }
    found = {"data": data, **references, **summary(table, bulk)}
    found["sizes"] = of_sizes(whole[whole["model"].isin([*sizes, KERNEL_MEDIAN])], bulk)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for part in (found, found["sizes"]):
        scores = pd.DataFrame(part["scores"])
        means = scores.pivot_table("mean", "model", "metric", sort=False)
        print(means.round(4).to_string())
    print(f"chance PDS {data['chance']:.3f}")
    return found


if __name__ == "__main__":
    main()
