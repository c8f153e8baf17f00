"""The whole chain by 2 and 4 real processes over CPU collectives, against one process with as many devices."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "training"))
from test_hosts import processes  # noqa: E402

TINY = """
from ranjax.run.config import default_config


def get_config():
    config = default_config()
    config.quick_compile = True
    data = config.data.radiographs
    config.data.image_size = 32
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 40, 24, 24, 16
    config.text.max_length = 24
    config.pretrain.steps, config.pretrain.batch_size = 6, 8
    config.pretrain.checkpoint_every, config.pretrain.log_every = 2, 2
    config.pretrain.keep_best = 1
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 24
    config.noise.ratios = (0.0, 0.5)
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    config.noise.pgd.steps, config.noise.max_words, config.noise.top_k = 2, 1, 2
    config.noise.shard_size, config.noise.batch_size = 8, 4
    config.adapt.methods = ("lp", "ran")
    config.adapt.seeds, config.adapt.epochs, config.adapt.attack_steps = 1, 1, 1
    config.evaluate.attacks = ("pgd",)
    config.evaluate.pgd.steps, config.evaluate.attacked_examples, config.evaluate.batch_size = 2, 16, 8
    config.evaluate.masking_examples, config.evaluate.bootstrap, config.evaluate.projected = 0, 20, 8
    config.report.examples = 1
    return config
"""


def _run(folder, count, devices, *more, stop_after=None):
    """The chain by `count` processes; with `stop_after`, a signal to the last of them once that file is there."""
    arguments = ["-m", "ranjax.main", "--config", str(folder / "tiny.py"), *more]
    arguments += [f"--config.data.dir={folder / 'data'}", f"--config.compile_cache={folder / 'cache'}"]
    started = processes(count, arguments, devices, cwd=ROOT)
    if stop_after is not None:
        while not stop_after.exists() and all(one.poll() is None for one in started):
            time.sleep(0.02)
        started[-1].send_signal(signal.SIGTERM)
    ended = [(*one.communicate(timeout=500), one.returncode) for one in started]
    return [code for *_, code in ended], [_own(out) for out, *_ in ended], "\n".join(err for _, err, _ in ended)


def _own(said):
    """What ranjax printed: the collectives' library tells of its connections on the same stream."""
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("[Gloo]"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("processes")
    (place / "tiny.py").write_text(TINY)
    return place


def _differences(a, b):
    """Largest difference of the numbers in two JSON values, which must be alike in everything else."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((_differences(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, list):
        assert len(a) == len(b)
        return max((_differences(x, y) for x, y in zip(a, b)), default=0.0)
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b)
    assert a == b
    return 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("count", "model"), [(2, 1), (4, 2)])
def test_processes_find_what_one_process_finds(folder, count, model):
    alone, together = folder / f"alone{count}", folder / f"together{count}"
    more = () if model == 1 else (f"--config.model_axis={model}", "--config.pretrain.accumulate=2")
    codes, said, errors = _run(folder, 1, count, f"--workdir={alone}", *more)
    assert codes == [0], errors
    assert f"{count} device(s)" in said[0]
    # One of them is told to stop in mid-training: all save and leave, and all go on.
    stop = (together / "pretrain" / "clean" / "checkpoints" / "2.json") if count == 2 else None
    codes, said, errors = _run(folder, count, 1, f"--workdir={together}", *more, stop_after=stop)
    if stop is not None:
        assert codes == [75] * count, errors
        codes, said, errors = _run(folder, count, 1, f"--workdir={together}", *more)
    assert codes == [0] * count, errors
    assert f"of {count} processes" in said[0]
    assert said[1:] == [""] * (count - 1)  # process 0 alone speaks
    for condition in ("clean", "coattack_50"):
        one, other = (
            load_file(w / "pretrain" / condition / "encoder" / "model.safetensors") for w in (alone, together)
        )
        assert one.keys() == other.keys()
        for name in one:
            # Adam divides by the gradient's own size: where that is nearly nothing, the rounding of a sum moves one
            # by a share of a whole step. One weight of 6,792 was 3.5e-5 away.
            np.testing.assert_allclose(other[name], one[name], atol=5e-5, err_msg=name)
    one, other = (json.loads((w / "results.json").read_text()) for w in (alone, together))
    assert one["rows"]
    assert _differences(one["rows"], other["rows"]) <= 1e-5
