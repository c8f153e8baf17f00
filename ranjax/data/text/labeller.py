"""Labels from report text by rules: a documented set of words, with negation and uncertainty. No model, no gold labels.

A sentence is cut at conjunctions; each mention of a finding in a clause is judged by the cues in front of it and after
it: negated ("no effusion", "effusion has resolved"), uncertain ("may represent pneumonia"), else present. Over a
report, present outweighs uncertain, uncertain outweighs absent. It is meant for sets that come without labels, says
so wherever its labels are used, and is no replacement for a trained labeller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ranjax.data.text.reports import sentences

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0

FINDINGS: Mapping[str, str] = {
    "Atelectasis": r"atelecta\w*|collapse|volume loss",
    "Cardiomegaly": r"cardiomegaly|(?:enlarged|enlargement of the|large) (?:heart|cardiac silhouette)|"
    r"(?:heart|cardiac silhouette)(?: size)? (?:is|are|remains|appears) (?:\w+ )?(?:enlarged|prominent)",
    "Consolidation": r"consolidat\w*",
    "Edema": r"o?edema|vascular congestion|pulmonary congestion|congestive (?:heart )?failure|kerley\w*",
    "Effusion": r"effusions?|pleural fluid|blunt\w* (?:of )?(?:the )?(?:\w+ )?costophrenic\w*",
    "Emphysema": r"emphysem\w*",
    "Fibrosis": r"fibros[ie]s|fibrotic|scarring|scars?",
    "Fracture": r"fractures?",
    "Hernia": r"hernias?",
    "Infiltration": r"infiltrat\w*",
    "Lung Opacity": r"opacit\w*|opacifications?|airspace disease|air space disease",
    "Mass": r"mass|masses|neoplasms?|tumou?rs?",
    "Nodule": r"nodules?|nodular\w*|granulomas?",
    "Pleural Thickening": r"pleural thickening|thickened pleura",
    "Pneumonia": r"pneumonias?|bronchopneumonia|infection|infectious process",
    "Pneumothorax": r"pneumothora\w*|pneumothoraces",
    "Support Devices": r"pacemaker|catheters?|(?:endotracheal|nasogastric|chest|feeding|tracheostomy) tubes?|picc|"
    r"(?:sternotomy )?wires|stents?|(?:central|venous) lines?|leads?|prosthe\w*",
}
"""Findings and the expressions that mention them."""

NORMAL = re.compile(
    r"no acute (?:cardio\s?pulmonary|cardiac|pulmonary|radiographic|intrathoracic|disease|finding|abnormalit|process)"
    r"|normal chest|negative (?:chest|for acute)|(?:lungs|heart and lungs) (?:are|is) (?:clear|normal)"
    r"|within normal limits|unremarkable|no (?:significant )?abnormalit\w*",
    re.IGNORECASE,
)
_NEGATES_BEFORE = re.compile(
    r"\b(?:no|not|without|free of|negative for|absence of|absent|denies|clear of|rules? out|ruled out|excludes?|"
    r"fails? to|rather than|never|neither|nor|resolution of|resolved|removal of|no longer|lack of)\b"
)
_NEGATES_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,3}?(?:is|are|was|were|has been|have been|has|have)?\s*"
    r"(?:not (?:\w+ )?(?:seen|present|identified|visuali[sz]ed|appreciated|demonstrated|evident)|absent|resolved|"
    r"ruled out|excluded|removed|cleared|unlikely)\b"
)
_DOUBTS = re.compile(
    r"\b(?:may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspicious|suspected|suspicion|suggest\w*|"
    r"concern\w*|question\w*|cannot|can't|can not|equivocal|versus|vs|differential|favou?r\w*|perhaps|presumed|"
    r"uncertain|unclear|indeterminate|borderline|consider\w*|in the appropriate clinical setting)\b"
)
_NOT_EXCLUDED = re.compile(
    r"\b(?:cannot|can't|can not|could not|not|difficult to) (?:be )?(?:\w+ )?(?:exclude\w*|ruled? out)\b"
)
# Where the reach of a cue ends.
_CLAUSES = re.compile(
    r";|,?\s+\b(?:but|however|although|though|except|with the exception of|apart from|otherwise|while|whereas|yet|"
    r"aside from)\b",
    re.IGNORECASE,
)
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in FINDINGS.items()}


def label(report: str, findings: Sequence[str] = tuple(FINDINGS)) -> dict[str, float]:
    """Return the findings that a report mentions: 1.0 present, 0.0 negated, -1.0 uncertain; others are left out.

    "No Finding" is 1.0 where the report calls the chest normal, and nothing but devices is present or uncertain.

    Raises:
      ValueError: a finding that no rule knows.
    """
    unknown = [name for name in findings if name not in FINDINGS]
    if unknown:
        raise ValueError(f"no rule for {unknown[0]!r}; there are rules for {', '.join(FINDINGS)}")
    found: dict[str, float] = {}
    for sentence in sentences(report):
        for clause in _CLAUSES.split(sentence.lower()):
            for name, pattern in _PATTERNS.items():
                for mention in pattern.finditer(clause):
                    value = _judge(clause, mention.start(), mention.end())
                    found[name] = max(found.get(name, value), value, key=(ABSENT, UNCERTAIN, PRESENT).index)
    ill = [name for name, value in found.items() if value != ABSENT and name != "Support Devices"]
    normal = {"No Finding": PRESENT} if not ill and NORMAL.search(report) else {}
    return {name: found[name] for name in findings if name in found} | normal


def _judge(clause: str, start: int, end: int) -> float:
    before, after = clause[:start], clause[end:]
    if _NOT_EXCLUDED.search(clause):
        return UNCERTAIN
    if _NEGATES_BEFORE.search(before) or _NEGATES_AFTER.search(after):
        return ABSENT
    return UNCERTAIN if _DOUBTS.search(clause) else PRESENT
