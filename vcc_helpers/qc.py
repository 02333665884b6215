"""Quality control of files of any size: a figure a cell, and a sample that fits the memory.

Taught in: notebooks/03_quality_and_knockdown.
Needs: cells.py, storage.py.

>>> from vcc_helpers.datasets import load_h1_sample
>>> qc_table(load_h1_sample(), columns=["batch"]).columns.tolist()
['depth', 'n_genes', 'batch']
>>> sample_cells(load_h1_sample(), at_most=10).shape
(60, 1000)
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from tqdm import tqdm

from .cells import CONTROL, PERTURBATION_KEY, labels_of, open_cells, row_blocks, some_of, take_cells


def qc_table(
    cells: anndata.AnnData | str | Path,
    *,
    columns: Sequence[str] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Measure each cell: how many molecules were counted, of how many genes.

    Parameters
    ----------
    cells
        Counts, shape ``(n_cells, n_genes)``, or the path of an ``.h5ad``. Read once, a block of
        rows at a time.
    columns
        Columns of ``obs`` to put beside the figures, such as the batch.
    progress
        Show a progress bar.

    Returns
    -------
    DataFrame
        Index: cell names. ``depth``, the sum of the cell's counts, float64; ``n_genes``, the
        number of genes with a count above 0; and `columns`.

    Raises
    ------
    KeyError
        ``obs`` lacks one of `columns`.

    Notes
    -----
    Log-normalised values have no depth; give counts.

    Taught in: notebooks/03_quality_and_knockdown.
    """
    cells = open_cells(cells)
    if missing := [name for name in columns if name not in cells.obs]:
        raise KeyError(f"obs has no column {some_of(missing)}; it has {some_of(cells.obs.columns)}")
    depth, n_genes = np.empty(cells.n_obs), np.empty(cells.n_obs, dtype=np.int64)
    with tqdm(total=cells.n_obs, unit=" cells", desc="measure", disable=not progress) as bar:
        for start, block in row_blocks(cells):
            rows = slice(start, start + block.shape[0])
            depth[rows] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
            n_genes[rows] = np.asarray((block > 0).sum(axis=1)).ravel()
            bar.update(block.shape[0])
    beside = {name: cells.obs[name].array for name in columns}
    return pd.DataFrame({"depth": depth, "n_genes": n_genes, **beside}, index=cells.obs_names)


def sample_cells(
    cells: anndata.AnnData | str | Path,
    *,
    at_most: int = 100,
    controls: int | None = None,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Draw some cells of each perturbation, to do in memory what needs single cells.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``, or the path of an ``.h5ad``. Only the rows drawn are read.
    at_most
        Cells of each perturbation; all of one that has fewer.
    controls
        Cells of the control; by default `at_most`, too.
    seed
        Another seed draws other cells.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.

    Returns
    -------
    AnnData
        In memory, ``(n_drawn, n_genes)``, rows in the order of `cells`, ``X`` floating, with
        ``obs``, ``var`` and ``uns``.

    Raises
    ------
    KeyError
        ``obs`` has no column `perturbation_key`.
    ValueError
        A cell has no label; `at_most` or `controls` is negative, or nothing is drawn.

    Notes
    -----
    The draw within a perturbation depends on its name, its number of cells and the seed alone: a
    file and its sorted copy give the same cells, and other perturbations make no difference.

    Taught in: notebooks/03_quality_and_knockdown.
    """
    cells = open_cells(cells)
    controls = at_most if controls is None else controls
    if min(at_most, controls) < 0 or max(at_most, controls) < 1:
        raise ValueError(f"expected some cells to draw, got at_most={at_most}, controls={controls}")
    members = pd.Series(range(cells.n_obs)).groupby(labels_of(cells, perturbation_key)).indices
    drawn = [
        _draw(rows, controls if name == control else at_most, name, seed)
        for name, rows in members.items()
    ]
    rows = np.sort(np.concatenate(drawn))
    return take_cells(cells, rows)


def _draw(rows: np.ndarray, n: int, name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rows if len(rows) <= n else rng.choice(rows, n, replace=False)
