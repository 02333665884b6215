"""What the pages do: boxes that judge as `check` does, tables that read well, cards, a sitemap."""

import importlib
import json
import re
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_browser import browser, pytestmark, site, tab  # noqa: F401
from test_exercises import FOUND, hand_in

pytest.importorskip("docutils.nodes")


@cache
def extension(name):
    sys.path.insert(0, str(ROOT / "book/_ext"))
    return importlib.import_module(name)


@cache
def facts_of(number):
    return extension("answer_boxes").known(number)


JUDGED = [number for number, exercise in FOUND.items() if exercise.probe is None]
SLIPS = (
    lambda x: x, lambda x: -x, lambda x: 1 - x, lambda x: 100 * x, lambda x: x / 100,
    lambda x: x**2, lambda x: 1 / x, lambda x: 1.37 * x + 0.011, lambda x: round(x, 1),
    lambda x: round(x, 2), lambda x: round(x, 3),
)  # fmt: skip


@pytest.fixture(scope="module")
def judge(browser):  # noqa: F811
    """Judge a text as the page does, without the page."""
    page = browser.new_page()
    page.add_script_tag(path=ROOT / "book/_static/answers.js")
    yield lambda number, text: page.evaluate("([f, t]) => judge(f, t)", [facts_of(number), text])
    page.close()


@pytest.mark.parametrize("number", JUDGED)
def test_the_page_says_what_check_says(number, judge):
    facts, count = facts_of(number), 0
    if facts is None:  # several names: for the notebook
        assert np.ndim(next(iter(FOUND[number].answers()))[1]) == 1
        return
    for _, value, _ in facts["answers"]:
        for slip in SLIPS if not facts["text"] else (str, str.lower, lambda x: f"{x}x"):
            if not facts["text"] and value == 0 and slip is SLIPS[6]:
                continue
            handed_in = slip(value)
            said = hand_in(number, handed_in)
            text = handed_in if facts["text"] else repr(handed_in)
            assert judge(number, text) == [said.status, said.message], (text, said)
            count += 1
    assert count >= 8


@pytest.mark.parametrize(("number", "text", "status"), [
    ("01-1", "22,376", "right"), ("01-1", "22376 counts", "right"), ("01-1", "22 376", "right"),
    ("09-1", "1/3", "right"), ("09-1", "33.33 %", "right"), ("09-1", "0,3333", "right"),
    ("02-2", " 'stat1' ", "right"), ("14-2", "−0.01835", "right"), ("09-1", "a third", "wrong"),
    ("09-1", "", "empty"), ("09-1", "33,3", "wrong"), ("01-1", "1.2.3", "wrong"),
])  # fmt: skip
def test_numbers_as_people_write_them(number, text, status, judge):
    assert judge(number, text)[0] == status


def test_a_box_answers_keeps_and_forgets_nothing_elsewhere(tab, site):  # noqa: F811
    tab.goto(f"{site}/notebooks/02_measure_effects.html")
    box = tab.locator("form.answer-box").first
    said = box.locator("output")
    for text, words in (("x", "Expected a number"), ("1", "Not yet."), ("2,38", "Right.")):
        box.locator("input").fill(text)
        box.locator("input").press("Enter")
        assert said.inner_text().startswith(("Not yet. " if text == "x" else "") + words)
    tab.reload()
    assert said.inner_text().startswith("Right.") and box.locator("input").input_value() == "2,38"


def test_every_exercise_of_the_book_has_its_box(book):
    for number in FOUND:
        page = next((book / "notebooks").glob(f"{number[:2]}_*.html")).read_text(encoding="utf-8")
        facts = facts_of(number)
        assert len(re.findall(f'data-exercise="{number}"', page)) == (facts is not None)
        right = facts["answers"][0][1] if facts else None
        assert not facts or json.dumps(right) not in re.findall('data-known="(.+?)"', page)


@pytest.mark.parametrize("styled", [False, True])
def test_a_table_has_one_head_and_dashes(styled):
    index = pd.MultiIndex.from_tuples([("mean", "pds"), ("mean", "mae")], names=["model", "metric"])
    table = pd.DataFrame({"value": [0.5, np.nan]}, index)
    html = table.style.to_html() if styled else table.to_html()
    tidied = extension("tidy_tables").tidied(html)
    head = re.search("<thead>(.*?)</thead>", tidied, re.DOTALL)[1]
    assert re.findall(r"<th\b[^>]*>(.*?)</th>", head) == ["model", "metric", "value"]
    assert re.search(r"<td\b[^>]*>–</td>", tidied) and "nan" not in tidied.lower()
    plain = table.reset_index(drop=True).to_html()
    assert re.search("<thead>.*?</thead>", plain, re.DOTALL)[0] in extension("tidy_tables").tidied(
        plain
    )


def test_tables_say_that_they_go_on(tab, site):  # noqa: F811
    """On a phone, each table that is wider than its frame has the mark and can be reached."""
    tab.set_viewport_size({"width": 360, "height": 780})
    tab.goto(f"{site}/notebooks/12_mean_and_median.html")
    tab.wait_for_timeout(300)
    found = tab.evaluate("""Array.from(document.querySelectorAll(".table-frame")).map(f => [
        f.firstElementChild.scrollWidth > f.firstElementChild.clientWidth + 1,
        f.classList.contains("more"), f.firstElementChild.tabIndex === 0])""")
    assert [True] * 3 in found and all(wide == more == reached for wide, more, reached in found)


def test_every_page_has_a_card_and_the_site_a_list_of_its_pages(book):
    listed = (book / "sitemap.xml").read_text(encoding="utf-8")
    cards = {}
    for page in [*book.glob("book/*.html"), *book.glob("notebooks/*.html")]:
        text = page.read_text(encoding="utf-8")
        cards[page] = re.search('<meta name="description" content="([^"]+)', text)[1]
        image = re.search('og:image" content="[^"]*?/vcc-book/([^"]+)', text)[1]
        assert (book / image).exists() and "fontawesome.js" not in text
        assert f"/{page.relative_to(book).as_posix()}</loc>" in listed
    assert len(set(cards.values())) == len(cards) and min(map(len, cards.values())) > 30
    assert not list(book.rglob("fontawesome.js*"))
    for page in ("404.html", "index.html"):
        assert "book/index.html" in (book / page).read_text(encoding="utf-8")
