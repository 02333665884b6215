"""Sphinx extension: show formulas without the network.

MathJax comes from the installed package sphinx-mathjax-offline. Only its one script and its fonts
are copied into the built book (about 2 MB of 24 MB). Where the package is not installed, Sphinx's
own address is left as it is, and formulas need the network.
"""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

SCRIPT = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"


def mathjax_folder():
    """Return the folder with the package's MathJax files, or None."""
    try:
        files = distribution("sphinx-mathjax-offline").files or []
    except PackageNotFoundError:
        return None
    scripts = [Path(file.locate()) for file in files if file.name == SCRIPT]
    return scripts[0].parent if scripts and scripts[0].is_file() else None


def use_local_copy(app, config):
    """Point Sphinx at the copy, which `copy_files` writes at the end of the build."""
    if mathjax_folder() is not None:
        config.mathjax_path = f"mathjax/{SCRIPT}"


def copy_files(app, error):
    """Copy the script and its fonts beside the book's other static files."""
    source = mathjax_folder()
    if error is not None or source is None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / SCRIPT, target / SCRIPT)
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)


def setup(app):
    """Register the two steps."""
    app.connect("config-inited", use_local_copy)
    app.connect("build-finished", copy_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
