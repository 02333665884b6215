"""The book in a real browser: every page loads, and can be read by everybody."""

import os
import re
import shutil

import numpy as np
import pytest
from conftest import served
from test_book import NOTEBOOKS, PAGES
from test_explore import EXPLORED
from test_leaderboard import BASE, SEVEN, THREE

from vcc_helpers.classroom import board
from vcc_helpers.classroom.page import page as whole_page
from vcc_helpers.course import explore
from vcc_helpers.metrics import pds

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("VCC_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
#: No call home at the start, and none later.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
#: One page of each kind, of which axe checks the contrast, too, which takes seconds a page. Of the
#: reference no other page is looked at. VCC_AXE=all, every week: everything.
KINDS = ["book/index", "notebooks/06_check_and_pack", "book/results", "book/api/names"]
KINDS = PAGES if os.environ.get("VCC_AXE") == "all" else KINDS
LOOKED_AT = [page for page in PAGES if page in KINDS or not page.startswith("book/api/")]
PHONE, DESKTOP = {"width": 360, "height": 780}, {"width": 1400, "height": 900}
#: Words of which a reader expects a page, and that page.
SEARCHED = {
    "pseudobulk": "notebooks/02_measure_effects",
    "few-shot": "notebooks/16_gains_between_contexts",
    "perturbation discrimination": "notebooks/05_compute_the_metrics",
    "leaderboard": "notebooks/21_run_your_own_leaderboard",
    "sort_cells": "book/api/stream",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}"),
]


@pytest.fixture(scope="module")
def site(book):
    with served(book) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield found
        found.close()


@pytest.fixture(scope="module")
def tab(browser, site):
    """A window that asks nobody but this machine: the network is not what is tested."""
    context = browser.new_context(viewport=DESKTOP)
    context.route(lambda address: not address.startswith(site), lambda route: route.abort())
    yield context.new_page()
    context.close()


def serious(tab, rules):
    """Return what axe-core finds serious or critical, with the place."""
    options = {"resultTypes": ["violations"], **rules}  # what passes takes long to describe
    return [
        f"{one['id']}: {one['help']}: {node['html'][:160]}"
        for one in axe.Axe().run(tab, options=options).response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("page", LOOKED_AT)
def test_a_page_loads_and_can_be_read(page, tab, site):
    """No complaint in the console, no lost image, no serious violation, no wider than a phone."""
    said = []
    console = lambda m: said.append(m.text) if m.type == "error" else None  # noqa: E731
    tab.on("console", console)
    tab.on("pageerror", wrong := lambda error: said.append(str(error)))
    tab.set_viewport_size(DESKTOP)
    tab.goto(f"{site}/{page}.html", wait_until="load")
    tab.wait_for_timeout(200)
    tab.remove_listener("console", console)
    tab.remove_listener("pageerror", wrong)
    assert [text for text in said if "net::ERR_FAILED" not in text] == []
    lost = "Array.from(document.images).filter(i => i.complete && !i.naturalWidth && "
    lost += f"i.src.startsWith('{site}')).map(i => i.src)"
    assert tab.evaluate(lost) == []
    assert tab.locator("article h1").count() == 1
    assert serious(tab, {"rules": {"color-contrast": {"enabled": False}}}) == []
    for scheme in ("light", "dark") if page in KINDS else ():
        tab.evaluate(f"document.documentElement.dataset.mode = '{scheme}'")
        tab.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
        tab.wait_for_timeout(300)  # colours change slowly
        assert serious(tab, {"runOnly": {"type": "rule", "values": ["color-contrast"]}}) == []
    tab.set_viewport_size(PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    squeezed = "Array.from(document.querySelectorAll('article :is(td, th)')).filter(c => "
    squeezed += "c.getClientRects().length && c.innerText.trim().length > 3 && c.clientWidth < 30)"
    squeezed += ".map(c => c.innerText)"
    assert tab.evaluate(squeezed) == []  # a letter a line
    if page in NOTEBOOKS:
        folded_solutions_open_by_keyboard(tab)


def folded_solutions_open_by_keyboard(tab):
    tab.set_viewport_size(DESKTOP)
    folded = tab.locator("article details > summary", has_text=re.compile("Solution"))
    assert folded.count() >= 2
    for i in range(folded.count()):
        folded.nth(i).focus()
        tab.keyboard.press("Enter")
    closed = "Array.from(document.querySelectorAll('article details')).filter(d => !d.open && "
    closed += "d.querySelector('summary').textContent.includes('Solution')).length"
    assert tab.evaluate(closed) == 0


def test_a_figure_opens_in_full_size_by_keyboard(tab, site):
    tab.set_viewport_size(PHONE)
    tab.goto(f"{site}/notebooks/01_load_h1_cells.html")
    small = tab.locator("article button.zoom").first
    small.focus()
    tab.keyboard.press("Enter")
    large = tab.locator("dialog.zoomed img")
    assert large.bounding_box()["width"] > 1.5 * small.bounding_box()["width"]
    assert large.get_attribute("alt") == small.locator("img").get_attribute("alt")
    tab.keyboard.press("Escape")
    assert not large.is_visible()


@pytest.mark.parametrize("word", SEARCHED)
def test_the_search_finds(word, tab, site):
    tab.goto(f"{site}/search.html?q={word}")
    first = f"ul.search li a[href^='{SEARCHED[word]}']"
    tab.wait_for_selector(first, timeout=20_000)


def test_a_board_sorts_hides_metrics_and_becomes_cards(browser, tmp_path):
    (tmp_path / "3.html").write_text(whole_page(board(THREE, BASE), title="x"))
    (tmp_path / "5.html").write_text(whole_page(board({"a": SEVEN}, SEVEN), title="x"))
    tab, said = browser.new_page(viewport=DESKTOP), []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto((tmp_path / "3.html").as_uri())

    def entries():
        return [text.split("\n")[0] for text in tab.locator("tbody th").all_inner_texts()]

    for column, wanted in (
        ("mae", ["quiet", "even", "bold"]),
        ("entry", ["bold", "even", "quiet"]),
    ):
        head = tab.get_by_role("button", name=re.compile(column))
        head.focus()
        tab.keyboard.press("Enter")
        assert entries() == wanted
        tab.keyboard.press("Enter")
        assert entries() == wanted[::-1]
        assert tab.locator("th[aria-sort=descending]").inner_text().startswith(column)
    tab.goto((tmp_path / "5.html").as_uri())
    assert not tab.locator("td.metric").first.is_visible()
    tab.get_by_label("Show every metric").check()
    assert tab.locator("td.metric").first.is_visible()
    tab.set_viewport_size(PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert serious(tab, {}) == [] and said == []
    tab.close()


def test_a_figure_is_explored_by_keyboard_and_tells_what_python_computed(browser, tmp_path):
    table, effects = EXPLORED
    shown = explore.curves(table, at=2), explore.prediction(effects, "B", (0.5, 0.1))
    page = '<!doctype html><html lang="en"><title>x</title><main><h1>x</h1>'
    page += "".join(one._repr_html_() for one in shown)
    (tmp_path / "x.html").write_text(page)
    tab, said = browser.new_page(viewport=PHONE), []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto((tmp_path / "x.html").as_uri())
    slider = tab.get_by_role("slider", name="known targets")
    slider.focus()
    for key, row in (("Home", 0), ("ArrowRight", 1), ("End", 3)):
        tab.keyboard.press(key)
        told = tab.locator(".panel output").all_inner_texts()
        assert told == [f"{value:.3g}" for value in table.iloc[row]]
        assert tab.locator("figcaption output").first.inner_text() == str(table.index[row])
    tab.get_by_label("kNN").uncheck()
    assert tab.locator("g.series:not(.off)").count() == 2
    place, none = np.array([0.5, 0.1]), np.full(3, -1)
    step = 1.15 * np.abs(np.vstack([effects, place])).max() / 20
    tab.get_by_role("application").focus()
    for key, by in (("ArrowLeft", (-1, 0)), ("ArrowUp", (0, 1)), ("ArrowDown", (0, -1))) * 4:
        tab.keyboard.press(key)
        place = place + step * np.array(by)
        wanted = pds(np.tile(place, (3, 1)), effects.to_numpy(), none)[1]
        assert tab.locator("figcaption output").nth(1).inner_text() == f"{wanted:.3f}"
        far = np.abs(effects - place).sum(axis=1).sort_values()
        rows = [f"{name}\t{value:.3f}" for name, value in far.items()]
        assert tab.locator("tbody tr").all_inner_texts() == rows
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert serious(tab, {}) == [] and said == []
    tab.close()
