"""A file of 2026 in full size, checked, packed and scored: time and peak memory of each step.

    python benchmarks/season_full.py --official PYTHON [--tenth] [--folder DIR] [--limit 20]

PYTHON is that of an environment of its own in which vcc-cli 0.3.0 is installed; its ``vcc prep``
packs the same file within LIMIT GB. The cells are SIMULATED, by the recipe of the book's worlds at
a depth of 20,000: the truth, and a prediction that has half of each effect. They are stored as
AnnData stores them with compression="gzip", and removed at the end. Each step is a process of its
own, with the disk's cache as the step before left it. Writes benchmarks/results/season_full.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks/results/season_full.json"
CONTEXTS, N_GENES, N_TARGETS, EACH, DEPTH, DEPTH_SD = "ABC", 18_533, 300, 400, 20_000, 0.4
#: Values of a stored chunk, of a block of cells that is drawn.
CHUNK, BLOCK = 2**18, 400
SCORE = (
    "import sys; from vcc_helpers.scoring import score_contexts\n"
    "print(score_contexts(*sys.argv[1:], 'vcc2026', memory='4GB').scores.to_json())"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", required=True, metavar="PYTHON")
    parser.add_argument("--tenth", action="store_true")
    parser.add_argument("--folder", help="where the files are made, about 45 GB")
    parser.add_argument("--limit", type=int, default=20, help="GB that the official tool may have")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    share = 10 if options.tenth else 1
    if options.make:
        make(Path(options.make), share)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measured(Path(folder), options, share)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results["a tenth" if options.tenth else "full size"] = found
    RESULT.write_text(json.dumps(results, indent=1) + "\n")


def measured(folder: Path, options: argparse.Namespace, share: int) -> dict:
    """Make the files, run each step, and return what each took."""
    ours, pred, out = [sys.executable, "-m", "vcc_helpers"], folder / "pred.h5ad", folder / "o.vcc"
    lists = ["-g", folder / "gene_names.csv"]
    asked = [*lists, "--counts", folder / "pert_counts.csv", "--preset", "vcc2026"]
    theirs = [options.official, "-m", "vcc", "prep", pred, *lists]
    theirs += ["--perts", folder / "pert_counts.csv"]
    make_it = [sys.executable, __file__, "--official", "-", *sys.argv[1:], "--make"]
    found = {"make": run([*make_it, folder])}
    facts = json.loads(found["make"].pop("said"))
    found["check"] = run([*ours, "check", pred, *asked])
    found["check --bundle"] = run([*ours, "check", pred, *asked, "--bundle", folder])
    found["prep"] = run([*ours, "prep", pred, *asked, "-o", out])
    facts["archive_gb"] = round(out.stat().st_size / 1e9, 3)
    found["official reader"] = read_officially(options.official, out)
    out.unlink()
    limited = ["prlimit", f"--as={options.limit * 10**9}", *theirs, "-o", folder / "theirs.vcc"]
    os.environ["TMPDIR"] = str(folder)
    found["official prep"] = run(limited)
    found["official prep"]["limit_gb"] = options.limit
    (folder / "theirs.vcc").unlink(missing_ok=True)
    found["score"] = run([sys.executable, "-c", SCORE, pred, folder / "truth.h5ad"])
    return {"machine": f"{os.cpu_count()} cores, {platform.platform()}", **facts, "steps": found}


def run(command: list) -> dict:
    """Run a step; return its time, its peak memory, how it ended and its last words."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        words = list(map(str, command))
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # of it and of what it ran
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines() or [""]
    found = {"seconds": round(time.perf_counter() - start, 1)}
    found |= {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1)}
    found |= {"peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3), "status": process.returncode}
    print(Path(words[-1]).name, found, lines[-3:], flush=True)
    return found | {"said": lines[-1].split("/")[-1] if "/" in lines[-1] else lines[-1]}


def read_officially(python: str, path: Path) -> dict:
    done = subprocess.run(
        [python, str(ROOT / "benchmarks/official_2026.py")],
        input=json.dumps({"prep": [], "read": [str(path)]}), stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])["read"][0]


# The files


def make(folder: Path, share: int) -> None:
    """Write a prediction, a truth with controls, and in the same folder what a bundle holds."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from vcc_helpers.datasets import _recipe

    size = _recipe.Size(
        N_GENES, (N_TARGETS, 0, 0), EACH, n_controls=46, n_batches=8, effect_scale=1.0
    )
    draw.recipe = _recipe.draw_recipe(size, ("H1", *CONTEXTS))  # the forks have it
    targets = [str(name) for name in draw.recipe.labels[: N_TARGETS // share]]
    genes = [str(name) for name in draw.recipe.genes]
    (folder / "gene_names.csv").write_text("gene_name\n" + "\n".join(genes) + "\n")
    (folder / "pert_counts.csv").write_text("target_gene\n" + "\n".join(targets) + "\n")
    manifest = {"contexts": list(CONTEXTS), "panel_id": "simulated", "n_genes": N_GENES}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    n_controls = 46 * 400 // share
    control = [(c, N_TARGETS, n_controls, 1.0) for c in CONTEXTS]
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
        parts = [(c, t, EACH, 0.5) for c in CONTEXTS for t in range(len(targets))]
        n = write(folder / "pred.h5ad", parts, genes, pool, 1)
        print("pred", n, flush=True)
        parts = [(c, t, EACH, 1.0) for c in CONTEXTS for t in range(len(targets))]
        write(folder / "truth.h5ad", [*control, *parts], genes, pool, 2)
        for part in control:
            write(folder / f"context_{part[0]}.h5ad", [part], genes, pool, 2)
    size = {name: (folder / f"{name}.h5ad").stat().st_size for name in ("pred", "truth")}
    facts = {"cells": len(CONTEXTS) * len(targets) * EACH, "genes": N_GENES, "entries": n}
    facts |= {f"{name}_gb": round(found / 1e9, 3) for name, found in size.items()}
    print(json.dumps(facts))


def draw(context: str, target: int, n: int, share: float, seed: tuple):
    """Draw some cells of one target with a share of its effects, in a process of the pool."""
    import numpy as np
    import pandas as pd

    from vcc_helpers.datasets._cells import draw_counts

    recipe = draw.recipe
    here = recipe.contexts[context]
    if share != 1:
        here = here._replace(changes=share * here.changes)
    rng = np.random.default_rng(seed)
    depth = DEPTH * np.exp(rng.normal(0, DEPTH_SD, n))
    batch = rng.integers(8, size=n)
    roster = pd.DataFrame({"group": target, "batch": batch, "guide": 0, "depth": depth})
    roster.index = np.arange(n) + int(rng.integers(2**40))  # the seed of each cell
    recipe = recipe._replace(contexts={context: here})
    rows = draw_counts(recipe, context, roster, roster.index)
    return rows.data, rows.indices.astype(np.int32), np.diff(rows.indptr)


def write(path: Path, parts: list, genes: list, pool, seed: int) -> int:
    """Write cells of a list of context, target, number and share of the effects, in blocks."""
    import anndata
    import h5py
    import numpy as np
    import pandas as pd
    from scipy import sparse

    labels = draw.recipe.labels
    blocks = [
        (c, t, min(BLOCK, n - start), share, (seed, ord(c), t, start))
        for c, t, n, share in parts
        for start in range(0, n, BLOCK)
    ]
    obs = pd.DataFrame(
        {
            "target_gene": np.repeat([str(labels[b[1]]) for b in blocks], [b[2] for b in blocks]),
            "context": np.repeat([b[0] for b in blocks], [b[2] for b in blocks]),
        }
    )
    obs.index = [f"cell{i}" for i in range(len(obs))]
    shape = len(obs), len(genes)
    frame = anndata.AnnData(
        sparse.csr_matrix(shape, dtype=np.float32), obs, pd.DataFrame(index=genes)
    )
    frame.uns["simulated"] = True
    frame.write_h5ad(path)
    with h5py.File(path, "a") as file:
        matrix, counts = file["X"], []
        columns = {name: Column(matrix, name) for name in ("data", "indices")}
        for data, indices, lengths in in_order(pool, blocks):
            columns["data"].add(data)
            columns["indices"].add(indices)
            counts.append(lengths)
        for column in columns.values():
            column.flush()
        del matrix["indptr"]
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])
        matrix["indptr"] = indptr if indptr[-1] > 2**31 else indptr.astype(np.int32)
    return int(indptr[-1])


def in_order(pool, blocks: list):
    """Yield what is drawn, a few blocks ahead."""
    from collections import deque

    waiting = deque()
    for block in blocks:
        waiting.append(pool.submit(draw, *block))
        if len(waiting) > 4:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Column:
    """A stored array that grows, its chunks packed as HDF5's filters shuffle and gzip do."""

    def __init__(self, matrix, name: str):
        kept = matrix[name].attrs
        dtype = matrix[name].dtype
        del matrix[name]
        self.rest, self.n = [], 0
        self.stored = matrix.create_dataset(
            name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,), compression=1, shuffle=True
        )
        self.stored.attrs.update(kept)

    def add(self, values) -> None:
        self.rest.append(values)
        if sum(map(len, self.rest)) > 2**22:
            self.flush(whole=True)

    def flush(self, whole: bool = False) -> None:
        import numpy as np

        from vcc_helpers.stream.blocks import pack_chunk

        values = np.concatenate(self.rest)
        keep = len(values) - len(values) % CHUNK if whole else len(values)
        self.rest = [values[keep:]]
        self.stored.resize((self.n + keep,))
        for start in range(0, keep, CHUNK):
            chunk = values[start : min(start + CHUNK, keep)]
            chunk = np.pad(chunk, (0, CHUNK - len(chunk)))
            self.stored.id.write_direct_chunk((self.n + start,), pack_chunk(chunk))
        self.n += keep


if __name__ == "__main__":
    main()
