"""docs/guides/add_an_attack.md as it stands: an attack and a recipe from a module outside ranjax, through a whole
run.
"""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ranjax.core import files
from ranjax.data.store import NoisyStore

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "guides" / "add_an_attack.md").read_text()
MODULE, LIBRARY = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line.split() for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
LIST_ATTACKS, LIST_RECIPES, RUN, ATTACK = (words[1:] for words in COMMANDS)


def lab_in(folder):
    """A working directory with the guide's module, a config of seconds, and images with reports."""
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "attacks.py").write_text(MODULE)
    (folder / "tiny.py").write_text((ROOT / "experiments" / "reliability" / "tiny.py").read_text())
    (folder / "films").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / "films" / f"{number}.png")
    lines = (f"{number}.png,the lungs are clear and the heart is large" for number in range(3))
    (folder / "reports.csv").write_text("\n".join(["image,report", *lines]))
    return folder


def call(lab, *words, code=0, program=("-m", "ranjax")):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}{os.pathsep}{lab}"}
    line = [sys.executable, *program, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=500, cwd=lab, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return lab_in(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def ran(lab):
    call(lab, *RUN)
    return lab


def accuracies(lab, workdir="run"):
    rows = files.read_json(lab / workdir / "results.json")["rows"]
    return {(r["condition"], r["method"], r["attack"]): r["value"] for r in rows if r["metric"] == "accuracy"}


def test_the_lists_have_the_attack_and_the_recipe_of_the_guide(lab):
    assert ["rfgsm", "R+FGSM", "Tramèr"] in [line.split()[:3] for line in call(lab, *LIST_ATTACKS).splitlines()]
    assert "image_first" in call(lab, *LIST_RECIPES)


@pytest.mark.slow
def test_the_attack_of_the_guide_is_in_the_rows_the_masking_checks_and_the_page(ran):
    results = files.read_json(ran / "run" / "results.json")
    attacks = {row["attack"] for row in results["rows"] if row["task"] == "finding"}
    assert {"none", "rfgsm", "worst"} <= attacks
    assert "pgd" not in attacks
    assert {item["method"] for item in results["masking"]} >= {"ran"}
    assert {row["condition"] for row in results["rows"]} == {"clean", "image_first", "pixels", "random_init"}
    assert results["config"]["evaluate"]["rfgsm"] == {"share": 0.25}
    assert "R+FGSM" in (ran / "run" / "report" / "index.html").read_text()


@pytest.mark.slow
def test_the_recipe_of_the_guide_crafts_with_the_attack_of_the_guide(ran):
    store = NoisyStore.open(ran / "run" / "craft" / "store")
    told = store.provenance(next(iter(store)))
    assert told["attack"] == "image_first"
    assert told["settings"]["rfgsm"] == {"share": 0.5}
    assert len(told["settings"]["source of rfgsm"]) == 64
    norms = np.array([store.provenance(name)["norm"] for name in store])
    assert ((norms > 0) & (norms <= 8 / 255 + 1e-6)).all()
    assert np.mean([store.provenance(name)["words_changed"] for name in store]) > 0
    assert (ran / "run" / "pretrain" / "image_first_30").is_dir()


@pytest.mark.slow
def test_another_share_gives_other_attacks_and_a_changed_module_is_refused(ran):
    def logits_rows(workdir):
        rows = files.read_json(ran / workdir / "results.json")["rows"]
        return {(r["condition"], r["method"], r["metric"]): r["value"] for r in rows if r["attack"] == "rfgsm"}

    before = logits_rows("run")
    other = [word.replace("share=0.25", "share=0.9") for word in RUN]
    assert "evaluate.rfgsm.share: 0.25 then, 0.9 now" in call(ran, *other, code=2)
    call(ran, *other, "--redo")
    assert logits_rows("run") != before
    module = ran / "my_lab" / "attacks.py"
    module.write_text(MODULE + "# changed\n")
    assert "source of noise." in call(ran, *other, code=2)
    module.write_text(MODULE)


@pytest.mark.slow
def test_the_command_on_files_and_the_library_take_the_same_names(ran):
    call(ran, *ATTACK)
    rows = list(csv.DictReader(io.StringIO((ran / "attacked" / "pairs.csv").read_text())))
    assert len(rows) == 3
    assert all(0 < float(row["norm"]) <= 8 / 255 + 1e-6 for row in rows)
    assert files.read_json(ran / "attacked" / "summary.json")["attack"] == "image_first"
    (ran / "library.py").write_text(LIBRARY)
    said = call(ran, program=("library.py",))
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["pgd", "rfgsm", "worst"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("RFGSM = 3", "expected an object of type ranjax.attacks.attack_table.Attack, found int"),
        ("RFGSM = Attack('x', 'X', None)", "Attack.run = None: expected a function"),
        ("RFGSM = Attack('X Y', 'X', print)", "Attack.name = 'X Y'"),
        ("RFGSM = Attack('x', '', print)", "Attack.label = ''"),
        ("RFGSM = Attack('pgd', 'X', print)", "an attack whose name is not taken"),
        ("RFGSM = Attack('restarts', 'X', print)", "another name: evaluate.restarts is a key"),
        ("RFGSM = Attack('x', 'X', print, settings=3)", "Attack.settings = 3"),
        ("RFGSM = Attack('x', 'X', print, takes=('restart',))", "Attack.takes = 'restart'"),
        ("RFGSM = Attack('x')", "missing 2 required positional arguments: 'label' and 'run'"),
        ("RFSGM = 3", "did you mean 'RFSGM'?"),
    ],
)
def test_an_object_that_is_no_attack_is_refused_in_one_line_that_says_why(code, words, tmp_path):
    lab = lab_in(tmp_path)
    (lab / "my_lab" / "attacks.py").write_text(f"from ranjax.attacks.attack_table import Attack\n{code}\n")
    said = call(lab, *RUN[:4], "--config.evaluate.attacks=my_lab.attacks:RFGSM", code=2)
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluate.attacks=pgd,apgd_se", "did you mean 'apgd_ce'?"),
        ("evaluate.image_attack=apgd_dlr", "an attack on any loss"),
        ("evaluate.pair_attacks=gaussian", "an attack, not a control"),
        ("noise.image_attack=pdg", "did you mean 'pgd'?"),
        ("noise.recipe=coatack", "did you mean 'coattack'?"),
        ("noise.controls=gausian", "did you mean 'gaussian'?"),
        ("evaluate.steps=3", "its new name, evaluate.pgd.steps"),
        ("noise.image_step=1/255", "its new name, noise.pgd.step"),
        ("evaluate.pgd.step=2", "at most 1, in pixel units"),
    ],
)
def test_an_unknown_attack_or_an_old_key_is_refused(override, words, capsys):
    from ranjax.cli import console

    config = str(ROOT / "experiments" / "reliability" / "tiny.py")
    assert console.call(["describe", "--config", config, f"--config.{override}"]) == 2
    assert words in capsys.readouterr().err
