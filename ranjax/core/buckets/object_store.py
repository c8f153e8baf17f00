"""One folder of an object store (S3, Google Cloud Storage, Azure): whole objects, conditional writes, paged lists.

What fails by 5xx or a cut connection is asked again, with backoff. The client, obstore, takes credentials from the
environment or the machine. No message here holds the query of a URL, where signatures stand, nor any header.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ranjax.core import extras, files
from ranjax.core.errors import ConfigError, RunError

T = TypeVar("T")
SCHEMES = ("s3", "gs", "az")
PART = 8 << 20
"""Bytes of a part of a large object; larger where 9,000 parts would not hold the file."""
STANDSTILL = 30.0
"""Seconds after which a request that stands still is cut and asked again; a long upload does not stand still."""
PROBE = ".probe"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_BUSY = ("408", "409", "429")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ALLOW_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound")

Version = dict[str, str]
"""What names one state of an object: its ETag, and its generation where the store has one."""


class StoreError(RunError):
    """The store did not answer as it should, after all tries."""


class BusyError(StoreError):
    """It might the next time."""


class Found(NamedTuple):
    """An object: its bytes, its version, and when it was written, by the store's clock."""

    data: bytes
    version: Version
    modified: datetime


class Entry(NamedTuple):
    """An object of a list: its size in bytes and its ETag."""

    size: int
    tag: str


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return True for what begins with a scheme, such as ``s3://``."""
    return bool(_URL.match(os.fspath(path)))


def local_path(path: str | os.PathLike[str], key: str) -> str | None:
    """Return the local path that `path` names, ``file://`` among them; None: it names an object store.

    Raises:
      ConfigError: a URL of another scheme, without a bucket, or with a password or query in it (which is not shown).
    """
    text = os.fspath(path)
    if not is_url(text):
        return text
    parts = urlsplit(text)
    if parts.scheme == "file":
        return text.removeprefix("file://")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in SCHEMES:
        raise ConfigError(key, shown, f"a path, file:// or one of {', '.join(f'{name}://' for name in SCHEMES)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(key, shown, "a URL without credentials, query or fragment", "Give keys by the environment.")
    if not parts.netloc:
        raise ConfigError(key, shown, f"a bucket, as in {parts.scheme}://BUCKET/FOLDER")
    return None


class ObjectStore:
    """The objects below one URL.

    Args:
      url: e.g. ``s3://bucket/runs/ran``.
      key: what an error calls it, e.g. "--workdir".
      patience: seconds within which a request is tried again.

    Raises:
      ConfigError: the URL or the environment does not say enough to ask.
    """

    def __init__(self, url: str, key: str, patience: float = 150.0):
        extras.require("obstore")
        from obstore.store import from_url

        if local_path(url, key) is not None:
            raise ConfigError(key, url, f"one of {', '.join(f'{name}://' for name in SCHEMES)}, and no local path")
        self.url, self.key, self._patience = url.rstrip("/"), key, patience
        retries: Any = {
            "max_retries": 12,
            "retry_timeout": timedelta(seconds=patience),
            "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15)},
        }
        options: Any = {"timeout": timedelta(minutes=30), "read_timeout": timedelta(seconds=STANDSTILL)}
        if any(os.environ.get(name, "").lower() in ("1", "true") for name in _ALLOW_HTTP):
            options["allow_http"] = True
        with self._asked("open"):
            self._store: Any = from_url(self.url, retry_config=retries, client_options=options)

    def check(self) -> datetime:
        """Check that objects can be written, conditionally, and removed; return the time by the store's clock.

        Raises:
          ConfigError: no such bucket, no right, or a store that overwrites where it was told not to.
          StoreError: no answer.
        """
        name = f"{PROBE}-{uuid.uuid4().hex}"
        self.create(name, b"1")
        second = self.create(name, b"2")
        found = self.get(name)
        self.delete([name])
        if second is not None or found is None:
            raise ConfigError(self.key, self.url, "a store with conditional writes (If-None-Match), which this lacks")
        return found.modified

    def get(self, name: str) -> Found | None:
        """Return an object, or None if it is not there."""
        import obstore

        def ask() -> Found | None:
            try:
                got = obstore.get(self._store, name)
            except FileNotFoundError as error:
                if _NO_BUCKET.search(str(error)):
                    raise
                return None
            return Found(bytes(got.bytes()), _version(got.meta), got.meta["last_modified"])

        return self._answer("read", name, ask)

    def download(self, name: str, path: Path, size: int) -> None:
        """Write an object of `size` bytes to `path`, atomically.

        Raises:
          StoreError: it is gone, or its bytes did not come.
          files.DiskFullError: no space is left.
        """
        import obstore

        def ask() -> None:
            with files.beside(path, size) as place:
                with place.open("wb") as file:
                    for chunk in obstore.get(self._store, name).stream(min_chunk_size=PART):
                        file.write(chunk)
                if place.stat().st_size != size:
                    raise BusyError(f"{self.url}/{name} changed or was cut off while it was read")

        self._answer("read", name, ask)

    def upload(self, name: str, path: Path) -> bool:
        """Write a file as an object, in parts where it is large; return False if there is no such file any more."""
        import obstore

        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False

        def ask() -> None:
            file.seek(0)
            part = max(PART, os.fstat(file.fileno()).st_size // 9000)
            obstore.put(self._store, name, file, chunk_size=part)

        with file:
            self._answer("write", name, ask)
        return True

    def create(self, name: str, data: bytes) -> Version | None:
        """Write an object that is not there yet; return None, and write nothing, if there is another one."""
        return self._conditional(name, data, "create")

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        """Write an object in place of `version` of it; return None, and write nothing, if it is another one by now."""
        return self._conditional(name, data, version)

    def _conditional(self, name: str, data: bytes, mode: Any) -> Version | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

        def ask() -> Version | None:
            try:
                return _version(obstore.put(self._store, name, data, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError, GenericError) as error:
                # It may have been written and the answer lost: what lies there decides.
                found = self.get(name)
                if found is not None and found.data == data:
                    return found.version
                if isinstance(error, GenericError):
                    raise
                return None

        return self._answer("write", name, ask)

    def list(self) -> dict[str, Entry]:
        """Return all objects by their names below the URL, read page by page."""
        import obstore

        def ask() -> dict[str, Entry]:
            pages = obstore.list(self._store, chunk_size=1000)
            return {one["path"]: Entry(one["size"], tag_of(one)) for page in pages for one in page}

        return self._answer("list", "", ask)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        import obstore

        for name in names:

            def ask(name: str = name) -> None:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._store, name)

            self._answer("remove", name, ask)

    def _answer(self, verb: str, name: str, ask: Callable[[], T]) -> T:
        """Return what `ask` returns. It may be asked again: the client gives up where a request is not safe to repeat
        by itself, and where the body of an answer is cut off.
        """
        ends, pause = time.monotonic() + self._patience, 0.2
        while True:
            try:
                with self._asked(verb, name):
                    return ask()
            except BusyError:
                if time.monotonic() + pause > ends:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, 15.0)

    @contextlib.contextmanager
    def _asked(self, verb: str, name: str = "") -> Iterator[None]:
        """Turn the client's errors into one line: ConfigError for rights and buckets, else StoreError."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            expected = f"a place with the right to {verb} objects ({_why(error)})"
            raise ConfigError(self.key, self.url, expected, "Its credentials come from the environment.") from None
        except (BaseError, FileNotFoundError) as error:
            if _NO_BUCKET.search(str(error)):
                raise ConfigError(self.key, self.url, "a bucket that exists") from None
            if verb == "open":
                raise ConfigError(self.key, self.url, f"a store that can be asked ({_why(error)})") from None
            if "builder error" in str(error):
                expected = "a store that is asked by https (by http: " + ", ".join(_ALLOW_HTTP) + "=true)"
                raise ConfigError(self.key, self.url, expected) from None
            status = _STATUS.search(str(error))
            kind = StoreError if status and status[1][0] == "4" and status[1][:3] not in _BUSY else BusyError
            raise kind(f"cannot {verb} {place}: {_why(error)}; the same command goes on from here") from None


def tag_of(meta: Mapping[str, Any]) -> str:
    """Return the ETag of an object without the quotes, which Azure leaves out of its lists; "" where it has none."""
    return (meta.get("e_tag") or "").strip('"')


def _version(meta: Any) -> Version:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _why(error: Exception) -> str:
    """Return why a request failed, in one line without query, headers or body."""
    text = str(error)
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return status[1].strip() + (f", {code[1]}" if code else "")
    return re.sub(r"\?\S*", "", text.partition("\n")[0]).strip()[:300]
