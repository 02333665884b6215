"""Check, pack and score what Arc's State wrote by the recipe; write the figures.

    python scripts/state_recipe.py OUT --state PATH_OF_STATE
    python benchmarks/state.py OUT

Writes benchmarks/results/state.json. The cells are simulated, and State has seen them for a
moment only: the figures show that its files go all the way, not how good it is.
"""

import argparse
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anndata
import numpy as np
import yaml

import vcc_helpers as vcc
from vcc_helpers import cli, scoring, submission
from vcc_helpers.datasets import read_screen
from vcc_helpers.submission import archive

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Go all the way with one prediction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    world = vcc.datasets.make_h1_like(seed=0)
    real, known = world.cells("validation").copy(), world.cells("train").copy()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[world.split["validation"]]
    (out / "genes.csv").write_text("\n".join(real.var_names) + "\n")
    n_cells.rename_axis("target_gene").rename("n_cells").to_csv(out / "counts.csv")
    raw = anndata.read_h5ad(out / "predicted.h5ad")
    steps = yaml.safe_load((out / "model/config.yaml").read_text())["training"]["max_steps"]
    result = {"state": "arc-state 0.11.1", "steps": steps}
    result |= {"as_written": said(out, "predicted.h5ad"), "form": form(raw)}

    pred = read_screen(out / "predicted.h5ad", layer="X_hvg", values="stored")
    pred.write_h5ad(out / "read.h5ad")
    result["as_read"] = said(out, "read.h5ad")
    known_targets = pred.obs["target_gene"].astype(str) != "NEVER-HEARD-OF"
    result["unknown_target"] = distance(pred)
    asked = pred[known_targets].copy()
    asked.write_h5ad(out / "asked_for.h5ad")
    result["without_the_unknown"] = said(out, "asked_for.h5ad")
    submission.prep(out / "asked_for.h5ad", out / "state.vcc", genes=out / "genes.csv")
    with archive.opened(out / "state.vcc") as path:
        cards = {"State": vcc.score(path, real)}
    base = vcc.score(scoring.official_baseline(known, n_cells=n_cells), real)
    cards |= {"mean baseline": base, "one half against the other": scoring.split_half_ceiling(real)}
    result["scores"] = {
        name: {**card.summary.round(4), "overall": round(card.overall(base), 2)}
        for name, card in cards.items()
    }
    result["chance"] = {"pds": round(vcc.metrics.pds_chance(len(n_cells)), 4)}
    path = ROOT / "benchmarks/results/state.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def said(out: Path, name: str) -> dict:
    """Return what the command says of a file, and its exit status."""
    words = ["--genes", str(out / "genes.csv"), "--counts", str(out / "counts.csv")]
    text = io.StringIO()
    with redirect_stderr(text), redirect_stdout(text):
        status = cli.main(["check", str(out / name), *words])
    return {"exit": status, "said": text.getvalue().replace("vcc-helpers: ", "").splitlines()}


def form(cells) -> dict:
    """Return where what lies in the file."""
    table = cells.obsm["X_hvg"]
    return {
        "obs": list(cells.obs),
        "obsm": {name: list(value.shape) for name, value in cells.obsm.items()},
        "dtype": str(table.dtype),
        "smallest": float(table.min()),
        "largest": round(float(table.max()), 3),
        "cells_of_a_target": int(cells.obs["target_gene"].value_counts().iloc[-1]),
    }


def distance(pred) -> dict:
    """Return how far means lie from the controls': of the unknown target, and of known ones."""
    bulk = vcc.pseudobulk(pred)
    gap = np.abs(bulk.X - bulk[["non-targeting"]].X).mean(axis=1)
    rows = dict(zip(bulk.obs_names, gap, strict=True))
    unknown = rows.pop("NEVER-HEARD-OF")
    rows.pop("non-targeting")
    return {
        "unknown": round(float(unknown), 5),
        "median_known": round(float(np.median([*rows.values()])), 5),
    }


if __name__ == "__main__":
    main()
