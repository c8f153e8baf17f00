"""`pretrain.keep_best` and `pretrain.choose`: the condition goes on with its best checkpoint, through stops and
kills.
"""

import shutil
import signal
import time

import jax
import numpy as np
import pytest

from experiments.reliability import kills
from ranjax import models
from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run.context import Stopped
from ranjax.run.stages.pretrain import make_program
from ranjax.training.checkpoints import Checkpoints
from ranjax.training.devices import make_mesh

EVERY, STOP, STEPS = 8, 27, 40
SAVED = (8, 16, 24, 32, STEPS)
TINY = """
from experiments.reliability import tiny


def get_config():
    config = tiny.get_config()
    data = config.data.radiographs
    data.adapt, data.validation, data.test, data.ood_test = 8, 16, 8, 8
    config.text.max_length = 24
    config.noise.ratios = (0.0,)
    # So long on so few pairs that it learns them by heart: the last step is not the best.
    config.pretrain.steps, config.pretrain.learning_rate = 40, 0.005
    config.pretrain.checkpoint_every, config.pretrain.log_every = 8, 1
    config.pretrain.keep, config.pretrain.keep_best, config.pretrain.choose = 1, 2, "best"
    return config
"""


def tiny(**pretrain):
    space = {}
    exec(TINY, space)
    config = space["get_config"]()
    config.pretrain.update(pretrain)
    configs.validate(config)
    return config


def run(config, workdir, said, stop=lambda: False):
    pipeline.execute(config, workdir, mesh=make_mesh(1), stop=stop, say=said.append, until="pretrain")


def figures_of(said):
    return [float(line.removeprefix("  validation loss ")) for line in said if "validation loss" in line]


def kept(workdir):
    with Checkpoints(workdir / "pretrain" / "clean" / "checkpoints") as store:
        return {step: store.figure(step) for step in store.steps()}


def chosen(workdir):
    return files.read_json(workdir / "pretrain" / "clean" / "manifest.json")["chosen_step"]


def weights(workdir):
    return (workdir / "pretrain" / "clean" / "encoder" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was told to stop after its best step and went on: (workdir, figures by step, what was said)."""
    workdir, said = tmp_path_factory.mktemp("best") / "run", []
    with pytest.raises(Stopped, match=f"at step {STOP} of {STEPS}"):
        run(tiny(), workdir, said, stop=lambda: any(line.startswith(f"  step {STOP}:") for line in said))
    assert max(kept(workdir)) == STOP
    run(tiny(), workdir, said)
    assert f"  goes on at step {STOP}" in said
    return workdir, dict(zip(sorted({*SAVED, STOP}), figures_of(said), strict=True)), said


@pytest.mark.slow
def test_the_newest_and_the_best_stay_through_a_stop_and_the_condition_goes_on_with_the_best(stopped):
    workdir, figures, said = stopped
    first, second = sorted(figures, key=figures.get)[:2]
    assert first < STOP, figures
    assert kept(workdir) == pytest.approx({step: figures[step] for step in sorted({first, second, STEPS})}, abs=1e-4)
    assert chosen(workdir) == first
    assert f"  goes on with the encoder of step {first}, the best of the checkpoints" in said


@pytest.mark.slow
def test_the_encoder_is_the_best_checkpoints_and_not_the_lasts(stopped):
    workdir, figures, _ = stopped
    functions, params, _ = models.load(workdir / "pretrain" / "clean" / "encoder", grey_to_rgb=True)
    like = make_program(functions, params, tiny(), make_mesh(1)).abstract(params)
    with Checkpoints(workdir / "pretrain" / "clean" / "checkpoints") as store:
        best, last = (store.restore(like, step=step).params for step in (min(figures, key=figures.get), STEPS))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), jax.device_get(best))
    different = [not np.array_equal(*pair) for pair in zip(jax.tree.leaves(params), jax.tree.leaves(last), strict=True)]
    assert sum(different) > len(different) / 2


def test_the_best_needs_checkpoints_to_choose_from():
    with pytest.raises(ConfigError, match=r"pretrain\.keep_best.*at least 1 where pretrain\.choose = 'best'"):
        tiny(keep_best=0)


@pytest.mark.slow
def test_killed_after_its_best_step_a_run_chooses_the_same_to_the_same_bits(tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    arguments = ["--config", tmp_path / "tiny.py", f"--config.compile_cache={tmp_path / 'cache'}", "--until=pretrain"]
    alone, killed = ([*arguments, "--workdir", tmp_path / name] for name in ("alone", "killed"))
    said = kills.finish(alone).splitlines()
    figures = dict(zip(SAVED, figures_of(said), strict=True))
    best = min(figures, key=figures.get)
    for name in ("prepare", "data"):
        shutil.copytree(tmp_path / "alone" / name, tmp_path / "killed" / name)
    with kills.start(killed) as process:
        place = tmp_path / "killed" / "pretrain" / "clean" / "checkpoints"
        while process.poll() is None and not (place / f"{best + EVERY}.json").exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "goes on at step" in kills.finish(killed)
    assert chosen(tmp_path / "killed") == chosen(tmp_path / "alone") == best
    assert kept(tmp_path / "killed") == kept(tmp_path / "alone")
    assert weights(tmp_path / "killed") == weights(tmp_path / "alone")
