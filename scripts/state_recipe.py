"""Train Arc's State for a few steps on simulated cells, and keep what it writes.

    python scripts/state_recipe.py OUT --state PATH_OF_STATE [--steps 2000]

State is a program of its own, in an environment of its own: `pip install arc-state==0.11.1` (its
licence is non-commercial, and nothing of it is part of this project). A few steps on a small
simulated world teach it little: what is wanted are its files, not its predictions.

Written to OUT: the cells and the split that State was given, its model, and `predicted.h5ad`, what
its own inference made of H1's control cells. Everything is simulated.
"""

import argparse
import subprocess
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import vcc_helpers as vcc
from vcc_helpers import splits

CONTROL = "non-targeting"
#: All cells are scaled to this total, the median of H1's: the scorer compares with cells
#: scaled so.
TOTAL = 4321
#: So many cells of each target are predicted.
CELLS = 20


def main() -> None:
    """Write the cells, train, predict, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", required=True, help="the program state")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    world = vcc.datasets.make_h1_like(seed=0)
    split = write_input(world, out)
    run(options.state, *train_words(out, options.steps))
    write_controls(world, split, out)
    run(options.state, *infer_words(out))
    describe(out / "predicted.h5ad")


def write_input(world, out: Path) -> splits.FewShotSplit:
    """Write all contexts' cells as lognorm, and the split: H1's validation targets held out."""
    (out / "cells").mkdir(exist_ok=True)
    held = set(world.split["test"])
    for name, cells in world.contexts.items():
        cells = cells[~cells.obs["target_gene"].isin(held)].copy()
        as_state_wants(cells, name).write_h5ad(out / "cells" / f"{name}.h5ad")
    split = splits.FewShotSplit(world.split["train"], world.split["validation"])
    text = splits.to_toml(split, data=out / "cells", dataset="world", context="H1")
    (out / "split.toml").write_text(text, encoding="utf-8")
    return split


def as_state_wants(cells: anndata.AnnData, context: str) -> anndata.AnnData:
    """Return lognorm cells with the columns that State asks for."""
    obs = pd.DataFrame(
        {
            "target_gene": cells.obs["target_gene"].astype(str).astype("category"),
            "cell_type": pd.Categorical([context] * cells.n_obs),
            "batch_var": cells.obs["batch"].astype(str).astype("category"),
        },
        index=cells.obs_names,
    )
    values = vcc.lognorm(cells, target_sum=TOTAL)
    result = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=cells.var_names))
    result.obsm["X_hvg"] = values.toarray().astype(np.float32)
    return result


def train_words(out: Path, steps: int) -> list[str]:
    """Return the words after `state` that train a tiny model."""
    settings = {
        "data.kwargs.toml_config_path": out / "split.toml",
        "data.kwargs.embed_key": "X_hvg",
        "data.kwargs.output_space": "gene",
        "data.kwargs.num_workers": 0,
        "data.kwargs.pin_memory": "false",
        "data.kwargs.batch_col": "batch_var",
        "data.kwargs.pert_col": "target_gene",
        "data.kwargs.cell_type_key": "cell_type",
        "data.kwargs.control_pert": CONTROL,
        "training.max_steps": steps,
        "training.val_freq": steps,
        "training.ckpt_every_n_steps": steps,
        "training.batch_size": 4,
        "training.lr": 1e-3,
        "training.train_seed": 0,
        "model": "state_sm",
        "model.kwargs.cell_set_len": 16,
        "model.kwargs.hidden_dim": 64,
        "model.kwargs.transformer_backbone_kwargs.intermediate_size": 128,
        "model.kwargs.transformer_backbone_kwargs.num_hidden_layers": 1,
        "model.kwargs.transformer_backbone_kwargs.num_attention_heads": 4,
        "model.kwargs.transformer_backbone_kwargs.num_key_value_heads": 4,
        "model.kwargs.transformer_backbone_kwargs.head_dim": 16,
        "output_dir": out,
        "name": "model",
        "overwrite": "true",
        "use_wandb": "false",
    }
    return ["tx", "train", *(f"{name}={value}" for name, value in settings.items())]


def write_controls(world, split: splits.FewShotSplit, out: Path) -> None:
    """Write H1's controls, and copies of them under the name of each target to predict.

    State reads from each cell what it is to become. One target that it has never heard of is among
    them: what it does with that one is worth seeing.
    """
    cells = world.contexts["H1"]
    controls = as_state_wants(cells[cells.obs["target_gene"] == CONTROL].copy(), "H1")
    rng, parts = np.random.default_rng(0), [controls]
    for target in [*split.query, "NEVER-HEARD-OF"]:
        part = controls[np.sort(rng.choice(controls.n_obs, CELLS, replace=False))].copy()
        part.obs["target_gene"] = target
        part.obs_names = [f"{target}_{i}" for i in range(CELLS)]
        parts.append(part)
    anndata.concat(parts).write_h5ad(out / "asked.h5ad")


def infer_words(out: Path) -> list[str]:
    """Return the words after `state` that predict."""
    return [
        *("tx", "infer", "--model-dir", str(out / "model"), "--adata", str(out / "asked.h5ad")),
        *("--embed-key", "X_hvg", "--pert-col", "target_gene", "--control-pert", CONTROL),
        *("--celltype-col", "cell_type", "--batch-col", "batch_var", "--seed", "0"),
        *("--output", str(out / "predicted.h5ad")),
    ]


def run(program: str, *words: str) -> None:
    """Run State, and show what it says."""
    print("$ state", " ".join(map(str, words)), flush=True)
    start = time.perf_counter()
    subprocess.run([program, *map(str, words)], check=True)
    print(f"  {time.perf_counter() - start:.0f} s", flush=True)


def describe(path: Path) -> None:
    """Say where in State's file the prediction lies."""
    cells = anndata.read_h5ad(path)
    print(cells)
    print(cells.obs["target_gene"].value_counts().head(3))
    print({name: type(value).__name__ for name, value in cells.obsm.items()})


if __name__ == "__main__":
    main()
