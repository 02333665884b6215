"""The few loops that NumPy has no word for, compiled by Numba when they are first called.

All of them let go of Python's lock, so that threads run side by side. What each is for is told
where it is called: cells.py (look_over), effects.py (look_up, add_rows), shelf.py (gather),
contrast.py (add_in_order) and ranksum.py (all others).

Taught in: notebooks/11_rank_every_gene.
Needs no sibling module.

>>> pairs = np.array([[2 << 32, 3 << 32]], np.uint64)  # one gene: a group's values 2 and 3
>>> controls = np.array([1, 2, FENCE], np.uint32)  # the controls' 1 and 2; a third one is 0
>>> u, ties = np.zeros((1, 1)), np.zeros((1, 1))
>>> walk(pairs, np.array([2]), controls, np.array([0, 3]), 3, u, ties)
>>> u.item(), ties.item()  # 2 is above 0 and 1 and ties with 2, 3 is above all; 2**3 - 2
(5.5, 6.0)
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Stands behind each gene's values, above them all, so that nobody need watch for the end.
FENCE = 2**32 - 1


@njit(nogil=True, cache=True)
def look_over(values, indptr, tolerance, sums):
    """Look at every value once.

    Parameters
    ----------
    values, indptr
        Entries of a CSR matrix, and where each row begins and ends.
    tolerance
        A fractional part above this makes a value fractional.
    sums
        Filled: the sum of each row, float64.

    Returns
    -------
    tuple
        Smallest and largest value (at most and at least 0), whether one is fractional, whether
        all are whole, whether one is NaN.
    """
    low, high, fractional, whole, nan = 0.0, 0.0, False, True, False
    for row in range(len(indptr) - 1):
        total = 0.0
        for i in range(indptr[row], indptr[row + 1]):
            value = values[i]
            part = value - np.floor(value)
            fractional |= part > tolerance
            whole &= part == 0
            nan |= value != value
            low, high = min(low, value), max(high, value)
            total += value
        sums[row] = total
    return low, high, fractional, whole, nan


@njit(nogil=True, cache=True)
def look_up(counts, indptr, table, out):
    """Replace each count by the entry of its row's table; -1 where the table has none.

    Parameters
    ----------
    counts, indptr
        Entries of a CSR matrix, 0 or more, and where each row begins and ends.
    table
        The new value of 0, 1, 2 ... in each row, ``(n_rows, n_known)``.
    out
        Filled, as long as `counts`.
    """
    n_known = table.shape[1]
    for row in range(len(indptr) - 1):
        new = table[row]
        for i in range(indptr[row], indptr[row + 1]):
            count = counts[i]
            place = np.int64(min(count, n_known - 1))
            out[i] = new[place] if place == count else -1


@njit(nogil=True, cache=True)
def add_rows(values, genes, indptr, codes, total, square):
    """Add each row, and its squares, to the row of its group, in float64 and in the rows' order.

    Parameters
    ----------
    values, genes, indptr
        A CSR matrix.
    codes
        The group of each row.
    total, square
        Sums so far, ``(n_groups, n_genes)``, float64; added to.
    """
    for row in range(len(codes)):
        t, s = total[codes[row]], square[codes[row]]
        for i in range(indptr[row], indptr[row + 1]):
            value = np.float64(values[i])
            t[genes[i]] += value
            s[genes[i]] += value * value


@njit(nogil=True, cache=True)
def add_in_order(tile, total, square):
    """Sum each gene's values, and their squares, in float64 and in the cells' order.

    Parameters
    ----------
    tile
        ``(n_genes, n_cells)``.
    total, square
        Filled, ``(n_genes,)``, float64.
    """
    for gene in range(tile.shape[0]):
        t, s = 0.0, 0.0
        for cell in range(tile.shape[1]):
            value = np.float64(tile[gene, cell])
            t += value
            s += value * value
        total[gene], square[gene] = t, s


@njit(nogil=True, cache=True)
def gather(values, genes, indptr, order, out_values, out_genes):
    """Copy the rows of a CSR matrix in another order.

    Parameters
    ----------
    values, genes, indptr
        A CSR matrix.
    order
        Which row comes first, second, and so on.
    out_values, out_genes
        Filled; may be of smaller types.
    """
    at = 0
    for row in order:
        for i in range(indptr[row], indptr[row + 1]):
            out_values[at] = values[i]
            out_genes[at] = genes[i]
            at += 1


@njit(nogil=True, cache=True)
def seek(genes, indptr, first, place):
    """Find the first entry of each row that is of gene `first` or of a later one.

    Parameters
    ----------
    genes, indptr
        Of a CSR matrix, the genes of each row in rising order.
    first
        A gene.
    place
        Filled, ``(n_rows,)``.
    """
    for row in range(len(indptr) - 1):
        part = genes[indptr[row] : indptr[row + 1]]
        place[row] = indptr[row] + np.searchsorted(part, first)


@njit(nogil=True, cache=True)
def fill_tile(values, genes, indptr, place, first, tile):
    """Lay the entries of a few genes out as dense rows, a gene each.

    Parameters
    ----------
    values, genes, indptr
        A CSR matrix, the genes of each row in rising order.
    place
        The next entry of each row; moved on.
    first
        The gene of the tile's first row.
    tile
        Filled, ``(n_genes, n_cells)``.
    """
    tile[:] = 0
    stop = first + tile.shape[0]
    for row in range(tile.shape[1]):
        i, end = place[row], indptr[row + 1]
        while i < end and genes[i] < stop:
            tile[genes[i] - first, row] = values[i]
            i += 1
        place[row] = i


@njit(nogil=True, cache=True)
def count(values, genes, n_values):
    """Count the non-zeros of each gene; adds to `n_values`, ``(n_genes,)``."""
    for i in range(len(values)):
        n_values[genes[i]] += values[i] != 0


@njit(nogil=True, cache=True)
def pair(tile, ends, pairs, n_values):
    """List each gene's non-zeros, each with the number of its group.

    Parameters
    ----------
    tile
        Whole numbers in place of the values, 0 or 2**31 for 0, ``(n_genes, n_cells)``, uint32.
    ends
        Where each group's cells begin in `tile`, and the last one's end, ``(n_groups + 1,)``.
    pairs
        Filled from the left: number and group, in the upper and lower half of a uint64,
        ``(n_genes, n_cells)``.
    n_values
        Filled: how many there are of each group, ``(n_genes, n_groups)``.
    """
    for gene in range(tile.shape[0]):
        at = 0
        for group in range(len(ends) - 1):
            before = at
            for cell in range(ends[group], ends[group + 1]):
                number = np.uint64(tile[gene, cell])
                # written in any case, and kept if it counts: no branch to be mispredicted
                pairs[gene, at] = (number << np.uint64(32)) | np.uint64(group)
                at += np.int64(number & np.uint64(2**31 - 1) != 0)
            n_values[gene, group] = at - before


@njit(nogil=True, cache=True)
def fence(tile, indptr, fenced, ties):
    """Keep each gene's sorted non-zeros, and an infinity behind them.

    Parameters
    ----------
    tile
        ``(n_genes, n_cells)``, each row sorted, 0 or more.
    indptr
        Where each gene begins in `fenced`, and the last one ends, ``(n_genes + 1,)``.
    fenced
        Filled: as many values as fit before the last place, and infinity there.
    ties
        Filled: the sum of t**3 - t over runs of t equal non-zeros, ``(n_genes,)``, float64.
    """
    n_cells = tile.shape[1]
    for gene in range(tile.shape[0]):
        first, behind = indptr[gene], indptr[gene + 1] - 1
        fenced[behind] = np.inf
        run, tied = 0.0, 0.0
        for at in range(first, behind):
            fenced[at] = tile[gene, n_cells - behind + at]
            if at > first and fenced[at] != fenced[at - 1]:
                tied += run**3 - run
                run = 0.0
            run += 1
        ties[gene] = tied + (run**3 - run)


@njit(nogil=True, cache=True)
def walk(pairs, filled, fenced, indptr, n_controls, u, ties):
    """Walk along each gene's sorted values and the controls' side by side, from left to right.

    Parameters
    ----------
    pairs, filled
        Each gene's non-zeros in all groups, as :func:`pair` lists them, but sorted; and how many.
    fenced, indptr
        The controls' non-zeros, sorted whole numbers, gene after gene, :data:`FENCE` or another
        number above all behind each gene's; and where each gene begins, and the last one ends.
    n_controls
        Control cells, those with a 0 counted in.
    u, ties
        Added to, ``(n_genes, n_groups)``, float64: for each value of a group the controls below
        it, and one half for each equal to it; and what its ties with the controls, and within the
        group, add to the sum of t**3 - t over runs of t equal values.
    """
    for gene in range(len(filled)):
        first, i, n = indptr[gene], 0, filled[gene]
        at, n_zeros = first, n_controls - (indptr[gene + 1] - 1 - first)
        while i < n:
            pair, start = pairs[gene, i], i
            while i < n and pairs[gene, i] == pair:
                i += 1
            value, group = np.uint32(pair >> np.uint64(32)), np.uint32(pair)
            while fenced[at] < value:
                at += 1
            last = at
            while fenced[last] == value:
                last += 1
            equal, run = np.float64(last - at), np.float64(last - at + i - start)
            u[gene, group] += (i - start) * (n_zeros + (at - first) + 0.5 * equal)
            ties[gene, group] += (run**3 - run) - (equal**3 - equal)
