"""Exercises of notebooks/01_load_the_h1_data: depth, storage, knock-down."""

import numpy as np

from . import Answers, exercise
from ._data import h1


def _is(target: str) -> np.ndarray:
    return (h1().obs["target_gene"] == target).to_numpy()


@exercise("01-1")
def _depth_of_the_controls() -> Answers:
    """Median depth of the control cells.

    right: Compare it with the median of all cells: the controls are ordinary cells.
    all cells: That is the median over all cells. Keep only those with target_gene equal to
        'non-targeting'.
    mean: That is the mean. The distribution has a long right tail, which pulls the mean up; the
        question is for the median.
    genes: You summed over cells, so you have totals of genes. The depth is the sum over genes, one
        number a cell.
    """
    depth, control = np.ravel(h1().X.sum(axis=1)), _is("non-targeting")
    yield "right", np.median(depth[control])
    yield "all cells", np.median(depth)
    yield "mean", depth[control].mean()
    yield "genes", np.median(np.ravel(h1()[control].X.sum(axis=0)))


@exercise("01-2")
def _when_csr_is_smaller() -> Answers:
    """Share of entries that may be stored for CSR to be smaller.

    right: With small values the column numbers weigh more, so CSR has to leave out more zeros to
        pay for them.
    4 bytes: That is the answer for 4-byte values. Here a value takes 2 bytes, and a column number
        still takes 4.
    values only: That would be so if CSR stored the values only. It must also store the column of
        each.
    dense in 4 bytes: That keeps 4 bytes a value in the dense matrix. It shrinks, too: set its size,
        2 bytes an entry, equal to that of CSR.
    row numbers: You counted a row number for each entry. CSR sorts the entries by row, so it needs
        just one number a row, which is next to nothing.
    """
    yield "right", 2 / (2 + 4)
    yield "4 bytes", 1 / 2
    yield "values only", 1.0
    yield "dense in 4 bytes", 2 / 3
    yield "row numbers", 2 / (2 + 4 + 4)


@exercise("01-3")
def _counts_that_are_left() -> Answers:
    """Find how much the weaker pair of guides leaves.

    right: Still a good knock-down, and much of what is left sits in a few cells.
    strong: That is the pair that works better: it leaves less.
    both: That is over both pairs of guides together. Group the cells by guides first.
    medians: Those are medians. They do not see the few cells that kept more; divide means.
    all others: You divided by the mean of all other cells. Only the non-targeting ones are
        controls.
    """
    own, mine = h1()[:, "TMSB4X"].to_df()["TMSB4X"], _is("TMSB4X")
    control = own[_is("non-targeting")]
    pairs = own[mine].groupby(h1().obs["guide_id"].astype(str)[mine])
    left = pairs.mean()
    yield "right", left.max() / control.mean()
    yield "strong", left.min() / control.mean()
    yield "both", own[mine].mean() / control.mean()
    yield "medians", pairs.median()[left.idxmax()] / control.median()
    yield "all others", left.max() / own[~mine].mean()
