"""What is no independent observation: films of one patient, questions about one picture, and chains of both."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ranjax.core import files
from ranjax.evaluation.statistics import bootstrap
from ranjax.run.stages.evaluation.clusters import join_partitions

ROOT = Path(__file__).resolve().parents[2]


def test_partitions_are_joined_into_the_finest_that_keeps_both_together():
    pictures = np.array([0, 0, 1, 2, 3, 4, 4])
    patients = np.array([0, 1, 1, 2, 3, 4, 3])
    np.testing.assert_array_equal(join_partitions(pictures, patients), [0, 0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(join_partitions(np.arange(4), np.arange(4)), np.arange(4))
    assert join_partitions(pictures, patients).dtype == np.int32


def test_several_films_of_a_patient_say_less_than_as_many_patients():
    """Each patient's films are answered alike: the interval over patients covers, the one over films does not."""
    rng, covered = np.random.default_rng(0), {"films": 0, "patients": 0}
    patients = np.repeat(np.arange(30), 6)
    for trial in range(60):
        hits = (rng.random(30) < 0.5)[patients]
        for name, clusters in (("films", None), ("patients", patients)):
            found = bootstrap(hits, 200, trial, clusters=clusters)
            covered[name] += found.low <= 0.5 <= found.high
            assert found.n == {"films": 180, "patients": 30}[name]
    assert covered["patients"] >= 52 > 40 > covered["films"]


CONFIG = """
from ranjax.run.config import default_config


def get_config(mode=""):
    config = default_config()
    config.quick_compile = True
    data, films, adapt, evaluate = config.data, config.data.set, config.adapt, config.evaluate
    data.source, data.image_size, films.classes = "set", 16, ("a", "b")
    films.prompts = ("a=of kind a.", "b=of kind b.")
    films.patient_key, films.name, films.data_dir = "none", "table", {folder!r}
    films.options = ("patient=patient", "label=label", "split=split")
    config.model.vit.patch_size, config.model.vit.layers, config.model.text_transformer.layers = 8, 1, 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 16
    config.pretrain.steps, config.pretrain.batch_size, config.noise.ratios = 2, 8, (0.0,)
    adapt.methods, adapt.seeds, adapt.epochs, adapt.attack_steps = ("lp", "nmtune"), 2, 2, 1
    evaluate.pgd.steps, evaluate.attacks, evaluate.radii, evaluate.masking_examples = 2, ("pgd",), ("",), 0
    evaluate.attacked_examples, evaluate.smallest_group, evaluate.bootstrap = 8, 3, 50
    return config
"""


@pytest.mark.slow
def test_intervals_and_n_of_a_users_films_are_over_patients(tmp_path):
    """Eleven test films of six patients; one film is there twice, and one has both findings."""
    (tmp_path / "images").mkdir()
    counts = {"train": 16, "adapt": 12, "validation": 8, "test": 11}
    with (tmp_path / "index.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "patient", "report", "label", "split"])
        for split, count in counts.items():
            for number in range(count):
                name, pixels = f"{split}{number}.png", number - (split == "test" and number == 1)
                grey = np.random.default_rng([len(split), pixels]).integers(0, 256, (16, 16), dtype=np.uint8)
                Image.fromarray(grey).save(tmp_path / "images" / name)
                label = "ab"[number // 2 % 2] if number < 10 else "a|b"
                table.writerow([name, f"{split}-{number // 2}", f"Report {number} of kind {label}.", label, split])
    made = CONFIG.format(folder=str(tmp_path))
    (tmp_path / "films.py").write_text(made)
    line = [sys.executable, "-m", "ranjax.main", "--config", tmp_path / "films.py", "--workdir", tmp_path / "run"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(line, capture_output=True, check=False, timeout=600, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    (note,) = (note["note"] for note in results["notes"] if "draw patients" in note["note"])
    few = "test: 6 independent examples are few: intervals over them are somewhat too narrow"
    assert any(note["note"].startswith(few) for note in results["notes"])
    assert note.startswith("test: 11 images of 6 patients; intervals and tests draw patients with all their images")
    assert results["independent"] == {"test": "5 patients (10 images)"}
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "5 patients (10 images)" in page
    by_task = {(r["task"], r["attack"]): r["n"] for r in results["rows"] if r["metric"] in ("accuracy", "recall@1")}
    assert by_task["finding", "none"] == by_task["retrieval", "none"] - 1 == 5
    assert by_task["finding", "pgd"] in (4, 5)  # of the first 8 films
    assert {item["n"] for item in results["comparisons"] if item["attack"] == "none"} == {5}
