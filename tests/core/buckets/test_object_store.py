"""Objects in servers of three kinds: conditional writes, long lists, faults on the way, refusals in one line."""

import threading

import pytest

from ranjax.core.buckets import object_store
from ranjax.core.buckets.object_store import ObjectStore, StoreError, is_url, local_path
from ranjax.core.errors import ConfigError


def test_a_url_says_where_its_files_are():
    assert local_path("file:///data/run", "k") == "/data/run"
    assert local_path("runs/a", "k") == "runs/a"
    assert local_path("s3://bucket/a", "k") is None
    assert local_path("gs://bucket", "k") is None
    assert is_url("az://c/x")
    assert not is_url("/a//b")
    assert not is_url("package:name")
    with pytest.raises(ConfigError, match="k = 'ftp://host/a': expected a path, file:// or one of s3://, gs://, az://"):
        local_path("ftp://host/a", "k")
    with pytest.raises(ConfigError, match="expected a bucket, as in s3://BUCKET/FOLDER"):
        local_path("s3:///a", "k")


@pytest.mark.parametrize("url", ["s3://KEY:SECRET@bucket/a", "az://bucket/a?sig=SECRET"])
def test_credentials_in_a_url_are_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="a URL without credentials") as raised:
        local_path(url, "--workdir")
    assert "SECRET" not in str(raised.value)
    assert "KEY" not in str(raised.value)


def test_of_many_that_write_one_object_conditionally_one_does(bucket):
    stores, won = [ObjectStore(bucket, "k") for _ in range(6)], []
    barrier = threading.Barrier(6)

    def write(number):
        barrier.wait()
        if stores[number].create("manifest.json", f"{number}".encode()) is not None:
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stores[0].get("manifest.json")
    assert won == [int(found.data)]
    assert stores[1].replace("manifest.json", b"new", found.version) is not None
    assert stores[2].replace("manifest.json", b"newer", found.version) is None
    assert stores[0].get("manifest.json").data == b"new"
    assert stores[0].get("other") is None


@pytest.mark.slow
def test_a_list_of_more_than_a_page_is_whole(bucket):
    store = ObjectStore(f"{bucket}/folder", "k")
    threads = [
        threading.Thread(target=lambda part=part: [store.create(f"{part}/{n:03}", b"x" * n) for n in range(201)])
        for part in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ObjectStore(f"{bucket}/folder-beside", "k").create("a", b"")
    found = store.list()
    assert {name: entry.size for name, entry in found.items()} == {
        f"{p}/{n:03}": n for p in range(6) for n in range(201)
    }
    assert sum(bucket.server.lists in line for line, _ in bucket.proxy.seen) == -(-6 * 201 // bucket.server.page)


@pytest.mark.slow  # requests that wait and go again
@pytest.mark.parametrize("fault", ["503", "429", "cut", "lost", "half"])
def test_faults_on_the_way_change_nothing(bucket, tmp_path, fault):
    store = ObjectStore(bucket, "k")
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40)

    def faulty(ask):
        bucket.proxy.faults = [fault, fault]
        made = ask()
        assert not bucket.proxy.faults[1:]
        bucket.proxy.faults = []
        return made

    assert faulty(lambda: store.upload("a", tmp_path / "a"))
    version = faulty(lambda: store.create("b", b"1"))
    assert faulty(lambda: store.replace("b", b"2", version)) is not None
    assert faulty(lambda: store.create("b", b"3")) is None
    faulty(lambda: store.download("a", tmp_path / "b", 10240))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert faulty(lambda: store.get("b")).data == b"2"
    assert sorted(faulty(store.list)) == ["a", "b"]
    faulty(lambda: store.delete(["a"]))
    store.delete(["a", "nothing"])
    assert sorted(store.list()) == ["b"]


@pytest.mark.slow  # answers that keep it waiting
def test_a_connection_that_stands_still_is_cut_and_asked_again(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "STANDSTILL", 0.4)
    store, proxy = ObjectStore(bucket, "k"), bucket.proxy
    (tmp_path / "a").write_bytes(b"0123456789" * 1000)
    # Of a write the answer alone is late: what it finds is what it wrote.
    proxy.faults = ["slow"]
    version = store.create("b", b"1")
    assert store.get("b").data == b"1"
    proxy.faults = ["slow"]
    assert store.upload("a", tmp_path / "a")
    proxy.faults = ["slow", None, "slow"]
    store.download("a", tmp_path / "back", 10_000)
    assert store.replace("b", b"2", version) is not None
    assert (tmp_path / "back").read_bytes() == (tmp_path / "a").read_bytes()
    assert not proxy.faults
    assert sum(fault == "slow" for _, fault in proxy.seen) == 4


def test_a_large_file_goes_in_parts_and_a_part_that_fails_goes_again(bucket, tmp_path):
    store = ObjectStore(bucket, "k")
    (tmp_path / "large").write_bytes(b"0123456789" * 2_000_000)
    bucket.proxy.match, bucket.proxy.faults = lambda line: bucket.server.parts in line, ["503", "cut"]
    assert store.upload("large", tmp_path / "large")
    assert not bucket.proxy.faults
    store.download("large", tmp_path / "back", 20_000_000)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    assert not store.upload("gone", tmp_path / "gone")


def test_no_bucket_no_right_and_no_answer_are_one_line_without_secrets(bucket, monkeypatch, tmp_path):
    other = f"{bucket.server.scheme}://no-such-bucket-here/a"
    with pytest.raises(ConfigError, match=f"k = '{other}': expected a bucket that exists"):
        ObjectStore(other, "k").check()
    with pytest.raises(ConfigError, match="expected a bucket that exists"):
        ObjectStore(other, "k").get("a")
    for variable, value in bucket.server.environment(1, tmp_path).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(StoreError, match=r"cannot read ..://.*/a: .*goes on from here") as raised:
        ObjectStore(bucket, "k", patience=1.0).get("a")
    assert "\n" not in str(raised.value)
    assert not any(secret in str(raised.value) for secret in bucket.server.secrets)


def test_a_bucket_without_rights_is_refused_in_one_line(bucket):
    bucket.proxy.match, bucket.proxy.faults = lambda line: line.startswith("PUT"), ["403"]
    with pytest.raises(ConfigError, match=r"expected a place with the right to write objects .403 Forbidden, Acc"):
        ObjectStore(bucket, "--workdir").check()


def test_a_store_that_overwrites_where_told_not_to_is_refused(bucket):
    if bucket.server.scheme == "az":
        pytest.skip("Azure signs conditions: a request without them is another one")
    bucket.proxy.blind = True
    with pytest.raises(ConfigError, match="expected a store with conditional writes"):
        ObjectStore(bucket, "--workdir").check()
    assert not ObjectStore(bucket, "--workdir").list()
