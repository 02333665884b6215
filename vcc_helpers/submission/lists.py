"""Lists that come with a challenge: genes in order, targets with their numbers of cells, contexts.

Official lists are plain: a name a line. Others have an index column, a header, semicolons, or
identifiers first. Which column is meant is told by the file that the list is compared with.

A FileNotFoundError says that there is no such list; a ValueError that it cannot be read, is empty,
lacks a column, names something twice, or wants a number of cells that is not whole, or below 1.

Taught in: notebooks/06_check_and_pack.

>>> read_genes(["SOX2", "TET1"]).tolist()
['SOX2', 'TET1']
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..presets import VCC2025, Preset

#: Words of a first line that is a header; R calls a nameless column x, or V1.
_HEADER = {
    *("gene", "genes", "symbol", "symbols", "name", "names", "feature", "features", "id", "ids"),
    *("ensembl", "hgnc", "index", "target", "var", "x"),
}
#: What says, next to the lists of a bundle, which contexts are wanted.
MANIFEST = "manifest.json"
#: No list of names is larger, in bytes.
_LARGEST = 2**26
#: Nor has one more columns.
_MOST_COLUMNS = 1000
#: Nor is a manifest larger, in bytes.
_LARGEST_MANIFEST = 2**18


def read_genes(
    genes: Iterable[str] | str | Path | None, *, like: Iterable[pd.Index] = ()
) -> pd.Index | None:
    """Return the expected genes in order; None passes through.

    `genes` is names, or the path of a text file: one name a line, or a table (comma, semicolon or
    tab). `like` is names that the file to be checked has, the likeliest first: they tell which
    column of a table is meant, upper and lower case apart. Where none fits, it is the first.
    """
    if genes is None:
        return None
    source = "genes"
    if isinstance(genes, str | Path):
        source, genes = str(genes), _best_column(genes, [set(names) for names in like])
    names = pd.Index([str(gene) for gene in genes], dtype=object)
    if names.empty:
        raise ValueError(f"{source} holds no gene names; expected one a line")
    if names.has_duplicates:
        twice = some_of(names[names.duplicated()].unique())
        raise ValueError(f"{source} names {twice} more than once; expected each gene once")
    return names


def _best_column(path: str | Path, like: list[set]) -> list[str]:
    columns = list(_columns(_rows(path)))
    # each name of a list is there once, but for a slip; a column of numbers counts the rows
    likely = [c for c in columns if len(set(c)) > 0.9 * len(c) and not all(map(str.isdecimal, c))]
    for names in like:
        best = max(likely, key=partial(_common, names), default=[])
        if _common(names, best) > 0.5:
            return best
    return columns[0] if columns else []


def _common(names: set, column: list[str]) -> float:
    """Share that two lists have in common, of the shorter: a file may hold a choice of genes."""
    one, other = ({str(name).upper() for name in some} for some in (names, column))
    return len(one & other) / max(min(len(one), len(other)), 1)


def _columns(rows: list[list[str]]) -> Iterator[list[str]]:
    """Yield each column without its header and without empty cells."""
    columns = list(zip_longest(*rows, fillvalue=""))
    numbered = any(len(column) > 1 and column[1] and not column[0] for column in columns)
    for column in columns:
        if numbered or _is_header(column[0]):
            column = column[1:]
        yield [name for name in column if name]


def _is_header(text: str) -> bool:
    if " " in text or re.fullmatch(r"V\d", text):
        return True
    numbered = re.search(r"\d", text)  # ID1 is a gene
    return not numbered and not _HEADER.isdisjoint(re.findall("[a-z]+", text.lower()))


def _rows(path: str | Path) -> list[list[str]]:
    """Read a table of text; its separator is the one that the first line has most of."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is too large for a list of names; was a file of cells meant?")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        first = next((line for line in lines if line.strip()), "")
        rows = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
        table = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read as a table of text ({error}); save it as CSV, in UTF-8"
        ) from error
    if (most := max(map(len, table), default=0)) > _MOST_COLUMNS:
        raise ValueError(f"{path} has {most:,} columns; expected a list of names, one a line")
    # all but the header may be longer: R leaves out the name of the column that counts the rows
    if len(odd := [row for row in table[1:] if len(row) > len(table[0])]) % max(len(table) - 1, 1):
        raise ValueError(
            f"{path}: {len(odd)} of {len(table) - 1} lines have more columns than the first line, "
            f"such as {','.join(odd[0])!r}; one separator too many, or a name that needs quotes?"
        )
    return table


def read_counts(
    counts: pd.Series | Mapping[str, int] | str | Path | None,
    *,
    control: str = CONTROL,
    rules: Preset = VCC2025,
) -> pd.Series | None:
    """Return how many cells each target should have, index target_gene; None passes through.

    `counts` is a table, or the path of a text file with the columns ``target_gene`` and
    ``n_cells``. A row of the label `control` is left out, as controls are no target. By rules that
    fix the number of cells, a table without ``n_cells``, or a row without a number of 1 or more,
    means that one; by those that know contexts, a column ``context`` is read, and the index is
    context and target_gene. A row that only repeats another one is passed over.
    """
    if counts is None:
        return None
    source = "counts"
    if isinstance(counts, str | Path):
        source, counts = str(counts), _table_of_counts(counts, rules)
    n_cells = pd.Series(counts)
    n_cells = n_cells[_targets(n_cells) != control]
    if n_cells.empty:
        raise ValueError(f"{source} names no targets; expected one a line")
    numbers = pd.to_numeric(n_cells, errors="coerce")
    if rules.cells_a_target:
        numbers = numbers.where(numbers >= 1, rules.cells_a_target)
    copies = n_cells.index.to_frame(index=False).assign(number=numbers.to_numpy()).duplicated()
    copies = copies.to_numpy()
    n_cells, numbers = n_cells[~copies], numbers[~copies]
    names = _targets(n_cells)
    unsound = ~numbers.between(1, 2**53) | (numbers % 1 != 0)
    if wrong := names[unsound.to_numpy()].tolist():
        raise ValueError(
            f"{source}: the numbers of cells of {some_of(wrong)} are not whole numbers of 1 or more"
        )
    if n_cells.index.has_duplicates:
        twice = some_of(names[n_cells.index.duplicated()].unique())
        raise ValueError(f"{source} names {twice} more than once; expected each target once")
    index = n_cells.index if n_cells.index.nlevels > 1 else names
    return numbers.astype(int).set_axis(index)


def _targets(n_cells: pd.Series) -> pd.Index:
    return n_cells.index.get_level_values(-1).astype(str)


def _table_of_counts(path: str | Path, rules: Preset) -> pd.Series:
    header, *rows = _rows(path) or [[]]
    optional = {"n_cells"} if rules.cells_a_target else set()
    if missing := {PERTURBATION_KEY, "n_cells"} - optional - set(header):
        raise ValueError(
            f"{path} has no column {some_of(sorted(missing))}; it has {some_of(header)}; expected "
            f"target_gene{'' if optional else ' and n_cells'}"
        )
    if twice := [name for name in (PERTURBATION_KEY, "n_cells") if header.count(name) > 1]:
        raise ValueError(f"{path} has more than one column {some_of(twice)}; keep one")
    columns = list(zip_longest(*rows, fillvalue=""))  # a line may be shorter
    table = pd.DataFrame(dict(enumerate(columns)), dtype=object)
    table = table.reindex(columns=range(len(header))).fillna("")
    table = table.set_axis(header, axis=1)
    if "n_cells" not in table:
        table["n_cells"] = rules.cells_a_target
    keys = [PERTURBATION_KEY]
    if rules.context_key in header:
        keys.insert(0, rules.context_key)
    return table.set_index(keys if len(keys) > 1 else keys[0])["n_cells"]


def read_contexts(
    contexts: Iterable[str] | str | None, rules: Preset, *lists: object
) -> tuple[str, ...] | None:
    """Return the contexts to be predicted: those given, else those of the manifest of a list.

    None where neither tells, or the rules know one context only.
    """
    if rules.context_key is None:
        if contexts is not None:
            raise ValueError(f"the rules of {rules.name} know one context; leave contexts out")
        return None
    if contexts is None:
        manifest = read_manifest(*lists)
        return manifest and manifest.contexts
    words = contexts.split(",") if isinstance(contexts, str) else map(str, contexts)
    found = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not found:
        raise ValueError("contexts are empty; expected labels such as A,B,C")
    return found


class Manifest(NamedTuple):
    """What is read of the ``manifest.json`` of a bundle: the contexts asked, and the panel."""

    contexts: tuple[str, ...]
    panel_id: str | None


def read_manifest(*lists: object) -> Manifest | None:
    """Return what the first ``manifest.json`` next to one of the lists says; None if none tells."""
    for path in lists:
        if not isinstance(path, str | Path):
            continue
        if found := load_manifest(Path(path).resolve().with_name(MANIFEST)):
            panel = found.get("panel_id")
            contexts = tuple(label.strip() for label in found["contexts"])
            return Manifest(contexts, panel if _is_name(panel) else None)
    return None


def load_manifest(path: Path) -> dict | None:
    """Return what a manifest says; None if it is none, which names contexts."""
    try:
        small = path.is_file() and path.stat().st_size <= _LARGEST_MANIFEST
        found = json.loads(path.read_text(encoding="utf-8")) if small else {}
        contexts = found["contexts"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    names = contexts and isinstance(contexts, list) and all(map(_is_name, contexts))
    return found if names else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def fingerprint(counts: pd.Series | Mapping[str, int] | str | Path) -> str:
    """Return the mark of a list of targets that an archive of 2026 carries; the order is all one.

    SHA-256 of the names, sorted, a line each, a row of controls among them.
    """
    if isinstance(counts, str | Path):
        header, *rows = _rows(counts)
        names = {name for row in rows for name in row[header.index(PERTURBATION_KEY) :][:1]}
    else:
        names = set(_targets(pd.Series(counts)))
    text = "\n".join(sorted(names - {""}))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
