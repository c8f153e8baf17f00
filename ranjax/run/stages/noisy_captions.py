"""From what an attack chose back to captions, and what their records say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ranjax.attacks.text.candidates import Lexicon
from ranjax.attacks.text.moves import decode
from ranjax.attacks.text.restore import restore
from ranjax.data.captions.comparison import exchanged_words
from ranjax.data.captions.keyword_rewrites import Found
from ranjax.data.captions.rewrite import Change
from ranjax.data.text.tokenizer import Tokenizer


class NoisyCaption(NamedTuple):
    """A caption as an attack left it.

    Attributes:
      text: the caption.
      slots: of the words that were replaced one by one; none of a rewritten caption.
      words: how many words changed.
      changes: from what to what.
      left: why it stayed as it was, of a caption that was to be rewritten.
    """

    text: str
    slots: list[int]
    words: int
    changes: list[Change]
    left: str = ""


def rewritten(caption: str, found: Found, choices: Int[np.ndarray, "slots"]) -> NoisyCaption:
    """Return the rewrite that slot 0 of `choices` names, or the caption with the reason why there is none."""
    number = int(choices[0])
    if number < 0:
        return NoisyCaption(caption, [], 0, [], found.reason or "no rewrite with a loss")
    chosen = found.rewrites[number]
    runs = exchanged_words(caption, chosen.text)
    words = sum(max(len(run.before.split()), len(run.after.split())) for run in runs)
    return NoisyCaption(chosen.text, [], words, list(chosen.changes))


def replaced(
    caption: str, spans: Sequence[tuple[int, int]], choices: Int[np.ndarray, "slots"], lexicon: Lexicon
) -> NoisyCaption:
    """Return a caption with words replaced where they stand, from the begin and end of each of its words."""
    slots = np.flatnonzero(choices >= 0).tolist()
    changes = [_change(caption[slice(*spans[i])].strip(), int(choices[i]), lexicon) for i in slots]
    return NoisyCaption(restore(caption, spans, choices, lexicon), slots, len(slots), changes)


def substituted(
    caption: str,
    tokens: Int[np.ndarray, "length"],
    mask: Bool[np.ndarray, "length"],
    choices: Int[np.ndarray, "slots"],
    tokenizer: Tokenizer,
    lexicon: Lexicon,
) -> NoisyCaption:
    """Return a caption with words replaced, from its tokens; one without such a word stays as it was written."""
    slots = np.flatnonzero(choices >= 0).tolist()
    if not slots:
        return NoisyCaption(caption, [], 0, [])
    (words,) = tokenizer.split([caption])
    changes = [_change(words[slot], int(choices[slot]), lexicon) for slot in slots]
    return NoisyCaption(tokenizer.decode(tokens, mask), slots, len(slots), changes)


def _change(word: str, choice: int, lexicon: Lexicon) -> Change:
    """Say what a choice does to a word; one that is put in follows it."""
    move, entry = decode(choice, len(lexicon.words))
    after = {"replace": "", "insert": f"{word.lower()} ", "delete": ""}[move]
    return Change("words", word.lower(), after + (lexicon.words[entry] if entry >= 0 else ""))
