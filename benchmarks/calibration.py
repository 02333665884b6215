"""Hold the simulated world against figures of the real H1 screen, one row a figure.

    python benchmarks/calibration.py                        # quick: draws what it needs
    python benchmarks/calibration.py --file adata_Training.h5ad --write
    python benchmarks/calibration.py --real FOLDER          # anew from the public tables

The quick run takes the effects that the recipe means, and adds the noise that the cells would
have. The full run measures the file of full size that `vcc-helpers simulate --size h1` writes; with
--write it keeps the table in results/calibration.json, which the book shows and a test holds to
the tolerances below.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, spearmanr
from scipy.stats import norm as normal

import vcc_helpers as vcc
from vcc_helpers.datasets import _cells as drawing
from vcc_helpers.datasets import _recipe, _simulate

CONTROL = "non-targeting"
HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "calibration.json"
REAL = HERE / "h1_figures.json"
QUARTILES = [0, 0.25, 0.5, 0.75, 1]
N_COMPONENTS = (1, 2, 5, 10, 20, 50)
MEAN_EDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
FREQUENT = MEAN_EDGES[2:-1]  # rarer: too few counts to tell the dispersion; above: too few zeros


class Measured(NamedTuple):
    """Effects of the training targets with all that their figures need."""

    effects: np.ndarray  # (n_targets, n_genes), lognorm
    variance: np.ndarray  # (n_genes,), of lognorm between control cells
    n_cells: np.ndarray  # (n_targets,)
    n_controls: int
    own: np.ndarray  # (n_targets,), which gene each target is
    left: np.ndarray  # (n_targets,), own-gene expression left


# Figures of effects: the same functions for real and simulated


def effect_figures(m: Measured) -> dict[str, list[float]]:
    size = np.linalg.norm(m.effects, axis=1)
    noise2 = m.variance.sum() * (1 / m.n_cells + 1 / m.n_controls)
    denoised = np.sqrt(np.maximum(size**2 - noise2, 0))
    mean = m.effects.mean(axis=0)
    spectrum = np.linalg.svd(m.effects - mean, compute_uv=False) ** 2
    share = np.cumsum(spectrum) / spectrum.sum()
    pairs = np.corrcoef(m.effects)[np.triu_indices(len(size), 1)]
    few = np.minimum(m.n_cells, 400)
    return {
        "norm": np.quantile(size, QUARTILES),
        "norm_denoised": np.quantile(denoised, QUARTILES),
        "cosine_to_mean": np.quantile(m.effects @ mean / np.linalg.norm(mean) / size, QUARTILES),
        "spectrum": [share[k - 1] for k in N_COMPONENTS],
        "pair_correlation": np.quantile(pairs, [0.05, 0.25, 0.5, 0.75, 0.95]),
        "closest_pair": [pairs.max()],
        "de_genes": np.quantile(n_called(m, m.n_cells), QUARTILES),
        "de_genes_400": np.quantile(n_called(m, few), QUARTILES),
        "own_gene_left": np.quantile(m.left, [0.25, 0.5, 0.75]),
        "cells_and_size": [spearmanr(m.n_cells, denoised).statistic],
        "left_and_size": [spearmanr(m.left, denoised).statistic],
    }


def n_called(m: Measured, n_cells: np.ndarray, seed: int = 0) -> np.ndarray:
    """Genes called at an FDR of .05 by a z-test with so many cells a target.

    A stand-in for the rank-sum test that needs no cells: where fewer cells are asked for than
    there were, the noise that they would add is added.
    """
    rng = np.random.default_rng(seed)
    found = []
    for effect, there, asked in zip(m.effects, m.n_cells, n_cells, strict=True):
        more = np.sqrt(m.variance * (1 / asked - 1 / there))
        error = np.sqrt(m.variance * (1 / asked + 1 / m.n_controls)) + 1e-12
        z = np.abs(effect + rng.normal(size=effect.size) * more) / error
        found.append(false_discovery_control(2 * normal.sf(z), axis=None))
    return (np.array(found) < 0.05).sum(axis=1)


def mean_baseline(effects: np.ndarray, own: np.ndarray, n_train: int, repeats: int = 20):
    """MAE and PDS of the mean of `n_train` targets on the others: mean over random choices."""
    rows = []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(effects))
        train, rest = order[:n_train], order[n_train:]
        pred = np.repeat(effects[train].mean(axis=0)[None], len(rest), axis=0)
        pds = vcc.metrics.pds(pred, effects[rest], own_gene=own[rest])
        rows.append([vcc.metrics.mae(pred, effects[rest]).mean(), pds.mean()])
    return np.mean(rows, axis=0)


# Figures of cells


def by_mean(mean: np.ndarray, values: np.ndarray, edges=MEAN_EDGES) -> list[float]:
    """Median of a gene's figure in classes of its mean count."""
    classes = pd.Series(values).groupby(pd.cut(mean, edges), observed=False)
    return classes.median().tolist()


def dispersion(mean: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Negative binomial dispersion that gives this share of zeros, depth's part included."""
    grid = np.geomspace(1e-3, 30, 400)
    share = (1 + grid[:, None] * mean) ** (-1 / grid[:, None])  # rises with the dispersion
    return np.array([np.interp(z, s, grid) for z, s in zip(zeros, share.T, strict=True)])


def cell_figures(counts) -> dict[str, list[float]]:
    """Depth, detection, variance and zeros of control cells, ``(n_cells, n_genes)``, CSR."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts.multiply(np.median(depth) / depth[:, None]).tocsr().log1p()
    mean = np.asarray(scaled.mean(axis=0)).ravel()
    variance = np.asarray(scaled.power(2).mean(axis=0)).ravel() - mean**2
    mean_count = np.asarray(counts.mean(axis=0)).ravel()
    detected = np.asarray((counts > 0).mean(axis=0)).ravel()
    per_10k = counts.multiply(1e4 / depth[:, None]).tocsr().log1p()
    square = np.asarray(per_10k.power(2).mean(axis=0)).ravel()
    total = (square - np.asarray(per_10k.mean(axis=0)).ravel() ** 2).sum()
    return {
        "genes_detected": np.quantile(np.diff(counts.indptr), [0.05, 0.5, 0.95]),
        "density": [counts.nnz / np.prod(counts.shape)],
        "lognorm_variance": by_mean(mean_count, variance),
        "genes_not_zero": by_mean(mean_count, detected),
        "dispersion": by_mean(mean_count, dispersion(mean_count, 1 - detected), FREQUENT),
        "noise_floor": [np.sqrt(total / k) for k in (40, 160, 640, 2560)],
    }


def states_share(counts, seed: int = 0) -> float:
    """Share of lognorm variance in ten components beyond what shuffled genes show.

    Of 600 cells and the 1,000 genes of highest mean, as in the real sample.
    """
    rng = np.random.default_rng(seed)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    top = np.argsort(-np.asarray(counts.mean(axis=0)).ravel(), kind="stable")[:1000]
    some = counts[:600][:, top].multiply(np.median(depth) / depth[:600, None])
    return excess_of_components(np.log1p(some.toarray()), rng)


def excess_of_components(lognorm: np.ndarray, rng: np.random.Generator) -> float:
    centred = lognorm - lognorm.mean(axis=0)
    shuffled = np.column_stack([rng.permutation(column) for column in centred.T])
    shares = [np.linalg.svd(x, compute_uv=False) ** 2 for x in (centred, shuffled)]
    return float(np.subtract(*(s[:10].sum() / s.sum() for s in shares)))


def covariance_tells(lognorm: np.ndarray, effects: np.ndarray, own: np.ndarray) -> float:
    """Mean correlation of minus the control covariance with a gene and the gene's effect.

    Own gene left out; mean over targets. 0 where control cells tell nothing about effects.
    """
    centred = lognorm - lognorm.mean(axis=0)
    found = []
    for effect, gene in zip(effects, own, strict=True):
        others = np.arange(centred.shape[1]) != gene
        found.append(np.corrcoef(-(centred[:, gene] @ centred)[others], effect[others])[0, 1])
    return float(np.mean(found))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# The simulated side


def draw(recipe, context: str, cells: np.ndarray):
    roster = drawing.draw_roster(recipe, context)
    return drawing.draw_counts(recipe, context, roster, cells)


def quick(recipe, variance: np.ndarray, seed: int = 1) -> Measured:
    """Effects of the training targets: what the recipe means, and the noise of the cells."""
    rng = np.random.default_rng(seed)
    here, n_train = recipe.contexts["H1"], recipe.size.n_targets[0]
    n_cells = here.n_cells[:n_train]
    noise = rng.normal(size=(n_train, len(variance))) * np.sqrt(variance / n_cells[:, None])
    shared = rng.normal(size=len(variance)) * np.sqrt(variance / recipe.size.n_controls)
    effects = drawing.expected_effects(recipe, "H1")[:n_train] + noise - shared
    own, n_controls = recipe.targets[:n_train], recipe.size.n_controls
    rate_variance = recipe.rate_variance + (recipe.states**2).sum(axis=0)
    base = drawing._expected_means(here.log_basal[None], rate_variance, recipe.size.n_genes)[0]
    left = np.expm1(base[own] + effects[np.arange(n_train), own]) / np.expm1(base[own])
    return Measured(effects, variance, n_cells, n_controls, own, left)


def of_bulk(bulk: anndata.AnnData) -> Measured:
    """The same from a measured pseudobulk, real or simulated."""
    delta = vcc.effects(bulk)
    variance = np.asarray(bulk[CONTROL].layers["variance"], dtype=np.float64).ravel()
    n_cells = delta.obs["n_cells"].to_numpy().astype(float)
    own = delta.var_names.get_indexer(delta.obs_names)
    n_controls = int(bulk.obs.loc[CONTROL, "n_cells"])
    left = vcc.knockdown(bulk).to_numpy()
    return Measured(delta.X.astype(float), variance, n_cells, n_controls, own, left)


def smooth_variance(recipe, n_cells: int = 2500) -> tuple:
    """Counts of some control cells, and every gene's lognorm variance; rare genes by their mean."""
    counts = draw(recipe, "H1", np.arange(n_cells))
    depth = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts.multiply(np.median(depth) / depth[:, None]).tocsr().log1p()
    mean = np.asarray(scaled.mean(axis=0)).ravel()
    variance = np.asarray(scaled.power(2).mean(axis=0)).ravel() - mean**2
    rate_variance = recipe.rate_variance + (recipe.states**2).sum(axis=0)
    log_basal = recipe.contexts["H1"].log_basal[None]
    expected = drawing._expected_means(log_basal, rate_variance, recipe.size.n_genes)[0]
    return counts, np.where(expected < 0.05, np.log(2) * expected, variance)


def simulated(path: str | None = None, seed: int = 0) -> dict[str, list[float]]:
    """All figures of a simulated screen of full size, from a file or from the recipe."""
    size, names = _simulate.SIZES["h1"], ("H1", "K562", "RPE1", "HepG2")
    recipe = _recipe.draw_recipe(size, names, seed=seed)
    counts, variance = smooth_variance(recipe)
    m = quick(recipe, variance)
    if path:
        m = of_bulk(vcc.pseudobulk(path, progress=True))
    found = {"cells_per_target": np.quantile(m.n_cells, QUARTILES)}
    found |= cell_figures(counts) | effect_figures(m)
    depth = drawing.draw_roster(recipe, "H1")["depth"]
    found["depth"] = np.quantile(depth, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    # the contest's split: 150 targets to learn from, 50 to predict
    n_cells = recipe.contexts["H1"].n_cells
    truth = drawing.expected_effects(recipe, "H1").astype(float)
    rng = np.random.default_rng(2)
    everything = truth + rng.normal(size=truth.shape) * np.sqrt(variance / n_cells[:, None])
    pred = np.repeat(m.effects.mean(axis=0)[None], 50, axis=0)
    asked = slice(150, 200)
    pds = vcc.metrics.pds(pred, everything[asked], own_gene=recipe.targets[asked])
    found["mean_baseline_mae"] = [vcc.metrics.mae(pred, everything[asked]).mean()]
    found["mean_baseline_pds"] = [pds.mean()]
    found["mean_baseline_held_out"] = mean_baseline(m.effects, m.own, len(m.own) * 2 // 3)
    found |= context_figures(recipe, everything, variance, rng)
    found["states"] = [states_share(counts)]
    top = np.argsort(-recipe.contexts["H1"].log_basal, kind="stable")[:1500]
    depth = np.asarray(counts.sum(axis=1)).ravel()[:1182]
    some = counts[:1182][:, top].multiply(np.median(depth) / depth[:, None])
    place = {gene: i for i, gene in enumerate(top)}
    asked = [t for t, gene in enumerate(recipe.targets) if gene in place]
    own = np.array([place[recipe.targets[t]] for t in asked])
    lognorm = np.log1p(some.toarray())
    found["covariance"] = [covariance_tells(lognorm, truth[asked][:, top], own)]
    found["batch_correlation"] = batch_correlation(recipe)
    medians = recipe.contexts["H1"].batch_depth * 53_912
    found["batch_depth"] = np.quantile(medians, [0, 0.5, 1])
    return {name: [float(v) for v in values] for name, values in found.items()}


def context_figures(recipe, effects: np.ndarray, variance: np.ndarray, rng) -> dict:
    """Effects in other lines, measured with 150 cells a target, against those in H1."""
    others = {}
    for name in list(recipe.contexts)[1:]:
        truth = drawing.expected_effects(recipe, name)
        others[name] = truth + rng.normal(size=truth.shape) * np.sqrt(variance / 150)
    one = [np.median(cosine(effects, other)) for other in others.values()]
    mean = np.mean(list(others.values()), axis=0)
    return {
        "one_context": [float(np.mean(one))],
        "mean_of_contexts": [float(np.median(cosine(effects, mean)))],
    }


def batch_correlation(recipe) -> list[float]:
    """Correlation of each batch's mean profile of control cells with the whole.

    Computed from what the recipe adds to each batch, and the noise of 795 cells a batch.
    """
    rng = np.random.default_rng(3)
    here = recipe.contexts["H1"]
    rate_variance = recipe.rate_variance + (recipe.states**2).sum(axis=0)

    def profile(shift):
        rate = (here.log_basal + shift)[None]
        return drawing._expected_means(rate, rate_variance, recipe.size.n_genes)[0]

    whole = profile(0)
    _, variance = smooth_variance(recipe, 600)
    n_cells = recipe.size.n_controls / recipe.size.n_batches
    noise = np.sqrt(variance / n_cells)
    found = [
        np.corrcoef(profile(shift) + rng.normal(size=len(whole)) * noise, whole)[0, 1]
        for shift in here.batch_shift
    ]
    return [min(found), float(np.median(found))]


# The real side, and the table


def real_figures(folder: str) -> dict[str, list[float]]:
    """Real figures from the public tables of the screen; the rest are published numbers."""
    folder = Path(folder)
    bulk = anndata.read_h5ad(folder / "pseudobulk_101x18080.h5ad")
    m = of_bulk(bulk)
    genes = pd.read_csv(folder / "gene_baseline_18080.csv.gz")
    stats = json.loads((folder / "summary_stats.json").read_text())
    train = stats["splits"]["Training"]
    mean, zeros = genes["mean_count_ctrl"].to_numpy(), 1 - genes["nonzero_fraction_ctrl"].to_numpy()
    found = effect_figures(m)
    found["cells_per_target"] = np.quantile(
        pd.read_csv(folder / "pert_counts_Training.csv")["n_cells"], QUARTILES
    )
    found |= {
        "depth": [train["umi"][f"p{q:02d}"] for q in (1, 5, 25)]
        + [train["umi"]["median"], *(train["umi"][f"p{q}"] for q in (75, 95, 99))],
        "genes_detected": [train["genes_detected"][k] for k in ("p05", "median", "p95")],
        "density": [train["density"]],
        "lognorm_variance": by_mean(mean, genes["var_lognorm_ctrl"].to_numpy()),
        "genes_not_zero": by_mean(mean, 1 - zeros),
        "dispersion": by_mean(mean, dispersion(mean, zeros), FREQUENT),
        "noise_floor": [stats["null_floor_l2_by_n_cells"][str(k)] for k in (40, 160, 640, 2560)],
        "batch_depth": np.quantile(
            list(stats["training_batch_median_umi"].values()), [0, 0.5, 1]
        ),
        "batch_correlation": list(stats["batch_pseudobulk_corr"].values()),
        "mean_baseline_mae": [stats["vcc2025_cell_mean_baseline"]["MAE"]],
        "mean_baseline_pds": [stats["vcc2025_cell_mean_baseline"]["PDS"]],
        "mean_baseline_held_out": mean_baseline(m.effects, m.own, len(m.own) * 2 // 3),
        "one_context": [0.1325],
        "states": [real_states()],
        "covariance": [real_covariance()],
        "variance_of_controls": [m.variance.sum()],  # of lognorm, over genes
        "depth_histogram": stats["training_umi_hist"]["counts"],  # 2,500 counts wide, from 0
    }
    return {name: [float(v) for v in values] for name, values in found.items()}


def real_states() -> float:
    """The bundled sample: 600 cells, 1,000 genes, each target's own mean taken off."""
    cells = vcc.datasets.load_h1_sample()
    lognorm = vcc.lognorm(cells).toarray()
    groups = cells.obs["target_gene"].to_numpy()
    for name in set(groups):
        lognorm[groups == name] -= lognorm[groups == name].mean(axis=0)
    return excess_of_components(lognorm, np.random.default_rng(0))


def real_covariance() -> float:
    """The bundled hiPSC screen: 1,182 control cells and 23 targets, all days together."""
    screen = vcc.datasets.load_hipsc_screen()
    lognorm = vcc.lognorm(screen).toarray()
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    effects = vcc.effects(vcc.pseudobulk(screen))
    own = effects.var_names.get_indexer(effects.obs_names)
    return covariance_tells(lognorm[is_control], effects.X, own)


class Row(NamedTuple):
    """A figure: what it is called, how near simulated must come to real, and why no nearer."""

    name: str
    relative: float
    absolute: float = 0.0
    why: str = ""


ROWS = {
    "cells_per_target": Row("cells per target: min, quartiles, max", 0.03),
    "depth": Row(
        "counts per cell: 1, 5, 25, 50, 75, 95, 99 %",
        0.07,
        why="a log-normal; real cells have a few more of low depth",
    ),
    "genes_detected": Row("genes detected per cell: 5, 50, 95 %", 0.03),
    "density": Row("share of entries that are not zero", 0.02),
    "genes_not_zero": Row("cells in which a gene is seen, by its mean count", 0.06),
    "dispersion": Row(
        "dispersion from the zeros, by mean count (.03 to 10)",
        0.25,
        0.03,
        "the spread between genes of one mean is assumed",
    ),
    "lognorm_variance": Row("variance of lognorm between controls, by mean count", 0.12),
    "noise_floor": Row("distance of 40, 160, 640, 2,560 controls from all (CP10K)", 0.06),
    "batch_correlation": Row("correlation of batches with the whole: min, median", 0, 0.004),
    "batch_depth": Row("median counts per cell of a batch: min, median, max", 0.06),
    "states": Row(
        "variance in ten components of 600 cells",
        0.35,
        0,
        "100 cells a group and 1,000 genes; how many states there are is assumed",
    ),
    "own_gene_left": Row(
        "own-gene expression left: quartiles (expm1 of means)",
        0.10,
        0.011,
        "the recipe follows ratios of mean counts; some real cells escape, which moves those more",
    ),
    "norm": Row(
        "L2 norm of effects: min, quartiles, max",
        0.15,
        0.3,
        "a draw of 150 against 100 real targets; the smallest and largest are one target each",
    ),
    "norm_denoised": Row(
        "L2 norm, sampling noise taken off",
        0.15,
        0.5,
        "as above; and close to zero the noise decides",
    ),
    "cosine_to_mean": Row(
        "cosine of an effect to the mean effect", 0.15, 0.16, "the mean leans on few strong targets"
    ),
    "spectrum": Row(
        "share of the first 1, 2, 5, 10, 20, 50 components",
        0.12,
        0.08,
        "the first component is one or two strong targets; 100 real targets, 150 simulated",
    ),
    "pair_correlation": Row("correlation of two targets: 5, 25, 50, 75, 95 %", 0.15, 0.06),
    "closest_pair": Row(
        "correlation of the closest two targets",
        0.12,
        0,
        "one pair; .85 among these 100 targets, .98 among all 300",
    ),
    "de_genes": Row(
        "genes called with all cells: min, quartiles, max (z-test)",
        0.35,
        350,
        "calls double with a third more effect; weak effects are sparser in truth",
    ),
    "de_genes_400": Row(
        "genes called with 400 cells", 0.35, 350, "as above"
    ),
    "cells_and_size": Row("rank correlation of cells and size", 0, 0.12, "100 targets: se .09"),
    "left_and_size": Row(
        "rank correlation of expression left and size", 0, 0.25, "100 targets: se .10"
    ),
    "mean_baseline_mae": Row(
        "MAE of the mean baseline on validation targets", 0.15, 0, "50 targets; strong ones decide"
    ),
    "mean_baseline_pds": Row("PDS of the mean baseline on validation targets", 0.02),
    "mean_baseline_held_out": Row(
        "MAE and PDS of the mean baseline, a third held out", 0.15, 0, "as above"
    ),
    "one_context": Row("cosine of an effect in another line and in H1", 0, 0.025),
    "covariance": Row(
        "correlation of control covariance and effect",
        0,
        0.03,
        "from the hiPSC screen: 23 targets, 103 genes",
    ),
}


def table(real: dict, sim: dict) -> pd.DataFrame:
    """One row a figure: real, simulated, and whether every number is within its tolerance."""
    rows = []
    for key, row in ROWS.items():
        a, b = np.array(real[key]), np.array(sim[key])
        inside = np.abs(b - a) <= row.relative * np.abs(a) + row.absolute
        rows.append(
            {
                "figure": row.name,
                "real": real[key],
                "simulated": sim[key],
                "tolerance": _tolerance(row),
                "within": bool(inside.all()),
                "why": row.why,
            }
        )
    return pd.DataFrame(rows, index=pd.Index(ROWS, name="key"))


def _tolerance(row: Row) -> str:
    parts = {f"{row.relative:.0%}": row.relative, f"{row.absolute:g}": row.absolute}
    return " + ".join(text for text, value in parts.items() if value)


def show(values: list[float]) -> str:
    return " · ".join(f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", metavar="H5AD", help="simulated training file of full size")
    parser.add_argument("--real", metavar="FOLDER", help="compute the real figures anew, and stop")
    parser.add_argument("--write", action="store_true", help="keep the table")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.real:
        REAL.write_text(json.dumps(real_figures(options.real), indent=1) + "\n")
        return
    real, sim = json.loads(REAL.read_text()), simulated(options.file, options.seed)
    found = table(real, sim)
    for row in found.itertuples():
        print(f"{'ok ' if row.within else 'OUT'} {row.figure}  ({row.tolerance})")
        print(f"      real       {show(row.real)}\n      simulated  {show(row.simulated)}")
    if options.write:
        drawn_by = _simulate.code(_simulate.DRAWING)
        result = {"code": drawn_by, "from_cells": bool(options.file), "simulated": sim}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
