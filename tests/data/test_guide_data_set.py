"""docs/guides/add_a_data_set.md as it stands: a set from a module outside ranjax, prepared, listed and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ranjax.core import files
from ranjax.data.prepared import open_prepared

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add_a_data_set.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line.split() for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
# A config small enough for a test: the guide's own, then these.
TINY = """
    config.quick_compile = True
    config.model.vit.patch_size, config.model.vit.layers, config.model.text_transformer.layers = 8, 1, 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 16
    config.pretrain.steps, config.pretrain.batch_size, config.noise.ratios = 2, 8, (0.0,)
    config.adapt.methods, config.adapt.seeds, config.adapt.epochs = ("lp",), 1, 2
    config.evaluate.attacks, config.evaluate.attacked_examples, config.evaluate.bootstrap = ("pgd",), 4, 50
    config.evaluate.pgd.steps, config.evaluate.radii, config.evaluate.masking_examples = 1, ("",), 0
    return config
"""


@pytest.fixture
def lab(tmp_path):
    """A working directory with the guide's files and 60 films, of which one has no report."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "films.py").write_text(PYTHON[0])
    (tmp_path / "films_config.py").write_text(PYTHON[1].replace("\n    return config\n", TINY))
    (tmp_path / "films").mkdir()
    for number in range(60):
        film = tmp_path / "films" / f"p{number // 2}-{number}.png"
        grey = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(grey).save(film)
        label = ("normal", "mass")[number % 2]
        if number != 7:
            film.with_suffix(".txt").write_text(f"{label}\nFilm {number} shows {label} lungs.")
    return tmp_path


def call(lab, words, refused=False):
    line = [sys.executable, "-m", "ranjax", *words]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=500, cwd=lab, env=environment)
    assert done.returncode == (2 if refused else 0), done.stdout + done.stderr
    return done.stderr if refused else done.stdout


@pytest.mark.slow
def test_the_set_of_the_guide_is_listed_explained_and_prepared(lab):
    listing, explanation, prepared = (words[1:] for words in COMMANDS[:3])
    assert "lab_films" in call(lab, listing)
    assert "--option only=...: take the films whose names begin so" in call(lab, explanation)
    said = call(lab, prepared)
    assert "1  the report is missing" in said
    first = open_prepared(lab / "prepared")
    assert (first.classes, sum(first.counts.values())) == (("normal", "mass"), 59)
    assert first.card["licence"] == "ours alone"
    assert call(lab, prepared).count(first.fingerprint)
    # Another source is another set, whatever it yields.
    with (lab / "my_lab" / "films.py").open("a") as file:
        file.write("# changed\n")
    assert first.fingerprint not in call(lab, prepared)
    assert len(list((lab / "prepared").rglob("prepared.json"))) == 2


@pytest.mark.slow
def test_the_set_of_the_guide_goes_through_a_whole_run(lab):
    run = COMMANDS[3][1:]
    call(lab, run)
    results = files.read_json(lab / "run" / "results.json")
    assert results["classes"] == ["normal", "mass"]
    assert results["card"]["title"] == "Films of my lab"
    assert {row["method"] for row in results["rows"]} >= {"lp"}
    with (lab / "my_lab" / "films.py").open("a") as file:
        file.write("# changed\n")
    assert "source of data.lab_films" in call(lab, run, refused=True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("SPEC = 3", "expected an object of type ranjax.data.sets.spec.Spec, found int"),
        ("from ranjax.data.sets import Spec\nSPEC = Spec('x', 'X', 'image-text', None)", "Spec.entries = None"),
        ("from ranjax.data.sets import Spec\nSPEC = Spec('x', 'X', 'films', print)", "Spec.kind = 'films'"),
        ("from ranjax.data.sets import Spec\nSPEC = Spec('nih', 'X', 'image-text', print)", "name is not taken"),
        ("from ranjax.data.sets import Spec\nSPEC = Spec('x')", "missing 3 required positional arguments"),
        ("from ranjax.data.sets import Spec\nSPEC = Spec('x', 'X', 'image-text', lambda *_: [1])", "found int"),
        ("import my_lab.absent\nSPEC = 3", "an importable module before the colon"),
        ("SPCE = 3", "did you mean 'SPCE'?"),
    ],
)
def test_an_object_that_is_no_set_is_refused_in_one_line_that_says_why(lab, code, words):
    (lab / "my_lab" / "films.py").write_text(code)
    said = call(lab, COMMANDS[2][1:], refused=True)
    assert words in said
    assert len(said.splitlines()) == 1
