"""A panel: some cells of each target of a file, fetched without the rest of it.

The official files hold their counts as CSR, not compressed, and their server sends any bytes of a
file that one requests. So the place of every cell's counts can be computed from the file's own
row pointers, and only the chosen cells travel; of a file whose chunks are compressed, the chunks
with chosen cells.

Taught in: notebooks/03_predict_with_baselines.

>>> labels = np.array(["A", "A", "A", "non-targeting"])
>>> labels[choose(labels, cells_per_target=2, controls=1, seed=0)].tolist()
['A', 'A', 'non-targeting']
"""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from glob import escape
from itertools import pairwise, starmap
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse
from tqdm.auto import tqdm

from ..bulk import CONTROL, some_of
from ..stream.blocks import ahead
from ..stream.guard import check_hdf5, check_zarr
from ..stream.write import full_disk_explained, replacing, write_cells
from ._download import Wanted, amount
from ._layouts import _PERTURBATION_KEYS
from ._remote import THREADS, Blocks, Member, Remote, Stored, merged

#: Rows that are drawn together; cells in a part; most bytes between chosen cells that travel with
#: them, as a share of the cells' own.
WINDOW, CELLS, BETWEEN = 16, 256, 0.08
#: Files of the support set with cells of other lines; the others are H1 again, a second screen of
#: K562 and a template.
LINES = ("hepg2", "jurkat", "k562", "rpe1")
#: Figures of the official training file: the profile in the GitHub project
#: yjcyxky/virtual-cell-challenge (2026-09-14).
_PUBLISHED = {
    "targets": "150",
    "genes": "18,080",
    "control cells": "38,176",
    "cells per target, quartiles": "33 / 590 / 1,045 / 1,742 / 4,760",
    "batches": "48",
    "counts per cell, 5, 50 and 95 %": "29,431 / 53,912 / 93,741",
    "genes detected, median": "8,761",
    "values that are not 0": "48.3%",
}


class Empty(ValueError):
    """No cell of a file is among those that are wanted."""


def choose(
    labels: np.ndarray,
    *,
    cells_per_target: int,
    controls: int,
    seed: int,
    control: str = CONTROL,
) -> np.ndarray:
    """Draw cells of each target, and controls; of a target with fewer, all. Return rows, ascending.

    Windows of 16 neighbouring rows are taken in random order, and in each the cells of targets that
    still need some. Each cell of a target is as likely as any other, but the chosen cells lie
    together, so that a third of the requests bring them. A window holds one cell in three of the
    most frequent target of the H1 files: its 60 cells come from some 170 places, and all batches.
    A label of None is passed over.
    """
    rng, rows = np.random.default_rng(seed), np.arange(len(labels))
    windows = (rows + rng.integers(WINDOW)) // WINDOW
    turn = rng.permutation(len(labels) // WINDOW + 2)[windows]
    order = np.lexsort((rng.random(len(labels)), turn))
    drawn = pd.Series(labels[order], dtype=object)
    place = drawn.groupby(drawn).cumcount()
    most = np.where(drawn == control, controls, cells_per_target)
    return np.sort(order[drawn.notna() & (place < most)])


def fetch(
    source: str | Path,
    wanted: Wanted,
    how: Mapping,
    *,
    genes: Sequence[str] | None,
    n_bytes: int | None = None,
    counts: bool = True,
    several: bool = False,
) -> Path:
    """Fetch a panel of a file or Zarr store, at an address or a path, under its final name.

    `how` holds ``cells_per_target``, ``controls`` and ``seed``, and as far as they are not the
    usual ones ``perturbation_key``, ``control``, ``only`` and ``columns``. `n_bytes` says how large
    the file must be, `counts` that its values must be counts, `several` that it is one of several
    files and may lack some of what ``only`` names.
    """
    how = dict(how)
    with wanted.alone():
        if wanted.target.exists():
            return _the_same(wanted.target, _told(how, genes, source))
        with closing(_door(str(source), n_bytes)) as door, _no_collector():
            _Panel(door, wanted, how, genes, counts, several).fetch()
    return wanted.target


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's collector of garbage out of the threads that ask the server.

    It may come upon an object of HDF5, and wait for HDF5's lock, while the reader of the file has
    this lock and waits for the thread. It runs between two parts instead.
    """
    runs = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if runs:
            gc.enable()


def _door(source: str, n_bytes: int | None):
    if not source.startswith(("http://", "https://")):
        return _Near(Path(source).expanduser())
    if not urlsplit(source).path.rstrip("/").endswith(".zarr"):
        return Remote(source, n_bytes)
    from ._zarr import FarStore  # Zarr comes with anndata; most never open one

    return FarStore(source)


def fetch_each(sources: Sequence[str], wanted: Wanted, how: Mapping, genes) -> Path:
    """Fetch a panel of each of several files, and put them together under the final name."""
    told = _told(how, genes, " ".join(sources))
    with wanted.alone():
        if wanted.target.exists():
            return _the_same(wanted.target, told)
        folder = wanted.target.with_name(f".{wanted.target.name}.{_digest(told)[:12]}.files")
        names, parts = [Path(urlsplit(source).path).stem for source in sources], {}
        empty = "none"
        for number, source in enumerate(sources):
            one = Wanted(None, source, folder / f"{number}.h5ad", wanted.progress)
            try:
                path = fetch(source, one, how, genes=genes, counts=False, several=True)
            except Empty as error:
                empty = error
                continue
            name = names[number] if len({*names}) == len(names) else source
            parts[name] = part = anndata.read_h5ad(path)
            if not part.var_names.equals(next(iter(parts.values())).var_names):
                raise ValueError(
                    f"{source} has other genes than the files before it, or in another order; "
                    "name those to keep with genes="
                )
        if not parts:
            raise Empty(f"only= leaves no cell of {len(sources)} files; the last was {empty}")
        cells = anndata.concat(parts, label="source_file", index_unique="-", merge="first")
        cells = cells[np.argsort(cells.obs[how["perturbation_key"]].astype(str), kind="stable")]
        panels = [part.uns["panel"] for part in parts.values()]
        told |= {"bytes": sum(x["bytes"] for x in panels), "etag": _digest(panels)}
        sizes = pd.concat([part.uns["panel_of"] for part in parts.values()])
        sizes = sizes.groupby(level=0, observed=True).sum()
        cells.uns = {**part.uns, "panel": told, "panel_of": sizes}
        write_cells(wanted.target, cells, compression="gzip")
        _remove(wanted.target, "files")
    return wanted.target


def fetch_lines(wanted: Wanted, how: Mapping, *, genes, n_bytes: int | None) -> Path:
    """Fetch a panel of each other line of the support set; return the folder of their files."""
    folder, told = wanted.target.parent / "contexts", _told(how, genes, "")
    del told["source"]  # known only when the archive is open
    paths = [folder / f"{name}.h5ad" for name in LINES]
    if all(path.exists() for path in paths):
        return [_the_same(path, told) for path in paths][0].parent
    with closing(Remote(wanted.url, n_bytes)) as archive, _no_collector():
        try:
            there = {Path(info.filename).name: info for info in ZipFile(archive).infolist()}
            members = [Member(archive, there[f"{name}.h5"]) for name in LINES]
        except (BadZipFile, KeyError) as error:
            raise ValueError(
                f"{wanted.url} cannot be read as the support set ({error}); it is damaged, or a "
                "login page or a proxy answers in its place"
            ) from error
        for name, member in zip(LINES, members, strict=True):
            one = Wanted(wanted.official, member.url, folder / f"{name}.h5ad", wanted.progress)
            with one.alone():
                if one.target.exists():
                    _the_same(one.target, _told(how, genes, member.url))
                    continue
                key = _digest([archive.size, archive.etag])[:12]
                path = one.target.with_name(f".{name}.{key}.whole")
                door = _Near(_unpacked(member, path, one), member) if member.packed else member
                _Panel(door, one, how, genes, counts=False).fetch()
                for old in folder.glob(f".{name}.*"):  # of an archive before this one, too
                    if old.suffix in (".whole", ".packed"):
                        old.unlink()
    return folder


def _unpacked(member: Member, path: Path, wanted: Wanted) -> Path:
    """Fetch and unpack a deflated line: no part of it can be had alone."""
    if not path.exists():
        info, free = member.info, shutil.disk_usage(path.parent).free
        needed = info.compress_size + info.file_size
        text = (
            f"{info.filename} is deflated, so all its {amount(info.compress_size)} travel; "
            f"{amount(needed)} on the disk until its cells are chosen, {amount(free)} free"
        )
        if needed > free:
            raise OSError(errno.ENOSPC, f"{text}; make room, or name another folder with folder=")
        if wanted.progress:
            print(text, file=sys.stderr)
        member.unpack(path)
    return path


def _told(how: Mapping, genes: Sequence[str] | None, source: str | Path) -> dict:
    """Say how a panel was made, in what an .h5ad can hold."""
    usual = {"perturbation_key": "", "control": CONTROL, "only": {}, "columns": []}
    how = {name: how.get(name, usual.get(name)) for name in (*how, *usual)}
    plain = {k: v if isinstance(v, str | int) else json.dumps(v) for k, v in how.items()}
    genes = "all" if genes is None else _digest(list(genes))
    return {**plain, "genes": genes, "source": str(source)}


def _the_same(path: Path, how: dict) -> Path:
    """Return the path of a panel that is there, if it is the right one."""
    try:
        with h5py.File(path) as file:
            there = read_elem(file["uns/panel"])
    except (KeyError, OSError):
        there = {}
    if not there:
        raise FileExistsError(
            f"{path} is there, but is no panel: the whole file, or another one; move it away and "
            "run again, or name another folder with folder="
        )
    pairs = ((name, there.get(name), value) for name, value in how.items())
    if different := [f"{name} {old!r}, wanted {new!r}" for name, old, new in pairs if old != new]:
        raise FileExistsError(
            f"{path} is there, but is not this panel ({some_of(different)}); move it away and run "
            "again, or name another folder with folder="
        )
    return path


class _Near:
    """A file, or a Zarr folder, at a path: HDF5 and Zarr read it themselves."""

    def __init__(self, path: Path, of: Member | None = None):
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        self.path, self.url, self.size, self.etag = path, str(path), path.stat().st_size, ""
        if of is not None:
            self.url, self.size, self.etag = of.url, of.size, of.etag

    def open(self):
        if not self.path.is_dir():
            return h5py.File(self.path)
        import zarr

        check_zarr(self.path)
        return zarr.open_group(self.path, mode="r")

    def close(self) -> None:
        pass


class _Panel:
    """One panel while it is fetched, part by part; a part that is there is not fetched again."""

    def __init__(self, door, wanted: Wanted, how: Mapping, genes, counts: bool, several=False):
        self.door, self.wanted, self.counts = door, wanted, counts
        self.told = _told(how, genes, door.url)
        with self._explained():
            self.file = door.open()
            there, known = list(self.file["obs"]), how.get("perturbation_key")
        keys = (known,) if known else _PERTURBATION_KEYS
        key, only = next((k for k in keys if k in there), keys[0]), how.get("only", {})
        columns = dict.fromkeys([*how.get("columns", ()), key, *only])
        if missing := [name for name in columns if name not in there]:
            raise KeyError(f"{door.url}: obs has no {some_of(missing)}; it has {some_of(there)}")
        with self._explained():
            self._see_structure(list(columns) if how.get("columns") else there)
        labels = self.obs[key]
        self.labels = labels.astype(object).where(labels.notna(), None).to_numpy(copy=True)
        odd = []
        for column, values in only.items():
            self.labels[~self.obs[column].isin(values).to_numpy()] = None
            there = self.obs[column].unique()
            if other := [value for value in values if value not in there]:
                odd.append(f"{column!r} has no {some_of(other)}, it has {some_of(there)}")
        self.genes = None if genes is None else self._places(genes)
        control = how.get("control", CONTROL)
        if control != CONTROL and not labels.isin([control]).any() and not several:
            there = some_of(labels.dropna().unique(), 20)
            raise ValueError(f"{door.url}: {key!r} has no control {control!r}; it has {there}")
        draw = {name: how[name] for name in ("cells_per_target", "controls", "seed")}
        self.rows = choose(self.labels, **draw, control=control)
        if not len(self.rows):
            words = "; ".join(odd) or "no cell has all that it names"
            raise Empty(f"{door.url}: only= leaves no cell: {words}")
        if odd and not several:
            raise ValueError(f"{door.url}: only=: {'; '.join(odd)}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of a damaged file, which raises any of a dozen errors, what it may be."""
        try:
            yield
        except Exception as error:
            if clear := _clear(error):
                raise clear from None
            if isinstance(error, ValueError) and self.door.url in str(error):
                raise
            raise ValueError(
                f"{self.door.url} cannot be read as a file of cells ({error}); it is damaged, or a "
                "login page or a proxy answers in its place"
            ) from error

    def _see_structure(self, columns: list[str]) -> None:
        """Read labels and row pointers, and where the values lie."""
        file, every = self.file, "_index" in columns
        if isinstance(file, h5py.File):
            unread = [f"obs/{name}" for name in file["obs"] if name not in columns]
            check_hdf5(file, without=("layers", "raw", "obsm", "obsp", "varm", "varp", *unread))
        if every:
            self.obs = read_elem(file["obs"])
        else:  # cells are called by their row
            obs = {name: read_elem(file[f"obs/{name}"]) for name in columns}
            self.obs = pd.DataFrame(obs).rename(index=str)
        self.var = read_elem(file["var"])
        self.marks = read_elem(file["uns"]) if "uns" in file else {}
        x = file["X"]
        if hasattr(x, "shape"):
            self.arrays, self.pointers = [x], np.arange(len(x) + 1)
            fits = x.shape == (len(self.obs), len(self.var))
        elif x.attrs.get("encoding-type") == "csr_matrix":
            self.arrays, self.pointers = [x["data"], x["indices"]], x["indptr"][:].astype(np.int64)
            ends = {int(self.pointers[0]), int(self.pointers[-1])}
            fits = ends == {0} | {array.shape[0] for array in self.arrays}
            fits &= len(self.pointers) == len(self.obs) + 1 and (np.diff(self.pointers) >= 0).all()
        else:
            raise ValueError("X is not stored cell by cell, as CSR or dense")
        if not fits:
            raise ValueError("the row pointers of X do not fit its values")
        far = isinstance(self.door, Blocks)
        self.stored = [Stored.of(array) for array in self.arrays] if far else []

    def _places(self, genes: Sequence[str]) -> np.ndarray:
        places = self.var.index.get_indexer(pd.Index(genes))
        if (places < 0).any() or len(set(genes)) < len(genes):
            odd = [g for g, place in zip(genes, places, strict=True) if place < 0]
            odd = odd or [g for g in genes if list(genes).count(g) > 1]
            raise ValueError(f"genes: {some_of(odd)}: not in the file, or named more than once")
        return places

    def fetch(self) -> None:
        target, n_cells = self.wanted.target, len(self.rows)
        key = _digest([self.told, self.door.size, self.door.etag])[:12]
        folder = target.with_name(f".{target.name}.{key}.parts")
        if folder.is_symlink():
            raise FileExistsError(f"{folder} is a link; remove it, and run again")
        plans = {i: self._plan(self.rows[i : i + CELLS]) for i in range(0, n_cells, CELLS)}
        self._tell(plans.values())
        folder.mkdir(exist_ok=True)
        paths = {first: folder / f"{first}.npz" for first in plans}
        here = {first: part.dtype for first in plans if (part := _kept(paths[first])) is not None}
        missing = {first: plan for first, plan in plans.items() if first not in here}
        kept = "the cells that have arrived are kept, and the next run goes on from there"
        shown = {"unit": " cells", "desc": target.name, "disable": not self.wanted.progress}
        with tqdm(total=n_cells, **shown) as bar, full_disk_explained(target.parent, kept):
            bar.update(min(CELLS * len(here), n_cells))
            every = (piece for _, pieces in missing.values() for piece in pieces)
            bring = getattr(self.door, "bytes", None)  # with nothing to bring at a path
            with closing(ahead(bring, every, threads=THREADS)) as coming:
                for first, (stretches, pieces) in missing.items():
                    if pieces:
                        self.door.hold(pieces, [next(coming) for _ in pieces])
                    part = self._read(self.rows[first : first + CELLS], stretches)
                    with replacing(paths[first]) as place, open(place, "wb") as file:
                        sparse.save_npz(file, part, compressed=False)
                    here[first] = part.dtype
                    gc.collect(1)
                    bar.update(part.shape[0])
        order = np.argsort(self.labels[self.rows].astype(str), kind="stable")
        kind = np.float32 if np.float32 in here.values() else np.result_type(*here.values())
        counts = _joined(list(paths.values()), order, kind)
        cells = anndata.AnnData(counts, obs=self._labels(self.rows[order]), var=self._var())
        panel = {**self.told, "bytes": self.door.size, "etag": self.door.etag}
        cells.uns = {**self.marks, "panel": panel, "panel_of": self._sizes()}
        write_cells(target, cells, compression="gzip")
        if isinstance(self.file, h5py.File):
            self.file.close()
        _remove(target, "parts")

    def _plan(self, rows: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """List the stretches of rows that are read for some of them, and what to bring for them.

        The smallest gaps are read along, as long as that is little compared with the cells.
        """
        values = self.pointers[rows + 1] - self.pointers[rows]
        gaps = self.pointers[rows[1:]] - self.pointers[rows[:-1] + 1]
        order = np.argsort(gaps, kind="stable")
        apart = np.ones(len(gaps), dtype=bool)
        apart[order[np.cumsum(gaps[order]) <= BETWEEN * values.sum()]] = False
        edges = [0, *(np.flatnonzero(apart) + 1), len(rows)]
        stretches = [(int(rows[i]), int(rows[j - 1]) + 1) for i, j in pairwise(edges)]
        ends = [(int(self.pointers[i]), int(self.pointers[j])) for i, j in stretches]
        return stretches, merged(x for at in self.stored for pair in ends for x in at.spans(*pair))

    def _tell(self, plans: Iterable[tuple[list, list]]) -> None:
        """Say what travels and what is stored; refuse a disk with too little room."""
        folder = self.wanted.target.parent
        n_values = (self.pointers[self.rows + 1] - self.pointers[self.rows]).sum()
        n_values *= 1 if len(self.arrays) == 2 else len(self.var)
        # the parts hold a value and a column each, and the panel, which is packed, a third of it
        needed, free = 8 * int(n_values), shutil.disk_usage(folder).free
        pieces = [piece for _, pieces in plans for piece in pieces]
        size = f"{amount(sum(b - a for a, b in pieces))} of {amount(self.door.size)}"
        travel = f"{size} to fetch in {len(pieces):,} requests; " if pieces else ""
        if hasattr(self.door, "most"):
            ends = self.pointers[[stretch for stretches, _ in plans for stretch in stretches]]
            travel = "at most {1} to fetch, in {0:,} pieces; ".format(
                *self.door.most(self.arrays, ends)
            )
        text = (
            f"{len(self.rows):,} of {len(self.obs):,} cells: {travel}up to {amount(needed)} in "
            f"{folder}, {amount(free)} free"
        )
        if needed > free:
            raise OSError(errno.ENOSPC, f"{text}; make room, or name another folder with folder=")
        if self.wanted.progress:
            print(text, file=sys.stderr)

    def _read(self, rows: np.ndarray, stretches: list[tuple[int, int]]) -> sparse.csr_matrix:
        """Read a part's cells, if their values are what they should be, and their genes rise."""
        try:
            each = starmap if isinstance(self.file, h5py.File) else partial(ahead, threads=THREADS)
            found = sparse.vstack(list(each(self._stretch, stretches)), format="csr")
            at = np.concatenate([np.arange(*stretch) for stretch in stretches])
            part = found[np.searchsorted(at, rows)]
            low, high = part.data.min(initial=0), part.data.max(initial=0)
            counts = low >= 0 and high < 2**32 and (part.data == np.floor(part.data)).all()
            if self.counts and not counts:
                raise ValueError("values that are no counts")
        except (OSError, RuntimeError, ValueError, ExceptionGroup) as error:
            if clear := _clear(error):
                raise clear from None
            raise ValueError(
                f"{self.door.url}: what arrived are no values of {len(self.var):,} genes ({error}):"
                " the file is damaged, was replaced, or something on the way (a proxy) changes it"
            ) from error
        small = np.uint16 if high < 2**16 else np.uint32
        part = part.astype(small if counts else np.float32)
        part = part if self.genes is None else part[:, self.genes]
        part.sort_indices()
        return part

    def _stretch(self, start: int, stop: int) -> sparse.csr_matrix:
        shape, pointers = (stop - start, len(self.var)), self.pointers[start : stop + 1]
        low, high = int(pointers[0]), int(pointers[-1])
        values = [array[low:high] for array in self.arrays]
        if not np.isfinite(values[0]).all():
            raise ValueError("values that are no numbers")
        if len(values) == 1:
            return sparse.csr_matrix(values[0])
        pointers, columns = pointers - low, values[1].astype(np.int64)
        # places in one long row of all cells: they rise if those of each cell do
        places = np.repeat(np.arange(shape[0]), np.diff(pointers)) * shape[1] + columns
        steps = np.diff(places)  # H1's rise; others may not
        odd = (steps <= 0 if self.counts else steps == 0).any()
        if odd or (columns < 0).any() or (columns >= shape[1]).any():
            raise ValueError("genes out of range, twice or out of order")
        return sparse.csr_matrix((values[0], columns.astype(np.int32), pointers), shape=shape)

    def _labels(self, rows: np.ndarray) -> pd.DataFrame:
        obs = self.obs.iloc[rows].assign(source_row=rows)
        for name in obs.columns[obs.dtypes == "category"]:
            obs[name] = obs[name].cat.remove_unused_categories()
        return obs

    def _var(self) -> pd.DataFrame:
        return self.var if self.genes is None else self.var.iloc[self.genes]

    def _sizes(self) -> pd.DataFrame:
        """Count the cells of each target in the file, and in the panel."""
        sizes = {"n_cells": self.labels, "fetched": self.labels[self.rows]}
        found = {n: pd.Series(of).value_counts(sort=False) for n, of in sizes.items()}
        return pd.DataFrame(found).sort_index().rename_axis("target_gene")


def verify_panel(path: str | Path) -> pd.DataFrame:
    """Compare a panel of the training cells with what is published about the official file.

    No test of this project reaches the real address: this is for the first real run.

    Returns
    -------
    DataFrame
        Index quantity; ``published`` and ``here``. The cells of each target are counted in the
        official file's labels, all else in the panel's cells, so expect depth and density to
        differ a little.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no panel at {path}; fetch one with cells_per_target=60")
    with h5py.File(path) as file:
        if "uns/panel_of" not in file:
            raise ValueError(f"{path} is no panel; expected what cells_per_target= fetches")
    cells = anndata.read_h5ad(path)
    sizes = cells.uns["panel_of"]["n_cells"]
    depth, detected = np.ravel(cells.X.sum(axis=1, dtype=np.int64)), cells.X.getnnz(axis=1)
    quartiles, depths = (0, 0.25, 0.5, 0.75, 1), (0.05, 0.5, 0.95)
    found = {
        "targets": f"{len(sizes) - 1}",
        "genes": f"{cells.n_vars:,}",
        "control cells": f"{sizes[CONTROL]:,}",
        "cells per target, quartiles": _words(sizes.drop(CONTROL).quantile(quartiles)),
        "batches": f"{cells.obs['batch'].nunique()}",
        "counts per cell, 5, 50 and 95 %": _words(np.quantile(depth, depths)),
        "genes detected, median": f"{np.median(detected):,.0f}",
        "values that are not 0": f"{detected.mean() / cells.n_vars:.1%}",
    }
    return pd.DataFrame({"published": _PUBLISHED, "here": found}).rename_axis("quantity")


def _clear(error: Exception) -> Exception | None:
    """Return an error that says itself what is wrong, if it is one; Zarr raises several at once."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    ours = isinstance(error, ConnectionError) or getattr(error, "errno", 0) == errno.ENOSPC
    return error if ours else None


def _kept(path: Path) -> sparse.csr_matrix | None:
    """Read a part that an earlier run kept; None if there is none, or it is damaged."""
    if path.is_symlink() or not path.is_file():
        return None
    with suppress(Exception):  # a damaged archive raises any of a dozen errors
        return sparse.load_npz(path)
    return None


def _joined(paths: list[Path], order: np.ndarray, kind: np.dtype) -> sparse.csr_matrix:
    """Put the cells of all parts into an order, one part in memory at a time."""
    parts = map(sparse.load_npz, paths)
    lengths = np.concatenate([part.getnnz(axis=1) for part in parts])
    pointers = np.append(0, np.cumsum(lengths[order], dtype=np.int64))
    begins = np.empty_like(lengths)
    begins[order] = pointers[:-1]
    data, indices, row = np.empty(pointers[-1], kind), np.empty(pointers[-1], np.int32), 0
    for path in paths:
        part = sparse.load_npz(path)
        for low, high in pairwise(part.indptr):
            own = slice(begins[row], begins[row] + high - low)
            data[own], indices[own], row = part.data[low:high], part.indices[low:high], row + 1
        n_genes = part.shape[1]
    return sparse.csr_matrix((data, indices, pointers), shape=(len(order), n_genes))


def _remove(target: Path, kind: str) -> None:
    """Remove what runs with this and other choices kept on the way to a panel."""
    for folder in target.parent.glob(f".{escape(target.name)}.*.{kind}"):
        shutil.rmtree(folder, ignore_errors=True)


def _words(numbers) -> str:
    return " / ".join(f"{number:,.0f}" for number in numbers)


def _digest(what) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
