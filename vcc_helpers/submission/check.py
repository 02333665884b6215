"""Check a prediction before it is handed in, mend what is safe, and pack it.

:func:`check` finds at once everything that the official tools refuse, misread or pass over in
silence. :func:`mend` writes a file in which what can be mended without changing a prediction is
mended. :func:`prep` writes the ``.vcc`` that is uploaded.

Taught in: notebooks/17_check_and_pack.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> genes = cells.var_names
>>> print(check(cells[:, ::-1], genes=genes))
pred: genes are in another order: position 0 is 'DKC1', expected 'CCNL2'; cell-eval prep puts \
them in order, other scorers compare each gene with a stranger; reorder with pred[:, genes]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..counts import FRACTION_TOLERANCE, LOGNORM_LIMIT, ValueSummary
from ..names import CONTROL_NAMES, Match, match
from ..presets import Preset, get_preset
from ..stream.blocks import stored_matrix, unreadable
from ..stream.look import NEARLY, Scan, scan
from ..stream.open import open_cells

#: Columns that other tools name the perturbation in.
OTHER_KEYS = ("gene", "perturbation", "condition", "target", "gene_target", "guide_target")
#: What a prediction may call them besides; in a screen it could as well be a kind of cell.
ALSO_CONTROLS = ("unperturbed", "wt")
#: First lines of a list of genes that are a header.
HEADERS = ("gene", "genes", "gene_name", "gene_names", "gene_symbol", "symbol", "feature_name")
#: Sums that vary less than this, relative to their mean, were scaled to one total.
SCALED = 0.01
#: This share of a file's values must be nearly whole for its fractions to be noise.
NOISE_SHARE = 0.999


class Problem(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    kind
        A few words that stay the same, such as ``"gene order"``.
    text
        What was seen and where, what was expected, what follows, and how to mend it.
    refused
        Whether the file cannot be handed in so; else it is a remark.
    mended
        What :func:`~.submission.mend` does about it; empty if nothing is safe.
    """

    kind: str
    text: str
    refused: bool = True
    mended: str = ""

    def __str__(self) -> str:
        """Return the text, a remark marked as one."""
        return self.text if self.refused else f"remark: {self.text}"


@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes
    ----------
    problems
        Each problem and each remark.
    summary
        The file in a few words.
    """

    problems: tuple[Problem, ...]
    summary: str
    plan: _Plan = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the file can be handed in; remarks are allowed."""
        return not any(problem.refused for problem in self.problems)

    def __str__(self) -> str:
        """Return a line a problem."""
        return "\n".join(map(str, self.problems)) or f"no problem found: {self.summary}"


@dataclass(frozen=True)
class _Plan:
    """What is safe to change.

    Attributes
    ----------
    columns
        Column of each expected gene; None where they are right.
    genes
        Names of the genes afterwards; None where they are right.
    labels
        Each cell's perturbation; None where they cannot be read.
    whole
        Whether values are rounded to whole numbers.
    values
        The scale, and the library size of each cell; None where no value was read.
    """

    columns: np.ndarray | None = None
    genes: pd.Index | None = None
    labels: pd.Index | None = None
    whole: bool = False
    values: ValueSummary | None = None


def check(
    pred: anndata.AnnData | str | Path,
    *,
    genes: Sequence[str] | str | Path | None = None,
    counts: pd.Series | Mapping[str, int] | str | Path | None = None,
    preset: str | Preset = "vcc2025",
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    name: str = "pred",
    progress: bool = False,
) -> Report:
    """Find everything that keeps a prediction from being accepted, or from meaning what it should.

    Parameters
    ----------
    pred
        Predicted cells, ``(n_cells, n_genes)``: an AnnData or the path of an ``.h5ad``. Read a
        block of rows at a time, and never changed.
    genes
        The genes in their official order: names, or the path of a ``.csv`` whose first column
        holds them, as ``gene_names.csv`` does. None: genes are not compared.
    counts
        Targets and how many cells each should have: a table, or the path of a ``.csv`` with the
        columns ``target_gene`` and ``n_cells``, as ``pert_counts.csv`` has them. None: targets are
        not compared.
    preset
        The rules of the season, by name.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells in that column.
    name
        What the messages call this file.
    progress
        Show a progress bar.

    Returns
    -------
    Report
        Every problem at once. What only costs points, or surprises, is a remark.

    Raises
    ------
    FileNotFoundError
        One of the files is not there.
    ValueError
        The file is no readable ``.h5ad``, or a list is not readable.
    TypeError
        `pred` is neither an AnnData nor a path.

    Notes
    -----
    What official tools do is that of cell-eval 0.6.6 for 2025, and for 2026 the rules in the
    documentation of cell-eval2 0.20.0.
    """
    rules = get_preset(preset)
    genes, n_cells = read_genes(genes), read_counts(counts)
    if lost := _no_matrix(pred, name):
        return Report((lost,), f"{name}: no matrix X", _Plan())
    with _opened(pred) as cells:
        return _check(cells, genes, n_cells, rules, perturbation_key, control, name, progress)


@contextmanager
def _opened(pred) -> Iterator[anndata.AnnData]:
    cells = open_cells(pred)
    try:
        yield cells
    finally:
        if cells is not pred and cells.isbacked:
            cells.file.close()


def _check(cells, genes, n_cells, rules, key, control, name, progress) -> Report:
    if 0 in cells.shape:
        return Report((_empty(cells, name),), _size(cells, name), _Plan())
    found, columns, names = _gene_problems(cells, genes, name)
    more, labels = _label_problems(cells, n_cells, rules, key, control, name)
    found += more + _form_problems(cells, rules, name)
    groups = pd.Index([]) if labels is None else labels.unique().drop("", errors="ignore")
    codes = np.full(cells.n_obs, -1) if labels is None else groups.get_indexer(labels)
    seen = scan(cells, codes, tolerance=rules.tolerance, progress=progress)
    more, whole = _value_problems(cells, seen, labels, rules, control, name)
    found += more + _likeness_problems(cells, seen, groups, codes, control, name)
    scale = "lognorm" if seen.of_cells["fractional"].any() else "counts"
    values = ValueSummary(scale, seen.of_cells["total"].to_numpy())
    summary = f"{_size(cells, name)}, {len(groups)} labels, {scale}"
    return Report(tuple(found), summary, _Plan(columns, names, labels, whole, values))


def _size(cells, name: str) -> str:
    return f"{name}: {cells.n_obs:,} cells x {cells.n_vars:,} genes"


# Lists


def read_genes(genes: Iterable[str] | str | Path | None) -> pd.Index | None:
    """Return the expected genes in order; None passes through.

    Parameters
    ----------
    genes
        Names, or the path of a ``.csv`` whose first column holds them. A first line such as
        ``gene_name`` is taken for a header.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds no names, or one twice.
    """
    if genes is None:
        return None
    source = "genes"
    if isinstance(genes, str | Path):
        source, genes = str(genes), _first_column(genes)
    names = pd.Index([str(gene) for gene in genes], dtype=object)
    if names.empty:
        raise ValueError(f"{source} holds no gene names; expected one a line")
    if names.has_duplicates:
        twice = some_of(names[names.duplicated()].unique())
        raise ValueError(f"{source} names {twice} more than once; expected each gene once")
    return names


def _first_column(path: str | Path) -> list[str]:
    table = _read_csv(path, header=None)
    names = [name for name in table[0] if name] if len(table.columns) else []
    return names[1:] if names and names[0].lower() in HEADERS else names


def _read_csv(path: str | Path, **kw) -> pd.DataFrame:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", **kw)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a table of text ({error})") from error


def read_counts(counts: pd.Series | Mapping[str, int] | str | Path | None) -> pd.Series | None:
    """Return how many cells each target should have, index target_gene; None passes through.

    Parameters
    ----------
    counts
        A table, or the path of a ``.csv`` with the columns ``target_gene`` and ``n_cells``.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A column is missing, a target stands twice, or a number is not one of 1 or more.
    """
    if counts is None:
        return None
    source = "counts"
    if isinstance(counts, str | Path):
        source, table = str(counts), _read_csv(counts)
        if missing := {"target_gene", "n_cells"} - set(table):
            raise ValueError(
                f"{source} has no column {some_of(sorted(missing))}; it has "
                f"{some_of(table.columns)}; expected target_gene and n_cells"
            )
        counts = table.set_index("target_gene")["n_cells"]
    n_cells = pd.Series(counts)
    numbers = pd.to_numeric(n_cells, errors="coerce")
    if wrong := n_cells.index[~(numbers >= 1) | (numbers % 1 != 0)].astype(str).tolist():
        raise ValueError(
            f"{source}: the numbers of cells of {some_of(wrong)} are not whole numbers of 1 or more"
        )
    if n_cells.index.has_duplicates:
        twice = some_of(n_cells.index[n_cells.index.duplicated()].unique())
        raise ValueError(f"{source} names {twice} more than once; expected each target once")
    return numbers.astype(int).set_axis(n_cells.index.astype(str))


# Form


def _no_matrix(pred, name: str) -> Problem | None:
    """Tell of an AnnData or file without X, which may have put its values elsewhere."""
    if isinstance(pred, anndata.AnnData):
        if pred.X is not None:
            return None
        layers = [layer for layer in pred.layers if layer]
    else:
        path = Path(pred)
        if not (path.is_file() and h5py.is_hdf5(path)):
            return None
        try:
            with h5py.File(path) as file:
                if "X" in file or not {"obs", "var"} <= set(file):
                    return None
                layers = list(file.get("layers", ()))
        except (OSError, RuntimeError) as error:  # h5py has both
            raise unreadable(path, error) from error
    hint = f"the layers {some_of(layers)} have some: set X to one of them" if layers else "set X"
    return Problem("no X", f"{name}: there is no matrix X, and only X is handed in; {hint}")


def _empty(cells, name: str) -> Problem:
    return Problem(
        "empty", f"{name}: empty, shape {cells.shape}; expected at least one cell and one gene"
    )


def _form_problems(cells: anndata.AnnData, rules: Preset, name: str) -> list[Problem]:
    found, most = [], rules.most_cells
    if most is not None and cells.n_obs > most:
        found.append(
            Problem(
                "too many cells",
                f"{name}: {cells.n_obs:,} cells, more than the {most:,} that may be handed in "
                "(100,000 before October 2025); the upload is refused; keep fewer of each target: "
                "submission.thin says which",
            )
        )
    if stored_matrix(cells).dtype == np.float16:
        found.append(
            Problem(
                "type of values",
                f"{name}: X is float16, which holds three digits, and no whole number above 2,048 "
                "exactly; the lost digits cannot come back: make the prediction in float32",
                refused=False,
            )
        )
    if not cells.obs_names.is_unique:
        found.append(
            Problem(
                "names of cells",
                f"{name}: {cells.obs_names.duplicated().sum()} names of cells occur again; nothing "
                "follows, vcc-helpers prep and cell-eval prep number the cells anew",
                refused=False,
            )
        )
    return found


# Genes


def _gene_problems(cells, genes: pd.Index | None, name: str):
    """Return problems, and column and name of each expected gene where they can be put right."""
    names = cells.var_names.astype(str)
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        text = (
            f"{name}: {len(twice)} gene names occur more than once: {some_of(twice)}; cell-eval "
            "prep refuses the file; sum the repeated columns, or drop those that are copies"
        )
        return [Problem("repeated genes", text)], None, None
    if genes is None or names.equals(genes):
        return [], None, None
    if _turned(cells, genes):
        text = (
            f"{name}: the cells are named like genes: X has shape {cells.shape} and lies genes x "
            "cells; expected cells x genes; hand in pred.T"
        )
        return [Problem("orientation", text)], None, None
    column, symbols = _best_names(cells, names, genes)
    same = _with_places(match(symbols, genes), symbols, genes)
    found = _gene_set_problems(same, column, genes, name)
    if same.missing or same.unknown or not symbols.is_unique:
        return found, None, None
    place = pd.Index([same.renamed.get(symbol, symbol) for symbol in symbols]).get_indexer(genes)
    if not np.array_equal(place, np.arange(len(genes))):
        found.append(_order_problem(symbols, genes, name))
    return found, place, genes


def _turned(cells, genes: pd.Index) -> bool:
    alike = cells.obs_names.isin(genes).mean()
    return alike > 0.5 and alike > cells.var_names.isin(genes).mean()


def _best_names(cells, names: pd.Index, genes: pd.Index) -> tuple[str | None, pd.Index]:
    """Return the column of var that holds more of the expected names than the index, or the index.

    Others keep symbols in a column and identifiers in the index.
    """
    best, symbols, most = None, names, names.isin(genes).sum()
    for column in cells.var.columns:
        others = pd.Index(cells.var[column].astype(str))
        if others.isin(genes).sum() > most and others.is_unique:
            best, symbols, most = column, others, others.isin(genes).sum()
    return best, symbols


def _with_places(same: Match, symbols: pd.Index, genes: pd.Index) -> Match:
    """Guess that a strange name at the place of a missing one is another name of the same gene."""
    if len(symbols) != len(genes):
        return same
    unknown, missing = set(same.unknown), set(same.missing)
    pairs = zip(symbols, genes, strict=True)
    here = {old: new for old, new in pairs if old in unknown and new in missing}
    return same._replace(near=here | same.near)


def _gene_set_problems(same: Match, column: str | None, genes, name: str) -> list[Problem]:
    found = []
    if column is not None:
        found.append(
            Problem(
                "gene names elsewhere",
                f"{name}: the genes' official names are in var[{column!r}], not in the index; "
                "cell-eval prep refuses the file; put them there: pred.var_names = "
                f"pred.var[{column!r}]",
                mended=f"gene names taken from var[{column!r}]",
            )
        )
    if same.renamed:
        pairs = [f"{old} for {new}" for old, new in same.renamed.items()]
        found.append(
            Problem(
                "gene spelling",
                f"{name}: {len(same.renamed)} genes are spelt otherwise: {some_of(pairs)}; "
                "cell-eval prep refuses the file; rename them",
                mended=f"{len(same.renamed)} genes renamed",
            )
        )
    if same.missing:
        found.append(
            Problem(
                "missing genes",
                f"{name}: {len(same.missing)} of {len(genes)} genes are missing: "
                f"{some_of(same.missing)}{_guesses(same)}; cell-eval prep refuses the file; "
                "predict every gene (the controls' mean is the prediction of no change)",
            )
        )
    if same.unknown:
        found.append(
            Problem(
                "unknown genes",
                f"{name}: {len(same.unknown)} genes are not in the official list: "
                f"{some_of(same.unknown)}; cell-eval prep refuses the file; drop them, of counts "
                "before anything is scaled",
            )
        )
    return found


def _guesses(same: Match) -> str:
    pairs = [f"{old!r} for {new!r}" for old, new in same.near.items()]
    return f" (perhaps {', '.join(pairs[:3])})" if pairs else ""


def _order_problem(symbols: pd.Index, genes: pd.Index, name: str) -> Problem:
    place = int(np.flatnonzero(np.asarray(symbols != genes))[0])
    return Problem(
        "gene order",
        f"{name}: genes are in another order: position {place} is {symbols[place]!r}, expected "
        f"{genes[place]!r}; cell-eval prep puts them in order, other scorers compare each gene "
        "with a stranger; reorder with pred[:, genes]",
        mended="genes put in order",
    )


# Labels


def _label_problems(cells, n_cells: pd.Series | None, rules: Preset, key, control, name):
    """Return problems, and each cell's label as it should be where that can be told."""
    targets = None if n_cells is None else n_cells.index
    found, labels = _labels_in(cells, targets, key, control, name)
    if labels is None:
        return found, None
    if blank := int((labels == "").sum()):
        first = cells.obs_names[labels == ""][0]
        text = (
            f"{name}: {blank} of {cells.n_obs} cells have no label in obs[{key!r}], the first is "
            f"{first!r}; cell-eval prep says nothing, the scorer then refuses the file; label or "
            "remove them"
        )
        found.append(Problem("missing labels", text))
    more, labels = _control_problems(labels, rules, control, name)
    found += more
    if targets is not None:
        more, labels = _target_problems(labels, targets, control, name)
        found += more + _number_problems(labels, n_cells, rules, control, name)
    if rules.cells_a_target is not None:
        found += _each_problems(cells, labels, rules, control, name)
    return found, labels


def _labels_in(cells, targets, key: str, control: str, name: str):
    if key in cells.obs:
        column = cells.obs[key]
        text = pd.Index(column.astype(object).where(column.notna(), "").astype(str))
        return [], text.where(text.str.strip() != "", "")
    wanted = {control} if targets is None else {control, *targets}
    fits = [c for c in cells.obs if wanted <= set(cells.obs[c].astype(str))]
    others = fits or [c for c in OTHER_KEYS if c in cells.obs]
    hint = f"; obs[{others[0]!r}] may be meant" if others else ""
    sure = len(fits) == 1 and targets is not None
    problem = Problem(
        "label column",
        f"{name}: obs has no column {key!r}; it has {some_of(cells.obs.columns)}{hint}; cell-eval "
        f"prep refuses the file; rename the column, or name it with perturbation_key=",
        mended=f"labels taken from obs[{others[0]!r}]" if sure else "",
    )
    return [problem], pd.Index(cells.obs[fits[0]].astype(str)) if sure else None


def _control_problems(labels: pd.Index, rules: Preset, control: str, name: str):
    present = labels.unique()
    if control in present:
        if rules.upload_controls:
            return [], labels
        text = (
            f"{name}: {(labels == control).sum()} cells are labelled {control!r}; the rules of "
            f"{rules.name} allow none, the scorer brings its own; leave them out"
        )
        return [Problem("controls", text, mended="control cells left out")], labels
    if not rules.upload_controls:
        return [], labels
    usual = {control.lower(), *CONTROL_NAMES, *ALSO_CONTROLS}
    others = [label for label in present if label.strip().lower() in usual]
    if len(others) == 1:
        text = (
            f"{name}: control cells are labelled {others[0]!r}, expected {control!r}; cell-eval "
            "prep refuses the file; rename the label"
        )
        mended = f"{others[0]!r} renamed to {control!r}"
        return [Problem("control label", text, mended=mended)], labels.where(
            labels != others[0], control
        )
    text = (
        f"{name}: no control cells: no label is {control!r}; there are "
        f"{some_of(present.sort_values())}; cell-eval prep refuses the file, since effects are "
        "differences to the controls; append the control cells of the training data, on the same "
        "scale"
    )
    return [Problem("controls", text)], labels


def _target_problems(labels: pd.Index, targets: pd.Index, control: str, name: str):
    same = match([label for label in labels.unique() if label not in (control, "")], targets)
    found = []
    if same.renamed:
        pairs = [f"{old} for {new}" for old, new in same.renamed.items()]
        text = (
            f"{name}: {len(same.renamed)} targets are spelt otherwise: {some_of(pairs)}; cell-eval "
            "prep says nothing, the scorer then refuses the file; rename the labels"
        )
        mended = f"{len(same.renamed)} labels renamed"
        found.append(Problem("target spelling", text, mended=mended))
        labels = pd.Index([same.renamed.get(label, label) for label in labels])
    if same.missing:
        text = (
            f"{name}: {len(same.missing)} of {len(targets)} targets are missing: "
            f"{some_of(same.missing)}{_guesses(same)}; cell-eval prep says nothing, the scorer "
            "then refuses the file; predict every target"
        )
        found.append(Problem("missing targets", text))
    if same.unknown:
        text = (
            f"{name}: {len(same.unknown)} targets were not asked for: {some_of(same.unknown)}; "
            "cell-eval prep says nothing, the scorer then refuses the file; leave them out"
        )
        found.append(Problem("unknown targets", text))
    return found, labels


def _number_problems(labels, n_cells: pd.Series, rules: Preset, control: str, name: str):
    """Compare numbers of cells with those announced, where they are free."""
    here = labels.value_counts().reindex(n_cells.index).dropna().astype(int)
    other = here[here != n_cells[here.index]]
    if rules.cells_a_target is not None or other.empty:
        return []
    pairs = [f"{label}: {n}, announced {n_cells[label]}" for label, n in other.items()]
    text = (
        f"{name}: {len(other)} of {len(here)} targets have another number of cells than announced "
        f"({'; '.join(pairs[:3])}); that is allowed, but the test calls more genes the more cells "
        "there are, in your file as in the truth"
    )
    return [Problem("cells a target", text, refused=False)]


def _each_problems(cells, labels: pd.Index, rules: Preset, control: str, name: str):
    """Apply rules that fix the number of cells of each target, in each context."""
    found, each, key = [], rules.cells_a_target, rules.context_key
    contexts = np.full(cells.n_obs, "")
    if key in cells.obs:
        contexts = cells.obs[key].astype(str).to_numpy()
    elif key is not None:
        text = (
            f"{name}: obs has no column {key!r}; the rules of {rules.name} want each cell's "
            "context there, named as in the control files; add it"
        )
        found.append(Problem("context", text))
    keep = ~labels.isin([control, ""])
    sizes = pd.crosstab(labels[keep], contexts[keep]).stack()
    if len(wrong := sizes[sizes != each]):
        pairs = [f"{' in '.join(filter(None, where))}: {n}" for where, n in wrong.items()]
        text = (
            f"{name}: {len(wrong)} of {len(sizes)} targets have not exactly {each} cells in each "
            f"context ({'; '.join(pairs[:3])}); the upload is refused; make {each} of each"
        )
        found.append(Problem("cells a target", text))
    return found


# Values


def _value_problems(cells, seen: Scan, labels, rules: Preset, control: str, name: str):
    """Return problems of the values, and whether they are whole numbers with noise."""
    found = [_bad_problem(cells, seen, kind, name) for kind in seen.bad]
    if seen.n_stored > (rules.most_entries or np.inf):
        text = (
            f"{name}: {seen.n_stored:,} values are stored, more than the {rules.most_entries:,} "
            "allowed; the upload is refused; store X as CSR, without zeros"
        )
        found.append(Problem("stored values", text))
    of = seen.of_cells
    filled = of["filled"].sum()
    if not filled:
        text = f"{name}: all values are 0{_elsewhere(cells)}; expected predicted expression"
        return [*found, Problem("all zero", text)], False
    found += _empty_cells(cells, of, labels, name) + _empty_genes(cells, seen, name)
    noise = of["fractional"].any() and of["nearly_whole"].sum() >= NOISE_SHARE * filled
    if noise and of["largest"].max() >= 1.5:
        found.append(_noise_problem(of, name))
    else:
        found += _scale_problems(cells, seen, labels, rules, control, name)
    if (deep := of["total"] > rules.most_counts).any():
        text = (
            f"{name}: {deep.sum()} cells hold more than {rules.most_counts:,.0f} counts, the first "
            f"{cells.obs_names[int(np.argmax(deep))]!r} with {of['total'][deep].iloc[0]:,.0f}; the "
            "upload is refused; predict the depth of real cells"
        )
        found.append(Problem("deep cells", text))
    return found, bool(noise)


def _elsewhere(cells: anndata.AnnData) -> str:
    """Name other tables with a column a gene, where a model may have put its prediction."""
    tables = [f"layers[{layer!r}]" for layer in cells.layers if layer]
    wide = (key for key in cells.obsm if cells.obsm[key].shape[1:] == (cells.n_vars,))
    tables += [f"obsm[{key!r}]" for key in wide]
    return f"; {' or '.join(tables[:3])} may hold the prediction" if tables else ""


CONSEQUENCES = {
    "NaN": "every mean and rank of that gene is lost; cell-eval refuses the file, one of log "
    "values only when it is scored",
    "infinite": "every mean of that gene is lost; cell-eval refuses the file",
    "negative": "neither counts nor lognorm go below 0; of whole ones cell-eval prep says nothing, "
    "the scorer then refuses the file",
}


def _bad_problem(cells, seen: Scan, kind: str, name: str) -> Problem:
    row, column = seen.bad[kind]
    mend = "find out where they come from"
    if kind == "negative":
        mend = "a model's small negative means may be set to 0"
        if _centred(seen):
            mend = "the values look centred or scaled: hand in counts or lognorm, not z-scores"
    text = (
        f"{name}: {kind} values, the first in cell {cells.obs_names[row]!r}, gene "
        f"{cells.var_names[column]!r}; {CONSEQUENCES[kind]}; {mend}"
    )
    return Problem(f"{kind} values", text)


def _centred(seen: Scan) -> bool:
    """Whether genes have a mean of about 0, as after scaling."""
    of = seen.of_cells
    return abs(of["total"].sum()) < 0.1 * of["filled"].sum() and of["smallest"].min() < -0.5


def _empty_cells(cells, of: pd.DataFrame, labels, name: str) -> list[Problem]:
    empty = (of["filled"] == 0).to_numpy()
    if not empty.any():
        return []
    found, lost = [], pd.Index([])
    if labels is not None:
        lost = labels[empty].unique().difference(labels[~empty])
    if len(lost):
        text = (
            f"{name}: of {len(lost)} labels every cell is 0 in every gene: {some_of(lost)}; "
            "cell-eval scores them as if each gene were silent; predict them"
        )
        found.append(Problem("empty targets", text))
    text = (
        f"{name}: {empty.sum()} cells are 0 in every gene, the first is "
        f"{cells.obs_names[int(np.argmax(empty))]!r}; they count as cells, and pull each mean "
        "down; leave them out, or draw them again"
    )
    return [*found, Problem("empty cells", text, refused=False)]


def _empty_genes(cells, seen: Scan, name: str) -> list[Problem]:
    empty = ~seen.group_total.any(axis=0)
    if not empty.any():
        return []
    text = (
        f"{name}: {empty.sum()} of {cells.n_vars} genes are 0 in every cell, controls and all: "
        f"{some_of(cells.var_names[empty])}; each is an error in the mean where the truth is not "
        "0; check that no gene was lost on the way"
    )
    return [Problem("empty genes", text, refused=False)]


def _noise_problem(of: pd.DataFrame, name: str) -> Problem:
    reach = of["largest"].max()
    then = "refuses the file" if reach >= LOGNORM_LIMIT else "takes them for lognorm values"
    text = (
        f"{name}: {of['nearly_whole'].sum() / of['filled'].sum():.1%} of the values lie within "
        f"{NEARLY} of a whole number, and some have fractions above {FRACTION_TOLERANCE}: counts "
        f"with noise; cell-eval {then}; round them: pred.X = pred.X.round()"
    )
    return Problem("noisy counts", text, mended="values rounded to whole numbers")


def _scale_problems(cells, seen: Scan, labels, rules: Preset, control: str, name: str):
    of = seen.of_cells
    fractional, reach = of["fractional"] > 0, of["largest"].max()
    if not fractional.any():
        small = reach < LOGNORM_LIMIT and cells.n_vars > 1000 and not seen.bad
        text = (
            f"{name}: all values are whole and none reaches {LOGNORM_LIMIT:g}: they are taken for "
            "counts, scaled, and their logarithm taken; if they are rounded logarithms, hand in "
            "the values before rounding"
        )
        return [Problem("small counts", text, refused=False)] if small else []
    if rules.counts_only:
        row = int(np.argmax(fractional))
        text = (
            f"{name}: {fractional.sum()} cells hold values with fractions, the first is "
            f"{cells.obs_names[row]!r}; the rules of {rules.name} want raw counts; draw counts, "
            "for instance with emit.negative_binomial"
        )
        return [Problem("no counts", text)]
    if reach >= LOGNORM_LIMIT and _spread(of["total"]) < SCALED:
        text = (
            f"{name}: values have fractions, so they cannot be counts, but reach {reach:.6g}, and "
            f"log1p values stay below {LOGNORM_LIMIT:g}; each cell adds up to the same: scaled, "
            "and the logarithm never taken; cell-eval refuses the file; take log1p"
        )
        return [Problem("no logarithm", text)]
    whole = (~fractional & (of["filled"] >= 5)).to_numpy()
    if whole.any():
        return [_mixed_problem(cells, of, whole, labels, control, name)]
    if reach >= LOGNORM_LIMIT:
        text = (
            f"{name}: values have fractions, so they cannot be counts, but reach {reach:.6g}, and "
            f"log1p values stay below {LOGNORM_LIMIT:g}; cell-eval refuses the file; hand in "
            "counts, or log1p of scaled counts"
        )
        return [Problem("scale", text)]
    return _base_problems(seen, name) if not seen.bad else []


def _mixed_problem(cells, of, whole: np.ndarray, labels, control: str, name: str) -> Problem:
    where = ""
    if labels is not None and (of_whole := labels[whole].unique()).size <= 5:
        where = f", labelled {some_of(of_whole)}"
    hint = "log-normalise those too"
    if labels is not None and set(labels[whole]) == {control}:
        hint = "log-normalise the controls, to the same total as the rest"
    silent = of["largest"].max() < LOGNORM_LIMIT
    then = "takes all for lognorm values, and says nothing" if silent else "refuses the file"
    text = (
        f"{name}: {whole.sum()} cells hold whole numbers{where}, {(~whole).sum()} hold fractions: "
        f"counts mixed with log values; cell-eval {then}; {hint}"
    )
    return Problem("mixed scales", text)


def _spread(sums) -> float:
    sums = np.asarray(sums)[np.asarray(sums) > 0]
    return float(np.std(sums) / np.mean(sums)) if len(sums) > 1 else np.inf


def _base_problems(seen: Scan, name: str) -> list[Problem]:
    """Tell the base of a logarithm by what every cell adds up to without it."""
    spread = {base: _spread(sums) for base, sums in seen.unlogged.items()}
    base = min(spread, key=spread.get)
    if base == "e" or not spread[base] < SCALED < spread["e"]:
        return []
    text = (
        f"{name}: the values look like logarithms to base {base}: undone so, each cell adds up to "
        "the same; cell-eval takes them for natural ones, and says nothing: every effect is off by "
        f"the same factor; multiply by log({base})"
    )
    return [Problem("base of the logarithm", text)]


# Likeness


def _likeness_problems(cells, seen: Scan, groups: pd.Index, codes, control: str, name: str):
    """Remark on predictions that are copies: of one cell, of the controls, of each other."""
    marks = pd.Series(seen.of_cells["signature"].to_numpy())
    by_group = {g: marks[codes == i] for i, g in enumerate(groups)}
    controls = by_group.pop(control, pd.Series(dtype=float))
    found, n = [], len(by_group)
    alike = [g for g, m in by_group.items() if len(m) > 1 and m.nunique() == 1]
    copies = [g for g, m in by_group.items() if m.isin(controls).all()]
    if alike:
        text = (
            f"{name}: the cells of {len(alike)} of {n} targets are all alike: {some_of(alike)}; "
            "allowed, and the official baseline does it, but without spread the test calls far "
            "more genes than real cells would; DES does not punish that, readers may"
        )
        found.append(Problem("identical cells", text, refused=False))
    if copies:
        text = (
            f"{name}: of {len(copies)} of {n} targets each cell is also a control cell: "
            f"{some_of(copies)}; that predicts no change, as some tools do without a word for "
            f"targets that they do not know; check that these were meant{_elsewhere(cells)}"
        )
        found.append(Problem("copies of controls", text, refused=False))
    return found + _same_means(seen, groups, codes, control, copies, name)


def _same_means(seen: Scan, groups: pd.Index, codes, control: str, copies, name: str):
    sizes = np.bincount(codes[codes >= 0], minlength=len(groups))
    means = pd.DataFrame(seen.group_total[:-1] / np.maximum(sizes, 1)[:, None], index=groups)
    targets = means.drop([control, *copies], errors="ignore")
    found = []
    if control in means.index and len(targets):
        near = _close(targets, means.loc[control])
        if near.any():
            text = (
                f"{name}: {near.sum()} of {len(targets)} targets have the controls' mean: "
                f"{some_of(targets.index[near])}; that predicts no change; check that it was meant"
            )
            found.append(Problem("no change", text, refused=False))
    if len(targets) > 1 and _close(targets, targets.iloc[0]).all():
        text = (
            f"{name}: all {len(targets)} targets have the same mean: nothing tells one from "
            "another, and PDS is that of chance; the model may have lost its input"
        )
        found.append(Problem("one prediction", text, refused=False))
    return found


def _close(means: pd.DataFrame, one: pd.Series) -> pd.Series:
    gap = (means - one).abs().max(axis=1)
    return gap <= 1e-5 * max(one.abs().max(), 1e-12)
