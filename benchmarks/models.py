"""The full table of models: DES, PDS, MAE and Pearson correlation of effects, with intervals.

    python benchmarks/models.py
    python benchmarks/models.py --pseudobulk H1.h5ad --counts COUNTS.csv --annotation GO.npz

The first takes the simulated world: models learn from its training targets and its other lines, and
predict its validation and test sets, each ranked by itself as in the contest. The second does real
H1 effects too, with benchmarks/h1_models.py: all but DES, which needs cells.

Writes benchmarks/results/models.json (and h1_models.json), which the book shows.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import h1_models
import numpy as np
import pandas as pd
from h1_models import as_records
from sklearn.base import clone

import vcc_helpers as vcc
from vcc_helpers import adapt, emit, evaluation, features, intervals, models, scoring, stream
from vcc_helpers.bulk import CONTROL, bulk_of_effects
from vcc_helpers.splits import FewShotSplit

METRICS = ("des", "pds", "mae", "pearson")
RESULT = Path(__file__).resolve().parent / "results" / "models.json"
BASELINE, ZERO_SHOT = "official baseline", "zero-shot, by precision"


def all_models(world):
    """Every model of the book, on what a world knows of other lines and of its controls."""
    source_bulk = {name: vcc.pseudobulk(world.contexts[name]) for name in world.sources}
    sources = {name: vcc.effects(part) for name, part in source_bulk.items()}
    asked = sum(world.split.values(), [])
    controls = world.cells("train")
    controls = controls[controls.obs["target_gene"] == CONTROL]
    covariance = stream.control_covariance(controls, asked, within="batch")
    return named_models(sources, adapt.precision(source_bulk), covariance)


def named_models(sources, weights, covariance):
    """Every model of the book: nothing known, H1 only, other lines only, both."""
    elsewhere = features.source_effects(sources)
    known = {"fallback": "mean"}  # a target that no line measured gets the mean
    adapted = {"sources": sources, "prior": weights, **known}
    return {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "mean, own gene silenced": models.crispr_mean(),
        "bilinear": models.linear_baseline(),
        "control covariance": models.control_covariance(covariance).set_params(**known),
        "kNN": models.knn_baseline(elsewhere, 5).set_params(**known),
        "kNN, shrunken": models.knn_baseline(elsewhere, 5, shrinkage=0.7).set_params(**known),
        "ridge": models.ridge(elsewhere, alpha=10).set_params(**known),
        "kernel ridge": models.kernel_ridge(elsewhere).set_params(**known),
        "additive": models.additive(sources).set_params(**known),
        "zero-shot, mean": adapt.ContextGain(sources, shrinkage=np.inf, **known),
        ZERO_SHOT: adapt.ContextGain(**adapted, shrinkage=np.inf),
        "gain": adapt.ContextGain(**adapted),
        "gain, size kept": adapt.ContextGain(**adapted, keep_size=True),
        "residual ridge": adapt.ResidualRidge(**adapted),
        "bilinear, source components": adapt.SourceBilinear(**adapted),
    }


def predict_part(world, part, bulk, named, *, emitter):
    """Long table of one part of the world: models, official baseline, ceiling, chance."""
    cells = world.cells(part)
    real, split = vcc.pseudobulk(cells), FewShotSplit(world.split["train"], world.split[part])
    measure = scoring.measure_cells(cells, emitter=emitter)
    table = evaluation.repeated(named, bulk, [split], truth=real, measure=measure)
    baseline = scoring.official_baseline(
        world.cells("train"), n_cells=real.obs["n_cells"].drop(CONTROL)
    )
    means = evaluation.evaluate(vcc.pseudobulk(baseline), real)
    card = scoring.score(baseline, cells).per_perturbation
    halves = scoring.split_half_ceiling(cells).per_perturbation
    rows = [
        table,
        reference(BASELINE, means.assign(des=card["des"]), table),
        evaluation.ceiling(table, scoring.halves(cells)),
        reference(intervals.CEILING, halves[["des"]], table),
        evaluation.chance(table),
    ]
    return pd.concat(rows, ignore_index=True)


def reference(name, scores, table):
    """Rows of a prediction that no model of the table made."""
    long = scores.rename_axis("target_gene").reset_index()
    long = long.melt("target_gene", var_name="metric", value_name="value")
    return long.assign(model=name, split=0, n_support=table["n_support"].iloc[0])


def simulated(world=None):
    """Tables of the validation and the test set of one simulated world."""
    world = world or vcc.datasets.make_h1_like(seed=0)
    bulk = vcc.pseudobulk(world.cells("train"))
    named = all_models(world)
    emitter = partial(emit.resample_and_shift, seed=0)
    found = {}
    for part in ("validation", "test"):
        table = predict_part(world, part, bulk, named, emitter=emitter)
        table = table[table["metric"].isin(METRICS)]
        found[f"simulated {part}"] = {
            "targets": len(world.split[part]),
            "trained on": len(world.split["train"]),
            "genes": bulk.n_vars,
            "table": as_records(intervals.interval(table)),
            "minus mean": as_records(intervals.compare(table, "mean")),
            "minus zero-shot": as_records(intervals.compare(table, ZERO_SHOT)),
        }
    return found


def seconds(n_train=150, n_asked=50, n_genes=18_080, *, n_runs=3):
    """Fit and predict once at the challenge's size, effects drawn at random; best of some runs."""
    rng = np.random.default_rng(0)
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    targets = [f"G{i}" for i in range(n_train + n_asked)]
    base = np.full(n_genes, 1.0)

    def drawn(names):
        effect = rng.normal(0, 0.1, (len(names), n_genes))
        return bulk_of_effects(effect, pd.Index(names), base, var)

    bulk, sources = drawn(targets[:n_train]), {f"line {i}": drawn(targets) for i in range(3)}
    effects = {name: vcc.effects(part) for name, part in sources.items()}
    covariance = effects["line 0"].to_df()
    rows = []
    for name, model in named_models(effects, None, covariance).items():
        times = []
        for _ in range(n_runs):
            start = time.perf_counter()
            clone(model, safe=False).fit(bulk).predict(targets[n_train:])
            times.append(time.perf_counter() - start)
        rows.append({"model": name, "seconds": round(min(times), 3)})
    return {"targets": n_train, "asked": n_asked, "genes": n_genes, "models": rows}


def real(options):
    """The same table of the real pseudobulk."""
    files = [options.pseudobulk, "--counts", options.counts, "--annotation", options.annotation]
    h1 = h1_models.main([str(word) for word in files])
    return {
        "targets": h1["data"]["targets"],
        "genes": h1["data"]["genes"],
        "table": h1["scores"] + h1["halves"] + h1["floor"] + h1["chance"],
        "minus mean": h1["minus mean"],
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pseudobulk", type=Path, help="vcc-helpers pseudobulk of real cells")
    parser.add_argument("--counts", type=Path, help="cells and depth of each target")
    parser.add_argument("--annotation", type=Path, help="feature table of genes")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor(1) as pool:  # while real effects, which take longer, are measured
        simulation = pool.submit(simulated)
        h1 = {"real H1": real(options)} if options.pseudobulk else {}
        found = simulation.result() | h1
    found["seconds"] = seconds()
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, part in found.items():
        if "table" not in part:
            print(f"\n{name}", pd.DataFrame(part["models"]).to_string(index=False), sep="\n")
            continue
        table = pd.DataFrame(part["table"])
        means = table.pivot_table("mean", "model", "metric", sort=False)
        print(f"\n{name}, {part['targets']} targets", means.round(4).to_string(), sep="\n")


if __name__ == "__main__":
    main()
