"""A lease: the object by which one run at a time owns a workdir in a bucket, taken and renewed by conditional writes.

Ages are differences of the store's own times, so that clocks of machines may differ. A run that was killed leaves its
lease, which another machine may take over once it is `SECONDS` old; on the same machine at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

from ranjax.core.buckets.object_store import ObjectStore, StoreError, Version
from ranjax.core.errors import ConfigError, RunError
from ranjax.core.lock import InUseError, patiently
from ranjax.core.process_stat import ENDED, process_stat

NAME = ".lease.json"
SECONDS = 60.0
"""Age at which a lease that was not renewed has ended."""


class Lease:
    """Hold the workdir at `url` for this process; renew it in the background. Use as a context manager.

    Attributes:
      id: of this holding.
      before: the id of the holding before it, or "".

    Raises:
      ConfigError: another run holds it (named by process and host), or it cannot be written.
    """

    def __init__(self, url: str, key: str, seconds: float = SECONDS):
        # Asked for less long than a lease lasts.
        self._store = ObjectStore(url, key, patience=seconds / 3)
        self.url, self.seconds, self.id = self._store.url, seconds, uuid.uuid4().hex
        self._count, self._lost = 0, False
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._version, self.before = patiently(lambda: self._take(key))
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if not self._lost:
            # Where that fails it ends by itself.
            with contextlib.suppress(StoreError, ConfigError):
                self._store.replace(NAME, self._content(held=False), self._version)

    def lost(self) -> bool:
        """Return True once this process must not write any more: another run holds it, or might by now."""
        return self._lost or time.monotonic() - self._renewed > self.seconds

    def check(self) -> None:
        """Check that this process still holds it, and renew it if that is due.

        Raises:
          RunError: it does not.
        """
        if not self._lost and time.monotonic() - self._renewed > self.seconds / 2:
            self._renew()
        if self.lost():
            raise RunError(f"{self.url} was taken over by another run, or could not be reached for too long; this ends")

    def _content(self, held: bool = True) -> bytes:
        self._count += 1
        holder = {"id": self.id, "held": held, "count": self._count, "seconds": self.seconds}
        return json.dumps(holder | {"process": os.getpid(), "host": socket.gethostname(), **_identity()}).encode()

    def _take(self, key: str) -> tuple[Version, str]:
        now = self._store.check()
        found = self._store.get(NAME)
        before = {}
        if found is None:
            version = self._store.create(NAME, self._content())
        else:
            try:
                before = json.loads(found.data)
                age, lasts = (now - found.modified).total_seconds(), float(before["seconds"])
                held = before["held"] and age < lasts and not _died(before)
                who = f"process {before['process']} on {before['host']}"
            except (ValueError, KeyError, TypeError):
                raise ConfigError(key, self.url, f"a folder whose {NAME} is one of ranjax; remove that") from None
            if held:
                ends = f"if that was killed, it is free in {lasts - age:.0f} s"
                raise InUseError(key, self.url, f"a folder that no other run uses; {who} holds it ({ends})")
            version = self._store.replace(NAME, self._content(), found.version)
        if version is None:
            raise InUseError(key, self.url, "a folder that no other run uses; another one took it just now")
        return version, str(before.get("id", ""))

    def _renew(self) -> None:
        with self._renewing:
            began = time.monotonic()
            try:
                version = self._store.replace(NAME, self._content(), self._version)
                if version is None:
                    # An earlier renewal may have been written though its answer was lost.
                    found = self._store.get(NAME)
                    mine = found is not None and self.id.encode() in found.data
                    version = self._store.replace(NAME, self._content(), found.version) if found and mine else None
            except (StoreError, ConfigError):
                return  # `lost` says so once it lasts too long
            if version is None:
                self._lost = True
            else:
                self._version, self._renewed = version, began

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self.seconds / 4) and not self._lost:
            self._renew()


def _identity() -> dict[str, str]:
    """Return what names this process on its machine; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return {"machine": f"{boot} {os.readlink('/proc/self/ns/pid')}", "began": process_stat(os.getpid())[1]}
    except OSError:
        return {}


def _died(holder: dict[str, object]) -> bool:
    """Return True if the holder was a process of this machine that is not there any more."""
    if not holder.get("machine") or holder["machine"] != _identity().get("machine"):
        return False
    try:
        state, began = process_stat(int(str(holder["process"])))
        return state in ENDED or began != holder["began"]
    except OSError:
        return True
