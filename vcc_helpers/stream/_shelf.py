"""A shelf for the rows of a file: put there in the order they are read, taken down by group.

Scoring needs a perturbation's cells together, and a file lists them in any order. It also needs
the median library size before the first logarithm, and knows it only after the last cell. So each
block of rows goes to the shelf in compact form when it is read: counts in one or two bytes, gene
numbers in two, in memory or in one scratch file. No second reading, and no sorting of the file.

Taught in: notebooks/11_scale_out.

>>> block = sparse.csr_matrix(np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]], dtype=np.float32))
>>> shelf = Shelf(n_genes=2)
>>> shelf.add(0, *shelf.pack(block, np.array([1, 0, 1]), np.dtype(np.uint8)))
>>> [(rows.tolist(), piece.data.tolist()) for rows, piece in shelf.pieces(1)]
[([0, 2], [2, 1])]
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import anndata
import numpy as np
from scipy import sparse

from .blocks import BLOCK_VALUES, in_csr, read_rows
from .write import FULL

#: Entries that are taken down at a time.
_STACK = 2**21


class Rows(NamedTuple):
    """The arrays of a CSR matrix, in smaller types than scipy would leave them in."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    shape: tuple[int, int]


class Shelf:
    """Rows by group, in compact form; in a scratch file, or without `path` in memory."""

    def __init__(self, n_genes: int, path: Path | None = None):
        self.n_genes, self.path = n_genes, path
        # of each block, in the order of its groups: numbers of the rows, groups, where each row
        # begins; values and genes, as arrays, or the place of their first byte and their type
        self._blocks: list[tuple] = []
        self._file, self._writing = path.open("w+b", buffering=0) if path else None, Lock()
        if path and hasattr(os, "pread"):
            path.unlink()  # open still, and gone with the process, however that ends

    def pack(self, block: sparse.csr_matrix, codes: np.ndarray, dtype: np.dtype) -> tuple:
        """Bring a block of rows into compact form and the order of the groups, and store it.

        In any thread, so that the disk is written to while others read and pack. Rows whose code is
        below 0 are left out; `dtype` must hold all values.
        """
        from . import _kernels

        order = np.argsort(codes, kind="stable")
        order = order[np.searchsorted(codes[order], 0) :]
        indptr = np.concatenate([[0], np.cumsum(np.diff(block.indptr)[order], dtype=np.int64)])
        values = np.empty(indptr[-1], dtype)
        genes = np.empty(len(values), np.uint16 if self.n_genes <= 2**16 else np.int32)
        _kernels.gather(block.data, block.indices, block.indptr, order, values, genes)
        return order, codes[order], indptr, self._keep(values), self._keep(genes)

    def add(self, start: int, order, *packed) -> None:
        """Note where the rows of a block are, from what :meth:`pack` returned; `start` rises."""
        self._blocks.append((start + order, *packed))

    def _keep(self, array: np.ndarray):
        if self._file is None:
            return array
        try:
            with self._writing:
                place, rest = self._file.tell(), memoryview(array.view(np.uint8))
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OSError(
                error.errno,
                f"the disk of {self.path.parent} is full: scratch data needs more room; free some, "
                "name another folder with TMPDIR, or allow more memory",
            ) from error
        return place, array.dtype

    def pieces(self, code: int, stop: int | None = None) -> Iterator[tuple[np.ndarray, Rows]]:
        """Take down the rows of one group, or of all up to `stop`: numbers, and :class:`Rows`.

        Those of a group come in rising order.
        """
        stack, size = [], 0
        for rows, codes, indptr, *places in self._blocks:
            first, last = np.searchsorted(codes, (code, code + 1 if stop is None else stop))
            if first < last:
                part = slice(int(indptr[first]), int(indptr[last]))
                stack.append((rows[first:last], np.diff(indptr[first : last + 1]), part, places))
                size += part.stop - part.start
            if size >= _STACK:  # small pieces are stacked: little time goes into handling them
                yield self._join(stack)
                stack, size = [], 0
        if stack:
            yield self._join(stack)

    def _join(self, stack: list) -> tuple[np.ndarray, Rows]:
        rows, lengths, parts, places = zip(*stack, strict=True)
        values, genes = (  # one after the other, for less memory
            np.concatenate(found) if len(found) > 1 else found[0]
            for found in (
                list(map(self._load, column, parts)) for column in zip(*places, strict=True)
            )
        )
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return np.concatenate(rows), Rows(values, genes, indptr, (len(indptr) - 1, self.n_genes))

    def _load(self, place, part: slice) -> np.ndarray:
        if self._file is None:
            return place[part]
        (first, dtype), n = place, part.stop - part.start
        offset = first + part.start * dtype.itemsize
        if not hasattr(os, "pread"):  # Windows
            return np.fromfile(self.path, dtype, n, offset=offset)
        return np.frombuffer(os.pread(self._file.fileno(), n * dtype.itemsize, offset), dtype)

    def close(self) -> None:
        """Close the scratch file; who named it removes it."""
        if self._file is not None:
            self._file.close()


def _pieces_of(cells: anndata.AnnData, rows: np.ndarray) -> Iterator:
    """Take some rows a few at a time."""
    n = max(1, BLOCK_VALUES // cells.n_vars)
    for part in (rows[start : start + n] for start in range(0, len(rows), n)):
        yield part, in_csr(read_rows(cells, part))


def _genes_of(piece, genes: slice) -> Rows:
    """Keep the entries of some genes."""
    from . import _kernels

    if genes.stop - genes.start == piece.shape[1]:
        return piece
    ends = np.empty((2, piece.shape[0]), np.int64)
    for gene, place in zip((genes.start, genes.stop), ends, strict=True):
        _kernels.seek(piece.indices, piece.indptr[:-1], piece.indptr[1:], gene, place)
    kept = (piece.indices >= genes.start) & (piece.indices < genes.stop)
    indptr = np.concatenate([[0], np.cumsum(ends[1] - ends[0])])
    shape = piece.shape[0], genes.stop - genes.start
    return Rows(piece.data[kept], piece.indices[kept] - genes.start, indptr, shape)
