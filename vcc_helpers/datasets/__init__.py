"""Cells to work with: real ones that come with the package, official files, simulated worlds.

- :func:`load_h1_sample`, :func:`load_hipsc_screen`: real cells, bundled.
- :func:`open_world`: the challenge's cells; simulated, or the official files of a folder.
- :func:`fetch_h1`: the official files themselves, or some of their cells; :func:`fetch_panel`: some
  cells of any file at an address; :func:`catalog`: which other screens there are.
- :func:`read_screen`, :func:`read_contexts`: other people's files in our words.
- :func:`read_bundle`: the controls of a season of unseen contexts; :func:`write_bundle`
  simulates them, and the truth.
- :func:`make_h1_like`, :func:`write_h1_like`: simulated cells, in memory or in a file.

Taught in: notebooks/01_load_h1_cells and notebooks/03_predict_with_baselines.

>>> from vcc_helpers import datasets
>>> cells = datasets.load_h1_sample()
>>> cells.n_obs, cells.n_vars
(600, 1000)
"""

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from ._bundle import Bundle, read_bundle, write_bundle
    from ._bundled import catalog, load_h1_sample, load_hipsc_screen
    from ._fetch import fetch_h1, fetch_panel
    from ._layouts import read_contexts, read_screen
    from ._open import open_world
    from ._recipe import Size
    from ._simulate import make_h1_like, write_h1_like
    from ._world import World

__all__ = [
    "Bundle",
    "Size",
    "World",
    "catalog",
    "fetch_h1",
    "fetch_panel",
    "load_h1_sample",
    "load_hipsc_screen",
    "make_h1_like",
    "open_world",
    "read_bundle",
    "read_contexts",
    "read_screen",
    "write_bundle",
    "write_h1_like",
]

__getattr__, __dir__ = attach(
    __name__,
    modules=(),
    names={
        "_bundle": ("Bundle", "read_bundle", "write_bundle"),
        "_bundled": ("catalog", "load_h1_sample", "load_hipsc_screen"),
        "_fetch": ("fetch_h1", "fetch_panel"),
        "_layouts": ("read_contexts", "read_screen"),
        "_open": ("open_world",),
        "_recipe": ("Size",),
        "_simulate": ("make_h1_like", "write_h1_like"),
        "_world": ("World",),
    },
)
