"""Notebooks link to pages by their published address; in the built book these links stay inside."""

import set_repository
import test_book
from nbformat.v4 import new_markdown_cell

PAGES = set_repository.pages_address(set_repository.read_repository(test_book.ROOT))
pytestmark = test_book.pytestmark


def test_published_addresses_become_relative_links(tmp_path):
    text = f"[a]({PAGES}book/index.html), [b]({PAGES}book/index.html#toy), [c]({PAGES})"
    done = test_book.toy_book(tmp_path, [new_markdown_cell(text)])
    assert done.returncode == 0, done.stdout[-3000:]
    site = tmp_path / "_build" / "html"
    links = test_book.Page(site / "notebooks/01_toy.html").links
    assert {"../book/index.html", "../book/index.html#toy", PAGES} <= set(links)
    assert f"{PAGES}book/index.html" not in links
    assert test_book.broken(site) == []


def test_a_published_address_without_a_page_fails_the_build(tmp_path):
    cell = new_markdown_cell(f"[nowhere]({PAGES}book/missing.html)")
    done = test_book.toy_book(tmp_path, [cell])
    assert done.returncode != 0
    assert f"no page of this book: {PAGES}book/missing.html" in done.stdout
