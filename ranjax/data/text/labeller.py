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
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ranjax.data.text.finding_words import FINDINGS, HEALTHY
from ranjax.data.text.reports import sentences

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0

NORMAL = re.compile(
    r"no acute (?:cardio\s?pulmonary|cardiac|pulmonary|radiographic|intrathoracic|disease|finding|abnormalit|process)"
    r"|normal chest|negative (?:chest|for acute)|(?:lungs|heart and lungs) (?:are|is) (?:clear|normal)"
    r"|within normal limits|unremarkable|no (?:significant )?abnormalit\w*",
    re.IGNORECASE,
)
_ADVERBS = (
    r"(?:(?:yet|completely|fully|entirely|significantly|substantially|markedly|really|much|appreciably|been|quite|"
    r"definitely|totally|further|otherwise|clearly|noticeably|so far)\s+){0,3}"
)
_OF_CHANGE = (
    r"(?:new|significant|interval|substantial|relevant|appreciable|definite|short|term|short-term|acute|major|further|"
    r"large|marked|obvious|detectable|visible|gross|great|real|other|notable|meaningful|overall|or|and|"
    r"evidence|of|any|much|convincing|clear|radiographic|\w+(?:able|ible|ent|ant|al))"
)
_CHANGE = (
    r"(?:changes?|increases?|decreases?|improvement|worsening|progression|difference|growth|regression|resolution|"
    r"evolution|clearing|reduction|expansion|shift|enlargement(?! of the (?:heart|cardiac)))"
)
# What negates a change or an end says that the finding is still there; the words are exchanged before cues are sought.
_PSEUDO: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            rf"\b(?:no|not|without)\s+(?:(?:a|an|the|{_OF_CHANGE})[\s,]+){{0,5}}{_CHANGE}(?: n?or {_CHANGE})?"
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
        (
            r"\bnot (?:be |been )?(?:\w+ )?(?:seen|present|identified|visuali[sz]ed|noted|visible|"
            r"apparent)(?= (?:before|"
            r"previously|earlier|on the (?:prior|previous|last|earlier)|on prior|in the prior)\b)",
            "new",
        ),
        (r"\bnot (?:only|just|merely|simply)\b", "both"),
        (r"\bnot all\b(.*?)\b(?:has|have) (?:been )?(?:cleared|resolved|removed|gone)\b", r"\1 persistent"),
        (r"\bnot (?=all\b|both\b|every\b)", "nearly "),
        (
            r"\bneither (.+?) nor (.+?) (?:has|have) (?:\w+ly )?(?:changed|improved|worsened|increased|decreased|"
            r"resolved|cleared)\b",
            r"\1 and \2 persistent",
        ),
        (r"\bno doubt\b", "certain"),
        (r"\bnot necessarily\b", "perhaps"),
        (r"\bmay(?= \d)", "month"),
        (r"\bw/o\b", "without"),
        (r"\br/o\b", "rule out"),
        # What a further film is for is a question.
        (
            r"(?<!difficult )(?<!hard )(?<!impossible )\b(?:to|please|for) (?:\w+ly |better |further )?(?:exclude|"
            r"rule out)\b",
            "to assess for",
        ),
        (r"\b(?:should|must|needs? to|has to|have to) be (?:\w+ )?(?:excluded|ruled out)\b", "is possible"),
        # What is suggested or considered is another film, not a finding.
        (
            r"\b(?:suggest|consider)(?:s|ed|ing)?(?= (?:a |an |the |repeat |further |short |dedicated |clinical |"
            r"chest )*"
            r"(?:cts?|mri|follow|correlation|comparison|imaging|evaluation|assessment|work-?up|views?|films?|"
            r"radiographs?)\b)",
            "advise",
        ),
        (
            r"(?<=\b)(?<=ct |up |ng |on |ms |ws |ri )(?:is|are|may be|could be|would be|should be|can be) (?:\w+ly )?"
            r"(?:suggested|considered|helpful|useful|obtained|performed|recommended|advised)\b",
            "advised",
        ),
    )
)
_NEGATES_BEFORE = re.compile(
    r"\b(?:no|not|nil|none|nothing|without|free (?:of|from)|devoid of|negative (?:\w+ ){0,3}for|absence of|absent|"
    r"denies|"
    r"clear of|rules out|ruled out|excludes?|unable to (?:\w+ )?(?:identify|see|detect|appreciate|visuali[sz]e|"
    r"demonstrate|find)|"
    r"unaccompanied by|disappearance of|unlikely (?:to|that)|fails? to|rather than|never|neither|nor|resolution of|"
    r"resolved|removal of|removed|no longer|lack of|lacks|"
    r"instead of)\b"
)
# What comes after these is not what was negated.
_ENDS_NEGATION = re.compile(
    r"\b(?:due to|because of|secondary to|owing to|caused by|obscured by|in the setting of|following|after|"
    r"status post|s/p|"
    r"despite|limited by|masked by|hidden by|given|in view of)\b"
)
_SEEN = (
    r"(?:seen|present|identified|visuali[sz]ed|appreciated|demonstrated|evident|visible|detected|noted|found|apparent|"
    r"observed|shown|recogni[sz]ed|suspected)"
)
_GONE = r"(?:absent|resolved|ruled out|excluded|removed|taken out|cleared|unlikely|gone|disappeared|negative)"
_BACK = r"(?:recurred|reaccumulated|returned|developed|reappeared|re-?formed|come back)"
_BE = r"(?:is|are|was|were|has been|have been|had been|has|have|had|can|could|do|does)"
# "Not well seen" is seen.
_WELL = r"(?!(?:well|fully|completely|entirely|adequately|optimally)\b)"
_NEGATES_AFTER = re.compile(
    rf"^[\s,]*(?:(?:[^\s,;:]+\s+){{0,5}}?{_BE}\s+)?(?:(?:now|since|again|completely|fully|entirely|also|largely|all|"
    rf"both)\s+)*"
    rf"(?:not (?:be |been )?{_WELL}(?:\w+ )?{_SEEN}|no longer (?:be |been )?(?:\w+ )?(?:{_SEEN}|in place|in situ)|"
    rf"not (?:\w+ )?{_BACK}|not a feature|(?:\w+ and )?{_GONE})\b"
    r"|^\s*(?:[:=,(–-]|\bis\b)\s*(?:none|nil|absent|negative|no evidence|not (?:seen|present|identified|detected))\b"
    r"|^\s*(?:[:=–-]|\bis\b)\s*no\b(?!\s+\w)"
    r"|[:=]\s*(?:none|nil|absent|negative|no)(?: seen| identified| present)?\W*$"
    r"|^\s+(?:is|are|was|were) not\s*[.)]?$"
)
_PART_OF_DEVICE = r"(?:tip|end|course|position|distal \w+|side ?port|side ?hole)s?"
_PART_BEFORE = re.compile(rf"\b{_PART_OF_DEVICE} of (?:the |a )?(?:[\w-]+ )*$")
_PART_AFTER = re.compile(rf"^(?: \w+)? {_PART_OF_DEVICE}\b")
_OF_HEART = r"(?:heart|cardiac)(?: (?:size|shadow|silhouette|contour))?"
_NO_ENLARGEMENT = (
    r"(?: (?:is|was|shows?|demonstrates?|has))? (?:no|without)(?: (?:any|evidence of|significant|definite|evident|"
    r"appreciable|obvious|gross|overt))* enlargement\b"
)
_NEGATES_INSIDE = re.compile(r"\b(?:not|neither|no longer|in no way|never|by no means|hardly|scarcely)\b")
_DOUBTS = re.compile(
    r"\b(?:may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspicious|suspected|suspicion|suspect|"
    r"suggest\w*|concern\w*|worrisome|question(?:ed|able|ably|s)?|equivocal|favou?r\w*|perhaps|presumed|presumably|"
    r"uncertain|unclear|indeterminate|borderline|consider(?:ed|ation|ations)?|would be|query|maybe|potential\w*|"
    r"rule out|"
    r"(?:evaluate|evaluation|assess|assessment|look) for|correlat\w+ (?:\w+ )?(?:for|to)|"
    r"can not be (?:\w+ )?(?:assessed|"
    r"evaluated|determined|confirmed)|less likely|likelihood|probability|history of|h/o|"
    r"not certain|doubtful|conceivabl[ey]|thought to|raises?|raising)\b"
)
# Doubts about all that a statement names, and those about what comes after them.
_OF_ALL = re.compile(r"\b(?:versus|vs|differential|whether|in the appropriate clinical setting|either)\b|\?")
_OF_WHAT_FOLLOWS = re.compile(
    r"\b(?:(?:may|might|could)(?: \w+)? (?:represent|reflect|indicate|suggest|signify|mean|correspond)|suggest(?:s|"
    r"ing|ive)?\b|"
    r"suspicious for|suspicion (?:for|of)|concern\w* (?:for|of)|worrisome for|favou?r(?:s|ing)?\b|raises?|raising|"
    r"(?:likely|probably|possibly|perhaps|presumably) (?:represent|reflect|indicat|due|related|secondary|from)\w*|"
    r"to assess for)"
)
_IS_JUST_BEFORE = re.compile(r"\b(?:is|are|was|were|be|felt|remains?|thought)(?: \w+)? $")
# "No change in X or Y": both are there.
_STEADY = re.compile(r"\bunchanged state\b|\b(?:has|have) persistent\b")
_SEEMS = re.compile(r"\bapparent (?:[\w-]+ ){0,3}$")
_OR = re.compile(r"\s+(?:[\w-]+\s+){0,4}?(?:and/)?or\s+(?:[\w-]+\s+){0,4}?")
_NOT_EXCLUDED = re.compile(
    r"\b(?:can not|could not|not|difficult to|hard to|impossible to) (?:be )?(?:\w+ )?(?:exclude\w*|ruled? out)\b"
)
# Where another clause begins, whatever follows.
_CLAUSES = re.compile(
    r";|,?\s+\b(?:but|however|although|though|except|with the exception of|apart from|other than|otherwise|while|"
    r"whereas|yet|aside from|besides|save for|beyond|but for|barring|"
    r"with(?= (?:a |an |some )?(?:possibl|probabl|likely|questionabl|suspected|presumed|equivocal|stable|unchanged|"
    r"persistent|residual))|"
    r"with(?= (?:the |a |an )?(?:[\w-]+ ){1,3}(?:in place|in situ))|despite|explaining|accounting for|"
    r"which would explain|to explain|nevertheless)\b",
    re.IGNORECASE,
)
_JOINTS = re.compile(r",\s*(?:and|with|also)?\s+|\s+and\s+|,\s*")
_STARTS = re.compile(
    r"(?:there|it|this|these|no|not|without|possibl[ey]|probabl[ey]|likely|questionable|suspected|perhaps|maybe|also|"
    r"here|again|both|only|just|merely|simply|instead)\b"
)
_ORGAN = re.compile(
    r"(?:the )?(?:heart|lungs|mediastinum|bones|pleura|trachea|diaphragm|aorta|hila|cardiac|cardiomediastinal)\b"
)
_QUALIFIED = re.compile(
    r"(?:a|an|the|small|large|mild|moderate|severe|trace|tiny|minimal|stable|unchanged|persistent|persisting|new|"
    r"increas\w+|decreas\w+|worsen\w+|improv\w+|bibasilar|bilateral|left|right|old|chronic|mildly|moderately|severely|"
    r"slight|slightly|acute|subtle|extensive|massive|huge|residual|recurrent|known|healed|calcified|marked|two|"
    r"three|four|several|multiple|scattered)\b"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|remains?|persists?|appears?|shows?|demonstrates?|measures?|contains?|"
    r"projects?|"
    r"ends?|terminates?|increased|decreased|worsened|improved|developed|may|might|could|can)\b"
)
_WHOLE = re.compile(r"(?:enlarged|unchanged|stable|in place|in situ|worse|improved|larger|smaller|as before)\W*$")
_NOT_AT_END = re.compile(r"^\w.*\bnot (?:\w+ )?\w+\W*$")
_THERE = re.compile(r"(?:present|seen|noted)\W*$")
_PLURAL = ("are", "were", "have", "appear", "remain", "persist", "show", "demonstrate")
_ONLY_SEEN = re.compile(rf"(?:is|are|was|were)\s+(?:\w+\s+)?{_SEEN}")
_NEGATED = re.compile(r"\b(?:no|not|nil|without|neither|nor)\b")
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


class _Mention(NamedTuple):
    name: str
    start: int
    end: int


def _mentions(part: str) -> Iterator[tuple[str, float]]:
    """Yield the findings of one statement with the value of each mention."""
    found = [_Mention(name, *match.span()) for name, pattern in _PATTERNS.items() for match in pattern.finditer(part)]
    for mention in found:
        others = [other for other in found if other.name != mention.name]
        yield mention.name, _judge(part, mention, others)
    for name, healthy in HEALTHY.items():
        if match := healthy.search(part):
            yield name, UNCERTAIN if "not normal" in match[0] or _DOUBTS.search(part) else ABSENT


def _plain(sentence: str) -> str:
    """Return a sentence in lower case with contractions written out and pseudo-negations exchanged."""
    text = re.sub(r"[’‘ʼ`]", "'", sentence.lower())
    text = re.sub(r"\bcan(?:not|'t)\b", "can not", re.sub(r"\bwon't\b", "will not", text))
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(
        r"\b((?:(?:heart|cardiac) size|size of the heart) (?:is|was) not (?:\w+ly )?)increased\b", r"\1enlarged", text
    )
    text = re.sub(rf"\b({_OF_HEART} (?:is|was|has) not (?:\w+ly )?)increased in size\b", r"\1enlarged", text)
    text = re.sub(rf"\b({_OF_HEART}){_NO_ENLARGEMENT}", r"\1 is not enlarged", text)
    text = re.sub(r"\bnon-?(?=(?:enlarged|dilated|blunted|thickened|collapsed|consolidated|fractured)\b)", "not ", text)
    text = re.sub(
        r",\s+(?=not (?:\w+ly )?(?:enlarged|thickened|blunted|seen|present|identified|visible)\b)", " is ", text
    )
    text = re.sub(r",? if any,?|, (?:as before|as expected|again|however),", "", text)
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
            said = clause[start : joint.start()]
            if _begins_statement(said, rest, clause[joint.end() :], "and" in joint[0]):
                yield clause[start : joint.start()]
                start = joint.end()
        yield clause[start:]


def _begins_statement(said: str, item: str, rest: str, by_and: bool) -> bool:
    """Return whether a new statement begins, or a list goes on.

    Args:
      said: the words of the statement so far.
      item: the words up to the next comma or "and".
      rest: the words up to the end of the clause.
      by_and: whether "and" stands in front.
    """
    if re.match(r"n?or\b", item):
        return False
    if _STARTS.match(item) or (_ORGAN.match(item) and not by_and):
        return True
    if verb := _VERB.search(re.split(r"\bn?or\b", item)[0]):
        if by_and and verb[0] in _PLURAL and not (_VERB.search(said) or _NEGATED.search(said)):
            # "Edema and effusions have cleared": one verb of both.
            return False
        return not (by_and and _ONLY_SEEN.match(item[verb.start() :]) and not _QUALIFIED.match(item))
    if _WHOLE.search(item) or _NOT_AT_END.search(item) or (_THERE.search(item) and not _NEGATED.search(said)):
        return True
    # "No mass, large effusion or fracture": the "or" says that the list goes on.
    alternatives = re.search(r"\bn?or\b", rest)
    return bool(_QUALIFIED.match(item)) and not alternatives


def _judge(part: str, mention: _Mention, others: Sequence[_Mention]) -> float:
    """Return the value of a mention by the cues of its statement; `others` are mentions of other findings in it."""
    before, inside, after = part[: mention.start], part[mention.start : mention.end], part[mention.end :]
    if _NOT_EXCLUDED.search(part):
        return UNCERTAIN
    cues = list(_NEGATES_BEFORE.finditer(before))
    if cues and not _ENDS_NEGATION.search(before[cues[-1].end() :]):
        return ABSENT
    if _NEGATES_INSIDE.search(inside):
        return ABSENT
    if _NEGATES_AFTER.search(after) and not (_PART_BEFORE.search(before) or _PART_AFTER.search(after)):
        return ABSENT
    return UNCERTAIN if _is_doubted(part, mention, others) else PRESENT


def _is_doubted(part: str, mention: _Mention, others: Sequence[_Mention]) -> bool:
    """Return whether a statement doubts a mention: "X may represent Y" doubts Y alone, "X or Y" both."""
    if _OF_ALL.search(part):
        return True
    for other in [] if _STEADY.search(part) else others:
        first, second = sorted((mention, other), key=lambda one: one.start)
        next_to = not any(first.end <= one.start < second.start for one in others if one is not other)
        if next_to and _OR.fullmatch(part[first.end : second.start]):
            return True
    if _DOUBTS.search(part[: mention.end]) or _SEEMS.search(part[: mention.start]):
        return True
    after = _OF_WHAT_FOLLOWS.sub(lambda match: " " * len(match[0]), part[mention.end :])
    for cue in _DOUBTS.finditer(after):
        place = mention.end + cue.end()
        elsewhere = any(other.start >= place for other in others)
        if not elsewhere or _IS_JUST_BEFORE.search(part[: mention.end + cue.start()]):
            return True
    return False
