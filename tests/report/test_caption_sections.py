"""The page tells how plausible noisy captions are, and shows some beside their originals."""

from ranjax.report import page

MEASURED = {
    "recipe": "keywords",
    "meaning": "contradict",
    "pairs": 410,
    "changed": 1.0,
    "same_parts_of_speech": 0.0439,
    "cosine": 0.042,
    "labels_changed": 0.934,
    "false": 1.0,
    "judged": 410,
    "left": {"no exchangeable term": 3},
    "perplexity": {"pairs": 128, "ratio": 0.971, "ninth": 1.43, "before": 17.8, "after": 17.3},
    "examples": [
        {"id": "a", "before": "Left <mass>.", "after": "Right mass.", "exchanges": [["side", "left", "right"]]}
    ],
}


def test_the_table_and_the_captions_stand_on_the_page_with_their_file():
    html, data = page.build({"captions": [MEASURED, {"recipe": "gaussian", "changed": 0.0, "left": {}}]}, {})
    html = html.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "keywords",
        "are false",
        "0.97",
        "93.4 %",
        "100.0 % of 410",
        "3 (no exchangeable term)",
        "Right mass.",
    ):
        assert words in html
    assert "Left &lt;mass&gt;." in html
    assert "side: left → right" in html
    assert data["data/captions.csv"].splitlines()[1].startswith("keywords,contradict,410,1.0,0.0439,0.971")
    assert "gaussian" not in data["data/captions.csv"]


def test_a_run_without_changed_captions_says_so():
    assert "This run has no changed captions to measure." in page.build({}, {})[0]
