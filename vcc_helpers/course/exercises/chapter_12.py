"""Exercises of notebooks/12_scale_out: bytes, the limit of reading, shared controls."""

from . import Answers, exercise

NON_ZEROS = 10_000_000 * 2_000
CORE_HOURS, SECONDS_TO_READ = 40, 500
WELLS, CELLS, CONTROLS = 94, 1_500, 3_000


@exercise("12-1")
def _gigabytes() -> Answers:
    """Size of ten million cells in GB.

    right: Dense and in float32 it would be 800 GB.
    8 bytes: That is with 8 bytes: a float32 value and an int32 gene number, as in most files. A
        small count and a gene number below 65,536 take 1 + 2 bytes.
    GiB: That is in GiB, of 1,073,741,824 bytes. A GB has 1,000,000,000.
    bytes: That is in bytes. Divide by a thousand million for GB.
    dense: That is the dense matrix in float32, zeros included.
    """
    yield "right", 3 * NON_ZEROS / 1e9
    yield "8 bytes", 8 * NON_ZEROS / 1e9
    yield "GiB", 3 * NON_ZEROS / 2**30
    yield "bytes", 3 * NON_ZEROS
    yield "dense", 10_000_000 * 20_000 * 4 / 1e9


@exercise("12-2")
def _useful_workers() -> Answers:
    """Find the number of workers after which reading is the limit.

    right: With more workers than that, each only waits longer for its data.
    hours: You compared hours with seconds. Reading takes 500 seconds.
    minutes: You compared minutes with seconds. Reading takes 500 seconds.
    """
    yield "right", CORE_HOURS * 3600 / SECONDS_TO_READ
    yield "hours", CORE_HOURS / SECONDS_TO_READ
    yield "minutes", CORE_HOURS * 60 / SECONDS_TO_READ


@exercise("12-3")
def _controls_read_again() -> Answers:
    """How many times as much is read by separate tasks.

    right: Nearly three times the reading, for the same result. So tasks with the same controls
        belong together.
    no controls: Nearly: you left the controls out of the second count. They are read there too,
        once.
    94: The controls are read 94 times as often. But each task's own cells are read once in either
        case.
    """
    by_each = WELLS * (CELLS + CONTROLS)
    yield "right", by_each / (WELLS * CELLS + CONTROLS)
    yield "no controls", by_each / (WELLS * CELLS)
    yield "94", WELLS
