"""Sphinx extension: what a book needs before somebody opens a page, and what it need not load.

Each page gets a description and a card for those who pass its address on. The site gets a root
page, a page for addresses that do not exist, and a list of its pages for search engines. The
script that draws the theme's icons has 1.4 MB; `icons.css` draws the few that are used.
"""

import re
from html import escape
from pathlib import Path

from docutils import nodes

ICONS = re.compile(r"\s*<(script|link)\b[^>]*fontawesome\.js[^>]*>(</script>)?")
LONGEST = 200  # characters of a description that others show
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{head}
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def describe(app, pagename, templatename, context, doctree):
    """Give a page its description, its title and its first picture as tags."""
    base = app.config.html_baseurl
    if doctree is None or not base:
        return
    text = next(map(_plain, doctree.findall(_is_prose)), "")
    text = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
    images = (Path(node["uri"]).name for node in doctree.findall(nodes.image))
    drawn = next((name for name in images if (Path(app.outdir) / "_images" / name).exists()), None)
    picture = f"_images/{drawn}" if drawn else "_static/challenge.png"
    card = {
        "og:title": re.sub("<[^>]+>", "", context["title"]),
        "og:description": text,
        "og:type": "article",
        "og:url": f"{base}{pagename}.html",
        "og:image": base + picture,
        "og:site_name": app.config.html_title,
    }
    tags = [f'<meta name="description" content="{escape(text)}">']
    tags += [f'<meta property="{k}" content="{escape(v)}">' for k, v in card.items()]
    tags += ['<meta name="twitter:card" content="summary_large_image">']
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def _is_prose(node) -> bool:
    return isinstance(node, nodes.paragraph) and isinstance(node.parent, nodes.section)


def _plain(node) -> str:
    return " ".join(node.astext().split())


def finish(app, error):
    """Write the pages that have no source, and leave out the script of icons."""
    if error is not None or app.builder.format != "html":
        return
    out, base, title = Path(app.outdir), app.config.html_baseurl, app.config.html_title
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if (less := ICONS.sub("", text)) != text:
            path.write_text(less, encoding="utf-8")
    for path in out.glob("_static/scripts/fontawesome.js*"):
        path.unlink()
    start = f"{app.config.root_doc}.html"
    pages = [f"{base}{name}.html" for name in sorted(app.env.found_docs)]
    urls = "".join(f"<url><loc>{escape(page)}</loc></url>\n" for page in pages)
    schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
    sitemap = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{schema}">\n{urls}</urlset>\n'
    )
    (out / "sitemap.xml").write_text(sitemap, encoding="utf-8")
    head = f'<meta http-equiv="refresh" content="0; url={start}">\n'
    head += f'<link rel="canonical" href="{start}">'
    body = f'<p>The book begins <a href="{start}">here</a>.</p>'
    (out / "index.html").write_text(
        PAGE.format(title=title, head=head, body=body), encoding="utf-8"
    )
    body = f"""<p>There is no page at this address. It may have moved.</p>
<p><a href="{base}{start}">Start of the book</a> · <a href="{base}search.html">Search</a></p>"""
    lost = PAGE.format(title="Page not found", head="", body=body)
    (out / "404.html").write_text(lost, encoding="utf-8")


def setup(app):
    """Register the tags of each page, and what is written at the end."""
    app.add_css_file("icons.css")
    app.connect("html-page-context", describe, priority=900)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
