"""A folder and its copy in an object store: killed, moved to another machine, taken over, damaged."""

import json
import os
import shutil
import threading
import time

import pytest

from ranjax.core import files
from ranjax.core.buckets import lease as leases
from ranjax.core.buckets.lease import Lease
from ranjax.core.buckets.mirror import Mirror
from ranjax.core.buckets.object_store import ObjectStore
from ranjax.core.buckets.workdirs import fetched, opened
from ranjax.core.errors import ConfigError, DataError, RunError

pytestmark = pytest.mark.slow  # a server of its own, leases that end, requests that wait


def _machine(monkeypatch, tmp_path, name):
    """Let what follows happen on another machine."""
    monkeypatch.setenv("RANJAX_STAGING", str(tmp_path / name))
    monkeypatch.setattr(leases, "_identity", lambda: {"machine": name, "began": "1"})


def _stage(folder, name, text):
    files.write_text(folder / name / "a.txt", text)
    files.write_text(folder / name / "parts" / "b.txt", text)
    listed = files.hashes(folder / name)
    files.write_json(folder / name / "manifest.json", {"files": listed})


def _content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_what_one_machine_wrote_another_goes_on_with(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/runs/a"
    _machine(monkeypatch, tmp_path, "one")
    with opened(url, "--workdir") as (folder, mirror):
        _stage(folder, "prepare", "1")
        mirror.push()
        files.write_text(folder / ".hidden", "stays here")
        (folder / "prepare" / "c.txt").write_text("late")
        files.write_text(folder / "empty" / "later.txt", "")
        before = _content(folder)
    _machine(monkeypatch, tmp_path, "two")
    with opened(url, "--workdir") as (second, mirror):
        assert _content(second) == before
        assert second != folder
        _stage(second, "pretrain/clean", "2")
        (second / "prepare" / "c.txt").unlink()
        shutil.rmtree(second / "empty")
        now = _content(second)
    _machine(monkeypatch, tmp_path, "one")
    with opened(url, "--workdir") as (third, _):
        assert third == folder
        assert _content(third) == now
        assert not (third / "empty").exists()
    read = fetched(url, "WORKDIR")
    assert _content(read) == now
    bucket.proxy.seen.clear()
    assert fetched(url, "WORKDIR", lambda name: name.endswith(".json")) == read
    assert _content(fetched(url, "WORKDIR")) == now
    assert all(bucket.server.lists in line for line, _ in bucket.proxy.seen)


def test_a_manifest_is_written_after_all_that_it_lists(bucket, tmp_path):
    with opened(f"{bucket}/run", "--workdir") as (folder, mirror):
        mirror.stop()
        _stage(folder, "prepare", "1")
        os.utime(folder / "prepare" / "manifest.json", ns=(1, 1))
        mirror.push()
    written = [line.split()[1] for line, _ in bucket.proxy.seen if line.startswith("PUT")]
    names = [name.partition("?")[0].rpartition("/run/")[2] for name in written if "prepare" in name]
    assert names == ["prepare/a.txt", "prepare/parts/b.txt", "prepare/manifest.json"]


def test_killed_before_anything_went_up_the_same_machine_goes_on(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/run"
    with Lease(url, "k") as lease:
        mirror = Mirror(ObjectStore(url, "k"), tmp_path / "copy", lease)
        mirror.pull()
        _stage(tmp_path / "copy", "prepare", "1")
        mirror.push()
        _stage(tmp_path / "copy", "craft", "2")
        expected = _content(tmp_path / "copy")
    with Lease(url, "k") as lease:
        mirror = Mirror(ObjectStore(url, "k"), tmp_path / "copy", lease)
        (tmp_path / "copy" / "prepare" / "a.txt").unlink()
        mirror.pull()
        assert _content(tmp_path / "copy") == expected
        mirror.push()
    assert "craft/manifest.json" in ObjectStore(url, "k").list()


def test_killed_while_it_read_a_machine_does_not_take_its_old_copy_for_the_newer_one(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/run"
    _machine(monkeypatch, tmp_path, "one")
    with opened(url, "k") as (old, _):
        _stage(old, "prepare", "old")
    _machine(monkeypatch, tmp_path, "two")
    with opened(url, "k") as (_, mirror):
        mirror.forget("prepare")
        _stage(_, "prepare", "new")
    _machine(monkeypatch, tmp_path, "one")
    with Lease(url, "k") as lease:
        mirror = Mirror(ObjectStore(url, "k"), old, lease)
        monkeypatch.setattr(mirror, "_read", lambda name, entry: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mirror.pull()
    assert (old / "prepare" / "a.txt").read_text() == "old"
    with opened(url, "k") as (now, _):
        assert (now / "prepare" / "a.txt").read_text() == "new"


def test_two_runs_on_one_workdir_refuse_and_a_dead_one_is_followed(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/run"
    _machine(monkeypatch, tmp_path, "one")
    first = Lease(url, "--workdir", seconds=3.0)
    _machine(monkeypatch, tmp_path, "two")
    said = (
        rf"expected a folder that no other run uses; process {os.getpid()} on .* holds it .if that was killed, it is f"
    )
    with first, pytest.raises(ConfigError, match=said):
        Lease(url, "--workdir")
    with Lease(url, "--workdir") as free:
        assert free.before == first.id
    killed = Lease(url, "--workdir", seconds=2.0)
    _machine(monkeypatch, tmp_path, "three")
    # Its time is over by the store's clock, whatever the clock of this machine says.
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(ConfigError, match="holds it"):
        Lease(url, "--workdir")
    threading.Event().wait(4.0)
    with Lease(url, "--workdir"):
        assert killed.lost()
        with pytest.raises(RunError, match="was taken over by another run, or could not be reached"):
            killed.check()


def test_of_a_killed_process_of_this_machine_the_lease_is_free_at_once(bucket):
    Lease(f"{bucket}/run", "--workdir")
    found = ObjectStore(f"{bucket}/run", "k").get(leases.NAME)
    gone = json.loads(found.data) | {"began": "1"}
    ObjectStore(f"{bucket}/run", "k").replace(leases.NAME, json.dumps(gone).encode(), found.version)
    with Lease(f"{bucket}/run", "--workdir"):
        pass


def test_of_many_that_come_at_once_one_gets_the_lease(bucket):
    got, refused, barrier = [], [], threading.Barrier(4)

    def take():
        barrier.wait()
        try:
            got.append(Lease(f"{bucket}/run", "k"))
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 3)


def test_a_lease_outlives_lost_answers(bucket):
    with Lease(f"{bucket}/run", "k", seconds=2.0) as lease:
        bucket.proxy.match, bucket.proxy.faults = lambda line: line.startswith("PUT"), ["lost", "503", "cut", "lost"]
        threading.Event().wait(3.0)
        lease.check()
        assert not bucket.proxy.faults


def test_faults_on_the_way_leave_the_same_bits(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/run"
    faults = [fault for _ in range(4) for kind in ("503", "cut", "half", "lost") for fault in (kind, None)]
    bucket.proxy.match, bucket.proxy.faults = lambda line: ".lease" not in line and ".probe" not in line, [*faults]
    with opened(url, "k") as (folder, mirror):
        mirror.stop()
        for number in range(4):
            _stage(folder, f"stage{number}", str(number))
        before = _content(folder)
    _machine(monkeypatch, tmp_path, "two")
    bucket.proxy.faults = [*faults]
    with opened(url, "k") as (second, _):
        assert _content(second) == before


@pytest.mark.parametrize(("change", "said"), [(None, "is gone, a file"), (b"other", "is not the file")])
def test_an_object_that_disappears_or_changes_is_one_line(bucket, tmp_path, monkeypatch, change, said):
    with opened(f"{bucket}/run", "k") as (folder, _):
        _stage(folder, "prepare", "1")
    store = ObjectStore(f"{bucket}/run", "k")
    store.delete(["prepare/a.txt"])
    if change:
        store.create("prepare/a.txt", change)
    _machine(monkeypatch, tmp_path, "two")
    words = f"{bucket}/run/prepare/a.txt {said} that prepare/manifest.json lists. Put it back, or remove"
    with pytest.raises(DataError, match=words), opened(f"{bucket}/run", "k"):
        pass


def test_a_second_outcome_of_a_stage_is_refused(bucket, tmp_path):
    with opened(f"{bucket}/run", "k") as (folder, mirror):
        mirror.stop()
        ObjectStore(f"{bucket}/run", "k").create("prepare/manifest.json", b"{}")
        _stage(folder, "prepare", "1")
        with pytest.raises(RunError, match="is there already, from another run, and says otherwise"):
            mirror.push()
        ObjectStore(f"{bucket}/run", "k").delete(["prepare/manifest.json"])


def test_a_local_copy_that_is_removed_removes_nothing_there(bucket, tmp_path):
    with Lease(f"{bucket}/run", "k") as lease:
        mirror = Mirror(ObjectStore(f"{bucket}/run", "k"), tmp_path / "copy", lease)
        mirror.pull()
        _stage(tmp_path / "copy", "prepare", "1")
        mirror.push()
        shutil.rmtree(tmp_path / "copy")
        with pytest.raises(RunError, match="was removed during the run; nothing in the store was"):
            mirror.push()
    assert "prepare/a.txt" in ObjectStore(f"{bucket}/run", "k").list()


def test_a_folder_of_something_else_is_not_taken_for_a_copy(bucket, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(ConfigError, match=f"expected an empty folder, or the one of {bucket.server.scheme}://"):
        Mirror(ObjectStore(bucket, "k"), tmp_path / "mine")


def test_an_empty_place_is_refused_where_something_is_to_be_read(bucket):
    with pytest.raises(ConfigError, match=r"WORKDIR = '..://.*': expected a folder with objects in it"):
        fetched(f"{bucket}/nothing", "WORKDIR")
