"""Every model of the book on real H1 effects, by repeated cross-validation.

    python benchmarks/h1_models.py PSEUDOBULK.h5ad --counts COUNTS.csv --annotation GO.npz

PSEUDOBULK.h5ad is what `vcc-helpers pseudobulk` writes: mean and variance of each perturbation and
the control. COUNTS.csv is the list of targets that the contest publishes beforehand, with their
numbers of cells and median depths (`vcc-helpers fetch train_counts`). GO.npz holds a feature table
of genes, as `vcc_helpers.features.embedding` reads it. Each model learns from four fifths of the
targets and predicts the others, ten times over with other folds; nothing of a held-out target is
used but its name and, where a model says so, its published number of cells and depth.

Writes benchmarks/results/h1_models.json, which the book shows.
"""

import argparse
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from vcc_helpers import evaluation, features, intervals, metrics, models, splits
from vcc_helpers.bulk import CONTROL, effect_strength
from vcc_helpers.counts import fold_change, log2

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "h1_models.json"

METRICS = ("des", "pds", "mae", "pearson")
BEST = "several likenesses, stretched"
#: Weights of number of cells and of the name's family, beside the annotation's 1.
COUNTS, FAMILY = 0.5, 0.5


# Features, and how alike they make two targets


def target_table(bulk, counts, annotation):
    """Annotation, log number of cells and log depth, and the family of the gene's name."""
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    known = targets[targets.isin(annotation.index)]
    counts = np.log(counts.loc[known, ["n_cells", "median_umi_per_cell"]].to_numpy(float))
    family = pd.factorize(known.str[:3])[0][:, None]  # MED1, MED12, MED24: one complex
    return pd.DataFrame(np.hstack([annotation.loc[known], counts, family]), index=known)


def prepare(n_annotation):
    """Centre directions and scale counts, as the training targets say."""
    directions = make_pipeline(Normalizer(), StandardScaler(with_std=False), Normalizer())
    scaled = make_pipeline(StandardScaler(), FunctionTransformer(np.clip, kw_args=CLIP))
    parts = [
        ("annotation", directions, slice(0, n_annotation)),
        ("counts", scaled, slice(n_annotation, n_annotation + 2)),
        ("family", "passthrough", slice(n_annotation + 2, n_annotation + 3)),
    ]
    return ColumnTransformer(parts)


CLIP = {"a_min": -3, "a_max": 3}


def annotation_alike(a, b):
    """Similarity of two directions: 1 for the same, and near to 0 from a right angle on."""
    return np.exp(5 * (a @ b.T - 1))


def counts_alike(a, b):
    """Similarity of two targets by their numbers of cells and depths."""
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / 2)


class Alike:
    """Similarity of two targets: annotation, cells and depth, family of the name."""

    def __init__(self, *, counts=COUNTS, family=FAMILY):
        self.counts, self.family = counts, family

    def __call__(self, a, b):
        annotation = annotation_alike(a[:, :-3], b[:, :-3])
        counts = counts_alike(a[:, -3:-1], b[:, -3:-1])
        family = a[:, None, -1] == b[None, :, -1]
        return annotation + self.counts * counts + self.family * family


def alike_model(table, **weights):
    """Kernel ridge on several kinds of likeness, stretched as far as the MAE allows."""
    regressor = make_pipeline(
        prepare(table.shape[1] - 3), models.CentredKernelRidge(0.3, kernel=Alike(**weights))
    )
    model = models.EffectModel(regressor, table, fallback="mean")
    return models.KnockedDown(models.Stretched(model))


def kernel_median(table):
    """Return the weighted median of effects, by the likeness of annotation and of counts."""
    n = table.shape[1] - 3
    kernels = [(annotation_alike, slice(0, n)), (counts_alike, slice(n, n + 2))]
    regressor = make_pipeline(prepare(n), models.KernelMedian(kernels))
    return models.KnockedDown(models.EffectModel(regressor, table, fallback="mean"))


def all_models(bulk, counts, annotation):
    own = features.own_expression(bulk)
    table = target_table(bulk, counts, annotation)
    with_own = features.join({"annotation": annotation, "own": own})
    named = {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "median": models.median_baseline(),
        "mean, own gene silenced": models.crispr_mean(),
        "bilinear": models.linear_baseline(),
        "kNN": models.knn_baseline(annotation, 3),
        "kNN, shrunken": models.knn_baseline(annotation, 5, shrinkage=0.7),
        "ridge": models.ridge(annotation, alpha=10),
        "ridge, own expression too": models.ridge(with_own, alpha=10),
        "kernel ridge": models.kernel_ridge(annotation),
        BEST: alike_model(table),
        "the same without cells and depth": alike_model(table, counts=0),
        "kernel median": kernel_median(table),
    }
    for name, model in named.items():
        if "ridge" in name or "kNN" in name:
            model.set_params(fallback="mean")  # a gene without annotation gets the mean
    return named | {"bilinear, 16 times": models.linear_baseline().set_params(scale=16)}


# Measuring


def measure(pred, real):
    """Scores of each target; and what dealing the predictions at random would give."""
    by_chance = evaluation.dealt(pred, real)
    return measure_means(pred, real).assign(
        dealt_mean=by_chance.mean, dealt_variance=by_chance.sd**2
    )


def measure_means(pred, real):
    """PDS, MAE and Pearson, and a DES that needs no cells.

    A pseudobulk with variances and numbers of cells allows no rank test, but a test of the
    difference of two means. The predicted side stands for as many cells as the real one, with the
    variance of the real controls, as if control cells were drawn and shifted.
    """
    names = real.obs_names[real.obs_names != CONTROL]
    predicted = pred if "variance" in pred.layers else as_drawn(pred[[CONTROL, *names]], real)
    called, change = called_genes(predicted, names)
    found = metrics.des(called, change, called_genes(real, names)[0])
    return evaluation.evaluate(pred, real).assign(des=pd.Series(found, index=names))


def as_drawn(pred, real, seed=0):
    """Means of shifted control cells: the predicted means with the noise of drawing."""
    obs = real.obs.loc[pred.obs_names, ["n_cells"]]
    variance = np.tile(real[CONTROL].layers["variance"], (pred.n_obs, 1))
    noise = np.random.default_rng(seed).normal(size=pred.shape)
    noise[pred.obs_names == CONTROL] = 0  # the real controls themselves
    mean = np.maximum(pred.X + noise * np.sqrt(variance / obs.to_numpy()), 0)
    return anndata.AnnData(mean, obs=obs, var=pred.var, layers={"variance": variance})


def called_genes(bulk, names):
    """Significant genes and log2 fold changes, each ``(len(names), n_genes)``, from means alone."""
    perturbed, base = bulk[names], bulk[CONTROL]
    error = perturbed.layers["variance"] / perturbed.obs[["n_cells"]].to_numpy()
    error = error + base.layers["variance"] / base.obs["n_cells"].to_numpy()
    gap = np.abs(perturbed.X - base.X)
    z = np.divide(gap, np.sqrt(error), out=np.zeros(gap.shape), where=error > 0)
    fdr = stats.false_discovery_control(2 * stats.norm.sf(z), axis=None).reshape(z.shape)
    return fdr < 0.05, log2(fold_change(perturbed.X, np.ravel(base.X)))


def run(bulk, named, *, n_repeats, n_splits):
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    folds = [
        fold
        for seed in range(n_repeats)
        for fold in splits.k_fold(targets, n_splits=n_splits, seed=seed)
    ]
    table = evaluation.repeated(named, bulk, folds, measure=measure)
    return table.assign(repeat=table["split"] // n_splits)


def summary(table, bulk):
    """Mean of each metric with its interval, and what it is beside chance and the baselines."""
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
    """PDS of each repeat beside the same predictions dealt at random, in standard deviations."""
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
    named = all_models(bulk, counts, annotation)
    table = run(bulk, named, n_repeats=options.repeats, n_splits=options.folds)
    ceiling = evaluation.ceiling(table[table["repeat"] == 0], bulk, measure=measure_means)
    chance = intervals.interval(evaluation.chance(table))
    data = {
        "targets": bulk.n_obs - 1,
        "genes": bulk.n_vars,
        "cells": int(bulk.obs["n_cells"].sum()),
        "repeats": options.repeats,
        "folds": options.folds,
        "chance": chance["mean"].iloc[0],
        "without annotation": bulk.obs_names.drop(CONTROL).difference(annotation.index).tolist(),
    }
    halves = as_records(intervals.interval(ceiling))
    references = {"halves": halves, "chance": as_records(chance)}
    found = {"data": data, **references, **summary(table, bulk)}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    scores = pd.DataFrame(found["scores"]).pivot(index="model", columns="metric", values="mean")
    print(
        scores.loc[list(named)].round(4).to_string(), f"chance PDS {data['chance']:.3f}", sep="\n"
    )
    return found


if __name__ == "__main__":
    main()
