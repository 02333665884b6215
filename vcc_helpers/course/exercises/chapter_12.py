"""Exercises of notebooks/12_scale_out: bytes, the limit of reading, shared controls.

Needs: exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("12-1", 60).status
'right'
"""

from . import Exercise, Hint

NON_ZEROS = 10_000_000 * 2_000
CORE_HOURS, STORE_GB, GB_A_SECOND = 40, 500, 1
WELLS, CELLS, CONTROLS = 94, 1_500, 3_000
READ_ONCE = WELLS * CELLS + CONTROLS
READ_BY_EACH = WELLS * (CELLS + CONTROLS)

EXERCISES = {
    "12-1": Exercise(
        solution=lambda: 3 * NON_ZEROS / 1e9,
        right="Dense and in float32 it would be 800 GB.",
        hints=(
            Hint(
                lambda: 8 * NON_ZEROS / 1e9,
                "That is with 8 bytes: a float32 value and an int32 gene number, as in most "
                "files. A small count and a gene number below 65,536 take 1 + 2 bytes.",
            ),
            Hint(
                lambda: 3 * NON_ZEROS / 2**30,
                "That is in GiB, of 1,073,741,824 bytes. A GB has 1,000,000,000.",
            ),
            Hint(
                lambda: 3 * NON_ZEROS,
                "That is in bytes. Divide by a thousand million for GB.",
            ),
            Hint(
                lambda: 10_000_000 * 20_000 * 4 / 1e9,
                "That is the dense matrix in float32, zeros included.",
            ),
        ),
    ),
    "12-2": Exercise(
        solution=lambda: CORE_HOURS * 3600 * GB_A_SECOND / STORE_GB,
        right="With more workers than that, each only waits longer for its data.",
        hints=(
            Hint(
                lambda: CORE_HOURS * GB_A_SECOND / STORE_GB,
                "You compared hours with seconds. Reading takes 500 seconds.",
            ),
            Hint(
                lambda: CORE_HOURS * 60 * GB_A_SECOND / STORE_GB,
                "You compared minutes with seconds. Reading takes 500 seconds.",
            ),
            Hint(
                lambda: STORE_GB / (CORE_HOURS * 3600 * GB_A_SECOND),
                "That is the ratio the other way round.",
            ),
        ),
    ),
    "12-3": Exercise(
        solution=lambda: READ_BY_EACH / READ_ONCE,
        right="Nearly three times the reading, for the same result. So tasks with the same "
        "controls belong together.",
        hints=(
            Hint(
                lambda: READ_BY_EACH / (WELLS * CELLS),
                "Nearly: you left the controls out of the second count. They are read there too, "
                "once.",
            ),
            Hint(
                lambda: READ_ONCE / READ_BY_EACH,
                "That is the ratio the other way round.",
            ),
            Hint(
                lambda: WELLS,
                "The controls are read 94 times as often. But each task's own cells are read once "
                "in either case.",
            ),
        ),
    ),
}
