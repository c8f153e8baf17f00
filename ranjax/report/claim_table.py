"""The table of claims, and of the figures by which a bed is judged: each a contrast of heads on encoders.

One entry a claim. Which figures stand for it is settled here, by rules that look at no outcome; what a run computes,
what a page says and what is corrected for the number of tests all follow from the entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MODERATE = 0.1
"""A run's only noisy ratio counts as moderate up to this share, as much as helps in NMTune's study."""
CLEAN, LEAST, MOST, HIGH = "clean", "least", "most", "high"
"""Encoders: pre-trained without noise; with the least; with the most, or without where a run has none; with the most,
where that is more than moderate."""
PIXELS, RANDOM = "pixels", "random_init"
"""Encoders without pre-training (`ranjax.models.controls`)."""
ENCODERS = {
    CLEAN: "the encoder without noise",
    LEAST: f"an encoder with moderate noise (at most {100 * MODERATE:g} %, or the least of several ratios)",
    MOST: "the encoder with the most noise",
    HIGH: "an encoder with more than moderate noise",
    PIXELS: "raw pixels",
    RANDOM: "the random encoder",
}
"""Encoders in words."""
RAN, PROBE, PLAIN, STRONGEST, REFERENCE = "ran", "probe", "plain", "strongest", "reference"
OTHER, COUNTERPART, FILTERED = "other", "counterpart", "lp_filter"
HEADS = {
    RAN: "RAN",
    PROBE: "the linear probe; where none was fitted, the strongest plain head",
    PLAIN: "the plain head that validates best on the same encoder; plain heads see neither attacks nor copies",
    STRONGEST: "the plain head that validates best on the encoder without noise",
    REFERENCE: "the plain head on the embedding that validates best on the encoder without noise",
    OTHER: "another head: the most accurate of those on RAN's features and behind its filter, without any of those "
    "behind it, or of all",
    COUNTERPART: "the plain head of RAN's kind, on its features and behind its filter",
}
"""Roles of heads; any other name is a method's own."""
ATTACKED = "main"
"""The attack that figures under attack are shown of."""


class Term(NamedTuple):
    """A weighted accuracy: of a head on an encoder."""

    weight: float
    encoder: str
    head: str


@dataclass(frozen=True)
class Endpoint:
    """One contrast.

    Attributes:
      name: unique among all.
      measured: what it is, in words; {ROLE} stands for the label of a head, {ratio} for the noise of its encoder.
      terms: what is summed, each on the same test images.
      split, attack, task, metric: of the answers that are compared; `ATTACKED` is the attack that figures are shown of.
      wanted: +1 where a claim says that the contrast is above the margin, -1 where below.
      margin: what it is held against, as a share.
      whole: terms of which the contrast is shown as a share, e.g. a damage of which it is the repair.
    """

    name: str
    measured: str
    terms: tuple[Term, ...]
    split: str = "test"
    attack: str = "none"
    task: str = "finding"
    metric: str = "accuracy"
    wanted: int = 1
    margin: float = 0.0
    whole: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
      name: the claim as a sentence.
      plain: what the primary endpoint is, in words for readers who know none of the project's; {ROLE} as in `Endpoint`.
      primary: its one endpoint that is tested by itself.
      secondary: others, which are corrected among all secondary ones.
      bed: names of `BED` that must pass before a run that does not show the claim says anything by that.
      premise: names of `BED` whose interval must lie above 0 before anything is shown.
      above_chance: whether the first term itself must stand above chance.
      denied: the verdict where the interval holds the margin and is narrow (`paper_claims.NARROW`) or lies on the other
        side; empty: "not shown" and "the opposite is shown".
      notes: sentences to add, by verdict.
    """

    name: str
    plain: str
    primary: Endpoint
    secondary: tuple[Endpoint, ...] = ()
    bed: tuple[str, ...] = ()
    premise: tuple[str, ...] = ()
    above_chance: bool = False
    denied: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BedFigure:
    """A figure by which a bed is judged, with what it needs: at least `least`, the interval's lower end above `low`.

    `question` and `plain` say what it asks and what it is, in words for readers who know none of the project's.
    """

    endpoint: Endpoint
    least: float
    low: float
    question: str
    plain: str

    @property
    def name(self) -> str:
        return self.endpoint.name


def _less(encoder: str, first: str, other_encoder: str, second: str) -> tuple[Term, ...]:
    return Term(1, encoder, first), Term(-1, other_encoder, second)


def _noise(name: str, encoder: str, head: str, words: str, wanted: int, **where: Any) -> Endpoint:
    return Endpoint(
        name, f"{words}, {{ratio}} noise less none", _less(encoder, head, CLEAN, head), wanted=wanted, **where
    )


_WORTH_PIXELS = Endpoint(
    "worth_over_pixels", "{strongest} without noise less {plain} on raw pixels", _less(CLEAN, STRONGEST, PIXELS, PLAIN)
)
_WORTH_RANDOM = Endpoint(
    "worth_over_random",
    "{strongest} without noise less {plain} on the random encoder",
    _less(CLEAN, STRONGEST, RANDOM, PLAIN),
)
_DAMAGE = Endpoint("damage", "{strongest}, no noise less {ratio} noise", _less(CLEAN, STRONGEST, MOST, STRONGEST))
BED = (
    BedFigure(
        _WORTH_PIXELS,
        0.10,
        0.05,
        "Did the encoder learn more than raw pixels show?",
        "Accuracy of {strongest} on the encoder without noise, minus {plain} on raw pixels",
    ),
    BedFigure(
        _WORTH_RANDOM,
        0.10,
        0.05,
        "Did the encoder learn more than random weights give?",
        "Accuracy of {strongest} on the encoder without noise, minus {plain} on one with random weights",
    ),
    BedFigure(
        _DAMAGE, 0.05, 0.0, "Does the noise do harm?", "Accuracy of {strongest} without noise, minus with {ratio} noise"
    ),
)
WORTH = (_WORTH_PIXELS.name, _WORTH_RANDOM.name)

_REPAIR = (*_less(MOST, RAN, MOST, REFERENCE), Term(-1, CLEAN, RAN), Term(1, CLEAN, REFERENCE))
_REFERENCE_DAMAGE = _less(CLEAN, REFERENCE, MOST, REFERENCE)
_INTERACTION = "({ran} less {reference} at {ratio} noise) less (the same without noise)"

CLAIMS = (
    Claim(
        "Moderate noise helps under attack",
        "Accuracy of {probe} on attacked images, with {ratio} noise minus without",
        _noise("helps_attacked", LEAST, PROBE, "{probe}", 1, attack=ATTACKED),
        (_noise("helps_zero_shot_attacked", LEAST, "zero_shot", "Zero-shot", 1, attack=ATTACKED),),
    ),
    Claim(
        "Moderate noise helps out of domain",
        "Accuracy of {probe} on out-of-domain images, with {ratio} noise minus without",
        _noise("helps_ood", LEAST, PROBE, "{probe}", 1, split="ood_test"),
        (
            _noise("helps_zero_shot_ood", LEAST, "zero_shot", "Zero-shot", 1, split="ood_test"),
            _noise("helps_ood_attacked", LEAST, PROBE, "{probe}", 1, split="ood_test", attack=ATTACKED),
        ),
        notes={
            "the opposite is shown": "This agrees with NMTune's line (arXiv 2403.06869), and not with the abstract's "
            "transferability."
        },
    ),
    Claim(
        "More noise hurts",
        "Accuracy of {probe} on unaltered images, with {ratio} noise minus without",
        _noise("hurts", HIGH, PROBE, "{probe}", -1),
        (
            _noise("hurts_ood", HIGH, PROBE, "{probe}", -1, split="ood_test"),
            _noise("hurts_attacked", HIGH, PROBE, "{probe}", -1, attack=ATTACKED),
            _noise("hurts_zero_shot", HIGH, "zero_shot", "Zero-shot", -1),
            _noise("hurts_zero_shot_ood", HIGH, "zero_shot", "Zero-shot", -1, split="ood_test"),
            *(
                _noise(f"hurts_{name}", HIGH, name, words, -1, task="retrieval", metric="recall@1")
                for name, words in (("image_to_text", "Image to report"), ("text_to_image", "Report to image"))
            ),
        ),
    ),
    Claim(
        "RAN defends against attacks",
        "Accuracy on attacked images after {ratio} noise, {ran} minus the best other head, {other}",
        Endpoint("defends", "{ran} less {other} at {ratio} noise", _less(MOST, RAN, MOST, OTHER), attack=ATTACKED),
        (
            Endpoint(
                "defends_over_filter",
                "{ran} less {lp_filter} at {ratio} noise",
                _less(MOST, RAN, MOST, FILTERED),
                attack=ATTACKED,
            ),
            Endpoint(
                "defends_over_plain",
                "{ran} less {strongest} at {ratio} noise",
                _less(MOST, RAN, MOST, STRONGEST),
                attack=ATTACKED,
            ),
        ),
        above_chance=True,
    ),
    Claim(
        "RAN costs nothing on clean images",
        "Accuracy on unaltered images after {ratio} noise, {ran} minus the best head without a defence, {plain}",
        Endpoint("costs_nothing", "{ran} less {plain} at {ratio} noise", _less(MOST, RAN, MOST, PLAIN), margin=-0.01),
        (
            Endpoint(
                "costs_nothing_without_noise",
                "{ran} less {plain}, no noise",
                _less(CLEAN, RAN, CLEAN, PLAIN),
                margin=-0.01,
            ),
        ),
    ),
    Claim(
        "RAN is better out of domain",
        "Accuracy on images from elsewhere after {ratio} noise, {ran} minus the best head without a defence, {plain}",
        Endpoint("ood", "{ran} less {plain} at {ratio} noise", _less(MOST, RAN, MOST, PLAIN), split="ood_test"),
        (
            Endpoint(
                "ood_attacked",
                "{ran} less {other} at {ratio} noise",
                _less(MOST, RAN, MOST, OTHER),
                split="ood_test",
                attack=ATTACKED,
            ),
        ),
    ),
    Claim(
        "RAN's defence term defends",
        "Accuracy on attacked images after {ratio} noise, {ran} minus {counterpart}, which lacks that term",
        Endpoint(
            "term", "{ran} less {counterpart} at {ratio} noise", _less(MOST, RAN, MOST, COUNTERPART), attack=ATTACKED
        ),
        (
            Endpoint(
                "term_clean",
                "{ran} less {counterpart} at {ratio} noise",
                _less(MOST, RAN, MOST, COUNTERPART),
                margin=-0.03,
            ),
        ),
        above_chance=True,
    ),
    Claim(
        "RAN repairs the noise",
        "Accuracy that {ratio} noise costs {reference}, minus what it costs {ran}",
        Endpoint("repairs", _INTERACTION, _REPAIR, whole=_REFERENCE_DAMAGE),
        (
            Endpoint(
                "repairs_half",
                f"{_INTERACTION}, less half of what the noise costs {{reference}}",
                (*_REPAIR, *(term._replace(weight=-0.5 * term.weight) for term in _REFERENCE_DAMAGE)),
            ),
            Endpoint("repairs_ood", _INTERACTION, _REPAIR, split="ood_test", whole=_REFERENCE_DAMAGE),
        ),
        bed=(*WORTH, _DAMAGE.name),
        premise=(_DAMAGE.name,),
        denied="RAN does not repair the noise",
    ),
    Claim(
        "RAN uses the upstream",
        "Accuracy of {ran} after {ratio} noise, pre-trained encoder minus one with random weights",
        Endpoint("uses", "{ran} at {ratio} noise less {ran} on the random encoder", _less(MOST, RAN, RANDOM, RAN)),
        (
            Endpoint(
                "uses_ood",
                "{ran} at {ratio} noise less {ran} on the random encoder",
                _less(MOST, RAN, RANDOM, RAN),
                split="ood_test",
            ),
            Endpoint("uses_pixels", "{ran} at {ratio} noise less {ran} on raw pixels", _less(MOST, RAN, PIXELS, RAN)),
        ),
        bed=(_WORTH_RANDOM.name,),
        denied="RAN ignores the upstream",
    ),
)


def endpoints() -> tuple[Endpoint, ...]:
    """Return every contrast that a run computes: those of the bed, then those of the claims."""
    of_claims = (endpoint for claim in CLAIMS for endpoint in (claim.primary, *claim.secondary))
    return *(figure.endpoint for figure in BED), *of_claims
