"""Sphinx extension: document what the package wrote, not what is added to its classes.

scikit-learn gives every estimator methods such as `set_fit_request`, whose texts point into its
own manual; Python gives every field of a NamedTuple the text "Alias for field number 0".
"""

import re

ADDED = re.compile(r"set_\w+_request|get_metadata_routing")


def skip_added(app, what, name, obj, skip, options):
    """Leave a member out when its name or its text is a generated one."""
    generated = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if generated or ADDED.fullmatch(name) else None


def setup(app):
    """Register the filter."""
    app.connect("autodoc-skip-member", skip_added)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
