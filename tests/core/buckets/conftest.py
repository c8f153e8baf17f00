"""Servers of the three kinds of object stores, and a proxy before each that makes faults.

S3 is moto's server, Azure is Microsoft's Azurite, each in a process of its own; Google Cloud Storage is `gcs_server`.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from email.utils import formatdate

import pytest
from faulty_proxy import FaultyProxy
from gcs_server import GcsServer


class S3:
    """moto, in an environment of its own, as its dependencies exclude pandas' own."""

    scheme, page, lists, parts = "s3", 1000, "list-type=2", "partNumber=2"
    secrets = ("KEYOFTHETEST", "SECRETOFTHETEST")

    def __init__(self):
        command = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
        if not command:
            pytest.skip("no S3 server: set MOTO_SERVER to moto's moto_server (docs/scale.md)")
        self.port = _free_port()
        self._process = _started([command, "-H", "127.0.0.1", "-p", str(self.port)], self.port)

    def close(self):
        _end(self._process)

    def make(self, name):
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        urllib.request.urlopen(asked, timeout=10).close()

    def environment(self, port, folder):
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.secrets[0],
            "AWS_SECRET_ACCESS_KEY": self.secrets[1],
            "AWS_REGION": "us-east-1",
        }


class Gcs:
    """The XML API of Google Cloud Storage in this process."""

    scheme, page, lists, parts = "gs", 1000, "list-type=2", "partNumber=2"
    secrets = ("SECRETOFTHETEST",)

    def __init__(self):
        self._server = GcsServer()
        self.port = self._server.server_port

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def make(self, name):
        self._server.buckets[name] = {}

    def environment(self, port, folder):
        account = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True, "private_key_id": ""}
        account |= {"client_email": "", "private_key": self.secrets[0]}
        (folder / f"account-{port}.json").write_text(json.dumps(account))
        return {"GOOGLE_SERVICE_ACCOUNT": str(folder / f"account-{port}.json"), "GOOGLE_ALLOW_HTTP": "true"}


class Azure:
    """Azurite, under its published account and key."""

    scheme, page, lists, parts = "az", 5000, "comp=list&", "comp=block&"
    account = "devstoreaccount1"
    secrets = ("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",)

    def __init__(self):
        command = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob")
        if not command:
            pytest.skip("no Azure server: set AZURITE_BLOB to Azurite's azurite-blob (docs/scale.md)")
        self.port = _free_port()
        options = ["--blobPort", str(self.port), "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        self._process = _started([command, "--blobHost", "127.0.0.1", *options], self.port)

    def close(self):
        _end(self._process)

    def make(self, name):
        head = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "\n".join(["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in head.items())])
        signed += f"\n/{self.account}/{self.account}/{name}\nrestype:container"
        made = hmac.digest(base64.b64decode(self.secrets[0]), signed.encode(), hashlib.sha256)
        head["Authorization"] = f"SharedKey {self.account}:{base64.b64encode(made).decode()}"
        place = f"http://127.0.0.1:{self.port}/{self.account}/{name}?restype=container"
        urllib.request.urlopen(urllib.request.Request(place, method="PUT", headers=head), timeout=10).close()

    def environment(self, port, folder):
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.secrets[0],
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{self.account}",
            "AZURE_ALLOW_HTTP": "true",
        }


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _started(command, port):
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return server
        assert server.poll() is None, f"{command[0]} ended"
        time.sleep(0.1)
    _end(server)
    raise AssertionError(f"{command[0]} does not answer")


def _end(server):
    server.kill()
    server.wait()


@pytest.fixture(scope="session", params=[S3, Gcs, Azure], ids=lambda kind: kind.scheme)
def server(request):
    """A server of one kind of store."""
    pytest.importorskip("obstore", reason="object stores need the extra cloud")
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path, request):
    """The URL of an empty bucket; `bucket.proxy` makes faults, `bucket.server` says what differs by kind of store."""
    proxy = FaultyProxy(server.port)
    name = f"bucket-{os.getpid()}-{abs(hash(request.node.name)) % 10**6}"
    server.make(name)
    monkeypatch.setenv("RANJAX_STAGING", str(tmp_path / "staging"))
    for variable, value in server.environment(proxy.port, tmp_path).items():
        monkeypatch.setenv(variable, value)
    yield Bucket(f"{server.scheme}://{name}", proxy, server)
    proxy.close()


class Bucket(str):
    proxy: FaultyProxy

    def __new__(cls, url, proxy, server):
        made = super().__new__(cls, url)
        made.proxy, made.server = proxy, server
        return made
