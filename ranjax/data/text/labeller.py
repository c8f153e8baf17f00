"""Labels from report text by rules: a documented set of words, with negation and uncertainty. No model, no gold labels.

A sentence is cut where another statement begins; each mention of a finding in such a part is judged by the cues in
front of it, inside it and after it: negated ("no effusion", "heart is not enlarged", "effusion has resolved"),
uncertain ("may represent pneumonia"), else present. What negates a change or an end ("no change in", "has not
resolved") negates no finding. Over a report, present outweighs uncertain, uncertain outweighs absent. It is meant for
sets that come without labels, says so wherever its labels are used, and is no replacement for a trained labeller.

Source: the cues and their reach follow ConText (Harkema et al. 2009) and NegBio (Peng et al. 2018), in plain patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ranjax.data.text.reports import sentences

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0

# Between a finding's subject and its predicate: "is", "does not appear", "size was not significantly".
_IS = (
    r"(?:(?:is|are|was|were|do|does|did|has|have|had|remains?|appears?|seems?|looks?|been)\s+)"
    r"(?:(?!and\b|with\b)[\w-]+\s+){0,4}?"
)
_HEART = r"(?:heart|(?:cardiac|cardiomediastinal|heart) (?:silhouette|size|contour|shadow))(?: size)?"

FINDINGS: Mapping[str, str] = {
    "Atelectasis": r"atelecta\w*|collapse|volume loss",
    "Cardiomegaly": r"cardiomegaly|(?:enlarged|enlargement of the|large) (?:heart|cardiac silhouette)|"
    rf"{_HEART} {_IS}(?:and not )?(?:enlarged|prominent)",
    "Consolidation": r"consolidat\w*",
    "Edema": r"o?edema|vascular congestion|pulmonary congestion|congestive (?:heart )?failure|kerley\w*",
    "Effusion": r"effusions?|pleural fluid|blunt\w* (?:of )?(?:the )?(?:\w+ )?costophrenic\w*|"
    rf"costophrenic (?:angles?|sulc\w+|sulcus|recess\w*) {_IS}blunted",
    "Emphysema": r"emphysem\w*",
    "Fibrosis": r"fibros[ie]s|fibrotic|scarring|scars?",
    "Fracture": r"fractures?",
    "Hernia": r"hernias?",
    "Infiltration": r"infiltrat\w*",
    "Lung Opacity": r"opacit\w*|opacifications?|airspace disease|air space disease",
    "Mass": r"mass(?! effect)|masses|neoplasms?|tumou?rs?",
    "Nodule": r"nodules?|nodular\w*|granulomas?",
    "Pleural Thickening": rf"pleural thickening|thickened pleura|pleura {_IS}thickened",
    "Pneumonia": r"pneumonias?|bronchopneumonia|infection|infectious process",
    "Pneumothorax": r"pneumothora\w*|pneumothoraces",
    "Support Devices": r"pacemaker|catheters?|(?:endotracheal|nasogastric|chest|feeding|tracheostomy) tubes?|picc|"
    r"(?:sternotomy )?wires|stents?|(?:central|venous) lines?|leads(?! to\b)|(?<!may )(?<!can )lead(?! to\b)|"
    r"prosthe\w*",
}
"""Findings and the expressions that mention them."""

NORMAL = re.compile(
    r"no acute (?:cardio\s?pulmonary|cardiac|pulmonary|radiographic|intrathoracic|disease|finding|abnormalit|process)"
    r"|normal chest|negative (?:chest|for acute)|(?:lungs|heart and lungs) (?:are|is) (?:clear|normal)"
    r"|within normal limits|unremarkable|no (?:significant )?abnormalit\w*",
    re.IGNORECASE,
)
# Statements of health that name no finding, and the one that they exclude.
_HEALTHY: Mapping[str, re.Pattern[str]] = {
    "Cardiomegaly": re.compile(
        rf"\b(?:normal (?:heart|cardiac) (?:size|silhouette|contour)|{_HEART} (?:(?:is|are|remains|appears|was) )?"
        r"(?:(?:still|again|\w+ly) )?(?:normal|within normal|not normal)(?: limits| size| in size)?)\b"
    )
}

_ADVERBS = (
    r"(?:(?:yet|completely|fully|entirely|significantly|substantially|markedly|really|much|appreciably|been|quite|"
    r"definitely|totally|further|otherwise|clearly|noticeably|so far)\s+){0,3}"
)
_OF_CHANGE = (
    r"(?:new|significant|interval|substantial|relevant|appreciable|definite|short|term|short-term|acute|major|further|"
    r"large|marked|obvious|detectable|visible|gross|great|real|other|notable|meaningful|overall|or|and|"
    r"evidence|of|any|much|discernible|material|essential|convincing|clear|radiographic)"
)
_CHANGE = (
    r"(?:changes?|increases?|decreases?|improvement|worsening|progression|difference|growth|regression|resolution|"
    r"evolution|clearing|reduction|expansion|shift)"
)
# What negates a change or an end says that the finding is still there; the words are exchanged before cues are sought.
_PSEUDO: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            rf"\b(?:no|not|without)\s+(?:(?:a|an|the|{_OF_CHANGE})[\s,]+){{0,5}}{_CHANGE}"
            r"(?=\s+(?:in|of|from|to|since|for|is|has|was|compared|with|within|regarding|over|seen|noted)\b|"
            r"\s*(?:[.,;:)]|$))",
            "unchanged state",
        ),
        (
            rf"\bnot\s+{_ADVERBS}(?:resolved|cleared|removed|disappeared|gone|changed|improved|increased|decreased|"
            r"worsened|progressed|grown|different|excluded from view)\b",
            "persistent",
        ),
        (
            r"\b(?:near(?:ly)?|almost|partial(?:ly)?|partly|incomplete(?:ly)?|ongoing|slow(?:ly)?|minimal(?:ly)?|some|"
            r"mostly|largely|not)(?:[\s-]+(?:complete(?:ly)?|interval))?[\s-]+(?:resolution|resolved|clearing|"
            r"cleared)\b",
            "persistent",
        ),
        (r"\bnot (?:only|just|merely|simply)\b", "both"),
        (r"\bno doubt\b", "certain"),
        (r"\bnot necessarily\b", "perhaps"),
        (r"\bmay(?= \d)", "month"),
    )
)
_NEGATES_BEFORE = re.compile(
    r"\b(?:no|not|without|free of|negative for|absence of|absent|denies|clear of|rules out|ruled out|excludes?|"
    r"fails? to|rather than|never|neither|nor|resolution of|resolved|removal of|removed|no longer|lack of|lacks|"
    r"instead of)\b"
)
# What comes after these is not what was negated.
_ENDS_NEGATION = re.compile(r"\b(?:due to|because of|secondary to|owing to|caused by|obscured by|in the setting of)\b")
_SEEN = (
    r"(?:seen|present|identified|visuali[sz]ed|appreciated|demonstrated|evident|visible|detected|noted|found|apparent|"
    r"observed|shown|recogni[sz]ed)"
)
_GONE = r"(?:absent|resolved|ruled out|excluded|removed|cleared|unlikely|gone|disappeared|negative)"
_BE = r"(?:is|are|was|were|has been|have been|had been|has|have|had|can|could|do|does)"
_NEGATES_AFTER = re.compile(
    rf"^[\s,]*(?:(?:[^\s,;:]+\s+){{0,5}}?{_BE}\s+)?(?:(?:now|since|again|completely|fully|entirely|also|largely)\s+)*"
    rf"(?:not (?:be |been )?(?:\w+ )?{_SEEN}|no longer (?:be |been )?(?:\w+ )?{_SEEN}|{_GONE})\b"
    r"|^\s*(?:[:=–-]|\bis\b)\s*(?:none|no|nil|absent|negative|not (?:seen|present|identified|detected))\b(?!\s+\w)"
)
_NEGATES_INSIDE = re.compile(r"\b(?:not|neither|no longer|never)\b")
_DOUBTS = re.compile(
    r"\b(?:may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspicious|suspected|suspicion|suspect|"
    r"suggest\w*|"
    r"concern\w*|question(?:ed|able|ably|s)?|equivocal|versus|vs|differential|favou?r\w*|perhaps|presumed|presumably|"
    r"uncertain|unclear|indeterminate|borderline|consider(?:ed|ation|ations)?|would be|whether|query|maybe|"
    r"potential\w*|"
    r"in the appropriate clinical setting|rule out|evaluate for|assess for|can not be (?:\w+ )?(?:assessed|evaluated|"
    r"determined|confirmed)|less likely|not certain|doubtful|conceivabl[ey]|thought to)\b|\?"
)
_NOT_EXCLUDED = re.compile(
    r"\b(?:can not|could not|not|difficult to|hard to|impossible to) (?:be )?(?:\w+ )?(?:exclude\w*|ruled? out)\b"
)
# Where another clause begins, whatever follows.
_CLAUSES = re.compile(
    r";|,?\s+\b(?:but|however|although|though|except|with the exception of|apart from|other than|otherwise|while|"
    r"whereas|yet|aside from|besides|despite|explaining|accounting for|which would explain|to explain|nevertheless)\b",
    re.IGNORECASE,
)
_JOINTS = re.compile(r",\s*(?:and|with|also)?\s+|\s+and\s+|,\s*")
_STARTS = re.compile(
    r"(?:there|it|this|these|no|not|without|possibl[ey]|probabl[ey]|likely|questionable|suspected|perhaps|maybe|also|"
    r"here|again|both)\b"
)
_QUALIFIED = re.compile(
    r"(?:a|an|the|small|large|mild|moderate|severe|trace|tiny|minimal|stable|unchanged|persistent|persisting|new|"
    r"increas\w+|decreas\w+|worsen\w+|improv\w+|bibasilar|bilateral|left|right|old|chronic|mildly|moderately|severely|"
    r"slight|slightly|acute|subtle|extensive|massive|huge|residual|recurrent|known|healed|calcified|marked)\b"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|remains?|persists?|appears?|shows?|demonstrates?|measures?|contains?|"
    r"projects?|"
    r"ends?|terminates?|increased|decreased|worsened|improved|developed|may|might|could|can)\b"
)
_ONLY_SEEN = re.compile(rf"(?:is|are|was|were)\s+(?:\w+\s+)?{_SEEN}")
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
        for part in _parts(_plain(sentence)):
            for name, value in _mentions(part):
                found[name] = max(found.get(name, value), value, key=(ABSENT, UNCERTAIN, PRESENT).index)
    ill = [name for name, value in found.items() if value != ABSENT and name != "Support Devices"]
    normal = {"No Finding": PRESENT} if not ill and NORMAL.search(report) else {}
    return {name: found[name] for name in findings if name in found} | normal


def _mentions(part: str) -> Iterator[tuple[str, float]]:
    """Yield the findings of one statement with the value of each mention."""
    for name, pattern in _PATTERNS.items():
        for mention in pattern.finditer(part):
            yield name, _judge(part, mention.start(), mention.end())
    for name, healthy in _HEALTHY.items():
        if match := healthy.search(part):
            yield name, UNCERTAIN if "not normal" in match[0] or _DOUBTS.search(part) else ABSENT


def _plain(sentence: str) -> str:
    """Return a sentence in lower case with contractions written out and pseudo-negations exchanged."""
    text = re.sub(r"[’‘ʼ`]", "'", sentence.lower())
    text = re.sub(r"\bcan(?:not|'t)\b", "can not", re.sub(r"\bwon't\b", "will not", text))
    text = re.sub(r"n't\b", " not", text)
    for pattern, words in _PSEUDO:
        text = pattern.sub(words, text)
    return text


def _parts(sentence: str) -> Iterator[str]:
    """Yield the statements of a sentence: cut at conjunctions, and at commas and "and" where a new one begins."""
    for clause in _CLAUSES.split(sentence):
        start = 0
        joints = list(_JOINTS.finditer(clause))
        for joint, following in zip(joints, [*joints[1:], None]):
            rest = clause[joint.end() : following.start() if following else len(clause)]
            if _begins_statement(rest, clause[joint.end() :], "and" in joint[0]):
                yield clause[start : joint.start()]
                start = joint.end()
        yield clause[start:]


def _begins_statement(item: str, rest: str, by_and: bool) -> bool:
    """Return whether a new statement begins, or a list goes on.

    Args:
      item: the words up to the next comma or "and".
      rest: the words up to the end of the clause.
      by_and: whether "and" stands in front.
    """
    if re.match(r"n?or\b", item):
        return False
    if _STARTS.match(item):
        return True
    if verb := _VERB.search(re.split(r"\bn?or\b", item)[0]):
        return not (by_and and _ONLY_SEEN.match(item[verb.start() :]) and not _QUALIFIED.match(item))
    # "No mass, large effusion or fracture": the "or" says that the list goes on.
    alternatives = re.search(r"\bn?or\b", rest)
    return bool(_QUALIFIED.match(item)) and not alternatives


def _judge(part: str, start: int, end: int) -> float:
    before, inside, after = part[:start], part[start:end], part[end:]
    if _NOT_EXCLUDED.search(part):
        return UNCERTAIN
    cues = list(_NEGATES_BEFORE.finditer(before))
    reaches = bool(cues) and not _ENDS_NEGATION.search(before[cues[-1].end() :])
    if reaches or _NEGATES_AFTER.search(after) or _NEGATES_INSIDE.search(inside):
        return ABSENT
    return UNCERTAIN if _DOUBTS.search(part) else PRESENT
