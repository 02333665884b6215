"""What is known of a prediction, and the table of rules that it is held against.

:class:`Seen` holds what is known: of genes, of labels, of the values in one pass. A rule of the
table says where to look, what to say of what was found there, and what is done about it. Whatever a
season adds is a line of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from ..bulk import some_of
from ..counts import FRACTION_TOLERANCE, LOGNORM_LIMIT
from ..names import CONTROL_NAMES, Match, match
from ..presets import Preset
from ..stream.blocks import read_rows, stored_matrix
from ..stream.look import NEARLY, scan
from ..stream.open import left_on_disk, plain_labels, spaced_labels, text_for_none
from .scales import LOG1P, name_scale, sums_before_log

#: Columns that other tools name the perturbation in.
_OTHER_KEYS = ("gene", "perturbation", "condition", "target", "gene_target", "guide_target")
#: What a prediction may call controls; in a screen the last two could as well be a kind of cell.
_CONTROLS = {*CONTROL_NAMES, "unperturbed", "wt"}
#: Totals that differ less than this, relative to their mean, are one.
_SCALED = 0.01
#: Cells, of the controls and of the others, by which the scale is told; at most so many targets.
_SAMPLED, _MOST_TARGETS = 120, 60
#: This share of a file's values must be nearly whole for its fractions to be noise.
_NOISE_SHARE = 0.999
_NOTHING = Match({}, [], [], {})
#: Figures that rules may quote.
_LIMITS = {"nearly": NEARLY, "tolerance": FRACTION_TOLERANCE, "limit": LOGNORM_LIMIT}


class Problem(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    kind, text
        A few words that stay the same, such as ``"gene order"``; and what was seen and where, what
        was expected, what follows, and how to mend it.
    refused, mended
        Whether the file cannot be handed in so, else it is a remark; and what
        :func:`~.submission.mend` does about it, empty if nothing is safe.
    """

    kind: str
    text: str
    refused: bool = True
    mended: str = ""

    def __str__(self) -> str:
        """Return the text, a remark marked as one."""
        return self.text if self.refused else f"remark: {self.text}"


@dataclass
class Seen:
    """What is known of a prediction: as it is, and as it would be once mended."""

    cells: anndata.AnnData
    rules: Preset
    genes: pd.Index | None
    n_cells: pd.Series | None
    key: str
    control: str
    progress: bool

    def __post_init__(self):
        """Look at all of it."""
        self._see_genes()
        self._see_labels()
        self._see_values()

    # Genes

    def _see_genes(self) -> None:
        """Find the names of the genes, and the column of each that is expected."""
        cells, genes = self.cells, self.genes
        self.names = self.symbols = cells.var_names.astype(str)
        self.symbols_in = None  # or the column of var that has them
        self.same_genes, self.strange_list, self.columns = _NOTHING, None, None
        other = genes is not None and not self.names.equals(genes)
        alike = cells.obs_names.isin(genes).mean() if other else 0
        self.turned = alike > 0.5 and alike > cells.var_names.isin(genes).mean()
        comparable = other and not self.turned
        if comparable:
            self._find_symbols()
        self.where = "" if self.symbols_in is None else f" of var[{self.symbols_in!r}]"
        self.repeated_genes = list(self.symbols[self.symbols.duplicated()].unique())
        if comparable and (self.where or not self.repeated_genes):
            self._compare_genes()

    def _find_symbols(self) -> None:
        """Look for a column that holds more of the expected names than the index.

        Others keep symbols in a column and identifiers in the index. A gene without a symbol has
        its identifier.
        """
        genes = self.genes
        for column in self.cells.var:
            others = plain_labels(self.cells.var[column], genes)
            others = others.where(others != "", self.names)
            if len(others.intersection(genes)) > len(self.symbols.intersection(genes)):
                self.symbols_in, self.symbols = column, others

    def _compare_genes(self) -> None:
        """Hold the genes against the list, unless that is of other genes altogether."""
        symbols, genes, same = self.symbols, self.genes, match(self.symbols, self.genes)
        missing, unknown = set(same.missing), set(same.unknown)
        if 2 * len(missing) > len(genes) and 2 * len(unknown) > symbols.nunique():
            words = {"here": some_of(symbols), "there": some_of(genes)}
            self.strange_list = {"n": len(genes) - len(missing), "of": len(genes), **words}
            return
        if len(symbols) == len(genes):  # names at the same place may be of the same gene
            pairs = zip(symbols, genes, strict=True)
            here = {old: new for old, new in pairs if old in unknown and new in missing}
            same = same._replace(near=here | same.near)
        self.same_genes = same
        if not (missing or unknown or self.repeated_genes):
            renamed = pd.Index([same.renamed.get(name, name) for name in symbols])
            self.columns = renamed.get_indexer(genes)

    def out_of_order(self) -> dict | None:
        """Find the first gene at another gene's place."""
        if self.columns is None or np.array_equal(self.columns, np.arange(len(self.genes))):
            return None
        place = int(np.flatnonzero(np.asarray(self.symbols != self.genes))[0])
        return {"place": place, "here": self.symbols[place], "expected": self.genes[place]}

    def reserved_names(self) -> list[str]:
        """Find a column that AnnData cannot write, and an index named like another column."""
        found = []
        for frame, name in ((self.cells.obs, "obs"), (self.cells.var, "var")):
            found += [f"column _index of {name}"] if "_index" in frame else []
            index = frame.index.name
            if index in frame and not np.array_equal(frame.index, frame[index]):
                found.append(f"index {index} of {name}")
        return found

    # Labels

    def _see_labels(self) -> None:
        """Find each cell's label: as it is written, and put right; None where it cannot be told."""
        targets = [] if self.n_cells is None else list(self.n_cells.index)
        self.column, self.meant = self._find_column({*targets, self.control})
        self.no_controls, self.other_control, self.same_targets = [], None, _NOTHING
        self.written = self.labels = None
        self.groups, self.codes = pd.Index([]), np.full(self.cells.n_obs, -1)
        if self.column is None:
            return
        self.written = plain_labels(self.column, [*targets, self.control])
        names = self.written.unique()
        if self.control not in names and self.rules.upload_controls:
            self.no_controls = names.tolist()
            usual = {self.control.lower(), *_CONTROLS}
            others = [label for label in names if label.strip().lower() in usual]
            self.other_control = others[0] if len(others) == 1 else None
        if self.n_cells is not None:
            no_targets = (self.control, self.other_control, "")
            self.same_targets = match([x for x in names if x not in no_targets], targets)
        renamed = {**self.same_targets.renamed, self.other_control: self.control}
        self.labels = pd.Index([renamed.get(label, label) for label in self.written])
        self.groups = self.labels.unique().drop("", errors="ignore")
        self.codes = self.groups.get_indexer(self.labels)

    def _find_column(self, wanted: set[str]) -> tuple[pd.Series | None, str]:
        """Return the column of labels, if that is sure, and where the labels else may be."""
        obs = self.cells.obs
        if self.key in obs:
            return obs[self.key], ""
        if obs.index.name == self.key:
            found = obs.index.to_series() if self.control in obs.index else None
            return found, "the index of obs, which has that name,"
        fitting = [c for c in obs if wanted <= set(obs[c].astype(str))]
        others = fitting or [c for c in _OTHER_KEYS if c in obs]
        sure = len(fitting) == 1 and self.n_cells is not None
        return obs[fitting[0]] if sure else None, f"obs[{others[0]!r}]" if others else ""

    def no_column(self) -> dict | None:
        """Tell where the labels may be, if not in their column."""
        if self.key in self.cells.obs:
            return None
        hint = f"; {self.meant} may be meant" if self.meant else ""
        fix = "" if self.column is None else f"labels taken from {self.meant.split(',')[0]}"
        return {"some": some_of(self.cells.obs.columns), "hint": hint, "fix": fix}

    def unlabelled(self) -> dict | None:
        """Find cells without a label, and say what they have in place of one."""
        if self.written is None or not (none := np.asarray(self.written == "")).any():
            return None
        return {**self.first(none), "text": text_for_none(self.column[none])}

    def free_numbers(self) -> dict | None:
        """Compare numbers of cells with those announced, where they are free."""
        if self.labels is None or self.n_cells is None or self.rules.cells_a_target:
            return None
        here = self.labels.value_counts().reindex(self.n_cells.index).dropna().astype(int)
        other = here[here != self.n_cells[here.index]]
        pairs = [f"{label}: {n}, announced {self.n_cells[label]}" for label, n in other.items()]
        return _of(pairs, len(here))

    def fixed_numbers(self) -> dict | None:
        """Compare numbers of cells of each target and context with the one that is fixed."""
        each, key, obs = self.rules.cells_a_target, self.rules.context_key, self.cells.obs
        if self.labels is None or each is None:
            return None
        contexts = plain_labels(obs[key]).to_numpy() if key in obs else np.full(len(obs), "")
        keep = ~self.labels.isin([self.control, ""])
        sizes = pd.crosstab(self.labels[keep], contexts[keep]).stack()
        wrong = sizes[sizes != each].items()
        return _of([f"{' in '.join(filter(None, x))}: {n}" for x, n in wrong], len(sizes))

    # Values

    def _see_values(self) -> None:
        """Look at every value once; which cells have fractions, and which are 0 in every gene?"""
        tolerance = self.rules.tolerance
        self.scan = scan(self.cells, self.codes, tolerance=tolerance, progress=self.progress)
        of = self.of = self.scan.of_cells
        self.fractional = (of["fractional"] > 0).to_numpy()
        self.empty = (of["filled"] == 0).to_numpy()
        self.scale = "lognorm" if self.fractional.any() else "counts"
        self.reach = of["largest"].max()
        self.nearly_whole = of["nearly_whole"].sum() / max(of["filled"].sum(), 1)
        self.noisy = bool(self.fractional.any() and self.nearly_whole >= _NOISE_SHARE)

    def then(self, silent: str) -> str:
        """Say what cell-eval does with fractions: nothing stops it below the limit."""
        return silent if self.reach < LOGNORM_LIMIT else "refuses the file"

    @property
    def elsewhere(self) -> str:
        """Other tables with a column a gene, where a model may have put its prediction."""
        cells = self.cells
        tables = [name for name in left_on_disk(cells) if name != "raw"]
        wide = (key for key in cells.obsm if cells.obsm[key].shape[1:] == (cells.n_vars,))
        tables += [f"obsm[{key!r}]" for key in wide]
        return f"; {' or '.join(tables[:3])} may hold the prediction" if tables else ""

    def first(self, which) -> dict | None:
        """Count the cells that are meant, and name the first."""
        which = np.asarray(which)
        if not which.any():
            return None
        row = int(np.argmax(which))
        total = self.of["total"].iloc[row]
        return {"n": which.sum(), "cell": self.cells.obs_names[row], "total": total}

    def bad(self, kind: str) -> dict | None:
        """Find the first value that is no expression."""
        if kind not in self.scan.bad:
            return None
        (row, column), of = self.scan.bad[kind], self.of
        centred = abs(of["total"].sum()) < 0.1 * of["filled"].sum() and of["smallest"].min() < -0.5
        hint = "a model's small negative means may be set to 0"
        if centred:  # genes have a mean of about 0
            hint = "the values look centred or scaled: hand in counts or lognorm, not z-scores"
        cell, gene = self.cells.obs_names[row], self.cells.var_names[column]
        return {"cell": cell, "gene": gene, "hint": hint}

    def empty_targets(self) -> list[str]:
        """Find labels all of whose cells are empty."""
        if self.labels is None or self.empty.all():
            return []
        return list(self.labels[self.empty].unique().difference(self.labels[~self.empty]))

    def mixed(self) -> dict | None:
        """Find cells of whole numbers among those with fractions."""
        whole = ~self.fractional & (self.of["filled"] >= 5).to_numpy()
        if not self.fractional.any() or not whole.any():
            return None
        labels = [] if self.labels is None else self.labels[whole].unique()
        where = f", labelled {some_of(labels)}" if 0 < len(labels) <= 5 else ""
        hint = "log-normalise those too"
        if set(labels) == {self.control}:
            hint = "log-normalise the controls, to the same total as the rest"
        then = self.then("takes all for lognorm values, and says nothing")
        words = {"where": where, "then": then, "hint": hint}
        return {"n": whole.sum(), "others": (~whole).sum(), **words}

    # Scale

    @cached_property
    def parts(self) -> dict[str, tuple]:
        """Some control cells, and some of the others, spread over the targets: values and codes.

        Of cells that have fractions. The two may come from different hands.
        """
        if not len(self.groups):
            rows = {"the cells": _spread_out(self.fractional, 2 * _SAMPLED)}
        else:
            control = self.fractional & (self.labels == self.control)
            others = self.fractional & ~control & (self.codes >= 0)
            targets = np.unique(self.codes[others])
            targets = targets[_spread_out(targets >= 0, _MOST_TARGETS)]
            each = max(2, _SAMPLED // max(len(targets), 1))
            of_target = [_spread_out(others & (self.codes == i), each) for i in targets]
            rows = {
                "the control cells": _spread_out(control, _SAMPLED),
                "the targets": np.sort(np.concatenate([*of_target, []]).astype(int)),
            }
        return {k: (read_rows(self.cells, r), self.codes[r]) for k, r in rows.items() if len(r)}

    @cached_property
    def scales(self) -> dict[str, str | None]:
        """What was done to counts, as far as values with fractions tell; see ``name_scale``."""
        if not self.fractional.any() or self.scan.bad:
            return {}
        return {who: name_scale(rows) for who, (rows, _) in self.parts.items()}

    def on_scale(self, scale: str) -> dict | None:
        """Say which values are on a scale that is not expected.

        Scanpy notes the base of a logarithm; the values win where they tell.
        """
        found = [who for who, name in self.scales.items() if name == scale]
        noted = self.cells.uns.get("log1p")
        base = noted.get("base") if isinstance(noted, Mapping) else None
        unsure = self.scales and not any(self.scales.values())
        known = unsure and isinstance(base, int | float | np.number)
        if not found and not (known and scale == f"logarithms to base {base:g}"):
            return None
        some = found and len(found) < len(self.scales)
        return {
            "who": f"the values of {found[0]}" if some else "the values",
            "why": "undone so, they are scaled counts" if found else "uns['log1p'] says so",
            "then": self.then("takes them for log1p values, and says nothing: every effect is off"),
        }

    @cached_property
    def sums(self) -> list[tuple[pd.Series, bool]]:
        """What cells that hold log1p of counts add up to, index code; and whether to one total."""
        found = []
        for who, (rows, codes) in self.parts.items():
            if self.scales.get(who) == LOG1P:
                sums, one_total = sums_before_log(rows, codes)
                found.append((pd.Series(sums, codes), one_total))
        return found

    def other_totals(self) -> dict | None:
        """Find labels whose cells were scaled to another total than the rest."""
        means = [x.groupby(level=0).mean() for x, one_total in self.sums if one_total]
        if not means or not len(self.groups):
            return None
        total = pd.concat(means)
        total.index = self.groups[total.index]
        usual = total.get(self.control, total.median())
        other = total[(total / usual - 1).abs() > _SCALED]
        return len(other) and _of(other.index, len(total), total=other.iloc[0], usual=usual)

    def no_total(self) -> dict | None:
        """Find log1p of counts whose sums differ from cell to cell."""
        for sums, one_total in self.sums:
            if not one_total and sums.std() > 5 * _SCALED * sums.mean():
                return {"low": sums.min(), "high": sums.max()}
        return None

    # Likeness

    @cached_property
    def marks(self) -> dict[str, pd.Series]:
        """Signatures of each target's cells; equal cells have equal ones."""
        marks = self.of["signature"]
        return {g: marks[self.codes == i] for i, g in enumerate(self.groups) if g != self.control}

    @cached_property
    def copies(self) -> list[str]:
        """Targets whose cells are all control cells, too."""
        controls = self.of["signature"][self.labels == self.control] if self.marks else []
        return [g for g, marks in self.marks.items() if marks.isin(controls).all()]

    @cached_property
    def means(self) -> pd.DataFrame:
        """The mean of each target, but for copies, and of the controls."""
        sizes = np.bincount(self.codes[self.codes >= 0], minlength=len(self.groups))
        means = self.scan.group_total[:-1] / np.maximum(sizes, 1)[:, None]
        return pd.DataFrame(means, index=self.groups).drop(self.copies)

    def like_controls(self) -> dict | None:
        """Find targets that have the controls' mean."""
        if self.control not in self.groups:
            return None
        targets = self.means.drop(self.control)
        return _of(targets.index[_close(targets, self.means.loc[self.control])], len(targets))

    def one_mean(self) -> dict | None:
        """Count the targets, if all have one mean."""
        targets = self.means.drop(self.control, errors="ignore")
        alike = len(targets) > 1 and _close(targets, targets.iloc[0]).all()
        return {"n": len(targets)} if alike else None


def _close(means: pd.DataFrame, one: pd.Series) -> pd.Series:
    gap = (means - one).abs().max(axis=1)
    return gap <= 1e-5 * max(one.abs().max(), 1e-12)


def _spread_out(which: np.ndarray, n: int) -> np.ndarray:
    """Return the numbers of at most `n` of those that are meant, at equal distances."""
    these = np.flatnonzero(which)
    return these[np.linspace(0, len(these) - 1, min(n, len(these))).astype(int)]


def _of(names, of: int, **more) -> dict:
    """Words for some of a number of things; none if there are no names."""
    names = list(names)
    few = "; ".join(map(str, names[:3]))
    return {"n": len(names), "of": of, "some": some_of(names), "few": few, **more} if names else {}


def _missing(same: Match, wanted: pd.Index | pd.Series | None) -> dict:
    pairs = [f"{old!r} for {new!r}" for old, new in same.near.items()]
    guesses = f" (perhaps {', '.join(pairs[:3])})" if pairs else ""
    return same.missing and _of(same.missing, len(wanted), guesses=guesses)


def _renamed(same: Match) -> list[str]:
    return [f"{old} for {new}" for old, new in same.renamed.items()]


class _Rule(NamedTuple):
    """A line of the table."""

    kind: str
    #: Returns what there is to say: names, words by name, or whether the rule is broken.
    see: Callable[[Seen], dict | list | bool | None]
    #: What is said; ``{s}`` is what was seen, ``{n}`` the number of names, ``{some}`` some.
    tell: str
    #: What is done about it where that is safe, in the same way.
    fix: str = ""
    refused: bool = True
    #: Of the rules that share a chain, only the first that is broken is told.
    chain: str = ""


_remark = partial(_Rule, refused=False)


def problems(seen: Seen) -> Iterator[Problem]:
    """Hold a prediction against each rule."""
    told = set()
    for rule in _RULES:
        found = rule.see(seen) if rule.chain not in told else None
        if isinstance(found, list):
            found = _of(found, len(found))
        if found:
            told |= {rule.chain} - {""}
            words = {"s": seen, **_LIMITS, **(found if isinstance(found, dict) else {})}
            text, fix = rule.tell.format(**words), rule.fix.format(**words)
            yield Problem(rule.kind, f"pred: {text}", rule.refused, fix)


def _other_scale(kind: str, scale: str, mend: str, look: str = "") -> _Rule:
    """Make the rule against a scale that the values give away."""
    look = look or f"look like {scale}: {{why}}"
    tell = f"{{who}} {look}; cell-eval {{then}}; {mend}"
    return _Rule(kind, lambda s: s.on_scale(scale), tell, chain="scale")


#: What a prediction is held against; the order is that of the report.
_RULES = (
    # Genes
    _Rule("list of genes", lambda s: s.strange_list,
        "only {n} of the {of} names of the list of genes are in the file: the list has {there}, "
        "the file {here}; give the list of these genes (or a table with a column of such names)"),
    _Rule("repeated genes", lambda s: s.repeated_genes,
        "{n} gene names{s.where} occur more than once: {some}; cell-eval prep refuses the file; "
        "sum the repeated columns, or drop those that are copies"),
    _Rule("orientation", lambda s: s.turned,
        "the cells are named like genes: X has shape {s.cells.shape} and lies genes x cells; "
        "expected cells x genes; hand in pred.T"),
    _Rule("gene names elsewhere",
        lambda s: s.where and not s.strange_list and {
            "fix": "" if s.repeated_genes else f"gene names taken from var[{s.symbols_in!r}]"},
        "the genes' official names are in var[{s.symbols_in!r}], not in the index; cell-eval prep "
        "refuses the file; put them there: pred.var_names = pred.var[{s.symbols_in!r}]",
        fix="{fix}"),
    _Rule("gene spelling", lambda s: _renamed(s.same_genes),
        "{n} genes are spelt otherwise: {some}; cell-eval prep refuses the file; rename them",
        fix="{n} genes renamed"),
    _Rule("missing genes", lambda s: _missing(s.same_genes, s.genes),
        "{n} of {of} genes are missing: {some}{guesses}; cell-eval prep refuses the file; predict "
        "every gene (the controls' mean is the prediction of no change)"),
    _Rule("unknown genes", lambda s: s.same_genes.unknown,
        "{n} genes are not in the official list: {some}; cell-eval prep refuses the file; drop "
        "them, of counts before anything is scaled"),
    _Rule("gene order", Seen.out_of_order,
        "genes are in another order: position {place} is {here!r}, expected {expected!r}; "
        "cell-eval prep puts them in order, other scorers compare each gene with a stranger; "
        "reorder with pred[:, genes]", fix="genes put in order"),
    # Labels
    _Rule("label column", Seen.no_column,
        "obs has no column {s.key!r}; it has {some}{hint}; cell-eval prep refuses the file; "
        "rename the column, or name it with perturbation_key=", fix="{fix}"),
    _Rule("missing labels", Seen.unlabelled,
        "{n} of {s.cells.n_obs} cells have no label in obs[{s.key!r}], the first is "
        "{cell!r}{text}; cell-eval prep says nothing, the scorer then refuses the file; label or "
        "remove them"),
    _Rule("spaces", lambda s: s.column is not None and spaced_labels(s.column),
        "{n} labels have spaces around them: {some}; cell-eval takes each for another label, and "
        "refuses the file when it is packed or scored; remove the spaces",
        fix="spaces around {n} labels removed"),
    _Rule("controls", lambda s: not s.rules.upload_controls and s.first(s.written == s.control),
        "{n} cells are labelled {s.control!r}; the rules of {s.rules.name} allow none, the scorer "
        "brings its own; leave them out", fix="control cells left out"),
    _Rule("control label", lambda s: s.other_control is not None,
        "control cells are labelled {s.other_control!r}, expected {s.control!r}; cell-eval prep "
        "refuses the file; rename the label",
        fix="{s.other_control!r} renamed to {s.control!r}", chain="controls"),
    _Rule("controls", lambda s: sorted(s.no_controls),
        "no control cells: no label is {s.control!r}; there are {some}; cell-eval prep refuses "
        "the file, since effects are differences to the controls; append the control cells of the "
        "training data, on the same scale", chain="controls"),
    _Rule("target spelling", lambda s: _renamed(s.same_targets),
        "{n} targets are spelt otherwise: {some}; cell-eval prep says nothing, the scorer then "
        "refuses the file; rename the labels", fix="{n} labels renamed"),
    _Rule("missing targets", lambda s: _missing(s.same_targets, s.n_cells),
        "{n} of {of} targets are missing: {some}{guesses}; cell-eval prep says nothing, the "
        "scorer then refuses the file; predict every target"),
    _Rule("unknown targets", lambda s: s.same_targets.unknown,
        "{n} targets were not asked for: {some}; cell-eval prep says nothing, the scorer then "
        "refuses the file; leave them out"),
    _remark("cells a target", Seen.free_numbers,
        "{n} of {of} targets have another number of cells than announced ({few}); that is "
        "allowed, but the test calls more genes the more cells there are, in your file as in the "
        "truth"),
    _Rule("context",
        lambda s: s.labels is not None and s.rules.context_key not in (None, *s.cells.obs),
        "obs has no column {s.rules.context_key!r}; the rules of {s.rules.name} want each cell's "
        "context there, named as in the control files; add it"),
    _Rule("cells a target", Seen.fixed_numbers,
        "{n} of {of} targets have not exactly {s.rules.cells_a_target} cells in each context "
        "({few}); the upload is refused; make {s.rules.cells_a_target} of each"),
    # Form
    _Rule("too many cells", lambda s: s.cells.n_obs > (s.rules.most_cells or np.inf),
        "{s.cells.n_obs:,} cells, more than the {s.rules.most_cells:,} that may be handed in "
        "(100,000 before October 2025); the upload is refused; keep fewer of each target: "
        "submission.thin says which"),
    _remark("type of values", lambda s: stored_matrix(s.cells).dtype == np.float16,
        "X is float16, which holds three digits, and no whole number above 2,048 exactly; the "
        "lost digits cannot come back: make the prediction in float32"),
    _remark("reserved names", Seen.reserved_names,
        "AnnData cannot write what is called {some}: it keeps such names for itself; rename it",
        fix="{n} names that AnnData keeps for itself replaced"),
    _remark("names of cells", lambda s: list(s.cells.obs_names[s.cells.obs_names.duplicated()]),
        "{n} names of cells occur again; nothing follows, vcc-helpers prep and cell-eval prep "
        "number the cells anew"),
    # Values
    _Rule("NaN values", lambda s: s.bad("NaN"),
        "NaN values, the first in cell {cell!r}, gene {gene!r}; every mean and rank of that gene "
        "is lost; cell-eval refuses the file, one of log values only when it is scored; find out "
        "where they come from"),
    _Rule("infinite values", lambda s: s.bad("infinite"),
        "infinite values, the first in cell {cell!r}, gene {gene!r}; every mean of that gene is "
        "lost; cell-eval refuses the file; find out where they come from"),
    _Rule("too large values", lambda s: s.bad("too large"),
        "the values of cell {cell!r} add up to more than their type holds; no total can be scaled "
        "by that, and every mean is lost; cell-eval says nothing; predict counts of real cells"),
    _Rule("negative values", lambda s: s.bad("negative"),
        "negative values, the first in cell {cell!r}, gene {gene!r}; neither counts nor lognorm "
        "go below 0; of whole ones cell-eval prep says nothing, the scorer then refuses the file; "
        "{hint}"),
    _Rule("stored values", lambda s: s.scan.n_stored > (s.rules.most_entries or np.inf),
        "{s.scan.n_stored:,} values are stored, more than the {s.rules.most_entries:,} allowed; "
        "the upload is refused; store X as CSR, without zeros"),
    _Rule("all zero", lambda s: s.empty.all(),
        "all values are 0{s.elsewhere}; expected predicted expression", chain="empty"),
    _Rule("empty targets", Seen.empty_targets,
        "of {n} labels every cell is 0 in every gene: {some}; cell-eval scores them as if each "
        "gene were silent; predict them"),
    _remark("empty cells", lambda s: s.first(s.empty),
        "{n} cells are 0 in every gene, the first is {cell!r}; they count as cells, and pull each "
        "mean down; leave them out, or draw them again", chain="empty"),
    _remark("empty genes",
        lambda s: [] if s.empty.all() else list(s.cells.var_names[~s.scan.group_total.any(axis=0)]),
        "{n} of {s.cells.n_vars} genes are 0 in every cell, controls and all: {some}; each is an "
        "error in the mean where the truth is not 0; check that no gene was lost on the way"),
    _Rule("noisy counts",
        lambda s: s.noisy and s.reach >= 1.5 and {"then": s.then("takes them for lognorm values")},
        "{s.nearly_whole:.1%} of the values lie within {nearly} of a whole number, and some have "
        "fractions above {tolerance}: counts with noise; cell-eval {then}; round them: pred.X = "
        "pred.X.round()", fix="values rounded to whole numbers", chain="scale"),
    _remark("small counts",
        lambda s: s.cells.n_vars > 1000 and s.reach < LOGNORM_LIMIT
        and not (s.fractional.any() or s.scan.bad or s.empty.all()),
        "all values are whole and none reaches {limit:g}: they are taken for counts, scaled, and "
        "their logarithm taken; if they are rounded logarithms, hand in the values before "
        "rounding", chain="scale"),
    _Rule("no counts", lambda s: s.rules.counts_only and s.first(s.fractional),
        "{n} cells hold values with fractions, the first is {cell!r}; the rules of {s.rules.name} "
        "want raw counts; draw counts, for instance with emit.negative_binomial", chain="scale"),
    _other_scale("no logarithm", "no logarithms", "scale each cell to 10,000, and take log1p",
        "have fractions, so they cannot be counts, but are counts that were scaled, and the "
        "logarithm never taken"),
    _Rule("mixed scales", Seen.mixed,
        "{n} cells hold whole numbers{where}, {others} hold fractions: counts mixed with log "
        "values; cell-eval {then}; {hint}", chain="scale"),
    _other_scale("base of the logarithm", "logarithms to base 2", "multiply by log(2)"),
    _other_scale("base of the logarithm", "logarithms to base 10", "multiply by log(10)"),
    _other_scale("two logarithms", "logarithms of logarithms", "take expm1 once"),
    _other_scale("square roots", "square roots",
        "square them, scale each cell to 10,000, and take log1p"),
    _Rule("scale", lambda s: s.fractional.any() and s.reach >= LOGNORM_LIMIT,
        "values have fractions, so they cannot be counts, but reach {s.reach:.6g}, and log1p "
        "values stay below {limit:g}; cell-eval refuses the file; hand in counts, or log1p of "
        "scaled counts", chain="scale"),
    _Rule("totals", Seen.other_totals,
        "the counts behind the log values of {n} of {of} labels looked at ({some}) add up to "
        "{total:,.6g} in each cell, those of the others to {usual:,.6g}: scaled to different "
        "totals; cell-eval says nothing, and sees an effect on every gene; scale all cells to one "
        "total before log1p", chain="scale"),
    _remark("no total", Seen.no_total,
        "the values look like log1p of counts that add up to {low:,.6g} in one cell and "
        "to {high:,.6g} in another: a cell's depth will look like an effect; scale each cell to "
        "one total before log1p (all is well if genes were left out after that)", chain="scale"),
    _Rule("deep cells", lambda s: s.first(s.of["total"] > s.rules.most_counts),
        "{n} cells hold more than {s.rules.most_counts:,.0f} counts, the first {cell!r} with "
        "{total:,.0f}; the upload is refused; predict the depth of real cells"),
    # Likeness: copies of one cell, of the controls, of each other
    _remark("identical cells",
        lambda s: _of([g for g, m in s.marks.items() if len(m) > 1 == m.nunique()], len(s.marks)),
        "the cells of {n} of {of} targets are all alike: {some}; allowed, and the official "
        "baseline does it, but without spread the test calls far more genes than real cells "
        "would; DES does not punish that, readers may"),
    _remark("copies of controls", lambda s: _of(s.copies, len(s.marks)),
        "of {n} of {of} targets each cell is also a control cell: {some}; that predicts no "
        "change, as some tools do without a word for targets that they do not know; check that "
        "these were meant{s.elsewhere}"),
    _remark("no change", Seen.like_controls,
        "{n} of {of} targets have the controls' mean: {some}; that predicts no change; check that "
        "it was meant"),
    _remark("one prediction", Seen.one_mean,
        "all {n} targets have the same mean: nothing tells one from another, and PDS is that of "
        "chance; the model may have lost its input"),
)  # fmt: skip
