"""The challenge's official files, whole or some of their cells.

Taught in: notebooks/03_predict_with_baselines and notebooks/09_work_with_large_files.

>>> import tempfile
>>> fetch_h1("sample", folder=tempfile.mkdtemp()).name
'h1_sample.h5ad'
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from ..bulk import CONTROL
from ..stream.write import replacing
from ._bundled import H1_FILE
from ._download import Wanted
from ._official import OFFICIAL
from ._world import SPLIT_NAMES


def fetch_h1(
    what: str,
    *,
    cells_per_target: int | None = None,
    controls: int = 2000,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    base_url: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch one official file of the challenge, or a panel of its cells, unless it is there.

    Parameters
    ----------
    what
        ``"train"`` (15.5 GB), ``"validation"`` (6.9 GB) or ``"test"`` (12.0 GB), the cells;
        ``"train_counts"``, ``"validation_counts"`` or ``"test_counts"``, the small tables of
        targets, cells per target and median depth; ``"gene_names"``, the 18,080 gene symbols in
        order; ``"support_set"`` (8.7 GB), a zip archive with cells of other contexts, see
        :func:`read_contexts`; or ``"sample"``, the 600 real cells that come with the package, as
        ``h1_sample.h5ad``, without the network.
    cells_per_target
        Fetch a *panel* of ``"train"``, ``"validation"`` or ``"test"``: at most so many cells of
        each target, drawn at random. Only these cells travel: with 60 cells and 2,000 controls
        about 0.8 of the 15.5 GB. Or of ``"support_set"``: panels of HepG2, Jurkat, K562 and RPE1,
        in a folder ``contexts`` that :func:`read_contexts` and :func:`open_world` take.
    controls, seed
        Of a panel: the most control cells, and the seed of the draw.
    genes
        Of a panel: the genes to keep, in this order; all by default.
    folder
        Where to; made when it is not there. By default the folder that the environment variable
        ``VCC_DATA`` names, else ``data/h1``, or ``data/h1-panel`` for a panel.
    base_url
        Address of a copy of the official folder.
    progress
        Say beforehand what it takes, and show progress bars.

    Returns
    -------
    Path
        The file, complete; its sha256 is the published one. A panel has the name of the official
        file; its counts are uint16 (uint32 where one is larger), its cells are sorted by target,
        obs ``source_row`` is the cell's row in the official file, and ``uns["panel"]`` holds the
        address, its size and version (``etag``), and how the cells were drawn. Of panels of the
        support set, whose values are logarithms, the folder; a line that is deflated in the archive
        travels whole.

    Raises
    ------
    KeyError
        There is no such official file.
    FileExistsError
        Another file has the official name, simulated or damaged; it is left as it is.
    BlockingIOError
        Another run is fetching the same file into the same folder.
    ConnectionError
        The server refuses the file, or six attempts in a row brought no new byte, each after a
        longer pause; a minute without one ends an attempt.
    ValueError
        All bytes arrived, but they are not those that were published; they are removed.
    OSError
        The folder cannot be written to, or the disk has too little room.

    Notes
    -----
    Stopped with Ctrl-C, killed or cut, the next run goes on where this one stopped. A file that was
    checked is not read again as long as its size and its time of change stay the same; a small
    hidden file next to it remembers them.

    The published sha256 cannot check a panel. What is checked: the size of the official file and
    its version with every answer, and that each cell's values are counts of genes in rising order.
    All of this was tried on a simulated file of full size; no test reaches the real address.
    ``vcc-helpers fetch train --verify-panel`` compares a panel with published figures.

    Source of the files: Virtual Cell Challenge 2025, Arc Institute; CC0 1.0.
    """
    folder = folder_of(folder, panel=cells_per_target is not None)
    if genes is not None and cells_per_target is None:
        raise ValueError("genes are chosen for a panel only; give cells_per_target, too")
    if what not in (names := ("sample", *OFFICIAL)):
        names = ", ".join(map(repr, names))
        raise KeyError(f"there is no official file {what!r}; choose one of {names}")
    if cells_per_target is not None and what not in (*SPLIT_NAMES, "support_set"):
        raise ValueError(
            f"no panel of {what!r}; expected one of {', '.join(SPLIT_NAMES)}, support_set"
        )
    if what == "sample":
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "h1_sample.h5ad"
        with as_file(files(__package__) / "data" / H1_FILE) as source, replacing(target) as part:
            shutil.copyfile(source, part)
        return target
    official, target = OFFICIAL[what], folder / OFFICIAL[what].name
    url = (base_url.rstrip("/") + "/" if base_url else official.base) + official.path
    wanted = Wanted(official, url, target, progress)
    if cells_per_target is not None:
        numbers = {"cells_per_target": cells_per_target, "controls": controls, "seed": seed}
        how = _checked({"genes": genes}, **numbers)
        from ._panel import fetch, fetch_lines

        known = {"genes": genes, "n_bytes": None if base_url else official.n_bytes}
        if what == "support_set":
            return fetch_lines(wanted, how, **known)
        return fetch(url, wanted, how, **known)
    if not target.exists():
        with wanted.alone():
            if not target.exists():  # else another run ended between the look and the lock
                wanted.fetch()
    return wanted.checked()


def _checked(lists: Mapping[str, object], **how: int) -> dict:
    from ._simulate import _check_whole

    for name, value in lists.items():
        if isinstance(value, str):
            raise ValueError(f"{name} must be a list of names, such as [{value!r}], got a text")
    for name, number in how.items():
        _check_whole(name, number, at_least=name != "seed")
    return how


def fetch_panel(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    perturbation_key: str,
    control: str = CONTROL,
    cells_per_target: int,
    controls: int = 2000,
    only: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    genes: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Fetch some cells of each perturbation of an ``.h5ad`` or ``.zarr`` at an address or a path.

    Of several files, so many cells of each file become one panel.

    Parameters
    ----------
    source
        Address or path, or a list of them, whose files have the same genes. X is CSR or dense; the
        server must answer range requests. Of chunks that are compressed, those with chosen cells
        travel whole. An address that ends in ``.zarr`` is a Zarr store with consolidated metadata,
        as AnnData writes it.
    out
        The ``.h5ad`` file to write.
    perturbation_key, control
        Column of obs that names each cell's perturbation (or cell type: any groups will do), and
        the label of control cells in it.
    cells_per_target, controls, genes, seed, progress
        As for :func:`fetch_h1`.
    only
        Of a column, the values to keep, such as ``{"cell_name": ["A549"]}``.
    columns
        Columns of obs to keep, by default all. With a choice the others do not travel, nor do the
        names of the cells, which are called by their row: with millions of cells that is most.

    Returns
    -------
    Path
        The file. Cells are sorted by perturbation; whole numbers are stored as uint16 (uint32 where
        one is larger), other values as float32; labels as they were, so that :func:`read_screen`
        takes it with the same `perturbation_key` and `control`. uns as :func:`fetch_h1` has it. Of
        several files, obs ``source_file`` is the name of each cell's; files that have no cell of
        `only` are passed over.

    Raises
    ------
    KeyError
        obs has no such column.
    ValueError, ConnectionError, FileExistsError, OSError
        The source cannot be read so, or as for :func:`fetch_h1`.
    """
    lists = {"genes": genes, "columns": columns}
    lists |= {f"only[{name!r}]": values for name, values in (only or {}).items()}
    numbers = {"cells_per_target": cells_per_target, "controls": controls, "seed": seed}
    how = _checked(lists, **numbers)
    from ._panel import fetch, fetch_each

    how |= {"perturbation_key": perturbation_key, "control": control}
    how |= {"only": {k: list(v) for k, v in (only or {}).items()}, "columns": list(columns)}
    wanted = Wanted(None, str(source), Path(out), progress)
    if isinstance(source, str | Path):
        return fetch(source, wanted, how, genes=genes, counts=False)
    return fetch_each([str(one) for one in source], wanted, how, genes)


def folder_of(folder: str | Path | None, *, panel: bool) -> Path:
    """Return where files go: the folder that is named, here or by VCC_DATA, or the usual one."""
    named = folder or os.environ.get("VCC_DATA", "")
    usual = "data/h1-panel" if panel else "data/h1"
    return Path(usual if named in ("", "simulated") else named).expanduser()
