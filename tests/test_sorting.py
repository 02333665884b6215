"""A sorted file holds exactly the source's rows, whatever the storage and whatever interrupts."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import tracemalloc

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import KEY, STORAGES, dense_of, make_cells, stored
from scipy import sparse

from vcc_helpers import pseudobulk
from vcc_helpers.stream import blocks, sort, sort_cells

pytestmark = pytest.mark.filterwarnings("error:not carried over")


def rows_of(cells):
    return dense_of(cells.X if not cells.isbacked else cells.to_memory().X)


def assert_sorted(path, source, obs=None):
    """Groups by name, the source's order within; every row and label as in the source."""
    found, obs = anndata.read_h5ad(path), source.obs if obs is None else obs
    order = np.argsort(source.obs[KEY].astype(str).to_numpy(), kind="stable")
    np.testing.assert_array_equal(rows_of(found), rows_of(source)[order])
    pd.testing.assert_frame_equal(
        found.obs, obs.iloc[order], check_categorical=False, check_dtype=False
    )
    pd.testing.assert_frame_equal(found.var, source.var)
    assert found.X.has_canonical_format
    assert not list(path.parent.glob("*.sorting"))
    return found


@pytest.fixture
def small_buckets(monkeypatch):
    """Return a function: the memory that gives many buckets and blocks even to toy cells."""
    monkeypatch.setattr(sort, "LEAST_ROOM", 0)
    return lambda cells: sort._fixed_memory(cells) + 16_000


def test_every_storage(any_storage, tmp_path):
    path = sort_cells(any_storage, tmp_path / "sorted.h5ad")
    found = assert_sorted(path, make_cells(), any_storage.obs)
    assert found.X.dtype == np.uint8


def test_many_buckets(any_storage, tmp_path, small_buckets):
    plan = sort._plan(any_storage, any_storage.obs[KEY], small_buckets(any_storage))
    assert len(plan.edges) > 3 and plan.block_rows < any_storage.n_obs
    path = sort_cells(any_storage, tmp_path / "sorted.h5ad", memory=small_buckets(any_storage))
    assert_sorted(path, make_cells(), any_storage.obs)


# Faults: what strikes, at which call of which function
PHASES = {
    "before the first block": ("_fill_buckets", 1),
    "between two blocks": ("_append_block", 3),
    "while a block is written": ("_append", 9),
    "before the output": ("_write_sorted", 1),
    "while labels are written": ("_annotations", 1),
    "while the output is written": ("_load_bucket", 3),
    "before the output has its name": ("_finish", 1),
}


@pytest.fixture
def job(cells, tmp_path, small_buckets):
    """A source of many blocks, an output that exists already, and a function that sorts."""
    source, path = tmp_path / "source.h5ad", tmp_path / "sorted.h5ad"
    stored(cells, "csr", tmp_path).write_h5ad(source)
    path.write_text("old")
    memory = small_buckets(anndata.read_h5ad(source))

    def run(**kw):
        return sort_cells(source, path, **{"memory": memory, **kw})

    return source, path, run


def strike(patch, name, call, blow):
    """Let `blow` come down at the given call of a function of the module."""
    real, calls = getattr(sort, name), []

    def struck(*args, **kw):
        calls.append(name)
        if len(calls) == call:
            blow()
        return real(*args, **kw)

    patch.setattr(sort, name, struck)
    return calls


def raising(error):
    def blow():
        raise error

    return blow


def assert_nothing_half_done(source, path, before):
    assert path.read_text() == "old"
    assert source.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {
        "source.h5ad", "sorted.h5ad", "sorted.h5ad.sorting"
    }  # fmt: skip


def assert_rerun_goes_on(cells, path, run, monkeypatch):
    """A second run completes, and reads only the blocks that the first had not done."""
    journal = path.with_name("sorted.h5ad.sorting") / "journal"
    done = len(journal.read_text().splitlines()) - 1 if journal.exists() else 0
    with monkeypatch.context() as patch:
        calls = strike(patch, "_append_block", 0, None)
        assert_sorted(run(), cells)
    n_blocks = -(-cells.n_obs // BLOCK)
    assert len(calls) == n_blocks - done
    return done


#: Rows of a block in the small jobs: 16,000 bytes // 64 // 24 genes.
BLOCK = 10


@pytest.mark.parametrize("phase", PHASES)
def test_kill_then_rerun(phase, cells, job, monkeypatch):
    source, path, run = job
    before = source.read_bytes()

    def child():
        strike(monkeypatch, *PHASES[phase], lambda: os.kill(os.getpid(), signal.SIGKILL))
        run()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_nothing_half_done(source, path, before)
    done = assert_rerun_goes_on(cells, path, run, monkeypatch)
    assert (done == 0) == (phase == "before the first block")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", ["full disk", "ctrl-c"])
def test_fault_then_rerun(phase, fault, cells, job, monkeypatch):
    source, path, run = job
    before = source.read_bytes()
    error = OSError(errno.ENOSPC, "No space left") if fault == "full disk" else KeyboardInterrupt()
    with monkeypatch.context() as patch:
        strike(patch, *PHASES[phase], raising(error))
        with pytest.raises(type(error)) as caught:
            run()
    if fault == "full disk":
        assert "free some space and call again" in str(caught.value)
    assert_nothing_half_done(source, path, before)
    assert_rerun_goes_on(cells, path, run, monkeypatch)


def test_killed_between_naming_the_output_and_cleaning_up(cells, job, monkeypatch):
    _, path, run = job
    with monkeypatch.context() as patch:
        patch.setattr(sort.shutil, "rmtree", lambda folder: raising(KeyboardInterrupt())())
        with pytest.raises(KeyboardInterrupt):
            run()
    assert anndata.read_h5ad(path).shape == cells.shape
    assert_rerun_goes_on(cells, path, run, monkeypatch)


@pytest.mark.parametrize("phase", ["between two blocks", "while the output is written"])
def test_source_changed_while_it_is_read(phase, cells, job, monkeypatch):
    source, path, run = job
    with monkeypatch.context() as patch:
        strike(patch, *PHASES[phase], lambda: os.utime(source, (1, 1)))
        with pytest.raises(ValueError, match="changed while it was read; nothing was written"):
            run()
    assert path.read_text() == "old" and not list(path.parent.glob("*.sorting"))
    assert_sorted(run(), cells)


@pytest.mark.parametrize("change", ["source", "memory", "short bucket", "cut journal", "garbage"])
def test_work_that_is_of_no_use_is_done_again(change, cells, job, monkeypatch):
    source, path, run = job
    with monkeypatch.context() as patch:
        strike(patch, "_append_block", 4, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run()
    work = path.with_name("sorted.h5ad.sorting")
    if change == "source":
        cells = make_cells(seed=1)
        stored(cells, "csr", path.parent).write_h5ad(source)
    elif change == "short bucket":
        os.truncate(work / "bucket_0", 3)
    elif change == "cut journal":
        os.truncate(work / "journal", (work / "journal").stat().st_size - 5)
    elif change == "garbage":
        (work / "journal").write_bytes(b"\xff\x00\n")
    assert_sorted(run(**({"memory": "1GB"} if change == "memory" else {})), cells)


@pytest.mark.parametrize("kind", ["memory", "view of a file"])
def test_other_cells_of_the_same_labels_do_not_go_on(kind, cells, job, monkeypatch):
    """A journal must not be taken for that of cells that only look the same from outside."""
    source, path, run = job
    other = cells.copy()
    other.X = cells.X[::-1].copy()
    if kind != "memory":
        both = anndata.concat([cells, other], index_unique="-", merge="same")
        both.write_h5ad(source)
        both = anndata.read_h5ad(source, backed="r")
        first, other = both[: cells.n_obs], both[cells.n_obs :]
    else:
        first = cells
    memory = sort._fixed_memory(first) + 16_000
    with monkeypatch.context() as patch:
        strike(patch, "_append_block", 4, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            sort_cells(first, path, memory=memory)
    sort_cells(other, path, memory=memory)
    order = np.argsort(cells.obs[KEY].to_numpy(), kind="stable")
    np.testing.assert_array_equal(rows_of(anndata.read_h5ad(path)), cells.X[::-1][order])


def test_nothing_to_sort(cells, tmp_path):
    with pytest.raises(ValueError, match=r"nothing to sort: shape \(0, 24\)"):
        sort_cells(cells[:0].copy(), tmp_path / "x.h5ad")


def test_truncated_source(cells, job):
    source, path, run = job
    whole = source.read_bytes()
    source.write_bytes(whole[:-3000])
    with pytest.raises(ValueError, match="cannot be read as an .h5ad"):
        run()
    assert_nothing_half_done(source, path, whole[:-3000])
    source.write_bytes(whole)
    assert_sorted(run(), cells)


def test_read_only_folder(cells, job, monkeypatch):
    _, path, run = job
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *a: False)  # the superuser may write anywhere
        with pytest.raises(PermissionError, match="no permission to write in"):
            run()
    assert path.read_text() == "old" and not list(path.parent.glob("*.sorting"))
    assert_sorted(run(), cells)


def test_two_at_once_the_second_refuses(cells, job, monkeypatch):
    _, path, run = job
    with monkeypatch.context() as patch:
        refused = []

        def second():
            with pytest.raises(BlockingIOError, match="another process is sorting to"):
                run()
            refused.append(True)

        strike(patch, "_append_block", 3, second)
        assert_sorted(run(), cells)
    assert refused


def test_too_little_disk_is_said_beforehand(job, monkeypatch):
    _, path, run = job
    usage = shutil.disk_usage(path.parent)._replace(free=1000)
    monkeypatch.setattr(sort.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="sorting needs about .* GB are free") as caught:
        run()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and not list(path.parent.glob("*.sorting"))


def test_output_that_is_the_source(job):
    source, *_ = job
    with pytest.raises(ValueError, match="is the file to be sorted; name another"):
        sort_cells(source, source)


def test_missing_folder_and_missing_column(cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        sort_cells(cells, tmp_path / "nowhere" / "x.h5ad")
    with pytest.raises(KeyError, match="no column 'gene'"):
        sort_cells(cells, tmp_path / "x.h5ad", perturbation_key="gene")


def test_too_small_memory_says_how_much_works(cells, tmp_path):
    with pytest.raises(ValueError, match="too small .* give at least '[0-9]+MB'") as caught:
        sort_cells(cells, tmp_path / "x.h5ad", memory="1MB")
    least = re.search("'(.*MB)'", str(caught.value))[1]
    assert_sorted(sort_cells(cells, tmp_path / "x.h5ad", memory=least), cells)


# What is kept


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 255], "float32", "uint8"),
        ([1, 256], "float32", "uint16"),
        ([1, 65536], "float64", "uint32"),
        ([1, 2**32 - 1], "int64", "uint32"),
        ([1, 2**32], "int64", "int64"),
        ([-1, 3], "int32", "int32"),
        ([0.5, 3], "float32", "float32"),
        ([0.1, 3], "float64", "float64"),
        ([np.inf, 1], "float32", "float32"),
        ([True, False], "bool", "uint8"),
        ([0, 0], "float32", "uint8"),
    ],
)
def test_the_smallest_type_that_holds_every_value(values, dtype, expected, tmp_path):
    matrix = np.repeat(np.array(values, dtype)[:, None], 3, axis=1)
    obs = pd.DataFrame({KEY: ["B", "A"]}, index=["x", "y"])
    path = sort_cells(anndata.AnnData(sparse.csr_matrix(matrix), obs=obs), tmp_path / "x.h5ad")
    found = anndata.read_h5ad(path)
    assert found.X.dtype == expected
    np.testing.assert_array_equal(found.X.toarray(), matrix[::-1])


def test_types_that_differ_between_blocks(cells, job):
    source, path, run = job
    cells.X[2, 3], cells.X[70, 1] = 300, 70_000
    stored(cells, "csr", path.parent).write_h5ad(source)
    assert assert_sorted(run(), cells).X.dtype == np.uint32
    cells.X[70, 1] = 0.25
    stored(cells, "csr", path.parent).write_h5ad(source)
    assert assert_sorted(run(), cells).X.dtype == np.float32


def test_repeated_entries_are_summed_beyond_their_type(tmp_path):
    data, indices = np.array([200, 100, 4], dtype=np.uint8), np.array([1, 1, 0], dtype=np.int32)
    matrix = sparse.csr_matrix((data, indices, [0, 3]), shape=(1, 2))
    obs = pd.DataFrame({KEY: ["A"]}, index=["x"])
    path = sort_cells(anndata.AnnData(matrix, obs=obs), tmp_path / "x.h5ad")
    assert anndata.read_h5ad(path).X.toarray().tolist() == [[4, 300]]


def test_all_that_describes_cells_and_genes_goes_along(cells, tmp_path):
    n = cells.n_obs
    cells.obs["batch"] = pd.Categorical(np.arange(n) % 3, categories=[2, 1, 0, 9])
    cells.obsm["place"] = np.arange(2 * n).reshape(n, 2)
    cells.obsp["near"] = sparse.csr_matrix(np.arange(n * n).reshape(n, n) % 7)
    cells.varm["load"] = np.arange(cells.n_vars)[:, None]
    cells.uns["note"] = {"simulated": True}
    cells.layers["more"] = cells.X.copy()
    with pytest.warns(UserWarning, match=r"not carried over .*: layers\['more'\]"):
        path = sort_cells(cells, tmp_path / "x.h5ad")
    found, expected = anndata.read_h5ad(path), cells[anndata.read_h5ad(path).obs_names]
    assert found.obs["batch"].tolist() == expected.obs["batch"].tolist()
    assert found.obs["batch"].cat.categories.tolist() == [2, 1, 0, 9]
    np.testing.assert_array_equal(found.obsm["place"], expected.obsm["place"])
    np.testing.assert_array_equal(dense_of(found.obsp["near"]), dense_of(expected.obsp["near"]))
    np.testing.assert_array_equal(found.varm["load"], cells.varm["load"])
    assert found.uns["note"]["simulated"] and not found.layers


def test_a_sorted_file_sorted_again_is_the_same(cells, tmp_path):
    once = sort_cells(cells, tmp_path / "once.h5ad")
    twice = sort_cells(once, tmp_path / "twice.h5ad")
    with h5py.File(once) as one, h5py.File(twice) as other:
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(one["X"][part][:], other["X"][part][:])
    assert anndata.read_h5ad(once).obs_names.equals(anndata.read_h5ad(twice).obs_names)


@pytest.mark.parametrize("seed", range(8))
def test_groups_of_random_files_keep_their_rows(seed, tmp_path, small_buckets, monkeypatch):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(sort, "CHUNK", int(rng.integers(1, 200)))
    sizes = rng.integers(1, 60, 5)
    cells = make_cells(seed, n_cells=sizes, n_genes=int(rng.integers(4, 40)))
    cells.X[rng.random(cells.shape) < rng.random()] = 0
    source = stored(cells, rng.choice(STORAGES), tmp_path)
    path = sort_cells(source, tmp_path / "sorted.h5ad", memory=small_buckets(source))
    found = assert_sorted(path, cells, source.obs)
    one, other = pseudobulk(source), pseudobulk(path)
    np.testing.assert_allclose(one.X, other.X, rtol=1e-6)
    assert found.obs[KEY].is_monotonic_increasing or found.obs[KEY].dtype == "category"


def test_plain_h5py_and_scanpy_read_it(cells, tmp_path):
    path = sort_cells(cells, tmp_path / "x.h5ad")
    with h5py.File(path) as file:
        x = file["X"]
        parts = x["data"][:], x["indices"][:], x["indptr"][:]
        dense = sparse.csr_matrix(parts, shape=x.attrs["shape"]).toarray()
    np.testing.assert_array_equal(dense, rows_of(anndata.read_h5ad(path)))
    sc = pytest.importorskip("scanpy", reason="scanpy comes with the book extra")
    np.testing.assert_array_equal(dense_of(sc.read_h5ad(path).X), dense)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_memory_is_bounded_by_the_caller_not_by_the_file(kind, tmp_path, monkeypatch):
    """2.4 million places; as CSR they would take 9 MB as read and as much in order."""
    for module, name, value in (
        (sort, "LIBRARIES", 0), (sort, "LEAST_ROOM", 0), (sort, "CHUNK", 2**12),
        (blocks, "BLOCK_VALUES", 2**16),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, (4000, 600)).astype(np.float32)
    obs = pd.DataFrame({KEY: rng.choice(list("ABC"), 4000)}, index=np.arange(4000).astype(str))
    stored(anndata.AnnData(counts, obs=obs), kind, tmp_path).write_h5ad(tmp_path / "x.h5ad")
    del counts
    source = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    memory = sort._fixed_memory(source) + 3_000_000
    tracemalloc.start()
    sort_cells(source, tmp_path / "sorted.h5ad", memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory
    bulk = pseudobulk(tmp_path / "sorted.h5ad")
    np.testing.assert_allclose(bulk.X, pseudobulk(source).X, rtol=1e-6)
