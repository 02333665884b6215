"""Find at once everything of a prediction that tools refuse, misread or pass over in silence.

Taught in: notebooks/06_check_and_pack and notebooks/18_from_means_to_cells.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> genes = cells.var_names
>>> print(check(cells[:, ::-1], genes=genes))
pred: genes are in another order: position 0 is 'DKC1', expected 'CCNL2'; cell-eval prep puts \
them in order, other scorers compare each gene with another; reorder with pred[:, genes]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..presets import Preset, get_preset
from ..stream.blocks import unreadable
from ..stream.guard import check_hdf5
from ..stream.open import open_cells
from .lists import read_contexts, read_counts, read_genes
from .rules import Problem, Seen, problems


@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes
    ----------
    problems, summary
        Each problem and each remark; and the file in a few words.
    """

    problems: tuple[Problem, ...]
    summary: str

    @property
    def ok(self) -> bool:
        """Whether the file can be handed in; remarks are allowed."""
        return not any(problem.refused for problem in self.problems)

    def __str__(self) -> str:
        """Return a line a problem."""
        return "\n".join(map(str, self.problems)) or f"no problem found: {self.summary}"


def check(
    pred: anndata.AnnData | str | Path,
    *,
    genes: Sequence[str] | str | Path | None = None,
    counts: pd.Series | Mapping[str, int] | str | Path | None = None,
    contexts: Iterable[str] | str | None = None,
    preset: str | Preset = "vcc2025",
    perturbation_key: str = PERTURBATION_KEY,
    context_key: str | None = None,
    controls: Mapping[str, anndata.AnnData] | None = None,
    control: str = CONTROL,
    progress: bool = False,
) -> Report:
    """Find everything that keeps a prediction from being accepted, or from meaning what it should.

    Parameters
    ----------
    pred
        Predicted cells, ``(n_cells, n_genes)``: an AnnData or the path of an ``.h5ad``. Read a
        block of rows at a time, and never changed.
    genes
        The genes in their official order: names, or the path of a text file such as
        ``gene_names.csv``; of a table the column whose names the file has is read.
    counts
        Targets and how many cells each should have: a table, or the path of a text file with the
        columns ``target_gene`` and ``n_cells``, as ``pert_counts.csv`` has them; a row of controls
        is passed over. By the rules of 2026 ``n_cells`` may be absent (400 are meant), and a column
        ``context`` there. What is None, genes or targets, is not compared.
    contexts
        The contexts to be predicted, such as ``["A", "B", "C"]`` or ``"A,B,C"``, of a season that
        has them. By default those of the ``manifest.json`` next to `counts` or `genes`; where there
        is none, those of the file, and a remark says so.
    context_key
        The column of ``obs`` that names each cell's context; ``context`` by default.
    controls
        Control cells of each context, as the season's bundle has them,
        ``datasets.read_bundle(...).controls``. Then the cells are compared with them.
    preset, perturbation_key, control, progress
        As for :func:`~.scoring.score`.

    Returns
    -------
    Report
        Every problem at once. What only costs points, or surprises, is a remark.

    Raises
    ------
    FileNotFoundError, TypeError
        One of the files is not there; `pred` is neither an AnnData nor a path.
    ValueError
        The file is no readable ``.h5ad``; or a list is not readable, or names something twice.

    Notes
    -----
    What official tools do is that of cell-eval 0.6.6 for 2025, and of vcc-cli 0.3.0 for 2026.
    """
    asked = Asked(genes, counts, contexts, preset, perturbation_key, context_key, control, controls)
    with looked(pred, asked, progress) as (report, _):
        return report


class Asked(NamedTuple):
    """What is expected of a prediction, as :func:`check` takes it."""

    genes: Sequence[str] | str | Path | None = None
    counts: pd.Series | Mapping[str, int] | str | Path | None = None
    contexts: Iterable[str] | str | None = None
    preset: str | Preset = "vcc2025"
    perturbation_key: str = PERTURBATION_KEY
    context_key: str | None = None
    control: str = CONTROL
    controls: Mapping[str, anndata.AnnData] | None = None

    @property
    def rules(self) -> Preset:
        """The rules that are meant."""
        return get_preset(self.preset)

    def of_file(self, cells: anndata.AnnData) -> dict:
        """Read the lists, and return what :class:`~.rules.Seen` needs."""
        rules, lists = self.rules, (self.counts, self.genes)
        for name in ("context_key", "controls"):
            if rules.context_key is None and getattr(self, name):
                raise ValueError(
                    f"the rules of {rules.name} know one context; leave {name} out, or name those "
                    "of another season with preset= or --preset"
                )
        like = [cells.var_names, *(cells.var[c] for c in cells.var), cells.obs_names]
        return {
            "rules": rules,
            "genes": read_genes(self.genes, like=like),
            "n_cells": read_counts(self.counts, control=self.control, rules=rules),
            "key": self.perturbation_key,
            "control": self.control,
            "asked": read_contexts(self.contexts, rules, *lists),
            "context_key": rules.context_key and (self.context_key or rules.context_key),
            "controls": self.controls,
        }


@contextmanager
def looked(pred, asked: Asked, progress: bool) -> Iterator[tuple[Report, Seen | None]]:
    """Yield what :func:`check` returns, and what was seen; the file stays open for a while."""
    if lost := _no_matrix(pred):
        yield Report((lost,), "pred: no matrix X"), None
        return
    cells = open_cells(pred)
    try:
        summary = f"pred: {cells.n_obs:,} cells x {cells.n_vars:,} genes"
        if 0 in cells.shape:
            text = f"pred: empty, shape {cells.shape}; expected at least one cell and one gene"
            yield Report((Problem("empty", text),), summary), None
            return
        of_file = asked.of_file(cells)
        with np.errstate(over="ignore", invalid="ignore"):  # values without end are told in words
            seen = Seen(cells, progress=progress, **of_file)
            found = tuple(problems(seen))
        labels = () if seen.labels is None else seen.labels.unique().drop("", errors="ignore")
        yield Report(found, f"{summary}, {len(labels)} labels, {seen.scale}"), seen
    finally:
        if cells is not pred and cells.isbacked:
            cells.file.close()


def _no_matrix(pred) -> Problem | None:
    """Tell of an AnnData or file without X, which may have put its values elsewhere."""
    if isinstance(pred, anndata.AnnData):
        if pred.X is not None:
            return None
        layers = [layer for layer in pred.layers if layer]
    elif not (Path(pred).is_file() and h5py.is_hdf5(pred)):
        return None
    else:
        try:
            with h5py.File(pred) as file:
                check_hdf5(file)
                if {"X", "mod"} & set(file) or not {"obs", "var"} <= set(file):
                    return None
                layers = list(file.get("layers", ()))
        except (OSError, RuntimeError, ValueError) as error:  # h5py has the first two
            raise unreadable(pred, error) from error
    hint = f"the layers {some_of(layers)} have some: set X to one of them" if layers else "set X"
    return Problem("no X", f"pred: there is no matrix X, and only X is handed in; {hint}")
