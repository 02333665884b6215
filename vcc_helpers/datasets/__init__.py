"""Cells to work with: two small real data sets, and a simulated world.

- :func:`load_h1_sample`: 600 real H1 cells of the Virtual Cell Challenge, bundled.
- :func:`load_hipsc_screen`: a real hiPSC knock-out screen on four days, bundled.
- :func:`make_h1_like`: simulated cells of several contexts, for what the real files are too
  small to show.

Taught in: notebooks/01_load_the_h1_data.

>>> from vcc_helpers import datasets
>>> cells = datasets.load_h1_sample()
>>> cells.n_obs, cells.n_vars
(600, 1000)
"""

from ._bundled import load_h1_sample, load_hipsc_screen
from ._simulate import make_h1_like
from ._world import World

__all__ = ["World", "load_h1_sample", "load_hipsc_screen", "make_h1_like"]
