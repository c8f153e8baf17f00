"""The examples of clusters are what Ray's and SkyPilot's own checks take."""

from pathlib import Path

import pytest

CLUSTERS = Path(__file__).resolve().parents[2] / "experiments" / "clusters"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_ray_takes_its_example_and_knows_the_tpu():
    pytest.importorskip("ray", reason="Ray's check needs the extra ray")
    import yaml
    from ray._private.accelerators import TPUAcceleratorManager
    from ray.autoscaler._private import util

    stated = yaml.safe_load((CLUSTERS / "ray_tpu.yaml").read_text())
    util.validate_config(util.prepare_config(stated))
    tpu = stated["available_node_types"]["tpu"]
    kind = tpu["node_config"]["acceleratorType"]
    assert TPUAcceleratorManager.is_valid_tpu_accelerator_type(kind)
    assert int(kind.rpartition("-")[2]) == tpu["resources"]["TPU"]
    assert all("RAY_USAGE_STATS_ENABLED=0" in stated[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))


def test_skypilot_takes_its_example():
    sky = pytest.importorskip("sky", reason="SkyPilot's check needs skypilot, in an environment of its own")
    task = sky.Task.from_yaml(str(CLUSTERS / "sky_run.yaml"))
    assert task.name == "ranjax"
    assert all(one.use_spot and one.job_recovery["max_restarts_on_errors"] == 3 for one in task.resources)
