"""The few loops that NumPy has no word for, compiled by Numba when they are first called.

All of them let go of Python's lock, so that threads run side by side. What each is for is told
where it is called: effects.py (look_up, add_rows), ranksum.py (seek, fill_tile, walk), contrast.py
(add_in_order) and cells.py (look_over).

Taught in: notebooks/11_rank_every_gene.
Needs no sibling module.

>>> row = np.array([[0.0, 2.0, 3.0]])  # one gene in three perturbed cells, sorted
>>> controls = np.array([1.0, 2.0] + FENCE * [np.inf])  # its values in the controls, a third is 0
>>> u, ties = np.zeros(1), np.zeros(1)
>>> walk(row, controls, np.array([0, len(controls)]), 3, u, ties)
>>> u.tolist(), ties.tolist()  # two zeros and two 2s: 2 * (2**3 - 2)
([6.0], [12.0])
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Infinities behind each gene's values, so that who walks along them need not watch for the end.
FENCE = 16


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
def fence(tile, indptr, fenced, ties):
    """Keep each gene's sorted non-zeros, and put the fence behind them.

    Parameters
    ----------
    tile
        ``(n_genes, n_cells)``, each row sorted, 0 or more.
    indptr
        Where each gene begins in `fenced`, and the last one ends, ``(n_genes + 1,)``.
    fenced
        Filled: as many values as fit before the fence, then infinities.
    ties
        Filled: the sum of t**3 - t over runs of t equal non-zeros, ``(n_genes,)``, float64.
    """
    n_cells = tile.shape[1]
    for gene in range(tile.shape[0]):
        at, behind = indptr[gene], indptr[gene + 1] - FENCE
        fenced[behind : behind + FENCE] = np.inf
        run, tied = 0.0, 0.0
        for cell in range(n_cells - (behind - at), n_cells):
            fenced[at] = tile[gene, cell]
            same = at > indptr[gene] and fenced[at] == fenced[at - 1]
            if not same:
                tied += run**3 - run
                run = 0.0
            run += 1
            at += 1
        ties[gene] = tied + (run**3 - run)


@njit(nogil=True, cache=True)
def walk(tile, fenced, indptr, n_controls, u, ties):
    """Walk along each gene's sorted values and the controls' side by side, from left to right.

    Parameters
    ----------
    tile
        ``(n_genes, n_cells)``, each row sorted, 0 or more.
    fenced, indptr
        The controls' sorted non-zeros, as :func:`fence` keeps them.
    n_controls
        Control cells, those with a 0 counted in.
    u, ties
        Filled: the Mann-Whitney U of `tile`, and the sum of t**3 - t over runs of t equal values,
        except runs of non-zeros that hold controls only, ``(n_genes,)``, float64.
    """
    n_cells = tile.shape[1]
    for gene in range(tile.shape[0]):
        row, first, at = tile[gene], indptr[gene], indptr[gene]
        zero_controls = n_controls - (indptr[gene + 1] - FENCE - first)
        i = np.searchsorted(row, 0, side="right")
        smaller, run = 0.5 * i * zero_controls, np.float64(i + zero_controls)
        tied = run**3 - run
        while i < n_cells:
            value, start = row[i], i
            while i < n_cells and row[i] == value:
                i += 1
            while fenced[at + FENCE - 1] < value:
                at += FENCE
            window, less = fenced[at : at + FENCE], 0
            for j in range(FENCE):  # no branch in it: many are compared at once
                less += 1 if window[j] < value else 0
            at += less
            last = at
            while fenced[last] == value:
                last += 1
            equal, run = np.float64(last - at), np.float64(last - at + i - start)
            smaller += (i - start) * (zero_controls + (at - first) + 0.5 * equal)
            tied += (run**3 - run) - (equal**3 - equal)
        u[gene], ties[gene] = smaller, tied
