"""negspaCy's negations on the labeller's sentences, beside the rules here: present or negated, doubt left out.

    pip install spacy negspacy    # in an environment of its own; neither is a dependency
    python -m experiments.data.negspacy_peer

negspaCy (Medical Named Entity negation by NegEx, Chapman et al. 2001) gets the mentions of the same word lists.
"""

from __future__ import annotations

import re

from experiments.data.text_rules import SETS, labeller_cases, table
from ranjax.data.text.labeller import ABSENT, FINDINGS, PRESENT, UNCERTAIN


def main() -> None:
    """Print the figures of both on all sentences whose values are certain."""
    import negspacy.negation  # noqa: F401  (registers the pipe)
    import spacy

    pipe = spacy.blank("en")
    pipe.add_pipe("sentencizer")
    ruler = pipe.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    del ruler
    negex = pipe.add_pipe("negex", config={"ent_types": list(FINDINGS)})
    patterns = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in FINDINGS.items()}

    def judge(text: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, pattern in patterns.items():
            for mention in pattern.finditer(text):
                doc = pipe.get_pipe("sentencizer")(pipe.make_doc(text))
                span = doc.char_span(mention.start(), mention.end(), label=name, alignment_mode="expand")
                doc.set_ents([span])
                value = ABSENT if negex(doc).ents[0]._.negex else PRESENT
                found[name] = max(found.get(name, value), value)
        return found

    for which in SETS:
        for title, cases in (("negspaCy", labeller_cases(which, judge)), ("rules here", labeller_cases(which))):
            certain = [case for case in cases if all(value != UNCERTAIN for _, value in case.expected)]
            print(f"## {title}, {which}\n\n{table(certain)}\n")


if __name__ == "__main__":
    main()
