"""One page of made-up results, written once for all tests that read it."""

import json
from pathlib import Path

import pytest

from ranjax.report import page

from . import fake


@pytest.fixture(scope="session")
def results():
    return fake.results()


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Writes results (and run facts) to a fresh folder and makes their page; returns the page's path."""

    def make(results: dict, run: dict | None = None) -> Path:
        folder = tmp_path_factory.mktemp("run")
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        if run is not None:
            (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        return page.write_report(folder / "results.json", folder / "run.json", folder / "report")

    return make


@pytest.fixture(scope="session")
def written(write, results) -> Path:
    return write(results, fake.run())
