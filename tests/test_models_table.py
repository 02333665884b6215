"""The full tables of models: the benchmarks measure every model, simulated and on real effects."""

import json
import os
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from vcc_helpers import datasets, evaluation, features, models, pseudobulk, splits
from vcc_helpers.bulk import FallbackWarning
from vcc_helpers.intervals import CEILING, CHANCE

sys.path.insert(0, str(ROOT / "benchmarks"))
import h1_models  # noqa: E402
import models as benchmark  # noqa: E402

SMALL = {"n_genes": 120, "n_targets": (12, 6, 7), "cells_per_target": 15, "n_controls": 80}


@pytest.fixture(scope="module")
def means(day5):
    return pseudobulk(day5)


def test_every_model_has_every_metric_on_both_sets(monkeypatch):
    timed = benchmark.seconds(12, 4, 60, n_runs=1)["models"]
    assert len(timed) == 16 and all(row["seconds"] > 0 for row in timed)
    every, few = benchmark.named_models, ("mean", "gain", benchmark.ZERO_SHOT)
    monkeypatch.setattr(benchmark, "named_models", lambda *a: {n: every(*a)[n] for n in few})
    found = benchmark.simulated(datasets.make_h1_like(seed=5, cache=False, **SMALL))
    assert list(found) == ["simulated validation", "simulated test"]
    for part, n_targets in zip(found.values(), SMALL["n_targets"][1:], strict=True):
        table = pd.DataFrame(part["table"]).set_index(["model", "metric"])
        found = table.index.unique("model").drop(CHANCE)
        assert set(found) == {*few, benchmark.BASELINE, CEILING}
        assert all((m, metric) in table.index for m in found for metric in benchmark.METRICS)
        assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
        assert set(table["n_targets"]) == {part["targets"]} == {n_targets}


def test_real_effects_are_measured_for_every_model_and_target(means, tmp_path):
    """The command, with an annotation that knows nothing, and not of the first target."""
    means[[*means.obs_names[:8], "non-targeting"]].copy().write_h5ad(tmp_path / "bulk.h5ad")
    targets = means.obs_names[:8].rename("target_gene")
    noise = np.random.default_rng(0).normal(size=(7, 4))
    pd.DataFrame(noise, index=targets[1:]).to_csv(tmp_path / "annotation.csv")
    cells = {"n_cells": means.obs["n_cells"][targets], "median_umi_per_cell": 1000.0}
    pd.DataFrame(cells, index=targets).to_csv(tmp_path / "counts.csv")
    files = [str(tmp_path / name) for name in ("bulk.h5ad", "counts.csv", "annotation.csv")]
    options = ["--repeats", "1", "--folds", "2", "--out", str(tmp_path / "out.json")]
    h1_models.main([files[0], "--counts", files[1], "--annotation", files[2], *options])
    found = json.loads((tmp_path / "out.json").read_text())
    scores = pd.DataFrame(found["scores"])
    assert scores["model"].nunique() == 13 and (scores["n_targets"] == 8).all()
    sizes = pd.DataFrame(found["sizes"]["scores"])
    assert sizes["model"].nunique() == 12 and (sizes["n_targets"] == 8).all()
    floor = found["floor"][0]["mean"]
    assert 0 < floor < min(s["mean"] for s in found["scores"] if s["metric"] == "mae")
    assert set(scores["metric"]) == set(h1_models.METRICS)
    assert found["data"]["without annotation"] == [targets[0]]
    dealt = pd.DataFrame(found["dealt"])
    np.testing.assert_allclose(
        dealt["sds"], (dealt["pds"] - dealt["dealt_mean"]) / dealt["dealt_sd"], atol=1e-3
    )


@pytest.mark.real
def test_the_packages_h1_models_give_what_the_stored_table_says():
    """Fitted anew to the first repeat's folds; VCC_H1 is the folder of the real effects."""
    folder = Path(os.environ.get("VCC_H1", "no folder"))
    if not folder.is_dir():
        pytest.skip("the effects of real H1 cells are not here: VCC_H1 names no folder")
    bulk = anndata.read_h5ad(folder / "pseudobulk_101x18080.h5ad")
    annotation = features.embedding(folder / "go_tfidf_svd64.npz")
    counts = pd.read_csv(folder / "pert_counts_Training.csv", index_col="target_gene")
    stored = json.loads(h1_models.RESULT.read_text())
    asked = {
        h1_models.BEST: models.several_likenesses(annotation, counts),
        h1_models.KERNEL_MEDIAN: models.kernel_median(annotation, counts),
    }
    folds = splits.k_fold(bulk.obs_names.drop("non-targeting"), n_splits=5, seed=0)
    missing = stored["data"]["without annotation"]
    with pytest.warns(FallbackWarning, match=", ".join(map(repr, missing))):
        found = evaluation.repeated(asked, bulk, folds)
    found = found.groupby(["model", "metric"])["value"].mean()
    rows = {(r["model"], r["metric"]): r["0"] for r in stored["by repeat"] if r["model"] in asked}
    assert len(rows) == 8
    for place, value in rows.items():
        assert found[place] == pytest.approx(value, abs=1e-6), place
