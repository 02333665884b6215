"""Read files with every reader, in a process that may die of it."""

import resource
import tempfile
import warnings
from pathlib import Path

import numpy as np

from vcc_helpers import pseudobulk, score, sort_cells, submission
from vcc_helpers.stream import inspect_values, open_cells, row_blocks
from vcc_helpers.submission import archive

#: What a reader may raise; anything else is a finding.
CLEAR = (ValueError, KeyError, OSError, TypeError)
#: Bytes that all readers together may take beyond what the process has at first.
MEMORY = 2 * 10**9


def check(path):
    return str(submission.check(path))


def opened(path):
    with archive.opened(path) as inner:
        return inner.name


def blocks(path):
    cells = open_cells(path)
    inspect_values(cells)
    return float(sum(np.asarray(block.sum()) for _, block in row_blocks(cells)))


def means(path):
    return float(np.nansum(pseudobulk(path).X))


def scored(path):
    return float(score(path, path).summary["mae"])


def sorted_file(path):
    with tempfile.TemporaryDirectory() as folder:
        return blocks(sort_cells(path, Path(folder) / "s.h5ad"))


READERS = {f.__name__: f for f in (check, opened, blocks, means, scored, sorted_file)}


def outcome(reader, path) -> tuple[str, str]:
    """Return ``read``, ``refused`` or ``finding``, and what came of it."""
    try:
        return "read", str(reader(path))
    except CLEAR as error:
        text = str(error)
        return ("refused" if len(text) > 10 else "finding"), f"{type(error).__name__}: {text}"
    except MemoryError as error:
        return "finding", f"MemoryError: {error}"
    except Exception as error:
        return "finding", f"{type(error).__name__}: {error}"


def probe(paths, sender) -> None:
    """Send name and outcomes of each file in turn, within a bound of memory."""
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for name, path in paths.items():
        readers = {reader: f for reader, f in READERS.items() if f is not means}  # as blocks does
        sender.send((name, {reader: outcome(f, path) for reader, f in readers.items()}))
