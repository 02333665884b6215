"""A panel: some cells of each target of an official file, fetched without the rest of it.

The official files hold their counts as CSR, not compressed, and their server sends any bytes of a
file that it is asked for. So the place of every cell's counts can be computed from the file's own
row pointers, and only the chosen cells travel.

Taught in: notebooks/01_load_the_h1_data.

>>> labels = np.array(["A", "A", "A", "non-targeting"])
>>> labels[choose(labels, cells_per_target=2, controls=1, seed=0)].tolist()
['A', 'A', 'non-targeting']
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
import requests
import urllib3
from anndata.io import read_elem
from scipy import sparse

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..stream.blocks import ahead
from ..stream.guard import check_hdf5
from ..stream.write import full_disk_explained, replacing, write_cells
from ._download import (
    ATTEMPTS,
    LONGEST_PAUSE,
    PASSING,
    PAUSE,
    TIMEOUT,
    Broken,
    Wanted,
    amount,
)

#: Requests at once; bytes that reading the file's structure asks for at least; cells in a part.
THREADS, BLOCK, CELLS = 16, 2**16, 256
#: Figures of the official training file: the profile in the GitHub project
#: yjcyxky/virtual-cell-challenge (2026-09-14).
_PUBLISHED = {
    "targets": "150",
    "genes": "18,080",
    "control cells": "38,176",
    "cells per target, quartiles": "33 / 590 / 1,045 / 1,742 / 4,760",
    "batches": "48",
    "counts per cell, 5, 50 and 95 %": "29,431 / 53,912 / 93,741",
    "genes detected, median": "8,761",
    "values that are not 0": "48.3%",
}
#: Most blocks that one request brings when the structure is read from one end to the other.
_MOST_AHEAD = 32


def choose(labels: np.ndarray, *, cells_per_target: int, controls: int, seed: int) -> np.ndarray:
    """Draw cells of each target, and controls: rows, ascending; all of a target with fewer."""
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = pd.Series(labels[order])
    place = drawn.groupby(drawn, observed=True).cumcount()
    return np.sort(order[place < np.where(drawn == CONTROL, controls, cells_per_target)])


def fetch_panel(wanted: Wanted, how: dict, *, genes: Sequence[str] | None, known: bool) -> Path:
    """Fetch a panel under the official name; `known` says that the size must be the official one.

    `how` holds ``cells_per_target``, ``controls`` and ``seed``.
    """
    how = {**how, "genes": "all" if genes is None else _digest(list(genes)), "source": wanted.url}
    with wanted.alone():
        if wanted.target.exists():
            return _the_same(wanted.target, how)
        with _Remote(wanted.url, wanted.official.n_bytes if known else None) as remote:
            _Panel(remote, wanted, how, genes).fetch()
    return wanted.target


def _the_same(path: Path, how: dict) -> Path:
    """Return the path of a panel that is there, if it is the one that is asked for."""
    try:
        with h5py.File(path) as file:
            there = read_elem(file["uns/panel"])
    except (KeyError, OSError):
        there = {}
    pairs = ((name, there.get(name), value) for name, value in how.items())
    if different := [f"{name} {old!r}, wanted {new!r}" for name, old, new in pairs if old != new]:
        raise FileExistsError(
            f"{path} is there, but is not this panel ({some_of(different)}); move it away and run "
            "again, or name another folder with folder="
        )
    return path


class _Remote(io.RawIOBase):
    """A file on a server, of which only the bytes that are asked for travel.

    HDF5 reads the file's structure through it: in blocks, more at once when it reads on and on.
    """

    def __init__(self, url: str, n_bytes: int | None):
        self.url, self.session = url, requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        self.session.headers.update({"User-Agent": "vcc-helpers", "Accept-Encoding": "identity"})
        self.size = self.etag = None
        self.at, self.next, self.ahead = 0, 1, 1
        self.blocks = {0: self.bytes(0, BLOCK)}
        if n_bytes not in (None, self.size):
            raise ConnectionError(
                f"{url} has {self.size:,} bytes, expected {n_bytes:,}: the published file was "
                "replaced, or a login page or a proxy answers in its place"
            )

    def close(self) -> None:
        self.session.close()
        super().close()

    def bytes(self, start: int, stop: int) -> bytes:
        """Return some bytes of the file; where a later answer may be better, ask again."""
        for attempt in range(ATTEMPTS):
            try:
                return self._ask(start, stop)
            except Broken as error:
                reason = error
                time.sleep(min(PAUSE * 2**attempt, LONGEST_PAUSE))
        raise ConnectionError(
            f"{self.url}: {reason}; given up after {ATTEMPTS} attempts. The cells that have "
            "arrived are kept: check the connection and run again, it goes on from there"
        )

    def _ask(self, start: int, stop: int) -> bytes:
        span = {"Range": f"bytes={start}-{stop - 1}"}
        broken = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
        try:
            answer = self.session.get(self.url, headers=span, timeout=TIMEOUT, stream=True)
        except broken as error:
            raise Broken(f"no connection ({type(error).__name__})") from error
        with answer:
            self._check(answer, start)
            n_bytes = min(stop, self.size) - start
            try:
                found = answer.raw.read(n_bytes)
            except broken as error:
                raise Broken(f"the connection broke ({type(error).__name__})") from error
        if len(found) < n_bytes:
            raise Broken(f"the server sent {len(found):,} of {n_bytes:,} bytes")
        return found

    def _check(self, answer: requests.Response, start: int) -> None:
        """Raise unless the answer is the wanted part of the file that answered first."""
        status, told = answer.status_code, f"{answer.status_code} {answer.reason}"
        span, _, total = answer.headers.get("Content-Range", "").rpartition("/")
        if status in PASSING:
            raise Broken(f"the server answers {told}")
        if status == requests.codes.ok:
            raise ConnectionError(
                f"{self.url}: the server sends only the whole file, so some cells cannot be had "
                "alone; fetch the whole one, without cells_per_target"
            )
        if status != requests.codes.partial_content:
            raise ConnectionError(
                f"{self.url}: the server answers {told}; the file may have moved: look it up on "
                "https://virtualcellchallenge.org, and name its new folder with base_url="
            )
        if span.partition("-")[0].split() != ["bytes", str(start)] or not total.isdecimal():
            raise Broken(f"the server sent another part ({span}) than the one from {start:,} on")
        seen = int(total), answer.headers.get("ETag", "")
        if self.size is None:
            self.size, self.etag = seen
        elif seen != (self.size, self.etag):
            raise ConnectionError(
                f"{self.url} was replaced by another file while its cells were fetched; run "
                "again: it begins anew"
            )

    # What HDF5 calls

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer) -> int:
        stop = min(self.at + len(buffer), self.size)
        numbers = range(self.at // BLOCK, -(-stop // BLOCK))
        self._load([number for number in numbers if number not in self.blocks])
        found = b"".join(self.blocks[number] for number in numbers)
        found = found[self.at - numbers.start * BLOCK :][: stop - self.at]
        buffer[: len(found)] = found
        self.at += len(found)
        return len(found)

    def _load(self, missing: list[int]) -> None:
        if not missing:
            return
        first, last = missing[0], missing[-1]
        self.ahead = min(2 * self.ahead, _MOST_AHEAD) if first == self.next else 1
        self.next = max(last + 1, first + self.ahead)
        found = self.bytes(first * BLOCK, self.next * BLOCK)
        for place in range(0, len(found), BLOCK):
            self.blocks[first + place // BLOCK] = found[place : place + BLOCK]


class _Values(NamedTuple):
    """Where the values of an array lie in the file: stretches of so many values from a byte on."""

    dtype: np.dtype
    length: int
    offsets: np.ndarray

    @classmethod
    def of(cls, array: h5py.Dataset) -> _Values:
        if array.ndim != 1 or array.dtype.kind not in "iuf" or array.file.userblock_size:
            raise ValueError(f"{array.name} is not stored as plain numbers in a row")
        if array.compression or array.shuffle or array.fletcher32 or array.scaleoffset is not None:
            raise ValueError(
                f"{array.name} is compressed, so its cells cannot be had alone; fetch the whole "
                "file, without cells_per_target"
            )
        if array.chunks is None:
            length, offsets = max(len(array), 1), np.array([array.id.get_offset() or 0])
        else:
            length = array.chunks[0]
            offsets = np.zeros(-(-len(array) // length), dtype=np.int64)

            def note(chunk) -> None:
                offsets[chunk.chunk_offset[0] // length] = chunk.byte_offset

            array.id.chunk_iter(note)
        if len(array) and (offsets <= 0).any():  # the file begins at 0, and no array does
            raise ValueError(f"{array.name} has values that were never written")
        return cls(array.dtype, length, offsets)

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the bytes, first and behind the last, of some values."""
        size, found = self.dtype.itemsize, []
        while start < stop:
            chunk, inside = divmod(start, self.length)
            n = min(stop - start, self.length - inside)
            first = int(self.offsets[chunk]) + inside * size
            found.append((first, first + n * size))
            start += n
        return found


class _Panel:
    """One panel while it is fetched, part by part; a part that is there is not fetched again."""

    def __init__(self, remote: _Remote, wanted: Wanted, how: dict, genes: Sequence[str] | None):
        self.remote, self.wanted, self.how = remote, wanted, how
        try:
            self._see_structure()
        except ConnectionError:
            raise
        except Exception as error:  # a damaged file raises any of a dozen errors
            raise ValueError(
                f"{remote.url} cannot be read as an official file of cells ({error}); it is "
                "damaged, or a login page or a proxy answers in its place"
            ) from error
        self.genes = None if genes is None else self._places(genes)
        labels = self.obs[PERTURBATION_KEY].astype(str).to_numpy()
        numbers = {name: how[name] for name in ("cells_per_target", "controls", "seed")}
        rows = choose(labels, **numbers)
        self.rows = rows[np.argsort(labels[rows], kind="stable")]

    def _see_structure(self) -> None:
        """Read labels and row pointers, and where the values lie."""
        with h5py.File(self.remote) as file:
            check_hdf5(file, without=("layers", "raw", "obsm", "obsp", "varm", "varp"))
            self.obs, self.var = read_elem(file["obs"]), read_elem(file["var"])
            self.marks = read_elem(file["uns"]) if "uns" in file else {}
            if file["X"].attrs.get("encoding-type") != "csr_matrix":
                raise ValueError("X is not stored cell by cell, as CSR")
            if PERTURBATION_KEY not in self.obs:
                raise ValueError(f"obs has no column {PERTURBATION_KEY!r}")
            self.pointers = file["X/indptr"][:].astype(np.int64)
            self.arrays = [_Values.of(file[f"X/{name}"]) for name in ("data", "indices")]
            lengths = {len(file[f"X/{name}"]) for name in ("data", "indices")}
        ends = {int(self.pointers[0]), int(self.pointers[-1])}
        fits = len(self.pointers) == len(self.obs) + 1 and ends == {0} | lengths
        if not fits or (np.diff(self.pointers) < 0).any():
            raise ValueError("the row pointers of X do not fit its values")

    def _places(self, genes: Sequence[str]) -> np.ndarray:
        places = self.var.index.get_indexer(pd.Index(genes))
        if (places < 0).any() or len(set(genes)) < len(genes):
            odd = [g for g, place in zip(genes, places, strict=True) if place < 0]
            odd = odd or [g for g in genes if list(genes).count(g) > 1]
            raise ValueError(f"genes: {some_of(odd)}: not in the file, or named more than once")
        return places

    def fetch(self) -> None:
        target = self.wanted.target
        per_cell = np.diff(self.pointers)[self.rows]
        n_bytes = int(per_cell.sum()) * sum(array.dtype.itemsize for array in self.arrays)
        self._tell(n_bytes, int(per_cell.sum()))
        key = _digest([self.how, self.remote.size, self.remote.etag])[:12]
        folder = target.with_name(f".{target.name}.{key}.parts")
        if folder.is_symlink():
            raise FileExistsError(f"{folder} is a link; remove it, and run again")
        folder.mkdir(exist_ok=True)
        paths = {first: folder / f"{first}.npz" for first in range(0, len(self.rows), CELLS)}
        parts = {first: _kept(path) for first, path in paths.items()}
        missing = {first: path for first, path in paths.items() if parts[first] is None}
        kept = "the cells that have arrived are kept, and the next run goes on from there"
        with self.wanted.bar(target.name, n_bytes) as bar, full_disk_explained(folder.parent, kept):
            parts |= self._fill(missing, bar)
        counts = sparse.vstack(list(parts.values()), format="csr")
        small = np.uint16 if counts.data.max(initial=0) < 2**16 else np.uint32
        cells = anndata.AnnData(counts.astype(small), obs=self._labels(), var=self._var())
        panel = {**self.how, "bytes": self.remote.size, "etag": self.remote.etag}
        cells.uns = {**self.marks, "panel": panel, "panel_of": self._sizes()}
        write_cells(target, cells, compression="gzip")
        shutil.rmtree(folder)

    def _tell(self, n_bytes: int, n_values: int) -> None:
        """Say what travels and what is stored; refuse a disk with too little room."""
        folder = self.wanted.target.parent
        # the parts hold a value and a column each, and the panel, which is packed, a third of it
        needed, free = 8 * n_values, shutil.disk_usage(folder).free
        text = (
            f"{len(self.rows):,} of {len(self.obs):,} cells: {amount(n_bytes)} of "
            f"{amount(self.remote.size)} to fetch; up to {amount(needed)} in {folder}, "
            f"{amount(free)} free"
        )
        if needed > free:
            raise OSError(errno.ENOSPC, f"{text}; make room, or name another folder with folder=")
        if self.wanted.progress:
            print(text, file=sys.stderr)

    def _fill(self, missing: dict[int, Path], bar) -> dict[int, sparse.csr_matrix]:
        """Fetch the parts that are missing, each from its first row on, and keep them."""
        found = {}
        spans = {first: self._spans(first) for first in missing}
        every = ((start, stop) for part in spans.values() for _, start, stop in part)
        with closing(ahead(self.remote.bytes, every, threads=THREADS)) as coming:
            for first, path in missing.items():
                pieces: tuple[list, list] = ([], [])
                for number, start, stop in spans[first]:
                    pieces[number].append(next(coming))
                    bar.update(stop - start)
                found[first] = self._counts(first, *map(b"".join, pieces))
                with replacing(path) as place, open(place, "wb") as file:
                    sparse.save_npz(file, found[first], compressed=False)
        return found

    def _spans(self, first: int) -> list[tuple[int, int, int]]:
        """List the bytes of a part: of which array, first and behind the last."""
        rows = self.rows[first : first + CELLS]
        ends = [(int(self.pointers[row]), int(self.pointers[row + 1])) for row in rows]
        return [
            (number, *span)
            for number, array in enumerate(self.arrays)
            for start, stop in ends
            for span in array.spans(start, stop)
        ]

    def _counts(self, first: int, values: bytes, columns: bytes) -> sparse.csr_matrix:
        """Return a part's counts, if they are counts, and the genes of each cell rise."""
        rows, n_genes = self.rows[first : first + CELLS], len(self.var)
        data, indices = map(np.frombuffer, (values, columns), [a.dtype for a in self.arrays])
        pointers = np.append(0, np.cumsum(self.pointers[rows + 1] - self.pointers[rows]))
        # places in one long row of all cells: they rise if those of each cell do
        cell = np.repeat(np.arange(len(rows)), np.diff(pointers))
        in_range = ((indices >= 0) & (indices < n_genes)).all()
        rising = in_range and (np.diff(cell * n_genes + indices) > 0).all()
        counts = ((data >= 0) & (data < 2**32)).all() and (data == np.floor(data)).all()
        if not (rising and counts):
            raise ValueError(
                f"{self.remote.url}: what arrived are no counts of {n_genes:,} genes: the file is "
                "damaged, was replaced, or something on the way (a proxy) changes it"
            )
        kept = data.astype(np.uint32), indices.astype(np.int32), pointers
        part = sparse.csr_matrix(kept, shape=(len(rows), n_genes))
        return part if self.genes is None else part[:, self.genes]

    def _labels(self) -> pd.DataFrame:
        obs = self.obs.iloc[self.rows].assign(source_row=self.rows)
        for name in obs.columns[obs.dtypes == "category"]:
            obs[name] = obs[name].cat.remove_unused_categories()
        return obs

    def _var(self) -> pd.DataFrame:
        return self.var if self.genes is None else self.var.iloc[self.genes]

    def _sizes(self) -> pd.DataFrame:
        """Count the cells of each target in the official file, and in the panel."""
        labels = self.obs[PERTURBATION_KEY].astype(str)
        sizes = {"n_cells": labels, "fetched": labels.iloc[self.rows]}
        return pd.DataFrame({name: of.value_counts(sort=False) for name, of in sizes.items()})


def verify_panel(path: str | Path) -> pd.DataFrame:
    """Hold a panel of the training cells against what is known of the official file.

    Returns
    -------
    DataFrame
        Index quantity; ``published`` and ``here``. The cells of each target are counted in the
        official file's labels, all else in the panel's cells, so expect depth and density to
        differ a little.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no panel at {path}; fetch one with cells_per_target=60")
    with h5py.File(path) as file:
        if "uns/panel_of" not in file:
            raise ValueError(f"{path} is no panel; expected what cells_per_target= fetches")
    cells = anndata.read_h5ad(path)
    sizes = cells.uns["panel_of"]["n_cells"]
    depth, detected = np.ravel(cells.X.sum(axis=1, dtype=np.int64)), cells.X.getnnz(axis=1)
    quartiles, depths = (0, 0.25, 0.5, 0.75, 1), (0.05, 0.5, 0.95)
    found = {
        "targets": f"{len(sizes) - 1}",
        "genes": f"{cells.n_vars:,}",
        "control cells": f"{sizes[CONTROL]:,}",
        "cells per target, quartiles": _words(sizes.drop(CONTROL).quantile(quartiles)),
        "batches": f"{cells.obs['batch'].nunique()}",
        "counts per cell, 5, 50 and 95 %": _words(np.quantile(depth, depths)),
        "genes detected, median": f"{np.median(detected):,.0f}",
        "values that are not 0": f"{detected.mean() / cells.n_vars:.1%}",
    }
    return pd.DataFrame({"published": _PUBLISHED, "here": found}).rename_axis("quantity")


def _kept(path: Path) -> sparse.csr_matrix | None:
    """Read a part that an earlier run kept; None if there is none, or it is damaged."""
    if path.is_symlink() or not path.is_file():
        return None
    with suppress(Exception):  # a damaged archive raises any of a dozen errors
        return sparse.load_npz(path)
    return None


def _words(numbers) -> str:
    return " / ".join(f"{number:,.0f}" for number in numbers)


def _digest(what) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
