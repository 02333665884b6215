"""The same perturbations through the processes of a Dask cluster give the same bits."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import anndata
import numpy as np
import pytest
from conftest import make_cells, refuses
from scipy import sparse
from test_contrast import assert_same

from vcc_helpers import score
from vcc_helpers.stream import contrast

distributed = pytest.importorskip("distributed", reason="the cluster extra is not installed")


@pytest.fixture(scope="module")
def client():
    kw = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    kw["silence_logs"] = "CRITICAL"  # it tells of a worker that is slow to end
    with (
        distributed.LocalCluster(host="127.0.0.1", **kw) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["csr", "dense", "zarr"])
def test_two_processes_give_the_same_bits(kind, cells, client, tmp_path):
    if kind != "dense":
        cells.X = sparse.csr_matrix(cells.X)
    path = tmp_path / ("cells.zarr" if kind == "zarr" else "cells.h5ad")
    (cells.write_zarr if kind == "zarr" else cells.write_h5ad)(path)
    workers = set(client.run(os.getpid).values())
    assert len(workers) == 2 and os.getpid() not in workers
    assert_same(contrast(path, client=client, cache=tmp_path), contrast(path))
    assert len(list(tmp_path.iterdir())) == 2  # the cells and what is kept


def test_a_score_through_the_cluster(client, tmp_path):
    """In 2026 the controls are another file's, and counts are summed: by the workers, too."""
    pair = [tmp_path / "0.h5ad", tmp_path / "1.h5ad"]
    for seed, path in enumerate(pair):
        make_cells(seed).write_h5ad(path)
    found = score(*pair, "vcc2026", client=client).per_perturbation
    np.testing.assert_array_equal(found, score(*pair, "vcc2026").per_perturbation)


def test_contexts_of_a_file_through_the_cluster(client, tmp_path):
    """A context is some rows of the file, here in no order."""
    rng = np.random.default_rng(0)
    for start, name in enumerate(("pred", "real")):
        sizes = {"n_cells": (20, 30, 25, 15, 40)}
        lines = {c: make_cells(3 * start + i, **sizes) for i, c in enumerate("ABC")}
        cells = anndata.concat(lines, label="context", index_unique="-")
        cells.X = sparse.csr_matrix(cells.X)
        cells[rng.permutation(cells.n_obs)].copy().write_h5ad(tmp_path / f"{name}.h5ad")
    pair = tmp_path / "pred.h5ad", tmp_path / "real.h5ad"
    for rules in ("vcc2025", "vcc2026"):
        asked = {"preset": rules, "context_key": "context"}
        found, expected = score(*pair, client=client, **asked), score(*pair, **asked)
        assert list(found.contexts) == list("ABC")
        np.testing.assert_array_equal(found.per_perturbation, expected.per_perturbation)


def test_little_memory_on_the_cluster(client, tmp_path, short_of_memory):
    cells = make_cells(n_genes=100, n_cells=(90, 60, 30, 20, 200))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    refuses("give at least", contrast, tmp_path / "cells.h5ad", client=client, memory=10_000)
    found = contrast(tmp_path / "cells.h5ad", client=client, memory=250_000)
    assert_same(found, contrast(cells))


def test_a_worker_killed_in_the_middle(tmp_path, client):
    """One worker is killed, as by a machine that goes down, while it has work to do."""
    cells = make_cells(n_genes=2000, n_cells=(150,) * 5)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    before = set(client.run(os.getpid).values())

    def kill_one():
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(client.processing().values()):
            time.sleep(0.001)
        os.kill(min(before), signal.SIGKILL)
        return time.monotonic() < end

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(kill_one)
        assert_same(contrast(tmp_path / "cells.h5ad", client=client), contrast(cells))
    client.wait_for_workers(2, timeout=60)
    assert busy.result() and set(client.run(os.getpid).values()) != before


def test_cells_that_are_no_file_are_refused(cells, client):
    with pytest.raises(ValueError, match="pred: workers of a cluster read the file for themselves"):
        contrast(cells, client=client, name="pred")
