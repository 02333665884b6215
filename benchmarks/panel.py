"""A panel of a full-size file: bytes, requests, time and memory, and whether it is the same cells.

    python benchmarks/panel.py [--file adata_Training.h5ad]

Without --file a SIMULATED file of the official layout and size is made first (15.4 GB, ten minutes)
and removed at the end. A server on the loopback address, a process of its own, sends ranges of it:
30 ms before each answer, 50 MB/s for all connections together. It counts what it sends. Each panel
is fetched in a process of its own, and compared with the same rows read from the file. `plans` says
what other ways of choosing the cells would ask for, without fetching them. Nothing here reaches the
real address. Writes benchmarks/results/panel.json.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vcc_helpers.datasets import _panel, _remote, fetch_h1, write_h1_like  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "panel.json"
LATENCY, RATE, STEP = 0.03, 50e6, 2**18
PANELS = [(60, 2000), (20, 500)]
#: Other ways to choose and to ask: rows that are drawn together, and the share between them.
PLANS = [(1, 0.0), (1, 0.08), (8, 0.08), (16, 0.0), (16, 0.08), (64, 0.08)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        start, last = map(int, re.findall(r"\d+", self.headers["Range"]))
        last = min(last, server.size - 1)
        time.sleep(LATENCY)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{last}/{server.size}")
        self.send_header("ETag", '"simulated"')
        self.send_header("Content-Length", str(last + 1 - start))
        self.end_headers()
        with server.counts.get_lock():
            server.counts[0] += 1
            server.counts[1] += last + 1 - start
        while start <= last:
            piece = os.pread(server.file, min(STEP, last + 1 - start), start)
            with server.line:  # one line for all
                server.free = max(server.free, time.monotonic()) + len(piece) / RATE
                wait = server.free - time.monotonic()
            time.sleep(max(wait, 0))
            self.wfile.write(piece)
            start += len(piece)

    def log_message(self, *_):
        pass


def serve(path, port, counts):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.file, server.size, server.counts = (
        os.open(path, os.O_RDONLY),
        path.stat().st_size,
        counts,
    )
    server.line, server.free, server.daemon_threads = threading.Lock(), 0.0, True
    port.put(server.server_port)
    server.serve_forever()


def fetched(url, folder, how, answer):
    start = time.perf_counter()
    path = fetch_h1("train", **how, folder=folder, base_url=url, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer.put((path, time.perf_counter() - start, peak))


def in_process(function, *arguments):
    anew = multiprocessing.get_context("spawn")  # without what this process has in memory
    answer = anew.Queue()
    process = anew.Process(target=function, args=(*arguments, answer))
    process.start()
    found = answer.get()
    process.join()
    return found


def bytes_of(file, rows):
    """Bytes of the rows' values and genes, and of all labels and row pointers."""
    sizes = []
    file.visititems(lambda name, item: sizes.append((name, item)) and None)
    labels = 0
    for name, item in sizes:
        if isinstance(item, h5py.Dataset) and name.startswith(("obs", "var", "uns", "X/indptr")):
            labels += item.id.get_storage_size()
            if h5py.check_string_dtype(item.dtype) and item.shape:
                labels += sum(map(len, item[:]))
    values = np.diff(file["X/indptr"][:])[rows].sum()
    return int(values) * sum(file[f"X/{n}"].dtype.itemsize for n in ("data", "indices")), labels


def same(panel, file):
    """Whether each cell of the panel holds what its row of the file holds."""
    pointers, labels = file["X/indptr"][:], anndata.io.read_elem(file["obs"])
    rows = panel.obs["source_row"].to_numpy()
    there = labels.iloc[rows]
    for name in labels:
        if (panel.obs[name].astype(str) != there[name].astype(str)).any():
            return False
    for i, row in enumerate(rows):
        low, high = pointers[row], pointers[row + 1]
        own = slice(panel.X.indptr[i], panel.X.indptr[i + 1])
        if not np.array_equal(panel.X.data[own], file["X/data"][low:high]):
            return False
        if not np.array_equal(panel.X.indices[own], file["X/indices"][low:high]):
            return False
    return panel.obs_names.equals(there.index)


def plans(file):
    """Count what each way of choosing 60 cells per target would ask for."""
    labels = anndata.io.read_elem(file["obs/target_gene"]).astype(object)
    one, found = _panel._Panel.__new__(_panel._Panel), []
    one.stored = [_remote.Stored.of(file[f"X/{name}"]) for name in ("data", "indices")]
    one.pointers = file["X/indptr"][:]
    for _panel.WINDOW, _panel.BETWEEN in PLANS:
        cells_per_target, controls = PANELS[0]
        rows = _panel.choose(labels, cells_per_target=cells_per_target, controls=controls, seed=0)
        parts = np.split(rows, range(_panel.CELLS, len(rows), _panel.CELLS))
        pieces = [piece for part in parts for piece in one._plan(part)[1]]
        asked = sum(stop - start for start, stop in pieces)
        found.append(
            {
                "rows_drawn_together": _panel.WINDOW,
                "most_between": _panel.BETWEEN,
                "requests": len(pieces),
                "bytes_for_those_of_rows": round(asked / bytes_of(file, rows)[0], 3),
            }
        )
    return found


def main(path):
    port, counts = multiprocessing.Queue(), multiprocessing.Array("q", 2)
    server = multiprocessing.Process(target=serve, args=(path, port, counts), daemon=True)
    server.start()
    folder_of_file = f"http://127.0.0.1:{port.get()}"
    os.environ["NO_PROXY"] = "127.0.0.1"
    rows = []
    with h5py.File(path) as file, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for cells_per_target, controls in PANELS:
            how = {"cells_per_target": cells_per_target, "controls": controls, "seed": 0}
            counts[:], busy = [0, 0], os.getloadavg()[0]
            one = Path(folder, str(cells_per_target))
            panel, seconds, peak = in_process(fetched, folder_of_file, one, how)
            n_requests, n_bytes = counts
            cells = anndata.read_h5ad(panel)
            of_rows, of_labels = bytes_of(file, cells.obs["source_row"].to_numpy())
            rows.append(
                {
                    **how,
                    "cells": cells.n_obs,
                    "bytes_fetched": n_bytes,
                    "bytes_of_rows_and_labels": of_rows + of_labels,
                    "ratio": round(n_bytes / (of_rows + of_labels), 3),
                    "requests": n_requests,
                    "seconds": round(seconds, 1),
                    "processes_running": round(busy),
                    "peak_memory_bytes": peak,
                    "panel_bytes": panel.stat().st_size,
                    "equal_to_the_file": bool(same(cells, file)),
                }
            )
            print(json.dumps(rows[-1], indent=1), flush=True)
        other = plans(file)
    server.terminate()
    found = {
        "file_bytes": path.stat().st_size,
        "latency_seconds": LATENCY,
        "bytes_per_second": RATE,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "panels": rows,
        "plans": other,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(other, indent=1))
    bad = [row for row in rows if row["ratio"] > 1.15 or not row["equal_to_the_file"]]
    sys.exit(f"more than 1.15, or other cells: {bad}" if bad else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path)
    given = parser.parse_args().file
    if given:
        main(given)
    with tempfile.TemporaryDirectory(dir=ROOT) as made:
        main(write_h1_like(Path(made, "adata_Training.h5ad"), size="h1", progress=True))
