"""What is known of a prediction, and the table of rules that it is held against.

:class:`Seen` holds what is known: of genes, of labels, of the values in one pass. A rule of the
table says where to look, what to say of what was found there, and what is done about it. Whatever a
season adds is a line of the table.
"""

from __future__ import annotations

import re
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
from ..stream.contexts import CONTEXT_KEY, has_several
from ..stream.look import NEARLY, scan
from ..stream.open import left_on_disk, plain_labels, spaced_labels, text_for_none
from . import likeness
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
#: How the name of a guide ends, the second of one target being SOX2-2.
_GUIDE = re.compile(r".-\d$")
_NOTHING = Match({}, [], [], {})
#: What follows by the tool of 2025, where that is not simply that it refuses the file.
_FOLLOWS_2025 = {
    "later": "cell-eval prep says nothing, the scorer then refuses the file",
    "of_spaces": "cell-eval takes each for another label, and refuses the file when it is packed "
    "or scored",
    "of_nan": "cell-eval refuses the file, one of log values only when it is scored",
    "of_infinite": "cell-eval refuses the file",
    "of_negative": "of whole ones cell-eval prep says nothing, the scorer then refuses the file",
    "of_large": "cell-eval says nothing",
    "of_empty": "cell-eval scores them as if each gene were silent",
}
#: Figures that rules may quote.
_LIMITS = {"nearly": NEARLY, "limit": LOGNORM_LIMIT}
_LIMITS |= {"repeated": likeness.REPEATED, "depth": likeness.DEPTH}


class Problem(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    kind, text
        A few words that stay the same, such as ``"gene order"``; and what was seen and where, what
        was expected, what follows, and how to fix it.
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
    """What is known of a prediction: as it is, and as it would be once fixed."""

    cells: anndata.AnnData
    rules: Preset
    genes: pd.Index | None
    n_cells: pd.Series | None
    key: str
    control: str
    progress: bool
    #: The contexts to be predicted, None if that is not known; and the column that names them.
    asked: tuple[str, ...] | None = None
    context_key: str | None = None
    #: Control cells of each context, where these are given.
    controls: Mapping[str, anndata.AnnData] | None = None

    def __post_init__(self):
        """Look at all of it."""
        self._see_genes()
        self._see_labels()
        self._see_contexts()
        self._see_groups()
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
        targets = list(self.targets)
        self.column, self.meant = self._find_column({*targets, self.control})
        self.no_controls, self.other_control, self.same_targets = [], None, _NOTHING
        self.written = self.labels = None
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

    @property
    def targets(self) -> pd.Index:
        """The targets to be predicted, in any context; none if that is not known."""
        known = self.n_cells is not None
        return self.n_cells.index.get_level_values(-1).unique() if known else pd.Index([])

    def _find_column(self, wanted: set[str]) -> tuple[pd.Series | None, str]:
        """Return the column of labels, if that is certain, and where the labels else may be."""
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

    # Contexts

    def _see_contexts(self) -> None:
        """Find each cell's context, and count the cells of each context and target."""
        self.contexts, self.present = None, pd.Index([], dtype=object)
        self.have = self.wanted = None
        if self.context_key in self.cells.obs:
            self.contexts = plain_labels(self.cells.obs[self.context_key], self.asked or ())
            self.present = self.contexts.unique().drop("", errors="ignore").sort_values()
        if self.contexts is not None and self.labels is not None:
            self._count_pairs()

    def _count_pairs(self) -> None:
        """Count cells of each context and target, and say how many there should be."""
        here = self.present if self.asked is None else self.compared
        keep = ~self.labels.isin([self.control, ""])
        pairs = pd.MultiIndex.from_arrays([self.contexts[keep], self.labels[keep]])
        have = pd.Series(1, pairs).groupby(level=[0, 1]).size()
        each = self.n_cells
        if each is None:
            each = pd.Series(self.rules.cells_a_target, have.index.unique(1))
        if each.index.nlevels > 1:
            wanted = each[each.index.isin(here, level=0)]
        else:
            wanted = pd.concat(dict.fromkeys(here, each)) if len(here) else None
        if wanted is not None and len(wanted):
            self.wanted = wanted
            self.have = have[have.index.isin(wanted.index.unique(0), level=0)]

    def _see_groups(self) -> None:
        """Give each cell the number of its label, or of the pair of its label and context."""
        self.groups, self.codes = pd.Index([]), np.full(self.cells.n_obs, -1)
        self.group_context = np.array([])
        if self.labels is None:
            return
        names, known = self.labels, self.labels != ""
        if self.contexts is not None:
            names = self.labels + " in " + self.contexts
            known &= (self.labels != self.control) & (self.contexts != "")
        self.groups = names[known].unique()
        self.codes = self.groups.get_indexer(names)
        if self.contexts is not None:
            self.group_context = self.contexts[known][~names[known].duplicated()].to_numpy()

    @property
    def compared(self) -> list[str]:
        """The contexts to be predicted that are in the file."""
        return [label for label in self.asked if label in self.present]

    def no_context_column(self) -> dict | None:
        """Tell where the contexts may be, if not in their column."""
        obs = self.cells.obs
        if self.labels is None or self.context_key in (None, *obs):
            return None
        likely = [c for c in obs if self.asked and set(self.asked) == set(obs[c].astype(str))]
        hint = f", or name obs[{likely[0]!r}] with context_key=" if likely else ""
        return {"hint": hint}

    def unknown_contexts(self) -> dict | None:
        """Find contexts that are not asked; they may be those of the season's other phase."""
        if self.asked is None or not len(strange := self.present.difference(self.asked)):
            return None
        phases = self.rules.phases.items()
        other = [name for name, labels in phases if set(strange) <= set(labels)]
        hint = f"; these are contexts of the {other[0]} phase" if other else ""
        of_phase = any(set(self.asked) <= set(labels) for _, labels in phases)
        wrong = other and of_phase and not self.compared
        hint += ", so the file is of the other phase" if wrong else ""
        return _of(strange, len(self.present), asked=some_of(self.asked), hint=hint)

    def missing_contexts(self) -> dict | None:
        """Find contexts to be predicted and not in the file, if any is."""
        if self.asked is None or not self.compared:
            return None
        return _of([x for x in self.asked if x not in self.present], len(self.asked))

    def unlisted_contexts(self) -> list[str]:
        """Find contexts that the list of targets, which names contexts, does not have."""
        if self.n_cells is None or self.n_cells.index.nlevels == 1:
            return []
        listed = self.n_cells.index.unique(0)
        return [x for x in self.present if x not in listed and x in (self.asked or [x])]

    def missing_pairs(self) -> dict | None:
        """Find targets that are missing in some contexts, but not in all."""
        if self.wanted is None:
            return None
        pairs = self.wanted.index.difference(self.have.index, sort=False)
        pairs = _without(pairs, self.same_targets.missing)
        return _of(map(_in_context, pairs), len(self.wanted))

    def unknown_pairs(self) -> dict | None:
        """Find targets to be predicted in other contexts only."""
        if self.wanted is None:
            return None
        pairs = self.have.index.difference(self.wanted.index, sort=False)
        return _of(map(_in_context, _without(pairs, self.same_targets.unknown)), len(self.have))

    def fixed_numbers(self) -> dict | None:
        """Compare numbers of cells of each target and context with the one that is fixed."""
        if self.wanted is None:
            return None
        both = self.wanted.index.intersection(self.have.index, sort=False)
        have, wanted = self.have.reindex(both), self.wanted.reindex(both)
        wrong = (have != wanted).to_numpy()
        each = "/".join(map(str, sorted(wanted[wrong].unique())))
        pairs = [f"{_in_context(pair)}: {n}" for pair, n in have[wrong].items()]
        return _of(pairs, len(both), each=each)

    # Values

    def _see_values(self) -> None:
        """Look at every value once; which cells have fractions, and which are 0 in every gene?"""
        rules, progress = self.rules, self.progress
        how = {"tolerance": rules.tolerance, "single": rules.counts_only}  # as they are packed
        self.scan = scan(self.cells, self.codes, **how, progress=progress)
        of = self.of = self.scan.of_cells
        self.fractional = (of["fractional"] > 0).to_numpy()
        self.empty = (of["filled"] == 0).to_numpy()
        self.scale = "lognorm" if self.fractional.any() else "counts"
        self.reach = of["largest"].max()
        self.nearly_whole = of["nearly_whole"].sum() / max(of["filled"].sum(), 1)
        self.noisy = bool(self.fractional.any() and self.nearly_whole >= _NOISE_SHARE)

    def then(self, silent: str) -> str:
        """Say what becomes of fractions: nothing stops cell-eval 0.6.6 below the limit."""
        if self.rules.counts_only:
            return f"{self.rules.tool} refuses the file"
        return f"cell-eval {silent if self.reach < LOGNORM_LIMIT else 'refuses the file'}"

    @property
    def elsewhere(self) -> str:
        """Other tables with a column per gene, where a model may have put its prediction."""
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
        marks = self.of["signature"].groupby(self.codes)
        return {self.groups[i]: m for i, m in marks if i >= 0 and self.groups[i] != self.control}

    def alike_cells(self, some: bool) -> dict:
        """Find targets whose cells are all alike, or of which too many repeat others."""
        alike = {g: len(m) > 1 == m.nunique() for g, m in self.marks.items()}
        if some:
            share = {g: likeness.repeated(m) for g, m in self.marks.items()}
            alike = {g: share[g] > likeness.REPEATED and not alike[g] for g in share}
        return _of([g for g in alike if alike[g]], len(alike))

    @cached_property
    def copies(self) -> list[str]:
        """Targets whose cells are all control cells, too."""
        if not self.marks or self.contexts is not None:
            return []
        controls = self.of["signature"][self.labels == self.control]
        return [g for g, marks in self.marks.items() if marks.isin(controls).all()]

    @cached_property
    def means(self) -> dict[str, tuple[np.ndarray, int]]:
        """The sum of each group's cells, ``(n_genes,)``, and their number, but for copies."""
        sizes = np.bincount(self.codes[self.codes >= 0], minlength=len(self.groups))
        total = zip(self.groups, self.scan.group_total, sizes, strict=False)
        return {name: (mean, size) for name, mean, size in total if name not in self.copies}

    def like_controls(self) -> dict | None:
        """Find targets that have the controls' mean."""
        if self.control not in self.groups:
            return None
        targets = [name for name in self.means if name != self.control]
        same = [name for name in targets if self.same_mean(name, self.control)]
        return _of(same, len(targets))

    def one_mean(self) -> dict | None:
        """Count the targets, if all have one mean, in the file or in a context."""
        of = dict(zip(self.groups, self.group_context, strict=False))
        parts = {}
        for name in (x for x in self.means if x != self.control):
            parts.setdefault(of.get(name), []).append(name)
        for context, (first, *others) in parts.items():
            if others and all(self.same_mean(name, first) for name in others):
                return {"n": 1 + len(others), "where": f" of context {context!r}" if of else ""}
        return None

    def same_mean(self, one: str, other: str) -> bool:
        """Tell whether two groups have one mean, but for rounding."""
        one, other = (total / size for total, size in (self.means[one], self.means[other]))
        return bool(abs(one - other).max() <= 1e-5 * max(abs(other).max(), 1e-12))

    @cached_property
    def sides(self) -> dict[str, likeness.Side]:
        """What is compared of each context that has cells."""
        found = {}
        for context in () if self.scan.bad else np.unique(self.group_context):
            rows = np.asarray(self.contexts == context) & (self.codes >= 0)
            total = self.scan.group_total[:-1][self.group_context == context].sum(axis=0)
            found[context] = likeness.Side(*self.of.loc[rows, likeness.COLUMNS].to_numpy().T, total)
        return found

    @cached_property
    def real(self) -> dict[str, likeness.Side]:
        """What is compared of the controls of each context, where they have the file's genes."""
        found = {c: likeness.side_of(x, self.symbols) for c, x in (self.controls or {}).items()}
        return {context: side for context, side in found.items() if side is not None}

    def marked(self, marks: np.ndarray) -> dict | None:
        """Count the cells that have one of these marks, and name some of their groups."""
        which = self.of["signature"].isin(marks[marks != 0]) & (self.codes >= 0)
        groups = self.groups[np.unique(self.codes[which])]
        return which.any() and _of(groups, len(self.groups)) | {"n": which.sum(), "all": len(which)}

    def elsewhere_nearest(self) -> dict:
        """Find contexts that are predicted like another's controls."""
        near = likeness.nearest(self.sides, self.real)
        swapped = [c for c, other in near.items() if near.get(other) == c]
        hint = "are two labels swapped?" if swapped else "did the model see each context's own?"
        names = [f"{c} nearest to those of {other}" for c, other in near.items()]
        return _of(names, len(self.sides), hint=hint)


def _spread_out(which: np.ndarray, n: int) -> np.ndarray:
    """Return the numbers of at most `n` of those that are meant, at equal distances."""
    these = np.flatnonzero(which)
    return these[np.linspace(0, len(these) - 1, min(n, len(these))).astype(int)]


def _of(names, of: int, **more) -> dict:
    """Words for some of a number of things; none if there are no names."""
    names = list(names)
    few = "; ".join(map(str, names[:3]))
    return {"n": len(names), "of": of, "some": some_of(names), "few": few, **more} if names else {}


def _in_context(pair: tuple[str, str]) -> str:
    context, target = pair
    return f"{target} in {context}"


def _without(pairs: pd.MultiIndex, targets: list[str]) -> pd.MultiIndex:
    return pairs[~pairs.isin(targets, level=1)]


def _missing(same: Match, wanted: pd.Index | None) -> dict:
    pairs = [f"{old!r} for {new!r}" for old, new in same.near.items()]
    guesses = f" (perhaps {', '.join(pairs[:3])})" if pairs else ""
    return same.missing and _of(same.missing, len(wanted), guesses=guesses)


def _unknown(same: Match) -> dict:
    """Words for names that are not wanted; guides are taken for their target's name."""
    guides = [x for x in same.unknown if _GUIDE.search(x)]
    hint = f" (a guide's name, {guides[0]!r}, is not the target's)" if guides else ""
    return _of(same.unknown, len(same.unknown), hint=hint)


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


def _followed(rules: Preset) -> dict[str, str]:
    """Say what follows where the tool of 2025 does not simply refuse the file."""
    if rules.context_key is None:
        return _FOLLOWS_2025
    return dict.fromkeys(_FOLLOWS_2025, f"{rules.tool} refuses the file")


def problems(seen: Seen) -> Iterator[Problem]:
    """Hold a prediction against each rule."""
    told, always = set(), {"s": seen, **_LIMITS, **_followed(seen.rules)}
    always["tolerance"] = seen.rules.tolerance or FRACTION_TOLERANCE
    for rule in _RULES:
        found = rule.see(seen) if rule.chain not in told else None
        if isinstance(found, list):
            found = _of(found, len(found))
        if found:
            told |= {rule.chain} - {""}
            words = {**always, **(found if isinstance(found, dict) else {})}
            text, fix = rule.tell.format(**words), rule.fix.format(**words)
            yield Problem(rule.kind, f"pred: {text}", rule.refused, fix)


def _other_scale(kind: str, scale: str, mend: str, look: str = "") -> _Rule:
    """Make the rule against a scale that the values give away."""
    look = look or f"look like {scale}: {{why}}"
    tell = f"{{who}} {look}; {{then}}; {mend}"
    return _Rule(kind, lambda s: s.on_scale(scale), tell, chain="scale")


#: What a prediction is held against; the order is that of the report.
_RULES = (
    # Genes
    _Rule("list of genes", lambda s: s.strange_list,
        "only {n} of the {of} names of the list of genes are in the file: the list has {there}, "
        "the file {here}; give the list of these genes (or a table with a column of such names)"),
    _Rule("repeated genes", lambda s: s.repeated_genes,
        "{n} gene names{s.where} occur more than once: {some}; {s.rules.tool} refuses the file; "
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
        "{n} genes are spelt otherwise: {some}; {s.rules.tool} refuses the file; rename them",
        fix="{n} genes renamed"),
    _Rule("missing genes", lambda s: _missing(s.same_genes, s.genes),
        "{n} of {of} genes are missing: {some}{guesses}; {s.rules.tool} refuses the file; predict "
        "every gene (the controls' mean is the prediction of no change)"),
    _Rule("unknown genes", lambda s: s.same_genes.unknown,
        "{n} genes are not in the official list: {some}; {s.rules.tool} refuses the file; drop "
        "them, of counts before anything is scaled"),
    _remark("gene order", lambda s: s.rules.context_key and s.out_of_order(),
        "genes are in another order: position {place} is {here!r}, expected {expected!r}; "
        "vcc-helpers prep and {s.rules.tool} put them in order, other scorers may not",
        fix="genes put in order", chain="order"),
    _Rule("gene order", Seen.out_of_order,
        "genes are in another order: position {place} is {here!r}, expected {expected!r}; "
        "cell-eval prep puts them in order, other scorers compare each gene with another; "
        "reorder with pred[:, genes]", fix="genes put in order", chain="order"),
    # Labels
    _Rule("label column", Seen.no_column,
        "obs has no column {s.key!r}; it has {some}{hint}; {s.rules.tool} refuses the file; "
        "rename the column, or name it with perturbation_key=", fix="{fix}"),
    _Rule("missing labels", Seen.unlabelled,
        "{n} of {s.cells.n_obs} cells have no label in obs[{s.key!r}], the first is "
        "{cell!r}{text}; {later}; label or remove them"),
    _Rule("spaces", lambda s: s.column is not None and spaced_labels(s.column),
        "{n} labels have spaces around them: {some}; {of_spaces}; remove the spaces",
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
        "{n} targets are spelt otherwise: {some}; {later}; rename the labels",
        fix="{n} labels renamed"),
    _Rule("missing targets", lambda s: _missing(s.same_targets, s.targets),
        "{n} of {of} targets are missing: {some}{guesses}; {later}; predict every target"),
    _Rule("unknown targets", lambda s: _unknown(s.same_targets),
        "{n} targets were not asked for: {some}{hint}; {later}; leave them out"),
    _remark("cells per target", Seen.free_numbers,
        "{n} of {of} targets have another number of cells than announced ({few}); that is "
        "allowed, but the test calls more genes the more cells there are, in your file as in the "
        "truth"),
    # Contexts
    _remark("season", lambda s: not s.rules.context_key and has_several(s.cells)
        and sorted(s.cells.obs[CONTEXT_KEY].astype(str).unique()),
        "obs has {n} contexts ({some}), and the rules of {s.rules.name} know one; if it is a file "
        "of 2026, check it with preset='vcc2026' (--preset vcc2026)"),
    _Rule("context", Seen.no_context_column,
        "obs has no column {s.context_key!r}; the rules of {s.rules.name} want each cell's "
        "context there, named as in the control files; add it{hint}"),
    _Rule("cells without context",
        lambda s: s.contexts is not None and s.first(s.contexts == ""),
        "{n} of {s.cells.n_obs} cells have no context in obs[{s.context_key!r}], the first is "
        "{cell!r}; {s.rules.tool} refuses the file; name their context, or remove them"),
    _Rule("spaces of contexts",
        lambda s: s.contexts is not None and spaced_labels(s.cells.obs[s.context_key]),
        "{n} contexts have spaces around them: {some}; {s.rules.tool} takes each for an unknown "
        "one, and refuses the file; remove the spaces", fix="spaces around {n} contexts removed"),
    _remark("contexts", lambda s: s.asked is None and list(s.present),
        "which contexts are wanted is not known, so those of the file are taken: {some}; name them "
        "with contexts= or --contexts, or keep the bundle's manifest.json next to its lists"),
    _Rule("unknown contexts", Seen.unknown_contexts,
        "{n} of {of} contexts are not asked: {some}; asked are {asked}{hint}; {s.rules.tool} "
        "refuses the file; predict the contexts that are wanted, named as in the control files"),
    _Rule("missing contexts", Seen.missing_contexts,
        "{n} of {of} contexts are missing: {some}; {s.rules.tool} refuses the file, for one file "
        "holds all contexts; predict every target in each"),
    _Rule("contexts without targets", Seen.unlisted_contexts,
        "the list of targets names none for {n} contexts: {some}; {s.rules.tool} refuses the "
        "file; give the list that belongs to these contexts"),
    _Rule("targets missing in a context", Seen.missing_pairs,
        "{n} of {of} pairs of target and context are missing: {some}; {s.rules.tool} refuses the "
        "file; predict every target in every context"),
    _Rule("targets unknown in a context", Seen.unknown_pairs,
        "{n} of {of} pairs of target and context were not asked for: {some}; {s.rules.tool} "
        "refuses the file; leave them out"),
    _Rule("cells per target", Seen.fixed_numbers,
        "{n} of {of} targets have not exactly {each} cells in each context ({few}); the upload is "
        "refused; make {each} of each"),
    # Form
    _Rule("too many cells",
        lambda s: s.rules.cells_a_target and s.cells.n_obs > (s.rules.most_cells or np.inf),
        "{s.cells.n_obs:,} cells, more than the {s.rules.most_cells:,} that may be handed in; "
        "{s.rules.tool} refuses the file; leave out what is not asked for", chain="size"),
    _Rule("too many cells", lambda s: s.cells.n_obs > (s.rules.most_cells or np.inf),
        "{s.cells.n_obs:,} cells, more than the {s.rules.most_cells:,} that may be handed in "
        "(100,000 before October 2025); the upload is refused; keep fewer of each target: "
        "submission.thin says which", chain="size"),
    _remark("type of values", lambda s: stored_matrix(s.cells).dtype == np.float16,
        "X is float16, which holds three digits, and no whole number above 2,048 exactly; the "
        "lost digits cannot come back: make the prediction in float32"),
    _remark("reserved names", Seen.reserved_names,
        "AnnData cannot write what is called {some}: it keeps such names for itself; rename it",
        fix="{n} names that AnnData keeps for itself replaced"),
    _remark("names of cells", lambda s: list(s.cells.obs_names[s.cells.obs_names.duplicated()]),
        "{n} names of cells occur again; nothing follows, vcc-helpers prep and {s.rules.tool} "
        "number the cells anew"),
    # Values
    _Rule("NaN values", lambda s: s.bad("NaN"),
        "NaN values, the first in cell {cell!r}, gene {gene!r}; every mean and rank of that gene "
        "is lost; {of_nan}; find out where they come from"),
    _Rule("infinite values", lambda s: s.bad("infinite"),
        "infinite values, the first in cell {cell!r}, gene {gene!r}; every mean of that gene is "
        "lost; {of_infinite}; find out where they come from"),
    _Rule("too large values", lambda s: s.bad("too large"),
        "the values of cell {cell!r} add up to more than their type holds; no total can be scaled "
        "by that, and every mean is lost; {of_large}; predict counts of real cells"),
    _Rule("negative values", lambda s: s.bad("negative"),
        "negative values, the first in cell {cell!r}, gene {gene!r}; neither counts nor lognorm "
        "go below 0; {of_negative}; {hint}"),
    _Rule("stored values", lambda s: s.scan.n_stored > (s.rules.most_entries or np.inf),
        "{s.scan.n_stored:,} values are stored, more than the {s.rules.most_entries:,} allowed; "
        "the upload is refused; store X as CSR, without zeros"),
    _Rule("all zero", lambda s: s.empty.all(),
        "all values are 0{s.elsewhere}; expected predicted expression", chain="empty"),
    _Rule("empty targets", Seen.empty_targets,
        "of {n} labels every cell is 0 in every gene: {some}; {of_empty}; predict them"),
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
        "fractions above {tolerance}: counts with noise; {then}; round them: pred.X = "
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
        "values; {then}; {hint}", chain="scale"),
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
    _remark("identical cells", lambda s: s.alike_cells(some=False),
        "the cells of {n} of {of} targets are all alike: {some}; allowed, and the official "
        "baseline does it, but without spread the test calls far more genes than real cells "
        "would; DES does not punish that, readers may"),
    _remark("repeated cells", lambda s: s.rules.context_key and s.alike_cells(some=True),
        "in {n} of {of} targets more than {repeated:.0%} of the cells repeat others: {some}; the "
        "test takes each for a new measurement, and calls genes that do not change; draw new cells "
        "in place of repeating some"),
    _remark("copies of controls", lambda s: _of(s.copies, len(s.marks)),
        "of {n} of {of} targets each cell is also a control cell: {some}; that predicts no "
        "change, as some tools do without a word for targets that they do not know; check that "
        "these were meant{s.elsewhere}"),
    _remark("no change", Seen.like_controls,
        "{n} of {of} targets have the controls' mean: {some}; that predicts no change; check that "
        "it was meant"),
    _remark("one prediction", Seen.one_mean,
        "all {n} targets{where} have the same mean: nothing tells one from another, and PDS is "
        "that of chance; the model may have lost its input"),
    # Contexts next to each other, and to the real controls where these are given
    _remark("cells of two contexts", lambda s: s.marked(likeness.in_several(s.sides)),
        "{n} of {all} cells are in two contexts, value for value: {some}; lines differ, so at "
        "least one of them is predicted by another's cells; predict each context from its own "
        "controls", chain="contexts"),
    _remark("contexts alike", lambda s: likeness.alike(s.sides),
        "the mean cells of {n} pairs of contexts differ no more than two draws of one prediction "
        "do: {some}; lines differ, and each is scored on its own; predict each context from its "
        "own controls", chain="contexts"),
    _remark("nearest controls", Seen.elsewhere_nearest,
        "{n} of {of} contexts are predicted less like their own controls than like another's: "
        "{some}; no tool can tell, and each is scored against the cells of its label; {hint}"),
    _remark("control cells",
        lambda s: s.real and s.marked(np.concatenate([x.mark for x in s.real.values()])),
        "{n} of {all} cells are control cells of the bundle, value for value: {some}; the season's "
        "rules want predictions of a model, and controls handed in score -.3; predict these "
        "targets"),
    _remark("library size", lambda s: likeness.other_depth(s.sides, s.real),
        "the median counts of a cell are more than {depth} times the controls', or fewer by that, "
        "in {n} contexts ({few}); the test then calls genes for the depth alone, also of a target "
        "that changes nothing; draw depths from the context's controls"),
)  # fmt: skip
