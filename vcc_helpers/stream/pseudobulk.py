"""From cells of any size to a pseudobulk: log-normalise and average, a block of rows at a time.

Taught in: notebooks/09_work_with_large_files.

>>> from vcc_helpers.datasets import load_h1_sample
>>> pseudobulk(load_h1_sample()).obs_names.tolist()
['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X', 'non-targeting']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from ..bulk import PERTURBATION_KEY, some_of
from ..counts import Scaling, moments
from .blocks import in_csr, row_blocks
from .contexts import CONTEXT_KEY, by_context, has_several
from .look import inspect_values
from .open import labels_of, open_cells

#: Counts below this are looked up in a table.
_SMALL_COUNTS = 128
#: Rows whose entries fit the processor's cache.
_ROWS_IN_CACHE = 32


def lognorm_blocks(
    cells: anndata.AnnData, *, target_sum: float | None = None, progress: bool = False
) -> Iterator[tuple[int, sparse.csr_matrix | np.ndarray]]:
    """Yield :func:`~.counts.lognorm` of `cells` a block of rows at a time, after its first row.

    The parameters are those of :func:`pseudobulk`.
    """
    scaling = Scaling.of(inspect_values(cells, progress=progress), target_sum)
    for start, block in row_blocks(cells):
        yield start, log_block(scaling, block, slice(start, start + block.shape[0]))


def log_block(scaling: Scaling, block, rows) -> sparse.csr_matrix | np.ndarray:
    """Do what :meth:`~.counts.Scaling.apply` does, to the bit, and faster on CSR."""
    if not sparse.issparse(block) or scaling.library_size is None:
        return scaling.apply(block, rows)
    values = log_entries(scaling, block.data, block.indptr, rows, dtype=block.dtype)
    return sparse.csr_matrix((values, block.indices, block.indptr), shape=block.shape)


def log_entries(scaling: Scaling, counts, indptr, rows, *, dtype: np.dtype) -> np.ndarray:
    """Log-normalise the entries of some rows of a CSR matrix, as :func:`log_block` does.

    Small counts are looked up, one table a cell: many times as fast as to compute each anew.
    """
    from . import _kernels  # compiled code; half a second that imports need not pay

    if scaling.library_size is None:
        return counts.astype(dtype, copy=False)
    factor, values = scaling.divisor(rows, dtype), np.empty(len(counts), dtype)
    for start in range(0, len(factor), _ROWS_IN_CACHE):
        divisor = factor[start : start + _ROWS_IN_CACHE, None]
        table = np.log1p(np.arange(_SMALL_COUNTS, dtype=dtype) / divisor)
        _kernels.look_up(counts, indptr[start : start + len(table) + 1], table, values)
    other = np.flatnonzero(values < 0)
    if 32 * len(other) < len(values):
        row = np.searchsorted(indptr, other, side="right") - 1
    else:  # hardly a count is small or whole
        row = np.repeat(np.arange(len(factor)), np.diff(indptr))[other]
    values[other] = np.log1p(counts[other].astype(dtype) / factor[row])
    return values


def pseudobulk(
    cells: anndata.AnnData | str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    context_key: str | None = None,
    target_sum: float | None = None,
    progress: bool = False,
) -> anndata.AnnData:
    r"""Average the log-normalised cells of each perturbation.

    Returned is a pseudobulk, ``(n_groups, n_genes)``, rows sorted by name, the control among them;
    a label that no cell bears makes no row. ``X`` is the mean lognorm value, float32 (float64 where
    the input is); ``layers["variance"]`` the unbiased variance between cells, NaN for a group of
    one cell; ``obs["n_cells"]`` the group's size. `target_sum` is as for :func:`~.counts.lognorm`.
    A file is read in two passes.

    With `context_key`, the column that names each cell's context, each context has rows of its own,
    named ``context/perturbation``, as if it were alone, and ``obs`` has both columns. To go on with
    one context after the other, use :func:`by_context`. Without it, a group with cells of several
    contexts, by the column ``context``, is a ValueError.

    .. math:: \bar y_{pg} = \frac{1}{n_p} \sum_{c \in p} y_{cg}

    Sums are float64, and rounded to the data's precision at the end, as cell-eval 0.6.6 does.
    """
    cells = open_cells(cells)
    if context_key:
        how = {"perturbation_key": perturbation_key, "target_sum": target_sum, "progress": progress}
        parts = by_context(cells, context_key)
        bulks = [pseudobulk(part, **how) for part in parts.values()]
        for context, bulk in zip(parts, bulks, strict=True):
            bulk.obs = bulk.obs.assign(**{context_key: context, perturbation_key: bulk.obs_names})
            bulk.obs_names = f"{context}/" + bulk.obs_names
        return anndata.concat(bulks, merge="same")
    labels = labels_of(cells, perturbation_key)
    if has_several(cells):
        _refuse_mixed(cells.obs[CONTEXT_KEY], labels)
    blocks = lognorm_blocks(cells, target_sum=target_sum, progress=progress)
    return pseudobulk_of_blocks(blocks, labels, cells.var, progress=progress)


def _refuse_mixed(contexts: pd.Series, labels: pd.Index) -> None:
    """Raise if a group has cells of several contexts, whose mean would be of no cell line."""
    if (contexts.groupby(np.asarray(labels), observed=True).nunique(dropna=False) > 1).any():
        names = sorted(contexts.unique().astype(str))
        raise ValueError(
            f"cells: {len(names)} contexts ({some_of(names)}) in obs[{CONTEXT_KEY!r}], whose cells "
            f"have no common mean; give context_key={CONTEXT_KEY!r} (--context-key) for a row of "
            "each context and perturbation, or take one after the other: stream.by_context(cells)"
        )


def pseudobulk_of_blocks(
    blocks: Iterable[tuple[int, sparse.csr_matrix | np.ndarray]],
    labels: pd.Index,
    var: pd.DataFrame,
    *,
    progress: bool = False,
) -> anndata.AnnData:
    """Do :func:`pseudobulk` on what :func:`lognorm_blocks` yields of cells with these labels."""
    from . import _kernels

    codes, groups = pd.factorize(labels, sort=True)
    total, square = np.zeros((2, len(groups), len(var)))
    with tqdm(total=len(labels), unit=" cells", desc="average", disable=not progress) as bar:
        for start, block in blocks:
            rows = in_csr(block)
            here = codes[start : start + block.shape[0]]
            # cells are added one after the other, so that blocks leave no trace
            _kernels.add_rows(rows.data, rows.indices, rows.indptr, here, total, square)
            bar.update(block.shape[0])
    n_cells = np.bincount(codes, minlength=len(groups))
    mean, variance = moments(total, square, n_cells[:, None])
    return anndata.AnnData(
        mean.astype(block.dtype),
        obs=pd.DataFrame({"n_cells": n_cells}, index=pd.Index(groups).astype(str)),
        var=var.copy(),
        layers={"variance": variance.astype(block.dtype)},
    )
