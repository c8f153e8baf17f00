"""docs/guides/add_a_tower.md as it stands: a tower from a module outside ranjax, in a run, exported and
loaded again.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add_a_tower.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line.split() for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
# In the place of the job that the guide names.
TINY = """
from ranjax.run.config import default_config

def get_config(mode):
    config = default_config()
    config.quick_compile, config.data.image_size = True, 32
    data = config.data.radiographs
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 40, 24, 16, 16
    config.model.text_transformer.width, config.model.embed_dim = 24, 16
    config.pretrain.steps, config.pretrain.batch_size, config.noise.ratios = 2, 16, (0.0, 0.5)
    config.noise.pgd.steps, config.noise.batch_size, config.noise.shard_size = 1, 16, 16
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    config.adapt.methods, config.adapt.seeds, config.adapt.epochs = ("lp",), 1, 2
    config.evaluate.attacks, config.evaluate.attacked_examples, config.evaluate.bootstrap = ("pgd",), 4, 50
    config.evaluate.pgd.steps, config.evaluate.radii, config.evaluate.masking_examples = 1, ("",), 0
    return config
"""


@pytest.fixture
def lab(tmp_path):
    """A working directory with the guide's files."""
    for name, text in (("my_lab/tower.py", PYTHON[0]), ("configs/ran.py", TINY), ("load.py", PYTHON[1])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def call(lab, words, refused=False):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}:{lab}"}
    line = [sys.executable, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=500, cwd=lab, env=environment)
    assert done.returncode == (2 if refused else 0), done.stdout + done.stderr
    return done.stderr if refused else done.stdout


@pytest.mark.slow
def test_the_tower_of_the_guide_goes_through_a_run_is_exported_and_loaded_again(lab):
    run, export = (["-m", "ranjax", *words[1:]] for words in COMMANDS)
    call(lab, run)
    results = json.loads((lab / "run" / "results.json").read_text())
    assert {row["method"] for row in results["rows"]} >= {"lp"}
    assert results["config"]["model"]["mixer"]["width"] == 24
    call(lab, export)
    config = json.loads((lab / "encoder" / "config.json").read_text())
    assert (config["model_type"], config["image_tower"], config["image"]["width"]) == ("ranjax", "mixer", 24)
    said = call(lab, ["-c", PYTHON[1] + "print(config.image, params['vision']['embedding']['kernel'].shape)"])
    assert "MixerConfig(image_size=32, channels=1, patch_size=16, width=24, layers=2) (256, 24)" in said
    with (lab / "my_lab" / "tower.py").open("a") as file:
        file.write("# changed\n")
    assert "source of model.mixer" in call(lab, run, refused=True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("TOWER = Tower(", "TOWER = dict(", "an object of type ranjax.models.towers.contract.Tower, found dict"),
        ("config=MixerConfig", "config=Mixer", "Tower.config"),
        ("    def outputs", "    def results", "a class with a property `outputs`"),
        ("module=Mixer", "module=3.0", "Tower.module = 3.0: expected a function"),
        ('name="mixer"', 'name="vit"', "whose name is not taken"),
        ('label="MLP-Mixer"', 'label=""', "Tower.label"),
        ("frozen=True, ", "", "cannot inherit non-frozen dataclass from a frozen one"),
        ("TOWER = ", "TOWRE = ", "did you mean 'TOWRE'?"),
    ],
)
def test_an_object_that_is_no_tower_is_refused_in_one_line_that_says_why(lab, old, new, words):
    code = (lab / "my_lab" / "tower.py").read_text()
    assert old in code
    (lab / "my_lab" / "tower.py").write_text(code.replace(old, new))
    said = call(lab, ["-m", "ranjax", *COMMANDS[0][1:]], refused=True)
    assert words in said
    assert len(said.splitlines()) == 1
