"""Ray for real: two nodes on this machine, one of them killed, the driver killed and started again: the same bits."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ranjax
from ranjax.cli import console
from ranjax.core.engines import engine_table
from ranjax.core.errors import ConfigError
from ranjax.data.images import decode

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "experiments" / "reliability" / "tiny.py"


def digests(folder, *patterns):
    paths = (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_a_cluster_that_does_not_answer_is_refused_within_seconds(monkeypatch, tmp_path):
    pytest.importorskip("ray", reason="a Ray cluster needs the extra ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began = time.monotonic()
    said = r"--on = 'ray': expected a Ray cluster that answers at '127\.0\.0\.1:9'\. 'ray start --head' starts one"
    with (
        pytest.raises(ConfigError, match=said),
        engine_table.opened("ray", ["address=127.0.0.1:9"], tmp_path),
    ):
        pass
    assert time.monotonic() - began < 30


def test_a_set_prepared_by_two_nodes_is_the_one_of_one_process(cluster, tmp_path, monkeypatch, capsys):
    from test_prepare_set import tree

    monkeypatch.setattr(decode, "PART", 16)
    tree(tmp_path / "own", 80)
    command = ["prepare", "table", f"--data_dir={tmp_path / 'own'}", "--option", "label=finding", "--image_size=16"]
    assert console.call([*command, f"--out={tmp_path / 'here'}", "--workers=1"]) == 0
    assert console.call([*command, f"--out={tmp_path / 'there'}", "--on=ray"]) == 0
    here, there = (digests(tmp_path / name, "ranjax_set/**/*.*") for name in ("here", "there"))
    assert len(here) > 8
    assert here == there
    # A folder that its machines do not share with this one is found out.
    capsys.readouterr()
    monkeypatch.setattr(decode, "is_seen", lambda path: False)
    assert console.call([*command, f"--out={tmp_path / 'alone'}", "--on=ray"]) == 2
    assert "a folder that all machines of the engine see" in capsys.readouterr().err


def _run(workdir, *more):
    words = ["run", "--config", str(TINY), f"--workdir={workdir}", "--until=pretrain", *more]
    line = [sys.executable, "-m", "ranjax", *words]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _appears(pattern, folder, process):
    while not any(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_a_run_whose_driver_and_whose_node_are_killed_ends_in_the_same_bits(cluster, tmp_path):
    one = _run(tmp_path / "here")
    said = one.communicate()[0]
    assert one.returncode == 0, said
    folder = tmp_path / "there"
    # The driver is killed: its task goes with it, and the same command goes on.
    driver = _run(folder, "--on=ray")
    _appears("pretrain/clean/checkpoints/3*", folder, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # The node that carries the run out is killed, with all that it runs: the other one goes on.
    driver = _run(folder, "--on=ray")
    _appears("craft/store/shard-*.json", folder, driver)
    process = int((folder / "lock").read_text().split()[1])
    worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    environment = dict(one.split(b"=", 1) for one in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0") if one)
    (node,) = [node for node in cluster.worker_nodes if _raylet(node) == int(environment[b"RAY_RAYLET_PID"])]
    cluster.remove_node(node, allow_graceful=False)
    said = driver.communicate(timeout=200)[0]
    assert driver.returncode == 0, said
    wanted = ("pretrain/*/encoder/*", "craft/store/*")
    assert digests(tmp_path / "here", *wanted) == digests(folder, *wanted)
    log = (tmp_path / "there.log").read_text()
    assert log.count("workdir ") == 3, log
    # Its noisy pairs again, a shard a task: all of them are written on the cluster.
    crafted = digests(folder, "craft/store/*")
    assert len(crafted) > 4
    shutil.rmtree(folder / "craft")
    line = ["craft", "--config", str(TINY), f"--workdir={folder}", "--track=none", "--on=ray"]
    again = subprocess.run([sys.executable, "-m", "ranjax", *line], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "  4 of 4 shards go to the engine" in again.stdout
    assert digests(folder, "craft/store/*") == crafted


def _raylet(node):
    (info,) = node.all_processes["raylet"]
    return info.process.pid


def test_another_version_is_refused_in_one_line(cluster, tmp_path, monkeypatch, capsys):
    from ray._common.usage import usage_constants
    from ray._private import ray_constants
    from ray.experimental import internal_kv

    with monkeypatch.context() as changed:
        changed.setattr(ranjax, "__version__", "0.0.1")
        line = ["run", "--config", str(TINY), f"--workdir={tmp_path / 'run'}", "--on", "ray"]
        assert console.call(line) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert "--on = 'ray': expected a cluster of the same versions: ranjax 0.0.1, not " in told
    # What Ray compares is in its head's store; another Python there is another cluster.
    with engine_table.opened("ray", [], tmp_path):
        place = {"key": usage_constants.CLUSTER_METADATA_KEY, "namespace": ray_constants.KV_NAMESPACE_CLUSTER}
        stored = internal_kv._internal_kv_get(**place)
        other = json.dumps(json.loads(stored) | {"python_version": "3.9.1"}).encode()
        internal_kv._internal_kv_put(**place, value=other, overwrite=True)
    said = r"--on = 'ray': expected a cluster of the same Python and Ray .*3\.9\.1"
    with pytest.raises(ConfigError, match=said), engine_table.opened("ray", [], tmp_path):
        pass
