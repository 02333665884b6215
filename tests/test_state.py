"""Arc's State: the recipe's own part, and a real run where State is."""

import os
import subprocess
import sys

import anndata
import numpy as np
import pytest
import state_recipe
from conftest import ROOT

from vcc_helpers import datasets, score, splits, submission
from vcc_helpers.datasets import read_screen

PROGRAM = "VCC_STATE_PROGRAM"


def test_state_is_given_what_the_split_says_and_no_answer(tmp_path):
    sizes = {"n_genes": 200, "n_targets": (12, 6, 6), "n_controls": 60}
    world = datasets.make_h1_like(cache=False, **sizes)
    split = state_recipe.write_input(world, tmp_path)
    state_recipe.write_controls(world, split, tmp_path)
    targets = [*split.support, *split.query]
    assert splits.from_toml(tmp_path / "split.toml", targets=targets, context="H1") == split
    assert sorted(p.stem for p in (tmp_path / "cells").iterdir()) == sorted(world.contexts)
    for path in (tmp_path / "cells").iterdir():
        cells = anndata.read_h5ad(path)
        assert list(cells.obs) == ["target_gene", "cell_type", "batch_var"]
        assert not set(cells.obs["target_gene"]) & set(world.split["test"])  # nobody sees the test
        assert submission.check(cells).summary.endswith("lognorm")
        np.testing.assert_array_equal(cells.obsm["X_hvg"], cells.X.toarray())
    report = str(submission.check(anndata.read_h5ad(tmp_path / "asked.h5ad")))
    n = len(split.query) + 1
    assert f"of {n} of {n} targets each cell is also" in report
    assert "obsm['X_hvg'] may hold the prediction" in report


@pytest.mark.slow
def test_state_itself_goes_all_the_way(tmp_path):
    if PROGRAM not in os.environ:
        pytest.skip(f"{PROGRAM} does not name the program state (an environment of its own)")
    command = [sys.executable, str(ROOT / "scripts/state_recipe.py"), str(tmp_path)]
    command += ["--state", os.environ[PROGRAM], "--steps", "10"]
    subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "disabled"})
    pred = read_screen(tmp_path / "predicted.h5ad", layer="X_hvg", values="stored")
    pred = pred[pred.obs["target_gene"].astype(str) != "NEVER-HEARD-OF"].copy()
    world = datasets.make_h1_like(seed=0)
    real = world.cells("validation").copy()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[world.split["validation"]]
    assert submission.check(pred, genes=real.var_names, counts=n_cells).ok
    submission.prep(pred, tmp_path / "p.vcc", genes=real.var_names)
    assert len(score(pred, real).per_perturbation) == 50
