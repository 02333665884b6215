"""What all tests share: seeded toy cells in every storage, and the order of the tests."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import anndata
import fork
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

CONTROL, KEY = "non-targeting", "target_gene"
STORAGES = [
    *("dense", "csr", "csc", "csr_array", "unsorted", "explicit zeros", "fortran"),
    *("view", "sparse view", "backed dense", "backed csr", "backed csc", "backed view"),
]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run what is slow last, since a quick failure should not wait, and the browser at the end."""
    items.sort(
        key=lambda item: (item.get_closest_marker("slow") is not None, "browser" in item.path.name)
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that leaves something on standard error that it neither read nor allows.

    A traceback from a finaliser or from another thread fails no test by itself: this does.
    """
    report = yield
    said = dict(report.sections).get(f"Captured stderr {call.when}", "").strip()
    if report.passed and said and not item.get_closest_marker("says"):
        report.outcome = "failed"
        report.longrepr = f"unexpected on standard error ({call.when}):\n{said}"
    return report


class SilentFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class SilentServer(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A browser goes to another page before it has everything of this one."""


def another_python(folder, versions, packages):
    """Make an environment of another Python, with packages, and return its Python; or skip."""
    uv = shutil.which("uv") or str(BIN / "uv")
    if not Path(uv).exists():
        pytest.skip("uv, which makes the other environment, is not there")
    for version in versions:
        places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        words = [uv, "venv", "-q", "--seed", "--no-python-downloads", str(folder), "--python"]
        found = (subprocess.run([*words, p], capture_output=True) for p in (version, *places))
        if any(made.returncode == 0 for made in found):
            break
    else:
        pytest.skip(f"no Python {' or '.join(versions)} on this machine")
    words = [uv, "pip", "install", "-q", "--python", str(folder / "bin/python"), *packages]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the packages cannot be installed here: {done.stderr.strip()[-300:]}")
    return folder / "bin/python"


@contextmanager
def served(folder):
    """Serve the files of a folder on this machine alone; yields the address."""
    with SilentServer(("127.0.0.1", 0), partial(SilentFiles, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def build(root):
    """Build the book in `root` as `make book` does; its own interpreter comes first.

    The notebooks in the folder VCC_EXECUTED have run and hold their outputs.
    """
    environment = dict(os.environ, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    execute = [sys.executable, str(ROOT / "scripts/execute_pages.py"), str(root)]
    if executed := os.environ.get("VCC_EXECUTED"):
        execute += ["--executed", str(ROOT / executed)]
    build = [str(BIN / "jupyter-book"), "build", ".", "--toc", "book/_toc.yml", "-W"]
    for command in (execute, [*build, "--keep-going"]):
        done = subprocess.run(
            command, cwd=root, env=environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500,
        )  # fmt: skip
        if done.returncode:
            break
    return done


@pytest.fixture(scope="session")
def book(tmp_path_factory, worker_id):
    """The folder of the book, built from a clean copy; or of one that was built, VCC_BOOK.

    Of several processes that run the tests the first builds it, and the others wait.
    """
    if built := os.environ.get("VCC_BOOK"):
        return Path(built)
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "a clean copy"
    root, done = folder / "book", folder / "done"
    try:
        folder.mkdir()
    except FileExistsError:
        while not done.exists():
            time.sleep(1)
    else:
        result = build(fork.copy_of_the_project(root))
        done.with_suffix(".part").write_text("" if result.returncode == 0 else result.stdout)
        done.with_suffix(".part").rename(done)
    assert not done.read_text(), done.read_text()[-6000:]
    return root / "_build" / "html"


def make_cells(seed=0, *, n_cells=(30, 20, 12, 9, 60), n_genes=24, dtype="float32", shuffle=True):
    """Counts of targets G0, G1, G2, "no gene" and controls; each target has an effect."""
    rng = np.random.default_rng(seed)
    names = ["G0", "G1", "G2", "no gene", CONTROL]
    effect = np.exp(rng.normal(0, 0.8, (5, n_genes)))
    effect[-1] = 1
    effect[np.arange(3), np.arange(3)] = 0.1
    labels = np.repeat(names, n_cells)
    basal = rng.gamma(1.0, 3.0, n_genes)
    basal[:3] = 6
    depth = rng.lognormal(0, 0.3, (len(labels), 1))
    counts = rng.poisson(basal * np.repeat(effect, n_cells, axis=0) * depth)
    counts[:, -1] = 0  # a gene that nobody expresses
    cells = annotated(counts.astype(dtype), labels)
    return cells[rng.permutation(cells.n_obs)].copy() if shuffle else cells


def annotated(matrix, labels):
    """Return cells c0, c1 ... with these labels, of genes G0, G1 ..."""
    obs = pd.DataFrame({KEY: labels}, index=[f"c{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"G{i}" for i in range(matrix.shape[1])])
    return anndata.AnnData(matrix, obs=obs, var=var)


def rewrite(file, place, **how):
    """Put another array, with the same attributes, in the place of one of an HDF5 file."""
    attributes = dict(file[place].attrs)
    del file[place]
    file.create_dataset(place, **how).attrs.update(attributes)


def stored(cells, storage, folder):
    """Return the same cells in another storage; `cells` must be dense and in memory."""
    kind = storage.split()[-1]
    if storage.startswith("backed"):
        path = folder / f"{kind}.h5ad"
        if kind == "view":
            anndata.concat([cells[:7], cells], index_unique="-", merge="same").write_h5ad(path)
            return anndata.read_h5ad(path, backed="r")[7:]
        stored(cells, kind, folder).write_h5ad(path)
        return anndata.read_h5ad(path, backed="r")
    if kind == "view":
        more = anndata.concat([cells[:7], cells], index_unique="-", merge="same")
        more.X = sparse.csr_matrix(more.X) if storage.startswith("sparse") else more.X
        return more[7:]
    return anndata.AnnData(matrix_of(cells.X, kind), obs=cells.obs.copy(), var=cells.var.copy())


def matrix_of(dense, kind):
    if kind in ("dense", "fortran"):
        return dense.copy(order="F" if kind == "fortran" else "C")
    if kind == "csr_array":
        return sparse.csr_array(dense)
    if kind == "unsorted":
        matrix = sparse.csr_matrix(dense)
        for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
            matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
        matrix.has_sorted_indices = False
        return matrix
    if kind == "zeros":  # every place has an entry, zeros too
        rows, columns = np.indices(dense.shape)
        entries = (dense.ravel(), columns.ravel(), np.arange(len(dense) + 1) * dense.shape[1])
        matrix = sparse.csr_matrix(entries, shape=dense.shape)
        assert matrix.nnz == rows.size
        return matrix
    return sparse.csr_matrix(dense).asformat(kind)


def refuses(words, function, *args, error=ValueError, **options):
    """Assert that a call raises an error of these words."""
    with pytest.raises(error, match=words):
        function(*args, **options)


def dense_of(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def frame(values, names, genes=None):
    """Return values as an AnnData of float64; genes are G0, G1 ... if nothing is said."""
    values = np.asarray(values, dtype=float)
    genes = genes or [f"G{i}" for i in range(values.shape[1])]
    return anndata.AnnData(values, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=genes))


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture(params=STORAGES)
def any_storage(request, tmp_path):
    """The cells of fixture `cells` in one of many storages."""
    found = stored(make_cells(), request.param, tmp_path)
    yield found
    if found.isbacked:
        found.file.close()


@pytest.fixture
def short_of_memory(monkeypatch):
    """Make memory tell: leave out what the libraries take, far more than toy cells do."""
    from vcc_helpers.stream import plan

    amounts = {"LIBRARIES": 0, "RESULT": 0, "LEAST_BLOCK": 1, "FEWEST_GENES": 8}
    for name, value in amounts.items():
        monkeypatch.setattr(plan, f"_{name}", value)


@pytest.fixture
def closed():
    yield
    sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module")
def day5():
    """Real stem cells: the controls and the perturbed cells of day 5."""
    from vcc_helpers import datasets

    screen = datasets.load_hipsc_screen()
    return screen[screen.obs["day"] == 5].copy()


@pytest.fixture
def table():
    values = np.random.default_rng(9).normal(size=(12, 4))
    return pd.DataFrame(values, index=[f"G{i}" for i in range(12)])


@pytest.fixture
def bulk(cells):
    from vcc_helpers import pseudobulk

    return pseudobulk(cells)


@pytest.fixture
def snapshot():
    """Return a function that fixes all of an AnnData's content for comparison."""

    def take(cells):
        x = cells.X
        parts = [x.data.copy(), x.indices.copy(), x.indptr.copy()] if sparse.issparse(x) else []
        return {
            "type": type(x),
            "dtype": x.dtype,
            "parts": parts or [np.array(x)],
            "obs": cells.obs.copy(),
            "var": cells.var.copy(),
            "view": cells.is_view,
        }

    def same(cells, before):
        now = take(cells)
        for key in ("type", "dtype", "view"):
            assert now[key] == before[key], key
        for a, b in zip(now["parts"], before["parts"], strict=True):
            np.testing.assert_array_equal(a, b)
        pd.testing.assert_frame_equal(now["obs"], before["obs"])
        pd.testing.assert_frame_equal(now["var"], before["var"])

    return take, same
