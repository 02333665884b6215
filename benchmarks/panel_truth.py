"""What a panel can show: its effects and scores against other cells of the same file.

    python benchmarks/panel_truth.py FILE.h5ad [--write]

FILE.h5ad is an official file, or a simulated one of its layout. At most 50 of its targets are
drawn. Of each, a random half of the cells (at most 300, and 6,000 controls) is kept aside as the
truth; panels of 20, 60 and 200 cells per target, with 500, 2,000 and 5,000 controls, are drawn from
the other half, three times. A panel is then read as a prediction of the truth, by the rules of
2025. One half of the panel is scored against its other half, too, which is all that a reader of the
panel alone can do.

Prints a table; with --write, puts it into results/panel_truth.json, which the book shows.
Needs 6 GB of memory with 18,080 genes.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import vcc_helpers as vcc
from vcc_helpers.bulk import CONTROL
from vcc_helpers.stream.blocks import take_cells

RESULT = Path(__file__).resolve().parent / "results" / "panel_truth.json"
#: Cells per target, and controls.
PANELS = {20: 500, 60: 2000, 200: 5000}
TRUTH, TRUTH_CONTROLS, TARGETS, DRAWS = 300, 6000, 50, 3


def drawn(labels, rng):
    """Rows of the truth, and of each panel: `rng` decides which; no row is in both."""
    names = np.setdiff1d(labels.unique(), CONTROL)
    names = rng.choice(names, min(TARGETS, len(names)), replace=False)
    truth, panels = [], [{n: [] for n in PANELS} for _ in range(DRAWS)]
    for name in (*names, CONTROL):
        rows = rng.permutation(np.flatnonzero(labels == name))
        half = len(rows) // 2
        truth.append(rows[:half][: TRUTH_CONTROLS if name == CONTROL else TRUTH])
        for panel in panels:
            rest = rng.permutation(rows[half:])
            for n, controls in PANELS.items():
                panel[n].append(rest[: controls if name == CONTROL else n])
    return np.sort(np.concatenate(truth)), [
        {n: np.sort(np.concatenate(rows)) for n, rows in panel.items()} for panel in panels
    ]


def effect_errors(panel, truth):
    """Compare a panel's effects with the true ones; distances over the true norm; medians."""
    bulk, whole = vcc.pseudobulk(panel), vcc.pseudobulk(truth)
    found, real = (vcc.effects(part) for part in (bulk, whole))
    strength = vcc.effect_strength(whole)
    distance = np.linalg.norm(found.X - real[found.obs_names].X, axis=1)
    size = strength.loc[found.obs_names, "norm"]
    return {
        "error": float(np.median(distance / size)),
        "pearson": float(vcc.evaluation.evaluate(bulk, whole)["pearson"].median()),
        "above noise": float((vcc.effect_strength(bulk).eval("norm > 2 * noise")).mean()),
    }


def measure(path):
    """A row for each panel: means over its draws, and their standard deviation."""
    cells, found = vcc.stream.open_cells(path), []
    truth_rows, panels = drawn(cells.obs["target_gene"].astype(str), np.random.default_rng(0))
    truth = take_cells(cells, truth_rows)
    with TemporaryDirectory() as cache:
        for panel in panels:
            for n, rows in panel.items():
                here = take_cells(cells, rows)
                scores = vcc.score(here, truth, cache=cache).summary
                half = vcc.scoring.split_half_ceiling(here).summary.add_prefix("half: ")
                found.append({"cells": n, **effect_errors(here, truth), **scores, **half})
                print(found[-1], flush=True)
    grouped = pd.DataFrame(found).groupby("cells")
    return {
        "simulated": bool(cells.uns.get("simulated", False)),
        "file": {"cells": cells.n_obs, "genes": cells.n_vars},
        "targets": int(truth.obs["target_gene"].nunique() - 1),
        "chance": float(vcc.metrics.pds_chance(truth.obs["target_gene"].nunique() - 1)),
        "mean": grouped.mean().T.to_dict(),
        "sd": grouped.std(ddof=0).T.to_dict(),
    }


def table(kept):
    """The result as the book shows it: a row for each panel, mean ± sd over the draws."""
    mean, sd = (pd.DataFrame(kept[name]) for name in ("mean", "sd"))
    shown = mean.map("{:.3f}".format) + " ± " + sd.map("{:.3f}".format)
    return shown.T.rename_axis("cells per target")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    asked = parser.parse_args()
    kept = measure(asked.file)
    print("SIMULATED cells" if kept["simulated"] else "real cells")
    print(table(kept).T.to_string())
    if asked.write:
        RESULT.write_text(json.dumps(kept, indent=1) + "\n")
