"""False captions by exchanged keywords: of a report of the radiograph grammar, or of any report of a corpus."""

from __future__ import annotations

import random
from typing import NamedTuple

from ranjax.data.captions import radiograph_rewrites, term_exchange
from ranjax.data.captions.radiograph_reading import Facts
from ranjax.data.captions.rewrite import Rewrite
from ranjax.data.noisy_pairs import keyed_hash


class Found(NamedTuple):
    """Rewrites of one caption, or the reason why there are none."""

    rewrites: list[Rewrite]
    reason: str = ""


class Keywords:
    """Rewrites captions so that they are false, a bounded number each, the same for the same pair.

    Args:
      seed: of the run.
      changes: exchanges a caption at most.
      count: rewrites a caption at most.
      corpus: what is not of the radiograph grammar must read as these texts do; None: any text is well.
    """

    def __init__(self, seed: int, changes: int, count: int, corpus: term_exchange.Corpus | None = None):
        self.seed, self.changes, self.count, self.corpus = seed, changes, count, corpus

    def __call__(self, identity: str, caption: str, facts: Facts | None) -> Found:
        """Return the rewrites of the caption of pair `identity`, whose exact findings are `facts` where known."""
        rng = random.Random(keyed_hash(self.seed, "keywords", identity))
        found = radiograph_rewrites.rewrites(caption, facts, rng, self.changes, self.count)
        if found is None:
            return Found(*term_exchange.rewrites(caption, self.corpus, rng, self.changes, self.count))
        return Found(found, "" if found else "no exchangeable term")
