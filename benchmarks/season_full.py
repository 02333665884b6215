"""A file of 2026 in full size, written, checked, packed, scored: time and memory of each step.

    python benchmarks/season_full.py --official PYTHON --scorer CELL_EVAL2 [--tenth] [--folder DIR]

PYTHON is that of an environment of its own in which vcc-cli 0.3.0 is installed, CELL_EVAL2 the
program of cell-eval2 0.20.0 in another; they pack and score the same files within LIMIT GB. The
cells are SIMULATED, by the recipe of the book's worlds at a depth of 20,000: the truth, and a
prediction that has half of each effect. A tenth is drawn, 30 targets; the full size has each of
these cells ten times, under ten targets, each time with one count raised. They are stored by rows
in float32, packed with gzip. Without --folder all is removed at the end. Each step is a process of
its own. Writes benchmarks/results/season_full.json.
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
CONTEXTS, N_GENES, N_DRAWN, EACH, DEPTH, DEPTH_SD = "ABC", 18_533, 30, 400, 20_000, 0.4
#: Control cells of a context that are drawn, copies of all in the full size, values of a chunk.
N_CONTROLS, COPIES, CHUNK = 1_840, 10, 2**18
CHECK = """
import sys; from pathlib import Path
from vcc_helpers.stream.open import open_cells; from vcc_helpers.submission import check
folder = Path(sys.argv[1])
asked = {"genes": folder / "gene_names.csv", "counts": folder / "pert_counts.csv"}
controls = {c: open_cells(folder / f"context_{c}.h5ad") for c in "ABC"}
print(check(folder / "pred.h5ad", **asked, controls=controls, preset="vcc2026"))
"""
COMPARE = [sys.executable, "-c", f"""
import json, sys; sys.path[:0] = [{str(ROOT / "benchmarks")!r}]
import season_2026; print(json.dumps(season_2026.differences(*sys.argv[1:])))
"""]  # fmt: skip
WRITE = """
import sys; import vcc_helpers as vcc; from vcc_helpers.bulk import CONTROL
from pathlib import Path; import anndata, numpy as np, pandas as pd
bundle, out = vcc.datasets.read_bundle(sys.argv[1]), Path(sys.argv[1]) / "written.h5ad"
names, means = [CONTROL, *bundle.n_cells.index], {}
for context, cells in bundle.controls.items():  # no change; the cost is that of any prediction
    row = np.asarray(vcc.pseudobulk(cells)[CONTROL].X)
    obs = pd.DataFrame(index=names)
    means[context] = anndata.AnnData(np.tile(row, (len(names), 1)), obs, cells.var[[]].copy())
vcc.submission.write(means, out, controls=bundle.controls, n_cells=bundle.n_cells)
print(f"{out.stat().st_size / 1e9:.2f} GB"); out.unlink()
"""
SCORE = """
import sys; from vcc_helpers.scoring import score
cards = score(*sys.argv[1:], "vcc2026", memory="4GB").contexts
means = {c: card.per_perturbation.mean(numeric_only=True) for c, card in cards.items()}
print({c: mean.round(4).to_dict() for c, mean in means.items()})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", required=True, metavar="PYTHON")
    parser.add_argument("--scorer", required=True, metavar="CELL_EVAL2")
    parser.add_argument("--tenth", action="store_true")
    parser.add_argument("--folder", help="where the files are made and kept, about 25 GB")
    parser.add_argument("--limit", type=int, default=20, help="GB that the official tool may have")
    parser.add_argument("--make", choices=("pred", "truth"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(Path(options.folder), 1 if options.tenth else COPIES, options.make)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        for found in measured(folder, options):  # what is known is kept, whatever comes
            results["a tenth" if options.tenth else "full size"] = found
            RESULT.write_text(json.dumps(results, indent=1) + "\n")


def measured(folder: Path, options: argparse.Namespace):
    """Make the files, run each step, and yield what is known after it."""
    ours, pred, out = [sys.executable, "-m", "vcc_helpers"], folder / "pred.h5ad", folder / "o.vcc"
    lists = ["-g", folder / "gene_names.csv"]
    asked = [*lists, "--counts", folder / "pert_counts.csv", "--preset", "vcc2026"]
    theirs = [options.official, "-m", "vcc", "prep", pred, *lists]
    theirs += ["--perts", folder / "pert_counts.csv", "-o", folder / "theirs.vcc", "--force"]
    rules = ["--profile", "vcc", "--preset", "vcc2026", "--set", "device=cpu", "-o", folder / "out"]
    scorer = [options.scorer, "run", "-ap", pred, "-ar", folder / "truth.h5ad", *rules]
    scorer += ["--pert-col", "target_gene", "--control", "non-targeting"]
    words = ["--official", "-", "--scorer", "-", *["--tenth"][: options.tenth]]
    os.environ["TMPDIR"] = str(folder)  # the official tool unpacks there
    make_it = [sys.executable, __file__, *words, "--folder", folder, "--make"]
    found = {"machine": f"{os.cpu_count()} cores, {platform.platform()}", "steps": {}}
    steps = {
        "make pred": [*make_it, "pred"],
        "check": [*ours, "check", pred, *asked],
        "prep": [*ours, "prep", pred, *asked, "-o", out],
        "official prep": ["prlimit", f"--as={options.limit * 10**9}", *theirs],
        "check with controls": [sys.executable, "-c", CHECK, folder],
        "write": [sys.executable, "-c", WRITE, folder],
        "make truth": [*make_it, "truth"],
        "score": [sys.executable, "-c", SCORE, pred, folder / "truth.h5ad"],
        "official score": ["prlimit", f"--as={options.limit * 10**9}", *scorer],
    }
    for name, command in steps.items():
        if name.startswith("make") and (folder / f"{command[-1]}.h5ad").exists():
            continue
        found["steps"][name] = run(command)
        if name.startswith("make"):
            found |= json.loads(found["steps"].pop(name)["said"])
        if name == "prep":
            found["archive_gb"] = round(out.stat().st_size / 1e9, 3)
            found["official reader"] = read_officially(options.official, out)
        if name.startswith("official"):
            found["steps"][name]["limit_gb"] = options.limit
        if name == "official prep":
            both = out.exists() and (folder / "theirs.vcc").exists()
            if both and options.tenth:
                found["equal to the official archive"] = json.loads(
                    run([*COMPARE, out, folder / "theirs.vcc"])["said"]
                )
            for path in (out, folder / "theirs.vcc"):
                path.unlink(missing_ok=True)
        yield found


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
    found |= {"load": round(os.getloadavg()[0], 1)}  # of the machine, which others may use
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


def make(folder: Path, copies: int, what: str) -> None:
    """Write a prediction with the lists, or a truth with its controls, and these by context."""
    from vcc_helpers.datasets import _recipe

    size = (N_GENES, (N_DRAWN * COPIES, 0, 0), EACH)
    size = _recipe.Size(*size, n_controls=46, n_batches=8, effect_scale=1.0)
    recipe = _recipe.draw_recipe(size, ("H1", *CONTEXTS))
    targets = [str(name) for name in recipe.labels[: N_DRAWN * copies]]
    genes = [str(name) for name in recipe.genes]
    (folder / "gene_names.csv").write_text("gene_name\n" + "\n".join(genes) + "\n")
    (folder / "pert_counts.csv").write_text("target_gene\n" + "\n".join(targets) + "\n")
    manifest = {"contexts": list(CONTEXTS), "panel_id": "simulated", "n_genes": N_GENES}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    control = {c: [(c, N_DRAWN * COPIES, EACH, 1.0)] * (N_CONTROLS // EACH) for c in CONTEXTS}
    share = 0.5 if what == "pred" else 1.0
    parts = [(c, t, EACH, share) for c in CONTEXTS for t in range(N_DRAWN)]
    facts = {"cells": len(parts) * EACH * copies, "genes": N_GENES} if what == "pred" else {}
    if what == "truth":
        parts = [*sum(control.values(), []), *parts]
    else:
        for context, some in control.items():
            write(folder / f"context_{context}.h5ad", some, recipe, copies)
    path = folder / f"{what}.h5ad"
    facts[f"entries of {what}"] = write(path, parts, recipe, copies)
    print(json.dumps(facts | {f"{what}_gb": round(path.stat().st_size / 1e9, 3)}))


def draw(recipe, context: str, target: int, n: int, share: float, seed: int):
    """Draw some cells of one target with a share of its effects."""
    import numpy as np
    import pandas as pd

    from vcc_helpers.datasets._cells import draw_counts

    here = recipe.contexts[context]
    recipe = recipe._replace(contexts={context: here._replace(changes=share * here.changes)})
    rng = np.random.default_rng([ord(context), target, seed, int(10 * share)])
    depth = DEPTH * np.exp(rng.normal(0, DEPTH_SD, n))
    batch = rng.integers(8, size=n)
    roster = pd.DataFrame({"group": target, "batch": batch, "guide": 0, "depth": depth})
    roster.index = np.arange(n) + int(rng.integers(2**40))  # the seed of each cell
    return draw_counts(recipe, context, roster, roster.index)


def write(path: Path, parts: list, recipe, copies: int) -> int:
    """Write cells of a list of context, target, number and share of the effects, in blocks."""
    import anndata
    import h5py
    import numpy as np
    import pandas as pd
    from scipy import sparse

    named = [  # the control is the last label, whichever copy
        (recipe.labels[t if t == N_DRAWN * COPIES else t + N_DRAWN * copy], c, n)
        for c, t, n, _ in parts
        for copy in range(copies)
    ]
    labels, contexts, sizes = zip(*named, strict=True)
    columns = {"target_gene": labels, "context": contexts}
    obs = pd.DataFrame({name: np.repeat(list(x), sizes) for name, x in columns.items()})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    empty = sparse.csr_matrix((len(obs), N_GENES), dtype=np.float32)
    var = pd.DataFrame(index=recipe.genes.astype(str))
    anndata.AnnData(empty, obs, var, uns={"simulated": True}).write_h5ad(path)
    with h5py.File(path, "a") as file:
        matrix, lengths = file["X"], [np.zeros(1, int)]
        columns = {name: Column(matrix, name) for name in ("data", "indices")}
        for i, part in enumerate(parts):
            rows = draw(recipe, *part, seed=i)
            for _ in range(copies):
                rows.data[rows.indptr[:-1]] += 1
                columns["data"].add(rows.data.copy())
                columns["indices"].add(rows.indices.astype(np.int32))
                lengths.append(np.diff(rows.indptr))
        for column in columns.values():
            column.flush()
        del matrix["indptr"]
        indptr = np.cumsum(np.concatenate(lengths), dtype=np.int64)
        matrix["indptr"] = indptr if indptr[-1] > 2**31 else indptr.astype(np.int32)
    return int(indptr[-1])


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
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        from vcc_helpers.stream.blocks import pack_chunk

        values = np.concatenate(self.rest)
        keep = len(values) - len(values) % CHUNK if whole else len(values)
        self.rest = [values[keep:]]
        self.stored.resize((self.n + keep,))
        chunks = [values[start : min(start + CHUNK, keep)] for start in range(0, keep, CHUNK)]
        with ThreadPoolExecutor() as pool:
            packed = pool.map(lambda x: pack_chunk(np.pad(x, (0, CHUNK - len(x)))), chunks)
            for i, chunk in enumerate(packed):
                self.stored.id.write_direct_chunk((self.n + i * CHUNK,), chunk)
        self.n += keep


if __name__ == "__main__":
    main()
