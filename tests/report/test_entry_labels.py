"""Methods and attacks from outside ranjax keep their label and style on a page that is made without their module."""

import importlib.util
import json

import pytest

from ranjax.attacks.attack_table import ATTACKS, Attack
from ranjax.core.extras import MissingExtraError
from ranjax.methods.method_settings import HeadTraining
from ranjax.methods.table import METHODS, Method, Style
from ranjax.report import entry_labels as labels
from ranjax.report import page

from . import fake


@pytest.fixture
def stored(monkeypatch):
    """The "labels" of results.json of a run with one method and one attack of a user's, as JSON gives them back."""
    method = Method("ours", "Our <head>", settings=HeadTraining(), style=Style("#123456", "o", (0, (4, 1.5))))
    attack = Attack("mine", "R-FGSM", run=lambda *_: None)
    with monkeypatch.context() as patch:
        for table, entry in ((METHODS, method), (ATTACKS, attack)):
            patch.setitem(table._entries, entry.name, entry)
            patch.setitem(table._sources, entry.name, "a hash")
        found = labels.labels_document(["lp", "ours", "image_to_text"], ["none", "pgd", "worst", "mine", "mine@2/255"])
    assert "ours" not in METHODS
    return json.loads(json.dumps(found))


def test_results_hold_the_labels_of_entries_from_outside_alone(stored):
    assert list(stored["methods"]) == ["ours"]
    assert stored["attacks"] == {"mine": "R-FGSM"}


def test_a_page_made_again_shows_them_and_only_that_page(stored):
    rows = [fake.row(method=name, attack=attack) for name in ("lp", "ours") for attack in ("none", "pgd", "mine")]
    html, _ = page.build({"rows": rows, "labels": stored}, {})
    assert "Our &lt;head&gt;" in html
    assert "attacked (R-FGSM)" in html
    assert "#123456" in html
    assert labels.method("ours").family == "unknown"
    bare, _ = page.build({"rows": rows}, {})
    assert "Our &lt;head&gt;" not in bare
    assert "attacked (MINE)" in bare


def test_a_head_from_outside_is_drawn_with_the_heads(stored):
    with labels.labels_of([{"labels": stored}]):
        assert labels.is_head("ours")
        assert labels.method("ours").style == Style("#123456", "o", (0, (4, 1.5)))


def test_a_page_without_its_extra_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else True)
    from ranjax import report

    with pytest.raises(
        MissingExtraError, match=r"jinja2 is not installed\. Install it with: pip install 'ranjax\[report\]'"
    ):
        _ = report.write_report
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = report.nothing


def test_every_section_of_the_page_of_a_run_but_the_size_of_the_run_has_its_words():
    words = page.environment().get_template("words.html.jinja").module.sections
    assert set(words) == {section.anchor for section in page.SECTIONS} - {"run"}
