"""Measures of models that need the cells, not their means alone.

Taught in: notebooks/04_mean_baseline and notebooks/09_first_submission.

>>> from vcc_helpers.datasets import load_h1_sample
>>> len(halves(load_h1_sample(), n_halvings=2))
2
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import anndata
import pandas as pd

from .. import emit
from ..bulk import CONTROL
from ..counts import Scaling
from ..evaluation import Measure, evaluate
from ..stream.look import inspect_values
from ..stream.open import labels_of
from ..stream.pseudobulk import pseudobulk
from .anchors import split_half
from .digest import compare, digest


def measure_cells(
    cells: anndata.AnnData, *, emitter: Callable[..., anndata.AnnData] = emit.negative_binomial
) -> Measure:
    """Return a measure that turns predictions into cells too, so that there is a DES.

    Parameters
    ----------
    cells
        The real cells, counts, ``(n_cells, n_genes)``: every target that will be asked about,
        and controls. They must have the genes of the predictions.
    emitter
        A function of :mod:`vcc_helpers.emit`; it makes as many cells as there are real ones,
        from the real controls. Set its seed with :func:`functools.partial`.

    Returns
    -------
    callable
        For :func:`~.evaluation.repeated` as `measure`: what :func:`~.evaluation.evaluate` returns,
        and a column des, scored by the rules of vcc2025. Far slower: it tests every gene of every
        perturbation.
    """
    labels = labels_of(cells)
    controls = cells[labels == CONTROL].copy()
    scale = Scaling.of(inspect_values(cells)).target_sum

    @cache
    def truth(names: tuple[str, ...]):
        return digest(cells[labels.isin([CONTROL, *names])].copy())

    def measure(pred: anndata.AnnData, real: anndata.AnnData) -> pd.DataFrame:
        names = tuple(real.obs_names[real.obs_names != CONTROL])
        known = truth(names)
        asked = pred[[CONTROL, *names]]
        sizes = known.bulk.obs["n_cells"].drop(CONTROL)
        made = emitter(asked, controls=controls, n_cells=sizes, target_sum=scale)
        des = compare(digest(made), known)["des"]
        return evaluate(pred, real).assign(des=des)

    return measure


def halves(
    cells: anndata.AnnData, *, n_halvings: int = 5, seed: int = 0
) -> list[tuple[anndata.AnnData, anndata.AnnData]]:
    """Return two pseudobulks for each split of the cells, for :func:`~.evaluation.ceiling`.

    The splits are those of :func:`split_half`, with `seed`, `seed` + 1, and so on.
    """
    splits = (split_half(cells, seed=seed + number) for number in range(n_halvings))
    return [tuple(pseudobulk(half) for half in pair) for pair in splits]
