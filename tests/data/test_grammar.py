"""Reports: they name exactly the findings, on the right side, in many wordings and few words."""

import re

import pytest

from ranjax.data.radiographs import CLASSES, LABEL_WORDS, PROMPTS, sample_cases, write_prompts, write_report
from ranjax.data.radiographs.phrases import NEGATIONS, NEGATIVES, TERMS


@pytest.fixture(scope="module")
def written():
    cases = sample_cases(11, "train", 2000)
    return [(case, write_report(case)) for case in cases]


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def sentences(report):
    return [words(part) for part in re.split(r"[.:]", report) if words(part)]


def named(sentence):
    return {kind for kind, terms in TERMS.items() if set(terms) & set(sentence)}


def test_reports_name_exactly_the_findings(written):
    for case, report in written:
        present = {finding.kind for finding in case.findings}
        positive, negative = set(), set()
        for sentence in sentences(report):
            (negative if set(NEGATIONS) & set(sentence) else positive).update(named(sentence))
        assert positive == present, report
        assert not negative & present, report


def test_findings_and_impression_each_name_every_finding(written):
    for case, report in written:
        findings, impression = re.fullmatch(r"Findings: (.*)\. Impression: (.*)\.", report).groups()
        for part in (findings, impression):
            assert {f.kind for f in case.findings} <= {kind for s in sentences(part) for kind in named(s)}, report
        if not case.findings:
            assert not {kind for s in sentences(impression) for kind in named(s)}


def test_laterality_and_lobe_are_those_of_the_finding(written):
    for case, report in written:
        for sentence in sentences(report):
            if set(NEGATIONS) & set(sentence):
                continue
            for finding in case.findings:
                if named(sentence) != {finding.kind}:
                    continue
                sides = [word for word in sentence if word in ("left", "right")]
                if finding.side in ("left", "right") and not {"shift", "mediastinum"} & set(sentence):
                    assert set(sides) == {finding.side}, report
                elif finding.side in ("bilateral", "midline"):
                    assert not sides, report
                lobes = {word for word in sentence if word in ("upper", "lower", "middle", "mid")}
                if lobes and finding.pattern != "linear":
                    assert {"mid": "middle"}.get(lobe := lobes.pop(), lobe) == finding.lobe, report


def test_lengths_and_vocabulary(written):
    lengths = [len(words(report)) for _, report in written]
    assert min(lengths) >= 20
    assert max(lengths) <= 45
    # With punctuation and two special tokens a report fits 64 tokens.
    assert max(len(re.findall(r"\w+|[^\w\s]", report)) for _, report in written) <= 62
    vocabulary = {word for _, report in written for word in words(report)}
    assert 300 <= len(vocabulary) <= 600
    assert set(LABEL_WORDS) <= vocabulary
    assert not any(character.isdigit() for _, report in written for character in report)


def test_wordings_vary_and_repeat(written):
    reports = [report for _, report in written]
    assert len(set(reports)) > 0.98 * len(reports)
    assert [write_report(case) for case, _ in written[:50]] == reports[:50]
    by_finding = {}
    for case, report in written:
        if len(case.findings) == 1:
            finding = case.findings[0]
            by_finding.setdefault((finding.kind, finding.side, finding.lobe, finding.severity), set()).add(report)
    assert min(len(group) for group in by_finding.values() if group) >= 2


def test_denials_are_marked_as_such():
    for kinds, phrase in NEGATIVES:
        assert set(kinds) <= set(CLASSES)
        mentioned = named(words(phrase))
        assert mentioned <= set(kinds)
        if mentioned:
            assert set(NEGATIONS) & set(words(phrase))


def test_prompts_speak_of_their_class_alone(written):
    vocabulary = {word for _, report in written for word in words(report)}
    assert tuple(PROMPTS) == CLASSES
    for kind, prompts in PROMPTS.items():
        assert len(set(prompts)) == len(prompts) >= 12
        assert prompts == write_prompts(kind)
        for prompt in prompts:
            found = {kind for sentence in sentences(prompt) for kind in named(sentence)}
            assert found == (set() if kind == "normal" else {kind}), prompt
            assert set(words(prompt)) <= vocabulary
    with pytest.raises(ValueError, match="fracture"):
        write_prompts("fracture")
