"""How genes vary together in unperturbed cells, read a block of rows at a time.

Taught in: notebooks/14_features_and_kernels.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> controls = cells[cells.obs["target_gene"] == "non-targeting"]
>>> control_covariance(controls, ["TMSB4X"]).shape
(1, 1000)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from ..bulk import CONTROL, PERTURBATION_KEY, silenced, some_of
from ..features import RESIDUAL
from .open import labels_of, open_cells
from .pseudobulk import lognorm_blocks

#: Rows that are made dense together.
_ROWS_AT_ONCE = 1024


def control_covariance(
    controls: anndata.AnnData | str | Path,
    targets: Iterable[str],
    *,
    within: str | None = None,
    shrinkage: float = 0.1,
    residual: float = RESIDUAL,
) -> pd.DataFrame:
    r"""Predict effects from how genes vary together in cells that nobody perturbed.

    Returned is a table of effects, differences of mean lognorm values, a column per gene: a row for
    each of `targets`, names of perturbations, that is a gene and varies in the controls, in the
    order given. The own effect is the knock-down. Memory grows with ``n_targets * n_genes``; the
    whole covariance is never formed.

    Parameters
    ----------
    controls
        Control cells; where they have labels, all must be the control's. Too few, or none of
        `targets` that is a gene that varies, are a ValueError.
    within
        A column of ``obs``, such as the batch: only what varies within its groups counts.
    shrinkage, residual
        Pull of the covariance towards a multiple of the identity, s; and the share of its
        expression that a silenced gene is expected to keep. Both 0 to 1, else it is a ValueError.

    Notes
    -----
    Linear response: a small input :math:`u` moves the means by :math:`\Sigma u`, where
    :math:`\Sigma` is the covariance of genes without a perturbation. Silencing gene t is an input
    to t alone, as large as its knock-down :math:`\delta_t` asks for:

    .. math:: \Delta_g = \Sigma_{gt} \, \delta_t / \Sigma_{tt}, \qquad
              \Sigma = (1 - s) \, S + s \, \bar\sigma^2 I

    with the sample covariance :math:`S` and its mean variance :math:`\bar\sigma^2`; so s holds back
    genes that barely vary. Source: Kuznets-Speck et al., "Fluctuation structure predicts
    genome-wide perturbation outcomes" (CIPHER), bioRxiv 2025, doi:10.1101/2025.06.27.661814, which
    fits the input to the measured response; here the expected knock-down sets it, so that a
    perturbation that nobody has measured can be predicted.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}; expected 0 to 1")
    cells = open_cells(controls)
    groups = _groups_of_controls(cells, within)
    asked = pd.Index(pd.unique(pd.Index(targets)))
    asked = asked[asked.isin(cells.var_names)]
    column = cells.var_names.get_indexer(asked)
    mean, variance, rows = _moments(lognorm_blocks(cells), groups, column)
    varies = variance[column] > 1e-9
    if not varies.any():
        raise ValueError("no target is a gene that varies in the controls; check the gene names")
    asked, column, rows = asked[varies], column[varies], rows[varies]
    delta = silenced(mean[column], residual) - mean[column]
    own = (1 - shrinkage) * variance[column] + shrinkage * variance.mean()
    response = (1 - shrinkage) * rows * (delta / own)[:, None]
    response[np.arange(len(column)), column] = delta
    return pd.DataFrame(response, index=asked.rename("target_gene"), columns=cells.var_names)


def _groups_of_controls(cells: anndata.AnnData, within: str | None) -> np.ndarray:
    """Check that all are controls; return the number of each cell's group."""
    if PERTURBATION_KEY in cells.obs:
        labels = labels_of(cells)
        if (labels != CONTROL).any():
            raise ValueError(
                f"controls must hold control cells only; {(labels != CONTROL).sum()} of "
                f"{len(labels)} are {some_of(labels[labels != CONTROL].unique())}; select them "
                f"with cells[cells.obs[{PERTURBATION_KEY!r}] == {CONTROL!r}]"
            )
    groups = np.zeros(cells.n_obs, dtype=int)
    if within is not None:
        groups = pd.factorize(labels_of(cells, within))[0]
    if cells.n_obs < groups.max(initial=0) + 2:
        raise ValueError(f"{cells.n_obs} control cells are too few for a covariance")
    return groups


def _moments(
    blocks: Iterable, groups: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of every gene, and the covariance's rows of some; within groups."""
    pivot = None
    for start, block in blocks:
        for first in range(0, block.shape[0], _ROWS_AT_ONCE):
            part = block[first : first + _ROWS_AT_ONCE]
            part = part.toarray() if sparse.issparse(part) else np.array(part)
            if pivot is None:
                # near the mean, so that float32 products lose nothing when it is subtracted
                pivot = part.mean(axis=0)
                total = np.zeros((groups.max() + 1, len(pivot)))
                square, cross = np.zeros(len(pivot)), np.zeros((len(column), len(pivot)))
            part -= pivot
            member = np.eye(len(total), dtype=part.dtype)[groups[start + first :][: len(part)]]
            total += member.T @ part
            square += np.einsum("cg,cg->g", part, part)
            cross += part[:, column].T @ part
    size = np.bincount(groups)[:, None]
    free = len(groups) - len(size)
    variance = (square - (total**2 / size).sum(axis=0)) / free
    cross -= (total[:, column] / size).T @ total
    return pivot + total.sum(axis=0) / len(groups), variance, cross / free
