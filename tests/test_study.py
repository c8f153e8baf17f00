"""The study's smoke form through the real command line: a method of every kind, and every kind of figure."""

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax.core import files

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_every_kind_of_method_meets_every_kind_of_figure(tmp_path):
    line = [
        sys.executable,
        "-m",
        "ranjax.main",
        "--config",
        "configs/study.py:smoke",
        "--workdir",
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(line, capture_output=True, check=False, timeout=1200, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    rows = results["rows"]
    methods = {row["method"] for row in rows if row["task"] == "finding"}
    assert methods == {"zero_shot", "lp", "ran", "ran_v1", "ran_lora", "tecoa", "ttc", "ran_v1_without_mse"}
    assert {row["condition"] for row in rows} == {"clean", "coattack", "gaussian", "pixels", "random_init"}
    attacks = {row["attack"] for row in rows if row["task"] == "finding"}
    assert {"none", "pgd", "worst", "worst@0", "worst@1/255", "transfer", "words"} <= attacks
    tasks = {"finding", "retrieval", "retrieval_sentences", "retrieval_attacked", "groups", "corrupted"}
    assert tasks | {"questions_open", "questions_closed"} <= {row["task"] for row in rows}
    for row in rows:
        if row["task"] == "finding" and row["attack"] == "worst" and row["seed"] is None:
            where = {
                "condition": row["condition"],
                "ratio": row["ratio"],
                "method": row["method"],
                "split": row["split"],
            }
            clean = [r for r in rows if where.items() <= r.items() and r["attack"] == "pgd" and r["seed"] is None]
            assert row["value"] <= next(r["value"] for r in clean if r["metric"] == "accuracy") + 1e-9
    for row in rows:
        if row["attack"] == "worst@0" and row["seed"] is None:
            cell = {key: row[key] for key in ("condition", "ratio", "method", "split", "metric", "seed")}
            at = {r["attack"]: r["value"] for r in rows if cell.items() <= r.items()}
            assert at["worst@0"] >= at["worst@1/255"] >= at["worst"]
    checked = {(item["condition"], item["method"]): item for item in results["masking"]}
    assert {("clean", "ran"), ("coattack", "ran"), ("coattack", "ttc")} <= set(checked)
    assert "answers by a draw" in checked["coattack", "ttc"]["verdict"]
    pushed = [item["note"] for item in results["notes"] if "ttc pushes" in item["note"]]
    assert len(pushed) == 3 * 2  # conditions and splits
    assert "of 32 clean images away" in pushed[0]
    names = [check["name"] for check in checked["coattack", "ran"]["checks"]]
    assert "transferred images never beat the gradient" in names
    for facts in results["methods"]:
        # A closed form has neither rate nor strength to search.
        assert ("search" in facts) == (facts["method"] not in ("ttc", "lp", "ran"))
        if search := facts.get("search"):
            assert search["chosen"] in [{k: t[k] for k in ("rate", "strength")} for t in search["tried"]]
        if facts["method"] == "ran_lora":
            assert 0 < facts["share"] < 1
    left = {note for facts in results["methods"] for note in facts.get("notes", ())}
    assert left <= {item["note"] for item in results["notes"]}
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert all(html.escape(note) in page or note in page for note in left)
    for section in (
        "The claims",
        "Ablation",
        "Corruptions",
        "Questions",
        "Features in a plane",
        "Retrieval under attack",
        "What was fitted",
    ):
        assert section in page
    for missing in ("No ablation was made", "Images were not corrupted", "No questions were asked", "was not checked"):
        assert missing not in page
