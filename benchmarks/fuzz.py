"""Feed the readers files that are changed at random, led by the lines of code that they reach.

    python benchmarks/fuzz.py --minutes 10

Starts from small valid .h5ad and .vcc files. A file that reaches a line, or an outcome, which none
has reached is kept, and changed further. What is read is read twice and must be the same: memory
that nobody filled would show. Batches run in processes of their own, since HDF5 may end
one. Writes benchmarks/results/fuzz.json, and each finding to --findings.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
import hostile_driver  # noqa: E402

from vcc_helpers.submission import archive  # noqa: E402

PACKAGE = str(ROOT / "vcc_helpers")
BATCH = 100
#: sort_cells and score are left to the tests: they read through the same functions.
READERS = {name: hostile_driver.READERS[name] for name in ("opened", "check", "blocks", "means")}
PLACES = ["X/indptr", "X/indices", "X/data", "obs/target_gene/codes", "obs/_index", "var/_index"]


def main() -> None:
    """Fuzz for a while, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "findings")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    state, rng = State(options.findings), random.Random(options.seed)
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        corpus = seeds(Path(folder))
        state.take(run(corpus, Path(folder)), corpus)
        while time.monotonic() < end:
            chosen = [rng.choice(state.corpus) for _ in range(BATCH)]
            batch = alone(change_all, chosen, Path(folder), rng.random())
            if batch is not None:  # HDF5 may die of changing a file, too
                state.take(run(batch, Path(folder)), batch)
    state.write(options.minutes)


class State:
    """What was seen so far."""

    def __init__(self, findings: Path):
        self.findings, self.corpus, self.reached = findings, [], set()
        self.outcomes, self.errors, self.dead = Counter(), Counter(), []
        self.tried = 0

    def take(self, results: list, batch: list[tuple[str, bytes]]) -> None:
        """Note the results of a batch; keep the files that reached something new."""
        for item, result in zip(batch, results, strict=True):
            self.tried += 1
            if isinstance(result, str):
                self.dead.append(result)
                self.outcomes["interpreter died"] += 1
                self.keep_finding(item, "died")
                continue
            outcomes, lines = result
            for name, (kind, text) in outcomes.items():
                self.outcomes[kind] += 1
                if kind == "finding":
                    self.errors[f"{name}: {text[:90]}"] += 1
                    self.keep_finding(item, "error")
            if new := lines - self.reached:
                self.reached |= new
                self.corpus.append(item)

    def keep_finding(self, item: tuple[str, bytes], kind: str) -> None:
        self.findings.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(item[1]).hexdigest()[:12]
        (self.findings / f"{kind}-{name}.{item[0]}").write_bytes(item[1])

    def write(self, minutes: float) -> None:
        result = {
            "versions": {name: version(name) for name in ("h5py", "anndata", "numpy", "scipy")},
            "hdf5": h5py.version.hdf5_version,
            "minutes": minutes,
            "inputs": self.tried,
            "kept": len(self.corpus),
            "lines_reached": len({place for place in self.reached if place[0] != "outcome"}),
            "readings": dict(self.outcomes),
            "interpreter_died": Counter(self.dead),
            "other_errors": dict(self.errors.most_common(20)),
        }
        path = ROOT / "benchmarks/results/fuzz.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Return small valid files of every layout."""
    rng, found = np.random.default_rng(0), []
    counts = rng.poisson(2, (12, 5)).astype(np.float32)
    obs = pd.DataFrame({"target_gene": ["A", "B", "non-targeting"] * 4}, index=list("abcdefghijkl"))
    var = pd.DataFrame(index=[f"G{i}" for i in range(5)])
    for layout in ("dense", "csr", "csc"):
        for packed in (None, "gzip"):
            x = counts if layout == "dense" else sparse.csr_matrix(counts).asformat(layout)
            path = folder / "seed.h5ad"
            anndata.AnnData(x, obs=obs, var=var).write_h5ad(path, compression=packed)
            found.append(("h5ad", path.read_bytes()))
    archive.pack(folder / "seed.h5ad", folder / "seed.vcc")
    return [*found, ("vcc", (folder / "seed.vcc").read_bytes())]


def changed(item: tuple[str, bytes], rng: random.Random, folder: Path) -> tuple[str, bytes]:
    """Change bytes anywhere, or an array or attribute by name."""
    kind, data = item
    if kind == "h5ad" and rng.random() < 0.6:
        try:
            return kind, structured(data, rng, folder / "change.h5ad")
        except Exception:  # a file that can no longer be opened is changed by the byte
            pass
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if len(data) < 16:
            break
        place = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                data[place : place + 8] = rng.choice([bytes(8), b"\xff" * 8, b"\x01" + bytes(7)])
            case 3:
                length = rng.randrange(1, 64)
                data[place : place + length] = data[place + length : place + 2 * length]
            case 4:
                del data[max(place, 8) :]
    return kind, bytes(data)


def structured(data: bytes, rng: random.Random, path: Path) -> bytes:
    """Change one array or attribute of an HDF5 file."""
    path.write_bytes(data)
    with h5py.File(path, "a") as file:
        place = rng.choice([place for place in PLACES if place in file] + ["X"])
        item = file[place]
        if isinstance(item, h5py.Group) or rng.random() < 0.2:
            name = rng.choice([*item.attrs, "shape", "encoding-type"])
            item.attrs[name] = rng.choice(
                [(12, 5), (5, 12), (10**9, 5), (0, 0), "csr_matrix", "array", "categorical", -1]
            )
        elif rng.random() < 0.2:
            del file[place]
        else:
            attributes, values = dict(item.attrs), item[()]
            if values.dtype.kind in "iuf" and values.size:
                values = values.astype(rng.choice(["i8", "f4", "u1", "f2", "f8", "u4"]))
                strange = rng.choice([-1, 0, 1, 4, 5, 12, 127, 255, 10**6, 2**31, 2**62])
                with np.errstate(all="ignore"):
                    values.flat[rng.randrange(values.size)] = np.array(strange).astype(values.dtype)
            if rng.random() < 0.3:
                values = values[: rng.randrange(values.shape[0] + 1)]
            del file[place]
            packing = "gzip" if values.size and rng.random() < 0.3 else None
            data = file.create_dataset(place, data=values, compression=packing)
            data.attrs.update(attributes)
            if packing and rng.random() < 0.5:  # a chunk that unpacks to something else
                raw = zlib.compress(rng.randbytes(rng.randrange(2 * values.nbytes)))
                data.id.write_direct_chunk((0,) * data.ndim, raw)
    return path.read_bytes()


def run(batch: list[tuple[str, bytes]], folder: Path) -> list:
    """Read a batch in a process of its own; if it dies, each file in one of its own."""
    done = alone(read_all, batch, folder)
    if done is not None:
        return done
    if len(batch) == 1:
        return [LAST["how"]]
    half = len(batch) // 2
    return run(batch[:half], folder) + run(batch[half:], folder)


LAST = {"how": ""}


def change_all(items: list[tuple[str, bytes]], sender, folder: Path, seed: float) -> None:
    """Change each file in some way."""
    quiet()
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    sender.send([changed(item, rng, folder) for item in items])


def quiet() -> None:
    """Keep HDF5's own messages off the terminal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def alone(function, batch: list[tuple[str, bytes]], folder: Path, *more) -> list | None:
    """Call a function in a process of its own; None if it dies or does not answer."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(batch, sender, folder / "batch", *more))
    process.start()
    sender.close()
    found = None
    try:
        if receiver.poll(10 + len(batch) / 2):
            found = receiver.recv()
    except EOFError:
        pass
    silent = process.is_alive() and found is None
    if silent:
        process.kill()
    process.join()
    shutil.rmtree(folder / "batch", ignore_errors=True)
    LAST["how"] = "no answer" if silent else f"signal {-process.exitcode}"
    return found


def read_all(batch: list[tuple[str, bytes]], sender, folder: Path) -> None:
    """Read each file with every reader, and note the lines of the package that ran."""
    quiet()
    folder.mkdir(exist_ok=True)
    found = []
    for number, (kind, data) in enumerate(batch):
        path, lines = folder / f"{number}.{kind}", set()
        path.write_bytes(data)
        readers = READERS if kind == "h5ad" else {"opened": READERS["opened"]}
        sys.settrace(lambda frame, event, _, lines=lines: _line(frame, lines))
        outcomes = {name: hostile_driver.outcome(reader, path) for name, reader in readers.items()}
        sys.settrace(None)
        if outcomes.get("blocks", ("", ""))[0] == "read":
            again = hostile_driver.outcome(READERS["blocks"], path)
            if again != outcomes["blocks"]:
                outcomes["blocks"] = "finding", f"read as {outcomes['blocks'][1]}, then {again[1]}"
        lines |= {("outcome", name, text[:40]) for name, (_, text) in outcomes.items()}
        found.append((outcomes, lines))
        path.unlink()
    sender.send(found)


def _line(frame, lines: set):
    """Follow the package's own code only."""
    if not frame.f_code.co_filename.startswith(PACKAGE):
        return None

    def local(frame, event, _):
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    return local


if __name__ == "__main__":
    main()
