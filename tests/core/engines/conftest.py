"""A real Ray cluster on this machine: a head without cores and two nodes of one core each."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "data"))


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="a Ray cluster needs the extra ray")
    given = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # By default Ray's workers wait for all else that a busy machine does.
        "RAY_worker_niceness": "0",
        "XLA_FLAGS": "",
        # As on machines of an installed ranjax; here it may lie in the source tree alone.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    before = {name: os.environ.get(name) for name in (*given, "RAY_ADDRESS")}
    os.environ.update(given)
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    os.environ["RAY_ADDRESS"] = made.address
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
