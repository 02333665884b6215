"""From groups to a result: batches of perturbations, one stretch of genes after the other.

Taught in: notebooks/12_scale_out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..counts import Scaling, ValueSummary, moments
from ..ranks import p_values
from .job import Contrast, _Job
from .plan import Needs
from .sums import _Sums


def _scaling(job: _Job, found: ValueSummary) -> Scaling:
    """Refuse what the rules do not allow, and find the scale."""
    rules, size = job.rules, found.library_size
    if rules.counts_only and found.scale != "counts":
        raise ValueError(
            f"{job.name}: values have fractions; expected raw counts, whole and never negative: "
            "leave out normalisation and logarithm, or draw counts with emit.negative_binomial"
        )
    if rules.counts_only and (size > rules.most_counts).any():
        first = int(np.flatnonzero(size > rules.most_counts)[0])
        raise ValueError(
            f"{job.name}: cell {job.cells.obs_names[first]!r} has {size[first]:,.0f} counts; "
            f"expected at most {rules.most_counts:,.0f} a cell; scale its counts down"
        )
    return Scaling.of(found, rules.target_sum)


def _spread(job: _Job, plan: Needs, rank: Callable) -> Contrast:
    """Go through one stretch of genes after the other, and batch by batch through the groups.

    ``rank(genes, batches)`` yields each batch, and first the control by itself, with its sums.
    """
    n_genes, result = job.cells.n_vars, _empty_result(job)
    bar = tqdm(
        total=job.cells.n_obs * n_genes, unit=" values", unit_scale=True,
        desc=f"rank {job.name}", disable=not job.progress,
    )  # fmt: skip
    with bar:
        for first in range(0, n_genes, plan.genes):
            genes = slice(first, min(first + plan.genes, n_genes))
            # a cluster has tasks to cancel
            with closing(rank(genes, _batches(job, plan))) as ranked:
                for batch, found in ranked:
                    for code, sums in zip(batch, found, strict=True):
                        _settle(result, job, code, genes, sums)
                        bar.update(int(job.n_cells[code]) * (genes.stop - genes.start))
    return result


def _batches(job: _Job, plan: Needs) -> list[list[int]]:
    """Divide the groups, all but the control, into batches as full as the plan allows."""
    batches, room = [], 0
    for code in np.delete(np.arange(len(job.groups)), job.control).tolist():
        if not batches or job.n_values[code] > room:
            batches.append([])
            room = plan.batch
        batches[-1].append(code)
        room -= job.n_values[code]
    return batches


def _empty_result(job: _Job) -> Contrast:
    shape = len(job.groups), job.cells.n_vars
    tables = (np.empty(shape, job.dtype) for _ in range(3))
    p_value = np.empty((shape[0] - 1, shape[1]))
    of_counts = np.empty((3, shape[0] if job.rules.bulk_target_sum else 0, shape[1]))
    genes, control = pd.Index(job.cells.var_names, dtype=object), job.groups[job.control]
    return Contrast(job.groups, genes, control, job.n_cells, *tables, p_value, *of_counts)


def _settle(result: Contrast, job: _Job, code: int, genes: slice, sums: _Sums) -> None:
    """Turn one group's sums into its part of the result."""
    n = result.n_cells[code]
    result.mean[code, genes], result.variance[code, genes] = moments(sums.total, sums.square, n)
    result.mean_as_summed[code, genes] = sums.mean
    if job.rules.bulk_target_sum:
        result.counts[code, genes], result.sampling[code, genes] = sums.counts, sums.sampling
        result.scaled_mean[code, genes] = sums.scaled / n
    if code != job.control:
        row = code - (code > job.control)
        n_controls = result.n_cells[job.control]
        how = {"exact": job.rules.exact, "use_continuity": job.rules.use_continuity}
        result.p_value[row, genes] = p_values(sums.u, sums.ties, n, n_controls, **how)
