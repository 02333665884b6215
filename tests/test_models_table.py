"""The full table of models: the command measures all, and its stored run says what is claimed."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vcc_helpers import datasets, pseudobulk
from vcc_helpers.intervals import CEILING, CHANCE

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import h1_models  # noqa: E402
import models as benchmark  # noqa: E402

STORED = json.loads((ROOT / "benchmarks/results/models.json").read_text("utf-8"))
SIMULATED = ("simulated validation", "simulated test")
SMALL = {"n_genes": 200, "n_targets": (20, 8, 9), "cells_per_target": 20, "n_controls": 120}


@pytest.fixture(scope="module")
def found():
    return benchmark.simulated(datasets.make_h1_like(seed=5, cache=False, **SMALL))


def table_of(result, name, part="table"):
    return pd.DataFrame(result[name][part]).set_index(["model", "metric"])


@pytest.mark.parametrize("name", SIMULATED)
def test_every_model_has_every_metric_on_both_sets(name, found):
    table = table_of(found, name)
    assert set(table.index) == set(table_of(STORED, name).index)
    models = table.index.unique("model").drop(CHANCE)
    assert len(models) == 18 and {benchmark.BASELINE, CEILING} <= set(models)
    assert all((model, metric) in table.index for model in models for metric in h1_models.METRICS)
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    assert set(table["n_targets"]) == {found[name]["targets"]}


def test_the_stored_run_is_of_the_challenges_size():
    assert [STORED[name]["targets"] for name in (*SIMULATED, "real H1")] == [50, 100, 100]
    assert {STORED[name]["trained on"] for name in SIMULATED} == {150}
    assert table_of(STORED, "real H1").loc[CHANCE, "mean"].tolist() == [0.525]


@pytest.mark.parametrize("name", SIMULATED)
def test_what_the_page_says_of_few_shot_in_the_simulated_world(name):
    gap = table_of(STORED, name, "minus zero-shot")
    for metric in ("mae", "pds", "des"):
        assert gap.loc[("gain", metric), "high"] < 0
    for model in ("additive", "residual ridge"):
        assert gap.loc[(model, "pearson"), "low"] > 0 > gap.loc[(model, "des"), "high"]
        assert gap.loc[(model, "pds"), "low"] <= 0 <= gap.loc[(model, "pds"), "high"]
    assert table_of(STORED, name, "minus mean").loc[("residual ridge", "pds"), "low"] > 0


def test_every_model_is_timed_at_the_challenges_size():
    took = STORED["seconds"]
    assert (took["targets"], took["genes"]) == (150, 18_080)
    names = {row["model"] for row in took["models"]}
    assert names == set(table_of(STORED, SIMULATED[0]).index.unique("model")) - {
        CHANCE, CEILING, benchmark.BASELINE,
    }  # fmt: skip
    small = benchmark.seconds(12, 4, 60, n_runs=1)
    assert {row["model"] for row in small["models"]} == names
    assert all(row["seconds"] > 0 for row in small["models"])


def test_the_stand_in_for_des_calls_what_a_test_of_two_means_calls():
    screen = datasets.load_hipsc_screen()
    bulk = pseudobulk(screen[screen.obs["day"] == 5])
    names = bulk.obs_names.drop("non-targeting")
    called, change = h1_models.called_genes(bulk, names)
    sd, n = np.sqrt(bulk.layers["variance"]), bulk.obs[["n_cells"]].to_numpy()
    row = bulk.obs_names.get_indexer(["non-targeting"])
    others = bulk.obs_names.get_indexer(names)
    t = stats.ttest_ind_from_stats(
        bulk.X[others], sd[others], n[others], bulk.X[row], sd[row], n[row], equal_var=False
    ).statistic
    fdr = stats.false_discovery_control(2 * stats.norm.sf(np.abs(t)), axis=None)
    np.testing.assert_array_equal(called, fdr.reshape(t.shape) < 0.05)
    assert 0 < called.mean() < 0.5 and np.array_equal(np.sign(change), np.sign(t))
    des = h1_models.measure_means(bulk, bulk)["des"]
    np.testing.assert_array_equal(des.to_numpy(), (called.any(axis=1))[names.argsort()])
