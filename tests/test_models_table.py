"""The full tables of models: the benchmarks measure every model, simulated and on real effects."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from vcc_helpers import datasets, pseudobulk
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
        models = table.index.unique("model").drop(CHANCE)
        assert set(models) == {*few, benchmark.BASELINE, CEILING}
        assert all((m, metric) in table.index for m in models for metric in h1_models.METRICS)
        assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
        assert set(table["n_targets"]) == {part["targets"]} == {n_targets}


def test_the_stand_in_for_des_calls_what_a_test_of_two_means_calls(means):
    names = means.obs_names.drop("non-targeting")
    called, change = h1_models.called_genes(means, names)
    sd, n = np.sqrt(means.layers["variance"]), means.obs[["n_cells"]].to_numpy()
    row = means.obs_names.get_indexer(["non-targeting"])
    others = means.obs_names.get_indexer(names)
    t = stats.ttest_ind_from_stats(
        means.X[others], sd[others], n[others], means.X[row], sd[row], n[row], equal_var=False
    ).statistic
    fdr = stats.false_discovery_control(2 * stats.norm.sf(np.abs(t)), axis=None)
    np.testing.assert_array_equal(called, fdr.reshape(t.shape) < 0.05)
    assert 0 < called.mean() < 0.5 and np.array_equal(np.sign(change), np.sign(t))
    des = h1_models.measure_means(means, means)["des"]
    np.testing.assert_array_equal(des.to_numpy(), (called.any(axis=1))[names.argsort()])


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
    assert scores["model"].nunique() == 14 and (scores["n_targets"] == 8).all()
    assert set(scores["metric"]) == set(h1_models.METRICS)
    assert found["data"]["without annotation"] == [targets[0]]
    dealt = pd.DataFrame(found["dealt"])
    np.testing.assert_allclose(
        dealt["sds"], (dealt["pds"] - dealt["dealt_mean"]) / dealt["dealt_sd"], atol=1e-3
    )
