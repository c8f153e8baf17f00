"""A real S3 server (moto) in a process of its own, with a proxy before it that makes faults."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest
from faulty_proxy import FaultyProxy


@pytest.fixture(scope="session")
def s3_port():
    """The port of a moto server; it lives in an environment of its own, as its dependencies exclude pandas' own."""
    pytest.importorskip("obstore", reason="object stores need the extra cloud")
    command = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if not command:
        pytest.skip("no S3 server: set MOTO_SERVER to moto's moto_server (docs/scale.md)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_port, monkeypatch, tmp_path, request):
    """The URL of an empty bucket; `s3.proxy` makes faults."""
    proxy = FaultyProxy(s3_port)
    name = f"bucket-{os.getpid()}-{abs(hash(request.node.name)) % 10**6}"
    asked = urllib.request.Request(f"http://127.0.0.1:{s3_port}/{name}", method="PUT")
    urllib.request.urlopen(asked, timeout=10).close()
    for variable, value in {
        "AWS_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "KEYOFTHETEST",
        "AWS_SECRET_ACCESS_KEY": "SECRETOFTHETEST",
        "AWS_REGION": "us-east-1",
        "RANJAX_STAGING": str(tmp_path / "staging"),
    }.items():
        monkeypatch.setenv(variable, value)
    yield Bucket(f"s3://{name}", proxy)
    proxy.close()


class Bucket(str):
    proxy: FaultyProxy

    def __new__(cls, url, proxy):
        made = super().__new__(cls, url)
        made.proxy = proxy
        return made
