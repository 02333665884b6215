"""Exercises of notebooks/12_scale_out: bytes, the limit of reading, shared controls."""

from . import exercise

_NON_ZEROS = 10_000_000 * 2_000
_CORE_HOURS, _SECONDS_TO_READ = 40, 500
_WELLS, _CELLS, _CONTROLS = 94, 1_500, 3_000


@exercise("12-1")
def _gigabytes():
    yield "right", 3 * _NON_ZEROS / 1e9
    yield "8 bytes", 8 * _NON_ZEROS / 1e9
    yield "GiB", 3 * _NON_ZEROS / 2**30
    yield "bytes", 3 * _NON_ZEROS
    yield "dense", 10_000_000 * 20_000 * 4 / 1e9


@exercise("12-2")
def _useful_workers():
    yield "right", _CORE_HOURS * 3600 / _SECONDS_TO_READ
    yield "hours", _CORE_HOURS / _SECONDS_TO_READ
    yield "minutes", _CORE_HOURS * 60 / _SECONDS_TO_READ


@exercise("12-3")
def _controls_read_again():
    by_each = _WELLS * (_CELLS + _CONTROLS)
    yield "right", by_each / (_WELLS * _CELLS + _CONTROLS)
    yield "no controls", by_each / (_WELLS * _CELLS)
    yield "94", _WELLS
