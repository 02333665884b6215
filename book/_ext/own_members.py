"""Sphinx extension: document what the package wrote, not what is added to its classes.

scikit-learn gives every estimator methods such as `set_fit_request`, whose texts point into its
own manual; Python gives every field of a NamedTuple the text "Alias for field number 0". Below the
text of a module comes a table of what it holds, with the first line of each.
"""

import inspect
import re

ADDED = re.compile(r"set_\w+_request|get_metadata_routing")


def skip_added(app, what, name, obj, skip, options):
    """Leave a member out when its name or its text is a generated one."""
    generated = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if generated or ADDED.fullmatch(name) else None


def list_members(app, what, name, obj, options, lines):
    """Add a table of its functions and classes to the text of a module."""
    if what != "module" or "members" not in options:
        return
    own = getattr(obj, "__all__", [n for n in vars(obj) if not n.startswith("_")])
    found = {n: getattr(obj, n) for n in own}
    listed = [
        n
        for n, member in found.items()
        if (inspect.isfunction(member) or inspect.isclass(member))
        and (hasattr(obj, "__all__") or member.__module__ == name)
    ]
    if len(listed) > 1:
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {n}" for n in listed), ""]


def setup(app):
    """Register the filter and the table."""
    app.connect("autodoc-skip-member", skip_added)
    app.connect("autodoc-process-docstring", list_members)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
