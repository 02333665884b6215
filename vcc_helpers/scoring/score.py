"""Score a prediction as the leaderboard does, with baseline, chance and ceiling beside it.

Taught in: notebooks/08_metrics_by_hand and notebooks/09_first_submission.

>>> import vcc_helpers as vcc
>>> cells = vcc.datasets.load_h1_sample()
>>> score(cells, cells).summary.to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import anndata

from ..bulk import CONTROL, PERTURBATION_KEY
from ..presets import Preset, get_preset
from .anchors import anchors
from .card import ScoreCard
from .digest import _score


def score(
    pred: anndata.AnnData | str | Path,
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    threads: int | None = None,
    cache: str | Path | None = None,
    client=None,
    progress: bool = False,
    ceiling: bool = False,
) -> ScoreCard:
    """Score predicted cells against real ones.

    Parameters
    ----------
    pred, real
        Cells with controls, ``(n_pred_cells, n_genes)`` and ``(n_real_cells, n_genes)``, or paths
        of ``.h5ad`` or ``.zarr`` files, each read once; dense, CSR, CSC, a view or backed; counts
        or lognorm, each on its own. The same genes in the same order, and the same perturbations.
    preset
        The rules, by name or as a record.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.
    memory, threads, cache, client, progress
        Most memory to use, number of threads, a folder for what is finished (the truth's half is
        then there for the next prediction), a Dask cluster, progress bars: as for
        :func:`~vcc_helpers.stream.contrast`. None changes a bit of the result.
    ceiling
        Put chance, the mean baseline, the split-half ceiling and perfect predictions beside the
        result: :func:`~.scoring.anchors`, in the card's `anchors`. Where they cannot be had, a
        UserWarning says why.

    Returns
    -------
    ScoreCard
        One row a perturbation, one column a metric.

    Raises
    ------
    ValueError
        A file is unusable, or the two do not match; every problem has a line of its own.
    FileNotFoundError
        There is no such file.

    Notes
    -----
    With ``"vcc2025"``, equal to cell-eval 0.6.6 with pdex 0.1.27; with ``"vcc2026"`` to cell-eval2
    0.20.0. That takes counts only, and the controls of `real` for both sides: those of `pred` are
    not looked at, and may be missing.
    """
    rules = get_preset(preset)
    question = {"perturbation_key": perturbation_key, "control": control}
    means = {"memory": memory, "threads": threads, "cache": cache}
    card = _score(pred, real, rules, client=client, progress=progress, **question, **means)
    if not ceiling:
        return card
    try:
        return replace(card, anchors=anchors(real, rules, **question, **means))
    except ValueError as error:  # the score is right nevertheless
        warnings.warn(f"nothing to hold the score against: {error}", stacklevel=2)
        return card
