"""Write the cells of predicted means to a file, however many, a few at a time.

Taught in: notebooks/26_predict_three_unseen_lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from .. import emit
from ..bulk import some_of
from ..stream.blocks import stored_matrix
from ..stream.contexts import CONTEXT_KEY
from ..stream.open import open_cells
from ..stream.write import check_writable, write_cells


def write(
    means: anndata.AnnData | Mapping[str, anndata.AnnData],
    path: str | Path,
    *,
    controls: anndata.AnnData | str | Path | Mapping,
    n_cells: int | Mapping[str, int] | pd.Series,
    emitter: Callable[..., anndata.AnnData] = emit.negative_binomial,
    progress: bool = False,
    **settings,
) -> Path:
    """Make cells of predicted means and write them to an ``.h5ad``, a few at a time.

    The cells are those that the emitter returns in memory, value for value. Of several contexts
    there are no controls, as the rules of 2026 want it, and ``obs["context"]`` names each cell's.
    A tenth of a submission of 2026, 36,000 cells of 18,533 genes, took 0.7 GB of memory; more cells
    take more time and disk, not more memory (``benchmarks/season_full.py``).

    Parameters
    ----------
    means
        A predicted pseudobulk, ``(n_groups, n_genes)``, mean lognorm; or one for each context.
    path
        The file to write; one that exists is replaced at the end, in one step.
    controls
        Control cells, also on disk; or those of each context, as ``read_bundle(...).controls``.
    n_cells, emitter, settings
        As for :mod:`~vcc_helpers.emit`, whose functions are emitters, and what else they take.

    Raises
    ------
    ValueError, KeyError, OSError
        As for the emitter; a context has no controls, or other genes; `path` cannot be written.
    TypeError
        `emitter` is no function of :mod:`~vcc_helpers.emit`.
    """
    if not hasattr(emitter, "blocks"):
        raise TypeError(
            f"emitter={emitter!r}; expected a function of vcc_helpers.emit itself, which can make "
            "some cells at a time; give its settings as further arguments, such as seed=0"
        )
    several = isinstance(means, Mapping)
    if several != isinstance(controls, Mapping) or several and not means:
        raise ValueError("give means and controls of one context, or both of each, by its name")
    if several and (lost := [name for name in means if name not in controls]):
        raise ValueError(f"controls: none of the contexts {some_of(lost)}; give those of each")
    parts = means if several else {None: means}
    cells = {name: open_cells(controls[name] if several else controls) for name in parts}
    check_writable(path, inputs=cells.values())
    genes, tables, drawn = next(iter(parts.values())).var, [], []
    for name, pred in parts.items():
        if not pred.var_names.equals(genes.index):
            raise ValueError(f"means: the genes of context {name!r} are not those of the first one")
        labels, blocks = emitter.blocks(pred, controls=cells[name], n_cells=n_cells, **settings)
        if several:
            labels = labels.iloc[: -cells[name].n_obs].assign(**{CONTEXT_KEY: name})
            labels.index += f"-{name}"
        tables.append(labels)
        drawn.append(blocks)

    def numbered(bar: tqdm) -> Iterator[tuple[int, sparse.csr_matrix]]:
        start = end = 0
        for labels, blocks in zip(tables, drawn, strict=True):
            end += len(labels)
            while start < end:  # what comes after are controls
                values = sparse.csr_matrix(next(blocks))
                yield start, values
                start += values.shape[0]
                bar.update(values.shape[0])

    obs, types = pd.concat(tables), [stored_matrix(x).dtype for x in cells.values()]
    dtype = np.result_type(np.float32, *(x for x in types if x.kind == "f"))
    empty = sparse.csr_matrix((len(obs), len(genes)), dtype=dtype)
    frame = anndata.AnnData(empty, obs, genes.copy())
    with tqdm(total=len(obs), unit=" cells", desc="write", disable=not progress) as bar:
        write_cells(path, frame, numbered(bar))
    return Path(path)
