"""A local folder and its copy in an object store, kept in step so that the copy is at any moment as a kill leaves one.

What is written under a name here by rename goes up in the order in which it was written; manifests follow all else, by
a conditional write. So a folder without its manifest is unfinished in the store as well. Hidden files (locks,
half-written ones, what is decoded of an unfinished set) stay here.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ranjax.core import files
from ranjax.core.buckets.lease import Lease
from ranjax.core.buckets.object_store import Entry, ObjectStore, StoreError, tag_of
from ranjax.core.errors import ConfigError, DataError, RunError

MANIFESTS = ("manifest.json", "prepared.json")
"""Files that say that their folder is whole."""
STATE = ".mirror.json"
INTERVAL = 15.0
"""Seconds between two looks at what is new here."""
READERS = 8
"""Objects that are read at a time."""
_LOCAL = ("lock",)

Stat = tuple[int, int]
"""Size in bytes and time of change in ns."""


class Mirror:
    """Keep `folder` and the store in step.

    Args:
      store: where the copy is.
      folder: the local one; absent, empty, or left by an earlier mirror of the same URL.
      lease: that of the store, where anything is to be written.

    Raises:
      ConfigError: the folder holds something else.
    """

    def __init__(self, store: ObjectStore, folder: Path, lease: Lease | None = None):
        self.store, self.folder, self.lease = store, folder, lease
        state = files.read_object(folder / STATE)
        if state.get("url", store.url) != store.url or (not state and folder.is_dir() and any(folder.iterdir())):
            raise ConfigError("--staging", str(folder), f"an empty folder, or the one of {store.url}")
        # By name, as it was when both were the same: here, and its ETag there.
        self._known: dict[str, Stat] = {name: (size, time) for name, (size, time, _) in state.get("files", {}).items()}
        self._tags: dict[str, str] = {name: tag for name, (_, _, tag) in state.get("files", {}).items()}
        self._session = state.get("session", "")
        self._pushing = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._push_until_ended, name="mirror", daemon=True)

    def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> int:
        """Bring here what the store has, manifests last; return the number of files there.

        Where this folder was the last to be mirrored, what it holds is newer and stays. Otherwise the store is right:
        what differs here is replaced, and what is not there is removed.

        Raises:
          DataError: an object that a manifest lists is gone, or is not the one that it lists.
          StoreError: the store does not answer.
        """
        there = {name: entry for name, entry in self.store.list().items() if _is_mirrored(name) and wanted(name)}
        here = {name: stat for name, stat in self._here().items() if wanted(name)}
        newest_here = bool(self._session) and self.lease is not None and self.lease.before == self._session
        if newest_here or not there:
            needed = [name for name in there if name not in here]
            self._session = self.lease.id if self.lease else ""
        else:
            for name in here.keys() - there.keys():
                (self.folder / name).unlink()
                _remove_empty((self.folder / name).parent, self.folder)
            needed = [name for name, entry in there.items() if not self._is_same(name, here.get(name), entry)]
        # What the store lost since is new here.
        self._known = {
            name: stat
            for name, stat in self._known.items()
            if not wanted(name) or (name in there and there[name].size == stat[0])
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save()
        manifests = [name for name in needed if name.rpartition("/")[2] in MANIFESTS]
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda name: self._read(name, there[name]), sorted({*needed} - {*manifests})))
        for name in manifests:
            self._read_manifest(name, {*needed}, wanted)
        self._session = self.lease.id if self.lease else ""
        self._save()
        return len(there)

    def push(self) -> None:
        """Take to the store what is new here, in the order in which it was written, then manifests.

        Raises:
          RunError: the lease was lost, another run finished the same folder otherwise, or this folder is gone.
          StoreError: the store does not answer.
        """
        with self._pushing:
            self._check()
            here = self._here()
            if not (self.folder / STATE).is_file():
                raise RunError(f"the local copy {self.folder} was removed during the run; nothing in the store was")
            changed = [name for name, stat in here.items() if self._known.get(name) != stat]
            gone = sorted(self._known.keys() - here.keys())
            manifests = [name for name in changed if name.rpartition("/")[2] in MANIFESTS]
            # A folder that is not whole any more loses its manifest before anything else of it changes.
            again = [name for name in manifests if name in self._known]
            self._remove([*again, *(name for name in gone if name.rpartition("/")[2] in MANIFESTS)])
            for name in sorted({*changed} - {*manifests}, key=lambda name: (here[name][1], name)):
                self._check()
                if self.store.upload(name, self.folder / name):
                    self._known[name] = here[name]
                    self._tags.pop(name, None)
            self._remove(name for name in gone if name in self._known)
            for name in manifests:
                self._check()
                if self.store.create(name, (self.folder / name).read_bytes()) is None:
                    raise RunError(f"{self.store.url}/{name} is there already, from another run, and says otherwise")
                self._known[name] = here[name]
            if changed or gone:
                self._save()

    def forget(self, name: str) -> None:
        """Remove a folder from the store, its manifest first, before it is set aside here."""
        with self._pushing:
            self._check()
            below = sorted(other for other in self.store.list() if other.startswith(f"{name}/"))
            self._remove(sorted(below, key=lambda other: other.rpartition("/")[2] not in MANIFESTS))
            self._save()

    def start(self) -> None:
        """Push every `INTERVAL` seconds from now on; a store that does not answer is asked again the next time."""
        self._thread.start()

    def stop(self) -> None:
        """End that, once what is under way has ended."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _push_until_ended(self) -> None:
        while not self._ended.wait(INTERVAL):
            try:
                self.push()
            except (RunError, ConfigError, OSError):
                continue  # the next stage's end, or the lease, says so to the run itself

    def _check(self) -> None:
        if self.lease is None:
            raise RunError(f"{self.store.url} was opened to be read")
        self.lease.check()

    def _here(self) -> dict[str, Stat]:
        """Return size and time of what is mirrored here, by name.

        A folder is listed before those in it: where its manifest is among the names, so is all that it had then.
        """
        found: dict[str, Stat] = {}
        for folder, subfolders, names in os.walk(self.folder):
            subfolders[:] = sorted(name for name in subfolders if _is_mirrored(name))
            for name in filter(_is_mirrored, names):
                path = os.path.join(folder, name)
                try:
                    stat = os.stat(path)
                except FileNotFoundError:
                    continue
                found[os.path.relpath(path, self.folder).replace(os.sep, "/")] = stat.st_size, stat.st_mtime_ns
        return found

    def _is_same(self, name: str, here: Stat | None, there: Entry) -> bool:
        same = here is not None and here == self._known.get(name) and here[0] == there.size
        return same and self._tags.get(name) == there.tag

    def _read(self, name: str, entry: Entry) -> None:
        self.store.download(name, self.folder / name, entry.size)
        stat = (self.folder / name).stat()
        self._known[name], self._tags[name] = (stat.st_size, stat.st_mtime_ns), entry.tag

    def _read_manifest(self, name: str, read: set[str], wanted: Callable[[str], bool]) -> None:
        """Read a manifest once all that it lists is here."""
        found = self.store.get(name)
        if found is None:
            raise StoreError(f"{self.store.url}/{name} was removed while it was read")
        try:
            listed = json.loads(found.data)["files"]
        except (ValueError, KeyError, TypeError):
            listed = {}  # whoever opens the folder refuses it
        folder, _, kind = name.rpartition("/")
        for part, digest in listed.items():
            other = f"{folder}/{part}" if folder else part
            path = self.folder / other
            if not wanted(other):
                continue
            # A prepared set checks its own files when it is opened: its marks are no digests of whole files.
            hashed = kind == MANIFESTS[0] and other in read
            if not path.is_file() or (hashed and files.sha256(path) != digest):
                fault = "is not the file" if path.is_file() else "is gone, a file"
                hint = f"Put it back, or remove {name} from the store so that it is made again."
                raise DataError(f"{self.store.url}/{other} {fault} that {name} lists. {hint}")
        files.write_bytes(self.folder / name, found.data)
        stat = (self.folder / name).stat()
        self._known[name], self._tags[name] = (stat.st_size, stat.st_mtime_ns), tag_of(found.version)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._check()
            self.store.delete([name])
            self._known.pop(name, None)
            self._tags.pop(name, None)

    def _save(self) -> None:
        known: dict[str, Any] = {name: [*stat, self._tags.get(name, "")] for name, stat in self._known.items()}
        state = {"url": self.store.url, "session": self._session, "files": known}
        files.write_json(self.folder / STATE, state, indent=None)


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove a folder that is empty, and those above it that become so, up to `above`: a store has no folders."""
    while folder != above and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _is_mirrored(name: str) -> bool:
    parts = name.split("/")
    return name not in _LOCAL and not any(part.startswith(".") or ".orbax-checkpoint-tmp" in part for part in parts)
