"""Make what the speed benchmark needs: the peers' environments and the work.

    python benchmarks/prepare_speed.py

Each file benchmarks/peers/NAME.txt becomes an environment of its own, since the peers' needs
clash with each other's and with ours. The work is simulated: a prediction and a real file, two
draws of cells of the same targets, in the official format, and the real one log-normalised.
Everything goes into _build/peers, which git ignores; what is there already is left as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "_build" / "peers"
PEERS = ROOT / "benchmarks" / "peers"

#: The work: cells of each perturbation, perturbations, controls, genes. As many perturbations and
#: genes as the contest's validation set has, and a seventh of its cells.
N_CELLS, N_TARGETS, N_CONTROLS, N_GENES = 160, 50, 6000, 18_080
#: Part of the depth of H1's cells: a screen of ordinary depth, 36 % of its values above zero.
DEPTH = 0.4
#: A small piece of the work; each peer runs it once, so that compiled code is compiled.
N_SMALL_CELLS, N_SMALL_GENES = 2000, 1000


def make_environments(folder):
    """Install each peer's requirements into an environment of its own."""
    uv = shutil.which("uv", path=os.fspath(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv was not found; `make setup` installs it beside this Python")
    for requirements in sorted(PEERS.glob("*.txt")):
        home = folder / requirements.stem
        if not home.exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
        python = home / "bin" / "python"
        install = [uv, "pip", "sync", "--quiet", "--python", python, requirements]
        subprocess.run(install, check=True)
        print(f"environment {requirements.stem}: ready")


def make_work(folder):
    """Write pred.h5ad and real.h5ad, lognorm.h5ad from the latter, and small ones of each kind."""
    for seed, name in enumerate(("pred", "real")):
        if not (folder / f"{name}.h5ad").exists():
            cells = simulate(seed)
            write(cells[small_part(cells)].copy(), folder / f"small_{name}.h5ad")
            write(cells, folder / f"{name}.h5ad")
    kinds = {"lognorm": "real", "small_lognorm": "small_real", "small_lognorm_pred": "small_pred"}
    for name, source in kinds.items():
        if not (folder / f"{name}.h5ad").exists():
            cells = anndata.read_h5ad(folder / f"{source}.h5ad")
            write(log_normalised(cells), folder / f"{name}.h5ad")


def simulate(seed):
    """Draw cells; the targets and their effects are the same with each seed."""
    from vcc_helpers.datasets import Size, _simulate
    from vcc_helpers.datasets._cells import draw_roster
    from vcc_helpers.datasets._recipe import draw_recipe

    recipe = draw_recipe(Size(N_GENES, (N_TARGETS, 0, 0), N_CELLS, N_CONTROLS, 48, 1.0))
    context = recipe.contexts["H1"]._replace(n_cells=np.full(N_TARGETS, N_CELLS))
    recipe = recipe._replace(seed=seed, contexts={"H1": context})
    roster = draw_roster(recipe, "H1")
    roster["depth"] *= DEPTH
    order = np.random.default_rng(seed).permutation(roster.index.to_numpy())
    with tqdm(total=len(order), unit=" cells") as bar:
        blocks = [counts for _, counts in _simulate._blocks(recipe, "H1", roster, order, bar)]
    labels = _simulate._labels(recipe, "H1", roster.loc[order])
    return _simulate._frame(recipe, "H1", sparse.vstack(blocks, format="csr"), labels)


def small_part(cells):
    """Choose the first cells and the first genes, all target genes among them."""
    genes = np.zeros(cells.n_vars, dtype=bool)
    genes[:N_SMALL_GENES] = True
    return slice(0, N_SMALL_CELLS), genes | cells.var["is_target"].to_numpy()


def log_normalised(cells):
    """Do what scanpy's normalize_total and log1p do, in float32."""
    total = np.asarray(cells.X.sum(axis=1, dtype=np.float64)).ravel()
    scale = (np.median(total) / total).astype(np.float32)
    cells.X.data = np.log1p(cells.X.data * np.repeat(scale, np.diff(cells.X.indptr)))
    return cells


def write(cells, path):
    """Write a file that is there whole or not at all."""
    unfinished = path.with_suffix(".part")
    cells.write_h5ad(unfinished)
    unfinished.replace(path)
    print(f"{path.name}: {cells.n_obs:,} x {cells.n_vars:,}, {cells.X.nnz / 1e6:.1f} M above zero")


def try_peers(folder):
    """Run each step once on the small files: it works, and its code is compiled."""
    speed = [sys.executable, ROOT / "benchmarks" / "speed.py", "--folder", folder, "--try"]
    return subprocess.run(speed, check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to (%(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make_environments(options.folder)
    make_work(options.folder)
    sys.exit(try_peers(options.folder))


if __name__ == "__main__":
    main()
