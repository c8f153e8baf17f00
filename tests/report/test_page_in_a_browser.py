"""The page in a real browser: no message in its console, nothing cut on a phone, used by keyboard, dark, and printed.

These tests want playwright and axe (the extra `browser`) and the system's chromium; they are skipped where one is
absent.
"""

import re
import shutil

import pytest

from ranjax.report import page

from . import fake
from .test_paper_claims import GOOD_BED, contrast

pytestmark = pytest.mark.slow

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_A4_PAGES = 6


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a page with every claim tested, and all that made-up results hold."""
    claimed = [contrast(name, 0.03) for name in ("hurts", "defends", "costs_nothing", "ood", "term", "repairs", "uses")]
    html, data = page.build({**fake.results(), "contrasts": [*GOOD_BED, *claimed]}, fake.run())
    return page.write_files(tmp_path_factory.mktemp("page"), html, data).as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page with the given settings of a context; no message may reach the console."""
    contexts, said = [], []

    def open_page(**settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(address)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def _unfold(tab):
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


def test_the_answer_stands_above_the_fold_and_everything_else_is_folded(opened):
    tab = opened()
    assert tab.locator("#answer-title").bounding_box()["y"] < 300
    assert tab.locator(".answers").first.bounding_box()["y"] < 450
    assert tab.locator("details.section[open]").count() == 0
    assert tab.locator("details.section").count() > 5


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_cut_at_any_width(opened, width):
    tab = opened(viewport={"width": width, "height": 800})
    _unfold(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:  # tables become lists there
        cut = tab.evaluate(
            """[...document.querySelectorAll('td, th, p, li, dd, figcaption, h2, h3')].filter(one => one.offsetParent
            && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.textContent.slice(0, 40))"""
        )
        assert cut == []


def test_the_keyboard_alone_skips_to_the_content_and_opens_a_section(opened):
    tab = opened()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.parentElement.open")


def test_an_address_of_a_section_opens_it(opened, address):
    tab = opened()
    tab.goto(f"{address}#tables")
    assert tab.evaluate("document.querySelector('#tables').closest('details').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_of_accessibility_in_either_colour_scheme(opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = opened(color_scheme=scheme, bypass_csp=True)
    _unfold(tab)
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    found = axe.Axe().run(tab).response["violations"]
    serious = [
        (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_short_form_prints_on_few_pages(opened):
    printed = opened().pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= _A4_PAGES
