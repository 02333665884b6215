"""Sphinx extension: offer Colab only on pages that Colab can open.

The theme shows its launch button on every page with code, also on Markdown pages such as the
status page; Colab opens notebooks only.
"""


def drop_launch_button(app, pagename, templatename, context, doctree):
    """Take the launch buttons off a page that is not written as a notebook."""
    if context.get("page_source_suffix") != ".ipynb":
        buttons = context.get("header_buttons", [])
        kept = [button for button in buttons if button.get("label") != "launch-buttons"]
        context["header_buttons"] = kept


def setup(app):
    """Register after the theme, which adds the buttons with priority 501."""
    app.connect("html-page-context", drop_launch_button, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
