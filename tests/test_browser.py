"""The book in a real browser: every page loads, and can be read by everybody."""

import os
import re
import shutil

import pytest
from conftest import served
from test_book import NOTEBOOKS, PAGES

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
    squeezed += "c.innerText.trim().length > 3 && c.clientWidth < 30).map(c => c.innerText)"
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


@pytest.mark.parametrize("word", SEARCHED)
def test_the_search_finds(word, tab, site):
    tab.goto(f"{site}/search.html?q={word}")
    first = f"ul.search li a[href^='{SEARCHED[word]}']"
    tab.wait_for_selector(first, timeout=20_000)
