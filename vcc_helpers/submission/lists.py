"""Lists that come with a challenge: genes in order, and targets with their numbers of cells.

Official lists are plain: a name a line. Others have an index column, a header, semicolons, or
identifiers first. Which column is meant is told by the file that the list is compared with.

A FileNotFoundError says that there is no such list; a ValueError that it cannot be read, is empty,
lacks a column, names something twice, or wants a number of cells that is not whole, or below 1.

Taught in: notebooks/17_check_and_pack.

>>> read_genes(["SOX2", "TET1"]).tolist()
['SOX2', 'TET1']
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from ..bulk import CONTROL, some_of

#: Words of a first line that is a header; R calls a nameless column x, or V1.
_HEADER = {
    *("gene", "genes", "symbol", "symbols", "name", "names", "feature", "features", "id", "ids"),
    *("ensembl", "hgnc", "index", "target", "var", "x"),
}
#: No list of names is larger, in bytes.
_LARGEST = 2**26
#: Nor has one more columns.
_MOST_COLUMNS = 1000


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
        rows = csv.reader(lines, delimiter=max(",;\t", key=first.count))
        table = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of text ({error})") from error
    if (most := max(map(len, table), default=0)) > _MOST_COLUMNS:
        raise ValueError(f"{path} has {most:,} columns; expected a list of names, one a line")
    return table


def read_counts(
    counts: pd.Series | Mapping[str, int] | str | Path | None, *, control: str = CONTROL
) -> pd.Series | None:
    """Return how many cells each target should have, index target_gene; None passes through.

    `counts` is a table, or the path of a text file with the columns ``target_gene`` and
    ``n_cells``. A row of the label `control` is left out, as controls are no target.
    """
    if counts is None:
        return None
    source = "counts"
    if isinstance(counts, str | Path):
        source, (header, *rows) = str(counts), _rows(counts) or [[]]
        if missing := {"target_gene", "n_cells"} - set(header):
            raise ValueError(
                f"{source} has no column {some_of(sorted(missing))}; it has {some_of(header)}; "
                "expected target_gene and n_cells"
            )
        if twice := [name for name in ("target_gene", "n_cells") if header.count(name) > 1]:
            raise ValueError(f"{source} has more than one column {some_of(twice)}; keep one")
        table = pd.DataFrame(rows, dtype=object).reindex(columns=range(len(header))).fillna("")
        counts = table.set_axis(header, axis=1).set_index("target_gene")["n_cells"]
    n_cells = pd.Series(counts)
    n_cells = n_cells[n_cells.index.astype(str) != control]
    numbers = pd.to_numeric(n_cells, errors="coerce")
    if wrong := n_cells.index[~numbers.between(1, 2**53) | (numbers % 1 != 0)].astype(str).tolist():
        raise ValueError(
            f"{source}: the numbers of cells of {some_of(wrong)} are not whole numbers of 1 or more"
        )
    if n_cells.index.has_duplicates:
        twice = some_of(n_cells.index[n_cells.index.duplicated()].unique())
        raise ValueError(f"{source} names {twice} more than once; expected each target once")
    return numbers.astype(int).set_axis(n_cells.index.astype(str))
