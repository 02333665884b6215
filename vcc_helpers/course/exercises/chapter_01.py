"""Exercises of notebooks/01_load_the_h1_data: depth, storage, knock-down.

Needs: datasets; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("01-2", 1 / 3).status
'right'
"""

from functools import cache

import anndata
import numpy as np

from vcc_helpers.datasets import load_h1_sample

from . import Exercise, Hint


@cache
def _cells() -> anndata.AnnData:
    return load_h1_sample()


def _is(target: str) -> np.ndarray:
    return (_cells().obs["target_gene"] == target).to_numpy()


def _depth() -> np.ndarray:
    return np.asarray(_cells().X.sum(axis=1)).ravel()


def _depth_per_gene() -> np.ndarray:
    return np.asarray(_cells()[_is("non-targeting")].X.sum(axis=0)).ravel()


def _counts_left() -> dict[str, float]:
    own = _cells()[:, "TMSB4X"].to_df()["TMSB4X"]
    guides = _cells().obs["guide_id"].astype(str)[_is("TMSB4X")]
    means = own[_is("TMSB4X")].groupby(guides).mean()
    control = own[_is("non-targeting")].mean()
    return {
        "weak": means.max() / control,
        "strong": means.min() / control,
        "both": own[_is("TMSB4X")].mean() / control,
        "against all": means.max() / own[~_is("TMSB4X")].mean(),
        "medians": own[_is("TMSB4X")].groupby(guides).median()[means.idxmax()]
        / own[_is("non-targeting")].median(),
    }


EXERCISES = {
    "01-1": Exercise(
        solution=lambda: np.median(_depth()[_is("non-targeting")]),
        right="Compare it with the median of all cells: the controls are ordinary cells.",
        hints=(
            Hint(
                lambda: np.median(_depth()),
                "That is the median over all cells. Keep only those with target_gene equal to "
                "'non-targeting'.",
            ),
            Hint(
                lambda: _depth()[_is("non-targeting")].mean(),
                "That is the mean. The distribution has a long right tail, which pulls the mean "
                "up; the question is for the median.",
            ),
            Hint(
                lambda: np.median(_depth_per_gene()),
                "You summed over cells, so you have totals of genes. The depth is the sum over "
                "genes, one number a cell.",
            ),
        ),
    ),
    "01-2": Exercise(
        solution=lambda: 2 / (2 + 4),
        right="With small values the column numbers weigh more, so CSR has to leave out more "
        "zeros to pay for them.",
        hints=(
            Hint(
                lambda: 1 / 2,
                "That is the answer for 4-byte values. Here a value takes 2 bytes, and a column "
                "number still takes 4.",
            ),
            Hint(
                lambda: 1.0,
                "That would be so if CSR stored the values only. It must also store the column of "
                "each.",
            ),
            Hint(
                lambda: 2 / 3,
                "That keeps 4 bytes a value in the dense matrix. It shrinks, too: set its size, 2 "
                "bytes an entry, equal to that of CSR.",
            ),
            Hint(
                lambda: 2 / (2 + 4 + 4),
                "You counted a row number for each entry. CSR sorts the entries by row, so it "
                "needs just one number a row, which is next to nothing.",
            ),
        ),
    ),
    "01-3": Exercise(
        solution=lambda: _counts_left()["weak"],
        right="Still a good knock-down, and much of what is left sits in a few cells.",
        hints=(
            Hint(
                lambda: _counts_left()["strong"],
                "That is the pair that works better: it leaves less.",
            ),
            Hint(
                lambda: 1 - _counts_left()["weak"],
                "That is the share that is gone. The question is for the share that is left.",
            ),
            Hint(
                lambda: 1 / _counts_left()["weak"],
                "Upside down: divide the silenced cells' mean by the controls' mean.",
            ),
            Hint(
                lambda: _counts_left()["both"],
                "That is over both pairs of guides together. Group the cells by guides first.",
            ),
            Hint(
                lambda: _counts_left()["medians"],
                "Those are medians. They do not see the few cells that kept more; divide means.",
            ),
            Hint(
                lambda: _counts_left()["against all"],
                "You divided by the mean of all other cells. Only the non-targeting ones are "
                "controls.",
            ),
        ),
    ),
}
