"""The soak's tally counts what happened, and the audit of dependencies does not take silence for health."""

import random
import signal
from collections import Counter

from experiments.reliability import audit, kills, soak

SILENT = {"dependencies": [{"name": "pillow", "skip_reason": "not found"}]}
KNOWN = {
    "dependencies": [{"name": "pillow", "version": "8.0.0", "vulns": [{"id": "CVE-1", "fix_versions": ["8.1.1"]}]}]
}


def test_an_audit_that_nobody_answers_is_not_called_clean():
    clean = {"dependencies": [{"name": "jax", "version": "1", "vulns": []}]}
    assert audit.verdict({}, {}) == audit.verdict(clean, SILENT)
    assert "NOT DONE" in audit.verdict(SILENT, SILENT)[1]
    assert audit.verdict(clean, KNOWN) == (0, "dependency audit: no vulnerability is known in 1 packages")
    assert audit.verdict(SILENT, KNOWN)[1].endswith("in 0 packages; not known to the service: pillow")
    code, text = audit.verdict(KNOWN, KNOWN)
    assert code == 1
    assert "pillow 8.0.0: CVE-1, fixed in 8.1.1" in text


def of(name, hit, code, seconds=1.0):
    found = kills.Kill(name, hit, seconds, code, "the end")
    return {key: value for key, value in found._asdict().items() if key != "output" or not found.expected}


def test_the_tally_counts_kills_waits_and_losses():
    whole = {"kills": [of("SIGKILL", "craft", -9), of("SIGTERM", "craft", 75, 3.5), of("SIGINT", "report", 0)]}
    state = {"rounds": [whole | {"different": [], "lost": {}}], "stage_seconds": {"craft": 1.0}, "files": 28}
    assert not soak.lost(state)
    text = soak.table(state)
    assert text.startswith("1 runs, 2 kills; ended with the same bits in all 28 files: 1 of 1; examples lost: none")
    assert "3.5 s at most" in text
    assert "| craft | 1 | 1 | 0 |" in text
    assert soak.lost({"rounds": [whole | {"different": ["results.json"], "lost": {}}]})
    assert soak.lost({"rounds": [whole | {"different": [], "lost": {"split train": 1}}]})
    # A kill that was answered with another exit code than promised is a loss too.
    assert soak.lost({"rounds": [{"kills": [of("SIGTERM", "craft", 1)], "different": None, "lost": None}]})


def test_moments_are_drawn_within_stages_and_move_on_after_two_hits():
    seconds = {"prepare": 2.0, "adapt/clean": 4.0, "adapt/noisy": 0.1}
    for number in range(50):
        delay_in = soak.moment(random.Random(number), Counter(prepare=2), seconds)
        assert delay_in("prepare") is None
        # A later condition lasts as long as the first in a process of its own.
        assert 0.0 <= delay_in("adapt/noisy") == delay_in("adapt/clean") <= 4.8


def test_titles_of_stage_runs_are_told_from_what_follows_them():
    assert kills.TITLE.match("[4/9] pretrain/coattack_2.5\n")[1] == "pretrain/coattack_2.5"
    assert kills.TITLE.match("[4/9] prepare: done before, skipped\n") is None
    assert kills.Kill("SIGTERM", "start", 0.0, -signal.SIGTERM, "").expected
    assert not kills.Kill("SIGTERM", "craft", 0.0, -signal.SIGTERM, "").expected
