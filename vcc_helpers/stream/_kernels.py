"""The few loops that NumPy has no word for, compiled by Numba when they are first called.

All of them let go of Python's lock, so that threads run side by side. Arrays that a loop fills or
adds to come last. `values`, `genes` and `indptr` are those of a CSR matrix, or of some of its rows.

Taught in: notebooks/10_rank_every_gene.

>>> pairs = np.array([[2, 3]], np.uint32)  # one gene: the values 2 and 3 of a group
>>> controls = np.array([1, 2, 2**32 - 1], np.uint32)  # their 1, 2 and a fence; a third one is 0
>>> u, ties = np.zeros((1, 1)), np.zeros((1, 1))
>>> read = np.uint64(0), np.uint64(0)
>>> walk(pairs, np.array([2]), *read, controls, np.array([0, 3]), 3, u, ties)
>>> u.item(), ties.item()  # 2 is above 0 and 1 and ties with 2, 3 is above all; 2**3 - 2
(5.5, 6.0)
"""

from __future__ import annotations

import numpy as np
from numba import njit


def _compiled(function):
    """Compile a loop when it is first called, and keep the result where there is a place for it."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # none in a read-only installation of somebody without a home
        return njit(nogil=True)(function)


@_compiled
def _entries(indptr, row):
    # Unsigned: of a signed place Numba asks each time whether it counts from the end, and no loop
    # over such places is turned into the processor's vector instructions.
    return range(np.uint64(indptr[row]), np.uint64(indptr[row + 1]))


@_compiled
def look_over(values, indptr, tolerance, nearly, table):
    """Look at every value once, and go on whatever is found; return whether all are whole.

    Fills `table`, ``(n_rows, 7)``, float64: of each row the sum, the numbers of values that are not
    0, fractional (above `tolerance`), nearly whole (within `nearly`) and bad (not finite, or
    negative), and the smallest and largest finite value.
    """
    every = True
    for row in range(len(indptr) - 1):
        total, filled, fractional, whole, bad, low, high = 0.0, 0, 0, 0, 0, np.inf, -np.inf
        for i in _entries(indptr, row):
            value = np.float64(values[i])
            if not np.isfinite(value):
                bad += 1
                continue
            part = value - np.floor(value)
            every &= part == 0
            filled += value != 0
            fractional += part > tolerance
            whole += (value != 0) & ((part < nearly) | (part > 1 - nearly))
            bad += value < 0
            low, high = min(low, value), max(high, value)
            total += value
        found = (total, float(filled), float(fractional), float(whole), float(bad), low, high)
        for i, number in enumerate(found):
            table[row, i] = number
    return every


@_compiled
def mark(values, columns, indptr, groups, weights, marks, group_total):
    """Sum the finite values of each row, weighted by column, and of each group, by column."""
    for row in range(len(indptr) - 1):
        mark, group = 0.0, groups[row]
        for i in _entries(indptr, row):
            value = np.float64(values[i])
            if np.isfinite(value):
                mark += value * weights[columns[i]]
                group_total[group, columns[i]] += value
        marks[row] = mark


@_compiled
def look_up(counts, indptr, table, out):
    """Replace each count by the entry of its row's `table`; -1 where the table has none."""
    last = np.uint64(table.shape[1] - 1)
    for row in range(len(indptr) - 1):
        new = table[row]
        for i in _entries(indptr, row):
            place = min(np.uint64(counts[i]), last)
            out[i] = new[place] if place == counts[i] else -1


@_compiled
def add_rows(values, genes, indptr, codes, total, square):
    """Add each row, and its squares, to the row of its group, in float64 and in the rows' order."""
    for row in range(len(codes)):
        t, s = total[codes[row]], square[codes[row]]
        for i in _entries(indptr, row):
            value = np.float64(values[i])
            t[genes[i]] += value
            s[genes[i]] += value * value


@_compiled
def add_in_order(tile, ends, total, square):
    """Sum each gene's values in each group, and their squares, in float64 and in the cells' order.

    `ends` are as for :func:`pair`; `total` and `square` are ``(n_groups, n_genes)``.
    """
    for gene in range(tile.shape[0]):
        for group in range(len(ends) - 1):
            t, s = 0.0, 0.0
            for cell in _entries(ends, group):
                value = np.float64(tile[gene, cell])
                t += value
                s += value * value
            total[group, gene], square[group, gene] = t, s


@_compiled
def add_counts(values, genes, indptr, groups, divisor, counts, scaled):
    """Add each row, and the row over its divisor, to its group, in float64, in the rows' order."""
    for row in range(len(groups)):
        group, by = groups[row], divisor[row]
        for i in _entries(indptr, row):
            value = np.float64(values[i])
            counts[group, genes[i]] += value
            scaled[group, genes[i]] += value / by


@_compiled
def leave_out(values, genes, indptr, rows, groups, counts, factor, rest):
    """Put down what is left of a group's counts without one cell, times a factor, a row per cell.

    `rows` are the cells, `groups` and `factor` those of each.
    """
    for k, row in enumerate(rows):
        count, left, by = counts[groups[k]], rest[k], factor[k]
        for gene in range(np.uint64(len(count))):
            left[gene] = count[gene] * by
        for i in _entries(indptr, row):
            left[genes[i]] = (count[genes[i]] - np.float64(values[i])) * by


@_compiled
def add_off(rest, profile, groups, total, square):
    """Add how far each row is off the profile of its group, and that squared."""
    for k, group in enumerate(groups):
        left, usual, t, s = rest[k], profile[group], total[group], square[group]
        for gene in range(np.uint64(len(left))):
            off = left[gene] - usual[gene]
            t[gene] += off
            s[gene] += off * off


@_compiled
def gather(values, genes, indptr, order, out_values, out_genes):
    """Copy the rows of a CSR matrix in another order, perhaps to smaller types."""
    at = np.uint64(0)
    for row in order:
        for i in _entries(indptr, row):
            out_values[at] = values[i]
            out_genes[at] = genes[i]
            at += np.uint64(1)


@_compiled
def squeeze_rows(block, indptr, values, genes):
    """List the non-zeros of dense rows, and their places; there is room for one more.

    `indptr` is where each row begins.
    """
    for row in range(len(block)):
        at = np.uint64(indptr[row])
        for gene in range(block.shape[1]):
            values[at] = block[row, gene]  # in any case, as in pair
            genes[at] = gene
            at += np.uint64(block[row, gene] != 0)


@_compiled
def seek(genes, starts, ends, first, place):
    """Find the `place` of each row's first entry of gene `first` or a later one; genes rise."""
    for row in range(len(starts)):
        part = genes[starts[row] : ends[row]]
        place[row] = starts[row] + np.searchsorted(part, first)


@_compiled
def fill_tile(values, genes, place, ends, first, columns, tile):
    """Lay the entries of a few genes, from `first` on, out in the empty rows of `tile`.

    `columns` is where each cell belongs, `place` its next entry, moved on, and `ends` where its
    last one ends; genes rise.
    """
    begin, stop = np.uint64(first), np.uint64(first + len(tile))
    for row in range(len(place)):
        i, end, column = np.uint64(place[row]), np.uint64(ends[row]), np.uint64(columns[row])
        while i < end and genes[i] < stop:
            tile[np.uint64(genes[i]) - begin, column] = values[i]
            i += np.uint64(1)
        place[row] = i


@_compiled
def line_up(groups, free, columns):
    """Give each row the next of its group's columns, `free`, which is moved on."""
    for row in range(len(groups)):
        columns[row] = free[groups[row]]
        free[groups[row]] += 1


@_compiled
def count(values, genes, starts, ends, n_values):
    """Count the non-zeros of each gene in some rows; adds to `n_values`, ``(n_genes,)``."""
    for row in range(len(starts)):
        for i in range(np.uint64(starts[row]), np.uint64(ends[row])):
            n_values[genes[i]] += values[i] != 0


@_compiled
def pair(tile, ends, low, shift, pairs, n_values):
    """List each gene's non-zeros, each with the number of its group, and count those of each group.

    `tile` has the bits of the values, ``(n_genes, n_cells)``, uint32 or uint64, of which the first
    is a sign; `ends` says where each group's cells begin in it, and the last one's end. `pairs`, as
    many a gene, uint32 or uint64, is filled from the left: the bits less `low` in the upper ones,
    the group in the `shift` lower ones. `n_values` is ``(n_genes, n_groups)``.
    """
    unsigned = (np.uint64(1) << np.uint64(8 * tile.itemsize - 1)) - np.uint64(1)
    for gene in range(tile.shape[0]):
        at = np.uint64(0)
        for group in range(len(ends) - 1):
            before = at
            for cell in _entries(ends, group):
                number = np.uint64(tile[gene, cell])
                # written in any case, and kept if it counts: no branch to be mispredicted
                pairs[gene, at] = ((number - low) << shift) | np.uint64(group)
                at += np.uint64(number & unsigned != 0)
            n_values[gene, group] = at - before


@_compiled
def squeeze(tile, indptr, values):
    """List each gene's non-zeros in `values` from `indptr` on, and an infinity behind them."""
    for gene in range(tile.shape[0]):
        at = np.uint64(indptr[gene])
        for cell in range(tile.shape[1]):
            values[at] = tile[gene, cell]  # in any case, as in pair
            at += np.uint64(tile[gene, cell] != 0)
        values[at] = np.inf


@_compiled
def tie(values, indptr, ties):
    """Sum t**3 - t over the runs of t equal values of each gene, sorted as :func:`squeeze` lists.

    The t-th value of a run adds 3 t (t - 1), and so nobody need know where a run ends.
    """
    for gene in range(len(ties)):
        run, tied = 1.0, 0.0
        for at in range(indptr[gene] + 1, indptr[gene + 1] - 1):
            run = run + 1 if values[at] == values[at - 1] else 1.0
            tied += 3 * run * (run - 1)
        ties[gene] = tied


@_compiled
def _count_below(row, low, shift, known, below):
    """Count the controls below each value of a gene, given its sorted pairs.

    Two walks, one from the first value and one from the middle: each step waits for the one before
    it, and so the processor does a step of both in the time of one.
    """
    one, n = np.uint64(1), np.uint64(len(row))
    if n == 0:
        return
    i, half, at = np.uint64(0), n // np.uint64(2), np.uint64(0)
    j, there = half, np.uint64(np.searchsorted(known, (row[half] >> shift) + low))
    while i < half and j < n:  # either go past a control, or settle a value
        past = np.uint64(known[at] < (row[i] >> shift) + low)
        gone = np.uint64(known[there] < (row[j] >> shift) + low)
        below[i], below[j] = at, there
        at, there, i, j = at + past, there + gone, i + one - past, j + one - gone
    for k, place, stop in ((i, at, half), (j, there, n)):
        while k < stop:
            past = np.uint64(known[place] < (row[k] >> shift) + low)
            below[k] = place
            place, k = place + past, k + one - past


@_compiled
def walk(pairs, filled, low, shift, fenced, indptr, n_controls, u, ties):
    """Walk along each gene's sorted values and the controls' side by side, from left to right.

    `pairs` are as :func:`pair` lists them, but sorted; `fenced` the controls' bits, non-zeros,
    sorted, behind each gene's a fence: a number above all, so that nobody need watch for the end.
    Adds to `u`, ``(n_genes, n_groups)``, for each value the controls below it, zeros counted in,
    and one half for each equal to it; to `ties` what it adds to the sum that :func:`tie` takes.
    """
    below, one = np.empty(pairs.shape[1], np.uint64), np.uint64(1)
    groups = (one << shift) - one
    for gene in range(len(filled)):
        row, known = pairs[gene, : filled[gene]], fenced[indptr[gene] : indptr[gene + 1]]
        _count_below(row, low, shift, known, below)
        zeros, run, before = n_controls - (len(known) - 1), one, np.uint64(0)
        for i in range(len(row)):
            pair, at = np.uint64(row[i]), below[i]
            while known[at] == (pair >> shift) + low:
                at += one
            run = run + one if i > 0 and pair == before else one
            equal, before = at - below[i], pair
            t = np.float64(equal + run)
            u[gene, pair & groups] += zeros + 0.5 * np.float64(at + below[i])
            ties[gene, pair & groups] += 3 * t * (t - 1)
