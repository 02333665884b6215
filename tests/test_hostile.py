"""Files that lie: every reader says what is wrong or reads what is right, and nothing dies."""

import contextlib
import multiprocessing
import os
import pickle
import sys
import tracemalloc
import zlib
from multiprocessing import forkserver

import h5py
import numpy as np
import pytest
from conftest import CONTROL, KEY, ROOT, annotated, rewrite
from scipy import sparse

from vcc_helpers.stream import open_cells, row_blocks

if not sys.platform.startswith("linux"):
    pytest.skip("the bound of memory is that of Linux", allow_module_level=True)

import hostile_driver  # noqa: E402

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["hostile_driver"])


def cells(*, dense=False):
    counts = np.random.default_rng(0).poisson(2, (30, 8)).astype(np.float32)
    counts[:, 0] += 1
    return annotated(counts if dense else sparse.csr_matrix(counts), ["A", "B", CONTROL] * 10)


def set_attribute(place, name, value):
    return lambda file: file[place].attrs.update({name: value})


def names_too_long(file):
    """Repeat three names; AnnData 0.13 stores them as a group of values and a mask."""
    nullable = isinstance(file["obs/_index"], h5py.Group)
    for place in ("obs/_index/values", "obs/_index/mask") if nullable else ("obs/_index",):
        change_array(place, lambda names: np.append(names, names[:3]))(file)


def change_array(place, change):
    return lambda file: rewrite(file, place, data=change(file[place][:]))


def at(index, value):
    def change(array):
        array = array.astype(np.int64)
        array[index] = value
        return array

    return change


def huge(place, shape):
    """Declare an array that no machine could hold, and store nothing of it."""

    chunks = (1000,) * len(shape)
    return lambda file: rewrite(file, place, shape=shape, dtype=file[place].dtype, chunks=chunks)


def without(place, target=None):
    def spoil(file):
        del file[place]
        if target:
            file[place] = target

    return spoil


def into_dtype(dtype, place="X/data"):
    return change_array(place, lambda data: data.astype(dtype))


SHORT = zlib.compress(bytes(8))


def short_chunk(place, packing, packed=SHORT):
    """Let a chunk unpack to less than it should; HDF5 fills the rest with what lay in memory."""

    def spoil(file):
        data = file[place][:]
        rewrite(file, place, data=data, chunks=(5,) * data.ndim, **packing)
        file[place].id.write_direct_chunk((5,) + (0,) * (data.ndim - 1), packed)

    return spoil


GZIP, SHUFFLED = {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}
REFUSED = {
    "shape too wide": set_attribute("X", "shape", (30, 10**12)),
    "shape too tall": set_attribute("X", "shape", (10**12, 8)),
    "shape negative": set_attribute("X", "shape", (-30, 8)),
    "shape of text": set_attribute("X", "shape", "thirty"),
    "column too large": change_array("X/indices", at(3, 10**6)),
    "column negative": change_array("X/indices", at(3, -5)),
    "pointer falls": change_array("X/indptr", at(5, 0)),
    "pointer beyond the data": change_array("X/indptr", at(-1, 10**9)),
    "pointer negative": change_array("X/indptr", at(2, -4)),
    "pointer too short": change_array("X/indptr", lambda p: p[:-3]),
    "pointer too long": change_array("X/indptr", lambda p: np.append(p, p[-1:])),
    "fewer columns than values": change_array("X/indices", lambda i: i[:-5]),
    "huge data": huge("X/data", (10**12,)),
    "huge pointer": huge("X/indptr", (10**12,)),
    "values of a short chunk": short_chunk("X/data", GZIP),
    "columns of a short chunk": short_chunk("X/indices", SHUFFLED),
    "no data": without("X/data"),
    "no indices": without("X/indices"),
    "no indptr": without("X/indptr"),
    "no X": without("X"),
    "no obs": without("obs"),
    "no var": without("var"),
    "no names of genes": without("var/_index"),
    "unknown encoding": set_attribute("X", "encoding-type", "made-up"),
    "strings": into_dtype("S3"),
    "compound values": into_dtype([("a", "f4"), ("b", "i4")]),
    "complex values": into_dtype("complex64"),
    "labels of a lost category": change_array(f"obs/{KEY}/codes", at(0, 10**6)),
    "dangling link": without("X", h5py.SoftLink("/nowhere")),
    "link to itself": without("X", h5py.SoftLink("/X")),
    "a group that holds itself": lambda file: file.update({"X/again": file["X"]}),
    "obs too long": names_too_long,
}  # fmt: skip
READ = {
    "nothing wrong": lambda file: None,
    "big-endian": into_dtype(">f4"),
    "bytes": into_dtype("uint8"),
    "wide integers": into_dtype("int64"),
    "half precision": into_dtype("float16"),
    "half precision, big-endian": into_dtype(">f2"),
    "half precision, dense": into_dtype("float16", "/X"),
    "half precision, dense, big-endian": into_dtype(">f2", "/X"),
    "truth values": change_array("X/data", lambda data: data > 0),
    "a pickle in uns": lambda file: file.update({"uns/a": np.void(pickle.dumps(print))}),
    "wide pointers": change_array("X/indptr", lambda p: p.astype(np.uint64)),
}  # fmt: skip
WRONG_CHUNKS = {
    "unpacks to 8 bytes, not 100": SHORT,
    "unpacks to more than 100": zlib.compress(bytes(2**26)),
    "ends before its checksum": zlib.compress(bytes(100))[:-4],
}
DENSE = {
    f"{words}{' shuffled' * shuffled}": short_chunk("X", SHUFFLED if shuffled else GZIP, packed)
    for words, packed in WRONG_CHUNKS.items()
    for shuffled in (False, True)
}
#: Files of kilobytes that declare petabytes of zeros: read a block at a time, or refused.
PETABYTES = {
    "petabytes, dense": huge("/X", (10**6, 10**6)),
    "petabytes, sparse": huge("X/data", (10**14,)),
}
CASES = REFUSED | READ | DENSE | PETABYTES


def written(folder, name):
    path = folder / "lies.h5ad"
    folder.mkdir(exist_ok=True)
    cells(dense=name in DENSE or "dense" in name).write_h5ad(path)
    with h5py.File(path, "a") as file:
        CASES[name](file)
    return path


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each file with each reader, in a process that may die: then in another one."""
    folder, found = tmp_path_factory.mktemp("hostile"), {}
    paths = {name: written(folder / str(i), name) for i, name in enumerate(CASES)}
    before = {name: path.read_bytes() for name, path in paths.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/tests{os.pathsep}{ROOT}")
        forkserver.ensure_running()
    while waiting := {name: path for name, path in paths.items() if name not in found}:
        receiver, sender = SERVER.Pipe(duplex=False)
        process = SERVER.Process(target=hostile_driver.probe, args=(waiting, sender))
        process.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while True:
                found.update([receiver.recv()])
        process.join(60)
        if process.exitcode:
            name = next(name for name in waiting if name not in found)
            found[name] = {"interpreter": ("finding", f"died with {process.exitcode}")}
    changed = [name for name, path in paths.items() if path.read_bytes() != before[name]]
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not changed and left == {"lies.h5ad"}
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_a_lie_is_refused_in_words(name, outcomes):
    found = outcomes[name]
    assert {kind for kind, _ in found.values()} <= {"read", "refused"}, found
    judges = [found[reader][0] for reader in ("blocks", "scored", "sorted_file")]
    assert judges == ["refused"] * 3, found


@pytest.mark.parametrize("name", DENSE)
def test_a_wrong_chunk_of_a_dense_matrix_is_refused(name, outcomes):
    for reader in ("check", "blocks", "scored", "sorted_file"):
        kind, text = outcomes[name][reader]
        assert kind == "refused" and name.removesuffix(" shuffled") in text, (reader, kind, text)


def test_a_chunk_that_unpacks_to_much_more_fills_no_memory(tmp_path):
    path = written(tmp_path, "unpacks to more than 100")
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than 100"):
        list(row_blocks(open_cells(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("name", READ)
def test_what_is_odd_but_true_is_read(name, outcomes):
    found, expected = outcomes[name], cells().X.sum()
    if name == "truth values":
        expected = (cells().X > 0).sum()
    assert {kind for kind, _ in found.values()} <= {"read", "refused"}, found
    answer = ("read", str(float(expected)))
    assert found["blocks"] == answer, found
    assert found["sorted_file"] == answer or "pickle" in name, found  # which cannot be copied
    assert found["scored"][0] == "read", found


@pytest.mark.filterwarnings("ignore:.*without encoding metadata")
def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    hostile_driver.check(written(tmp_path, "nothing wrong"))  # Numba's own, once
    monkeypatch.setattr("pickle.loads", lambda *_: pytest.fail("a pickle was opened"))
    hostile_driver.check(written(tmp_path, "a pickle in uns"))


@pytest.mark.parametrize("name", PETABYTES)
def test_a_matrix_larger_than_memory_is_not_allocated(name, outcomes):
    assert {kind for kind, _ in outcomes[name].values()} == {"refused"}, outcomes[name]
