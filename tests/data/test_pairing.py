"""Real reports paired with rendered films by finding and side."""

import dataclasses
import os
from types import SimpleNamespace

import pytest
from publishers import openi_wheel
from small_data import radiographs as radiograph_settings
from test_prepared import flat_films  # noqa: F401

from ranjax.core.errors import DataError
from ranjax.core.settings import read
from ranjax.data import radiographs
from ranjax.data.radiograph_set import fingerprint, prepare_radiographs
from ranjax.data.set_settings import DataSettings
from ranjax.data.splits import SPLITS
from ranjax.data.text import openi, pairing
from ranjax.data.text.openi import read_corpus
from ranjax.run.config import default_config, override, typed, validate
from ranjax.run.stages.prepare import corpus


def case(name, *findings):
    return SimpleNamespace(id=name, findings=[SimpleNamespace(kind=kind, side=side) for kind, side in findings])


def reports_of(monkeypatch, *placed, turns=("train",)):
    """One report per entry of (kind, side) pairs: its text names its number."""
    made = []
    heading = {"effusion": "Pleural Effusion", "cardiomegaly": "Cardiomegaly", "normal": "normal", "nodule": "Nodule"}
    for number, findings in enumerate(placed):
        mesh = tuple(f"{heading[kind]}/{side}" if side else heading[kind] for kind, side in findings)
        made.append(openi.Report(f"CXR{number}", {"findings": f"Number {number} is shown."}, mesh, ()))
    monkeypatch.setattr(pairing, "_all", lambda path: made)
    monkeypatch.setattr(pairing, "_TURNS", turns)
    pairing._by_findings.cache_clear()


def test_the_best_fitting_report_is_taken(monkeypatch):
    reports_of(
        monkeypatch,
        [("normal", "")],
        [("effusion", "left")],
        [("effusion", "")],
        [("nodule", "right")],
        [("cardiomegaly", ""), ("effusion", "right")],
    )
    cases = [
        case("a"),
        case("b", ("effusion", "left")),
        case("c", ("effusion", "bilateral")),
        case("d", ("mass", "right")),
        case("e", ("cardiomegaly", "midline"), ("effusion", "right")),
        case("f", ("cardiomegaly", "midline")),
        case("g", ("mass", "left")),
        case("h", ("effusion", "left"), ("mass", "left")),
    ]
    paired = {name: source for name, (_, source) in pairing.pair(cases, "", "train", 0).items()}
    # c: a side left open; f: with a further finding; g: no report of a left mass; h: one of its findings alone.
    assert paired == {"a": "CXR0", "b": "CXR1", "c": "CXR2", "d": "CXR3", "e": "CXR4", "f": "CXR4", "h": "CXR1"}
    assert pairing.pair(cases, "", "test", 0) == {}
    pairing._by_findings.cache_clear()


def test_reports_of_one_finding_reach_every_split_and_none_reaches_two(monkeypatch):
    reports_of(monkeypatch, *[[("effusion", "left")]] * 5, *[[("normal", "")]] * 20, turns=pairing._TURNS)
    held = {split: pairing._by_findings("", split, 0) for split in SPLITS}
    assert [len(held[split][("effusion", "left"),]) for split in SPLITS] == [1] * 5
    assert {split: len(of[()]) for split, of in held.items()} == dict.fromkeys(SPLITS, 2) | {"train": 12}
    ids = [report.id for of in held.values() for reports in of.values() for report in reports]
    assert len(ids) == len(set(ids)) == 25
    pairing._by_findings.cache_clear()


def test_films_with_reports_from_a_wheel_are_a_prepared_set(flat_films, tmp_path):  # noqa: F811
    wheel = openi_wheel(tmp_path / "a.whl")
    settings = radiograph_settings(0, 16, train=30, test=20, multiple=0.0, reports=str(wheel))
    made = prepare_radiographs(settings, tmp_path / "out")
    held = {report.id: report for report in openi.read_reports(wheel)}
    kept = [record for source in made.splits.values() for record in source]
    assert len(kept) + len(made.exclusions) == 50
    assert {item["reason"] for item in made.exclusions} == {"no report of such findings"}
    for record in kept:
        report = held[record["group"]["report of"]]
        assert record["report"] == f"{report.sections['findings']} No acute disease."
        assert made.classes[record["label"]] in report.findings
    train, test = ({r["group"]["report of"] for r in made.splits[s]} for s in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert "class-level" in made.card["reports"]
    assert made.card["reports licence"].startswith("CC BY-NC-ND")
    moved = openi_wheel(tmp_path / "b.whl")
    assert fingerprint(dataclasses.replace(settings, reports=str(moved))) == made.fingerprint
    assert fingerprint(dataclasses.replace(settings, reports="")) != made.fingerprint


def test_the_config_names_the_wheel(tmp_path):
    config = default_config()
    override(config, "data.radiographs.reports", str(tmp_path / "no.whl"))
    validate(config)
    with pytest.raises(DataError, match=r"no\.whl does not exist"):
        fingerprint(read(DataSettings(), config.data).to_prepare(config.seed))


@pytest.mark.skipif("RANJAX_TORCHXRAYVISION_WHEEL" not in os.environ, reason="names no torchxrayvision 1.5.7 wheel")
def test_real_reports_cover_every_class():
    for split in SPLITS:
        cases = radiographs.sample_cases(0, split, 400, 0.2 if split == "train" else 0.0, radiographs.IN_DOMAIN)
        paired = pairing.pair(cases, os.environ["RANJAX_TORCHXRAYVISION_WHEEL"], split, 0)
        assert {radiographs.label(case) for case in cases if case.id in paired} >= set(range(8))


def test_further_reports_come_from_a_wheel_or_lines(tmp_path):
    (tmp_path / "lines.txt").write_text("No effusion. No effusion.\n\n12\nHeart enlarged.\n")
    assert read_corpus(tmp_path / "lines.txt") == ["No effusion.", "Heart enlarged."]
    texts = read_corpus(openi_wheel(tmp_path / "a.whl"))
    # Report 7 says nothing.
    assert len(texts) == 23
    assert texts[0] == "The lungs are clear in film 1. No acute disease."
    (tmp_path / "empty.txt").write_text("\n1\n")
    with pytest.raises(DataError, match="holds no text"):
        read_corpus(tmp_path / "empty.txt")
    config = default_config()
    assert corpus(typed(config)) == []
    override(config, "text.corpus", str(tmp_path / "lines.txt"))
    assert len(corpus(typed(config))) == 2
