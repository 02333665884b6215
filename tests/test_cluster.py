"""The same perturbations through the processes of a Dask cluster give the same bits."""

import os
import signal
from importlib import import_module

import numpy as np
import pytest
from conftest import KEY, make_cells
from scipy import sparse
from test_contrast import assert_same

from vcc_helpers import score
from vcc_helpers.stream import batches, contrast, plan

whole = import_module("vcc_helpers.stream.contrast")

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


@pytest.fixture(params=["h5ad", "sorted h5ad", "gzip h5ad", "dense h5ad", "zarr"])
def path(request, cells, tmp_path):
    if request.param != "dense h5ad":
        cells.X = sparse.csr_matrix(cells.X)
    if request.param == "sorted h5ad":
        cells = cells[np.argsort(cells.obs[KEY], kind="stable")].copy()
    path = tmp_path / f"cells.{request.param.split()[-1]}"
    if path.suffix == ".zarr":
        cells.write_zarr(path)
    else:
        cells.write_h5ad(path, compression="gzip" if "gzip" in request.param else None)
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_two_processes_give_the_same_bits(path, client):
    expected = contrast(path)
    workers = set(client.run(os.getpid).values())
    assert len(workers) == 2 and os.getpid() not in workers
    assert_same(contrast(path, client=client), expected)


def test_a_score_through_the_cluster(client, tmp_path):
    pair = []
    for seed in (0, 1):
        pair.append(tmp_path / f"{seed}.h5ad")
        make_cells(seed).write_h5ad(pair[-1])
    expected = score(*pair).per_perturbation
    np.testing.assert_array_equal(score(*pair, client=client).per_perturbation, expected)


def test_the_rules_of_2026_through_the_cluster(client, tmp_path):
    """The controls are another file's, and counts are summed: by the workers, too."""
    pair = []
    for seed in (0, 1):
        pair.append(tmp_path / f"{seed}.h5ad")
        make_cells(seed).write_h5ad(pair[-1])
    expected = score(*pair, "vcc2026").per_perturbation
    found = score(*pair, "vcc2026", client=client).per_perturbation
    np.testing.assert_array_equal(found, expected)


def test_little_memory_on_the_cluster(client, tmp_path, monkeypatch):
    for name, value in (("LIBRARIES", 0), ("RESULT", 0), ("LEAST_BLOCK", 1), ("FEWEST_GENES", 8)):
        monkeypatch.setattr(plan, name, value)
    cells = make_cells(n_genes=100, n_cells=(90, 60, 30, 20, 200))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    plans, needs = [], whole._plan
    monkeypatch.setattr(whole, "_plan", lambda *a, **k: plans.append(needs(*a, **k)) or plans[-1])
    found = contrast(tmp_path / "cells.h5ad", client=client, memory=250_000)
    assert plans[0].genes < 100 and plans[0].scratch == 0
    assert_same(found, contrast(cells))


def test_a_worker_killed_in_the_middle(tmp_path, client, monkeypatch):
    """One worker is killed, as by a machine that goes down, when the first result has come."""
    cells = make_cells(n_genes=2000, n_cells=(300,) * 5)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    expected = contrast(cells)
    before = set(client.run(os.getpid).values())
    settle, killed = batches._settle, []

    def kill_once(result, job, code, genes, sums):
        if code != job.control and not killed:
            killed.append(sorted(client.run(os.getpid).values())[0])
            os.kill(killed[0], signal.SIGKILL)
        settle(result, job, code, genes, sums)

    monkeypatch.setattr(batches, "_settle", kill_once)
    assert_same(contrast(tmp_path / "cells.h5ad", client=client), expected)
    client.wait_for_workers(2, timeout=60)
    assert killed and set(client.run(os.getpid).values()) != before


def test_a_run_on_a_cluster_goes_on_where_it_was_stopped(tmp_path, client, monkeypatch):
    make_cells().write_h5ad(tmp_path / "cells.h5ad")
    settle, seen = batches._settle, []

    def stop(result, job, code, *rest):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(code)
        settle(result, job, code, *rest)

    monkeypatch.setattr(batches, "_settle", stop)
    with pytest.raises(KeyboardInterrupt):
        contrast(tmp_path / "cells.h5ad", client=client, cache=tmp_path / "kept")
    monkeypatch.setattr(batches, "_settle", settle)
    (parts,) = (tmp_path / "kept").glob("*.parts")
    assert len(list(parts.iterdir())) >= 3
    found = contrast(tmp_path / "cells.h5ad", cache=tmp_path / "kept")  # and without the cluster
    assert_same(found, contrast(tmp_path / "cells.h5ad"))


def test_cells_that_are_no_file_are_refused(cells, client):
    with pytest.raises(ValueError, match="pred: workers of a cluster read the file for themselves"):
        contrast(cells, client=client, name="pred")
