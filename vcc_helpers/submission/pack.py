"""Thin, fix and pack a prediction: files are written only if nothing in them is changed.

Taught in: notebooks/18_from_means_to_cells and notebooks/06_check_and_pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from .. import __version__
from ..bulk import PERTURBATION_KEY
from ..counts import Scaling, ValueSummary
from ..stream.blocks import stored_blocks, stored_matrix
from ..stream.look import as_csr, float_type
from ..stream.pseudobulk import log_block
from ..stream.write import beside, check_writable, fill_cells, replacing
from .archive import pack
from .check import Asked, Report, looked
from .lists import MANIFEST, fingerprint, read_contexts, read_manifest
from .rules import Problem, Seen


def thin(n_cells: pd.Series | Mapping[str, int], *, limit: int) -> pd.Series:
    """Say how many cells of each label to keep, so that all fit.

    Parameters
    ----------
    n_cells
        Cells of each label, controls among them.
    limit
        Cells that may be kept in all.

    Returns
    -------
    Series
        Cells to keep, index label. Labels with few cells keep them all; the others are cut to one
        common number, so that the least is lost of those that have least. What is left over goes
        to the first labels that are cut.

    >>> thin({"A": 5, "B": 100, "non-targeting": 400}, limit=200).tolist()
    [5, 98, 97]
    """
    n_cells = pd.Series(n_cells).astype(int)
    if len(n_cells) > limit:
        raise ValueError(
            f"{len(n_cells)} labels, and {limit} cells to keep; expected a cell of each at least"
        )
    # what a label and all larger ones can have, once the smaller ones have theirs
    sizes = np.sort(n_cells)
    share = (limit - np.cumsum(sizes) + sizes) // np.arange(len(sizes), 0, -1)
    kept = n_cells.clip(upper=share.max())
    more = np.flatnonzero(n_cells > kept)[: limit - int(kept.sum())]
    kept.iloc[more] += 1
    return kept


def mend(
    pred: anndata.AnnData | str | Path,
    path: str | Path,
    *,
    progress: bool = False,
    **asked,
) -> Report:
    """Write a file in which all is fixed that can be without changing a prediction.

    Fixed are names and the order of genes, labels that are only spelt otherwise, and counts with
    noise. Never made up: a gene, a target, a value.

    Parameters
    ----------
    pred, progress, asked
        As for :func:`~.submission.check`, and all else that it takes.
    path
        The ``.h5ad`` to write; one that exists is replaced at the end, in one step.

    Returns
    -------
    Report
        What was wrong; each problem's ``mended`` says what was done.

    Raises
    ------
    ValueError, OSError
        A problem cannot be fixed; the message lists these. Or `path` cannot be written.

    Notes
    -----
    Written are X, in CSR and in floating numbers, ``obs`` with the labels in ``target_gene``
    (and in ``context``), ``var`` and ``uns``; layers and ``raw`` are not handed in, and left out.
    """
    asked = Asked(**asked)
    check_writable(path, inputs=(pred, asked.genes, asked.counts))
    with looked(pred, asked, progress) as (report, seen):
        _refuse([p for p in report.problems if p.refused and not p.mended])
        obs, var = seen.cells.obs.assign(**_labels(seen)), seen.cells.var
        obs.index = anndata.utils.make_index_unique(obs.index.astype(str))
        if seen.columns is not None:
            var = var.iloc[seen.columns].set_axis(seen.genes)
        rows = np.ones(len(obs), bool)
        if not seen.rules.upload_controls:
            rows = seen.labels != asked.control
        parts = {"obs": obs[rows], "var": var, "uns": dict(seen.cells.uns)}
        dtype = float_type(stored_matrix(seen.cells).dtype)
        with replacing(path) as part:
            _write(part, seen, lambda block, at: block[rows[at]], dtype, parts)
    return report


def prep(
    pred: anndata.AnnData | str | Path,
    path: str | Path,
    *,
    genes: Sequence[str] | str | Path,
    keep_counts: bool = False,
    progress: bool = False,
    **asked,
) -> Report:
    """Write the ``.vcc`` that is uploaded; what cannot be accepted is not written.

    Parameters
    ----------
    pred, genes, progress, asked
        As for :func:`~.submission.check`, and all else that it takes; by the rules of 2026 `counts`
        is needed, and `contexts` where no manifest names them.
    path
        The ``.vcc`` to write; one that exists is replaced at the end, in one step.
    keep_counts
        Store counts as they are; else they are log-normalised, to their median library size. By
        the rules of 2026 counts stay counts.

    Returns
    -------
    Report
        Remarks, and that genes were put in order where they were not.

    Raises
    ------
    ValueError, OSError
        The prediction cannot be handed in; the message lists every problem. Or `path` cannot be
        written.

    Notes
    -----
    Equal, value for value, to what ``cell-eval prep`` writes (cell-eval 0.6.6): X in CSR, log1p of
    counts scaled to the median library size, genes in order, one column of labels, cells numbered;
    but ``uns["log1p"]`` is empty where the tool writes a null, which AnnData 0.10 cannot read. For
    2026 to what ``vcc prep`` writes (vcc-cli 0.3.0): raw counts, the columns ``target_gene`` and
    ``context``, and before the cells a ``meta.json`` with their numbers, contexts and targets.
    Read a block of rows at a time; the disk needs room for the cells twice.
    """
    asked = Asked(genes, **asked)
    rules, lists = asked.rules, (asked.counts, genes)
    check_writable(path, inputs=(pred, *lists))
    if rules.cells_a_target and asked.counts is None:
        raise ValueError(
            f"the rules of {rules.name} fix the targets, and no list of them is given; "
            f"{rules.tool} refuses that; name the season's pert_counts.csv with counts= or --counts"
        )
    if rules.context_key and read_contexts(asked.contexts, rules, *lists) is None:
        near = {Path(x).resolve().with_name(MANIFEST) for x in lists if isinstance(x, str | Path)}
        broken = [f"; {path} is there, but names none" for path in near if path.exists()]
        raise ValueError(
            f"the rules of {rules.name} ask for contexts, and nothing says which; {rules.tool} "
            "refuses that, for a file of the other phase fails when it is scored; name them with "
            "contexts= or --contexts, such as A,B,C, or keep the bundle's manifest.json next to "
            f"its lists{''.join(broken)}"
        )
    with looked(pred, asked, progress) as (report, seen), beside(path, ".h5ad") as inner:
        _refuse([p for p in report.problems if p.refused and p.kind != "gene order"])
        raw = keep_counts or rules.counts_only
        values = ValueSummary(seen.scale, seen.of["total"].to_numpy())
        scaling = Scaling(None) if raw else Scaling.of(values)
        names = seen.names if seen.columns is None else seen.genes
        obs = pd.DataFrame({name: pd.Categorical(x) for name, x in _labels(seen).items()})
        obs.index = obs.index.astype(str)
        var = pd.DataFrame(index=pd.Index(names.to_list()))
        uns = {} if scaling.library_size is None else {"log1p": {}}

        _write(
            inner,
            seen,
            partial(log_block, scaling),
            np.float32,
            {"obs": obs, "var": var, "uns": uns},
        )
        pack(inner, path, meta=_meta(seen, asked))
    return report


def _labels(seen: Seen) -> dict[str, pd.Index]:
    """Return each cell's label, and its context where the season has these, by column."""
    labels = {PERTURBATION_KEY: seen.labels}
    if seen.contexts is not None:
        labels[seen.rules.context_key] = seen.contexts
    return labels


def _meta(seen: Seen, asked: Asked) -> dict | None:
    """Return what heads an archive, in the words of vcc-cli 0.3.0; None in a season without it."""
    if seen.rules.meta_schema is None:
        return None
    contexts = list(seen.present if seen.asked is None else seen.asked)
    manifest = read_manifest(asked.counts, asked.genes)
    same = manifest is not None and set(manifest.contexts) == set(contexts)
    meta = {
        "schema": seen.rules.meta_schema,
        "nnz": seen.scan.n_stored,
        "n_obs": seen.cells.n_obs,
        "n_vars": seen.cells.n_vars,
        "cli_version": f"vcc-helpers {__version__}",
        "contexts": contexts,
        "perts_fingerprint": fingerprint(asked.counts),
        "panel_id": manifest.panel_id if same else None,
    }
    return {name: value for name, value in meta.items() if value is not None}


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise ValueError("\n".join(map(str, problems)))


def _write(path: Path, seen: Seen, change: Callable, dtype, parts: Mapping) -> None:
    """Write an ``.h5ad`` of the cells, each block of rows changed, the columns in order."""
    shape = len(parts["obs"]), len(parts["var"])
    frame = anndata.AnnData(sparse.csr_matrix(shape, dtype=dtype), **parts)
    with tqdm(total=frame.n_obs, unit=" cells", desc="write", disable=not seen.progress) as bar:
        fill_cells(path, frame, _changed(seen, change, dtype, bar))


def _changed(seen: Seen, change: Callable, dtype, bar: tqdm) -> Iterator[tuple]:
    done = 0
    for start, block in stored_blocks(seen.cells):
        block = as_csr(block.astype(dtype, copy=False))
        block = change(block, slice(start, start + block.shape[0]))
        block = block if seen.columns is None else block[:, seen.columns]
        if seen.noisy:
            whole = np.rint(block.data)
            block = sparse.csr_matrix((whole, block.indices, block.indptr), block.shape)
        block.sort_indices()
        yield done, block
        done += block.shape[0]
        bar.update(block.shape[0])
