"""Trackers, each as it is: figures, config and page arrive, a resumed run goes on in the same one, no secret leaves."""

import json
import sqlite3
import time

import pytest

from ranjax.core import extras
from ranjax.core.errors import ConfigError
from ranjax.run.context import Stopped
from ranjax.training import trackers
from ranjax.training.metrics_log import MetricsLog

CONFIG = {"pretrain.steps": 4, "data.set.patient_key": "/home/a/key", "data.dir": "gs://user:hunter22@place/a", "x": ""}
ROW = {"condition": "clean", "method": "lp", "task": "finding", "split": "test", "attack": "none", "metric": "accuracy"}


def needed(name):
    for module in trackers.MODULES[name]:
        pytest.importorskip(module, reason=f"needs {module}, an optional package")


def run(workdir, names, first, last, mark="m", stops=False, said=print):
    """Steps of a stage run, logged as the pretrain stage does; it ends with a page, or by a stop."""
    (workdir / "report").mkdir(parents=True, exist_ok=True)
    with trackers.tracking(names, workdir, CONFIG, mark, said):
        with MetricsLog(workdir / "pretrain" / "clean", first - 1, stage="pretrain/clean") as log:
            for step in range(first, last + 1):
                log(step, {"loss": 1 / step, "odd": float("nan")})
        if stops:
            raise Stopped("here")
        (workdir / "report" / "index.html").write_text("<p>the page</p>")
        (workdir / "results.json").write_text(
            json.dumps({"rows": [{**ROW, "seed": seed, "value": 0.25 + seed / 2} for seed in (0, 1)]})
        )


def resumed(workdir, names):
    with pytest.raises(Stopped):
        run(workdir, names, 1, 3, stops=True)
    # The last checkpoint was at step 2: step 3 comes once more.
    run(workdir, names, 3, 4)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("SOME_TOKEN", "a-token-of-the-tester")
    monkeypatch.chdir(tmp_path)


def test_what_could_be_a_secret_is_hidden(environment):
    hidden = trackers.hide_secrets({**CONFIG, "note": "with a-token-of-the-tester in it", "text.tokenizer": "bert"})
    assert hidden == {
        "pretrain.steps": 4,
        "data.set.patient_key": "(hidden)",
        "data.dir": "gs://(hidden)@place/a",
        "x": "",
        "note": "(hidden)",
        "text.tokenizer": "bert",
    }


def test_an_unknown_tracker_and_an_absent_package_are_one_line(monkeypatch):
    assert trackers.named("none") == ()
    assert trackers.named("tensorboard, tensorboard") == ("tensorboard",)
    with pytest.raises(ConfigError, match=r"--track = 'wanbd': expected none, or some of .* \(did you mean 'wandb'"):
        trackers.named("wanbd")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(extras.MissingExtraError, match=r"mlflow is not installed.*ranjax\[mlflow\]"):
        trackers.named("mlflow")


def test_event_files_are_written_as_they_are_chosen(environment, tmp_path):
    run(tmp_path / "a", ("tensorboard",), 1, 2)
    run(tmp_path / "b", (), 1, 2)
    assert list((tmp_path / "a").rglob("events*"))
    assert not list((tmp_path / "b").rglob("events*"))
    with MetricsLog(tmp_path / "c") as log:
        log(1, {"loss": 1.0})
    assert list((tmp_path / "c").rglob("events*"))


def test_a_tracker_that_fails_is_said_and_the_run_goes_on(environment, tmp_path, monkeypatch):
    class Broken(trackers._TensorBoard):
        def scalars(self, stage, step, values):
            raise OSError("no route\nto the server")

    monkeypatch.setitem(trackers._KINDS, "tensorboard", Broken)
    said = []
    run(tmp_path / "a", ("tensorboard",), 1, 3, said=said.append)
    assert said == ["note: tracking by tensorboard ended (OSError: no route to the server); the run goes on without it"]
    assert (tmp_path / "a" / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_one_run_of_a_start_and_its_resumption(environment, tmp_path):
    needed("mlflow")
    from mlflow import MlflowClient

    workdir = tmp_path / "runs" / "one"
    resumed(workdir, ("mlflow",))
    client = MlflowClient(f"sqlite:///{workdir / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ranjax")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("one", "FINISHED")
    history = client.get_metric_history(found.info.run_id, "pretrain/clean/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert found.data.metrics["clean/lp/finding/test/none/accuracy"] == 0.5
    assert "pretrain/clean/odd" not in found.data.metrics
    assert found.data.params["pretrain.steps"] == "4"
    assert {item.path for item in client.list_artifacts(found.info.run_id)} == {"results.json", "report"}
    assert (
        workdir / "mlflow" / found.info.run_id / "artifacts" / "report" / "index.html"
    ).read_text() == "<p>the page</p>"
    with sqlite3.connect(workdir / "mlflow.db") as base:
        everything = "\n".join(base.iterdump())
    base.close()
    for secret in ("/home/a/key", "hunter22", "a-token-of-the-tester"):
        assert secret not in everything
    # Another config is another run.
    run(workdir, ("mlflow",), 1, 2, mark="other")
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline_files_of_one_run(environment, tmp_path):
    needed("wandb")
    workdir = tmp_path / "runs" / "one"
    resumed(workdir, ("wandb",))
    identity = json.loads((workdir / trackers.FILE).read_text())["runs"]["wandb"]
    folders = [path for path in (workdir / "wandb").iterdir() if path.name.startswith("offline-run-")]
    assert len(folders) == 2
    assert all(path.name.endswith(identity) for path in folders)

    def stored():
        return b"".join(path.read_bytes() for path in workdir.rglob("*") if path.is_file() and "wandb" in path.parts)

    words = (b"pretrain/clean/loss", b"pretrain.steps", b"index.html", b"clean/lp/finding/test/none/accuracy")
    # Its own process writes the last records after `finish` has returned; it is waited for where this one ends.
    end = time.monotonic() + 60
    while absent := [word for word in words if word not in stored()]:
        assert time.monotonic() < end, absent
        time.sleep(0.1)
    for secret in (b"/home/a/key", b"hunter22", b"a-token-of-the-tester"):
        assert secret not in stored()
