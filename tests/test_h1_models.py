"""The benchmark of models on real H1 effects runs, and its stored table says what is claimed."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vcc_helpers import pseudobulk
from vcc_helpers.datasets import load_hipsc_screen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import h1_models  # noqa: E402

STORED = json.loads((ROOT / "benchmarks/results/h1_models.json").read_text("utf-8"))
BEST = h1_models.BEST


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script writes for the hiPSC screen, with an annotation that knows nothing."""
    folder = tmp_path_factory.mktemp("h1")
    screen = load_hipsc_screen()
    bulk = pseudobulk(screen[screen.obs["day"] == 5])
    bulk.write_h5ad(folder / "bulk.h5ad")
    targets = bulk.obs_names.drop("non-targeting").rename("target_gene")
    rng = np.random.default_rng(0)
    noise = pd.DataFrame(rng.normal(size=(len(targets) - 1, 4)), index=targets[1:])
    noise.to_csv(folder / "annotation.csv")
    cells = {"n_cells": bulk.obs["n_cells"][targets], "median_umi_per_cell": 1000.0}
    pd.DataFrame(cells, index=targets).to_csv(folder / "counts.csv")
    options = ["--repeats", "1", "--folds", "4", "--out", str(folder / "out.json")]
    files = [str(folder / name) for name in ("bulk.h5ad", "counts.csv", "annotation.csv")]
    h1_models.main([files[0], "--counts", files[1], "--annotation", files[2], *options])
    return json.loads((folder / "out.json").read_text()), targets


def test_it_measures_every_model_on_every_target(found):
    result, targets = found
    scores = pd.DataFrame(result["scores"])
    assert scores["model"].nunique() == 12 and (scores["n_targets"] == len(targets)).all()
    assert result["data"]["without annotation"] == [targets[0]]
    assert result.keys() == STORED.keys()
    assert set(scores["model"]) == {row["model"] for row in STORED["scores"]}


def test_the_mean_is_no_better_than_chance_there_either(found):
    scores = pd.DataFrame(found[0]["scores"]).set_index(["model", "metric"])
    low, high = scores.loc[("mean", "pds"), ["low", "high"]]
    assert low < found[0]["data"]["chance"] < high


def test_the_stored_run_is_of_the_size_that_is_named():
    data = STORED["data"]
    assert (data["targets"], data["genes"]) == (100, 18_080)
    assert (data["repeats"], data["folds"], data["chance"]) == (10, 5, 0.525)


def test_one_model_gains_in_pds_and_keeps_the_mae_of_the_mean():
    paired = {(r["model"], r["metric"]): r for r in STORED["minus no change"]}
    assert paired[BEST, "pds"]["low"] > 0
    scores = {(r["model"], r["metric"]): r for r in STORED["scores"]}
    assert scores[BEST, "mae"]["mean"] <= scores["mean", "mae"]["mean"]
    dealt = {r["model"]: r for r in STORED["dealt"]}
    assert dealt[BEST]["sds"] > 5


def test_what_is_not_shown_is_said():
    """The plain interval of its PDS holds chance; the page says so."""
    row = next(r for r in STORED["scores"] if (r["model"], r["metric"]) == (BEST, "pds"))
    assert row["low"] < STORED["data"]["chance"] < row["high"]
    page = (ROOT / "book/reality.md").read_text("utf-8")
    assert "The plain interval of its PDS does hold chance." in page
