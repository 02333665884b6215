"""Exercises of notebooks/12_scale_out: bytes, the limit of reading, shared controls."""

from . import Answers, exercise

NON_ZEROS = 10_000_000 * 2_000
CORE_HOURS, SECONDS_TO_READ = 40, 500
WELLS, CELLS, CONTROLS = 94, 1_500, 3_000


@exercise("12-1")
def _gigabytes() -> Answers:
    """Size of ten million cells in GB."""
    yield "right", 3 * NON_ZEROS / 1e9
    yield "8 bytes", 8 * NON_ZEROS / 1e9
    yield "GiB", 3 * NON_ZEROS / 2**30
    yield "bytes", 3 * NON_ZEROS
    yield "dense", 10_000_000 * 20_000 * 4 / 1e9


@exercise("12-2")
def _useful_workers() -> Answers:
    """Find the number of workers after which reading is the limit."""
    yield "right", CORE_HOURS * 3600 / SECONDS_TO_READ
    yield "hours", CORE_HOURS / SECONDS_TO_READ
    yield "minutes", CORE_HOURS * 60 / SECONDS_TO_READ


@exercise("12-3")
def _controls_read_again() -> Answers:
    """How many times as much is read by separate tasks."""
    by_each = WELLS * (CELLS + CONTROLS)
    yield "right", by_each / (WELLS * CELLS + CONTROLS)
    yield "no controls", by_each / (WELLS * CELLS)
    yield "94", WELLS
