"""Checks of the captions of noisy pairs: what changed is what was recorded, and what the config allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ranjax.data.captions.comparison import caption_record
from ranjax.data.captions.rewrite import Change
from ranjax.data.recipe_table import RECIPES
from ranjax.run.context import Context
from ranjax.run.schema import noise_keys
from ranjax.run.stages import caption_rewrites, inputs, word_candidates
from ranjax.run.stages.pair_program import substitution_of


class CaptionChecks:
    """Compare the caption of a noisy pair with the original, its tokens and its record, as the recipe made it."""

    def __init__(self, context: Context):
        self.data = inputs.data(context)
        self.recipe = RECIPES.resolve(context.config.noise.recipe)
        self.meaning = noise_keys.meaning_of(context.config, self.recipe)
        train = self.data.split("train")
        facts = caption_rewrites.facts_of(self.data.prepared.splits["train"], train.ids)
        self.facts = dict(zip(train.ids, facts))
        self._of_recipe = self._check(context)

    def fault(self, noisy_pair: Mapping[str, Any], original: str) -> str | None:
        """Return what is wrong with the caption of a noisy pair; None: nothing."""
        if what := self._of_recipe(noisy_pair, original):
            return what
        if self.data.encode([noisy_pair["report"]]).ids[0].tolist() != noisy_pair["tokens"].tolist():
            return "its text and its tokens do not say the same"
        record, facts = noisy_pair["provenance"], self.facts[noisy_pair["id"]]
        changes = [Change(*change) for change in record["exchanges"]]
        said = caption_record(self.meaning, original, noisy_pair["report"], changes, facts, record["left"])
        differing = [name for name, value in said.items() if record[name] != value]
        return f"its record says another {differing[0]} than its caption" if differing else None

    def _check(self, context: Context) -> Callable[[Mapping[str, Any], str], str | None]:
        if self.recipe.kind == "control":
            # A control moves whole captions: its report must be one of the source's.
            reports = set(self.data.split("train").reports)
            return lambda pair, original: None if pair["report"] in reports else "its report is none of the source's"
        rewriter = caption_rewrites.of_run(context, self.recipe)
        if rewriter is None:
            return _Words(context)

        def is_rewrite(pair: Mapping[str, Any], original: str) -> str | None:
            found = rewriter(pair["id"], original, self.facts[pair["id"]])
            record = pair["provenance"]
            if not found.rewrites:
                whole = pair["report"] == original and record["left"] == found.reason
                return None if whole else "its caption cannot be rewritten, and is not the original"
            made = [rewrite for rewrite in found.rewrites if rewrite.text == pair["report"]]
            if not made or [list(change) for change in made[0].changes] != record["exchanges"]:
                return "its caption is none of the rewrites of the original, or by other exchanges"
            return None

        return is_rewrite


class _Words:
    """Compare the report of a noisy pair with the original: few words differ, all recorded, none protected."""

    def __init__(self, context: Context):
        self.data = inputs.data(context)
        self.budget, self.moves = substitution_of(context.config), context.config.noise.moves
        lexicon = word_candidates.vocabulary(self.data, context.config.noise)
        table = lexicon.table
        lengths, insertable = np.asarray(table.lengths), np.asarray(table.insertable)
        pieces = [tuple(row[:n].tolist()) for row, n in zip(np.asarray(table.pieces), lengths)]
        self.insertable = {entry for entry, allowed in zip(pieces, insertable) if allowed}
        self.longest = int(lengths.max())

    def __call__(self, noisy_pair: Mapping[str, Any], original: str) -> str | None:
        changed = set(noisy_pair["provenance"]["changed"])
        before = self.data.encode([original])
        most = int(self.budget.budgets(before.words.shape[1])[before.words[0].max() + 1])
        if len(changed) != noisy_pair["provenance"]["words_changed"] or len(changed) > most:
            return f"{len(changed)} words are changed; allowed: {most}"
        slots = _slots(before.ids[0], before.words[0], before.mask[0])
        after = tuple(noisy_pair["tokens"][noisy_pair["mask"]].tolist())
        if not self._walk(slots, after, changed):
            return "its report differs from the original by more than the recorded words, or in a protected one"
        return None

    def _walk(self, slots: Sequence[tuple[int, tuple[int, ...]]], after: tuple[int, ...], changed: set[int]) -> bool:
        """Return whether `after` is `slots` with each changed word, and no other, replaced by an allowed one."""
        if not slots:
            return not after
        (word, pieces), rest = slots[0], slots[1:]
        if word not in changed:
            return after[: len(pieces)] == pieces and self._walk(rest, after[len(pieces) :], changed)
        if pieces not in self.insertable:
            return False
        follows = {"replace": (), "insert": pieces}
        ends = [after] if "delete" in self.moves else []
        for before in (follows[move] for move in self.moves if move != "delete"):
            if after[: len(before)] == before:
                left = after[len(before) :]
                starts = [left[:n] for n in range(1, min(self.longest, len(left)) + 1)]
                ends += [left[len(s) :] for s in starts if s in self.insertable and s != pieces]
        return any(self._walk(rest, end, changed) for end in ends)


def _slots(tokens: np.ndarray, words: np.ndarray, mask: np.ndarray) -> list[tuple[int, tuple[int, ...]]]:
    """Return the real tokens of a row by word: (word, its tokens); a special token is alone, as word -1."""
    found: list[tuple[int, tuple[int, ...]]] = []
    for token, word in zip(tokens[mask].tolist(), words[mask].tolist()):
        if found and word >= 0 and found[-1][0] == word:
            found[-1] = (word, (*found[-1][1], token))
        else:
            found.append((word, (token,)))
    return found
