"""Open what a command or a config names, wherever it lies: a local path, ``file://``, ``s3://``, ``gs://``, ``az://``.

    folder = fetched("s3://bucket/prepared/nih", "data.prepared.dir")      # to read
    with opened("s3://bucket/runs/ran", "--workdir") as (folder, mirror):  # to work in

Work happens in a local folder, as array_record and safetensors read local files alone; ``RANJAX_STAGING`` says where
these folders are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ranjax.core import files
from ranjax.core.buckets.lease import Lease
from ranjax.core.buckets.mirror import Mirror
from ranjax.core.buckets.object_store import ObjectStore, local_path
from ranjax.core.errors import ConfigError, RunError

VARIABLE = "RANJAX_STAGING"


def staging(url: str, use: str) -> Path:
    """Return the local folder of a URL; `use` is "work" or "read", which do not share one."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get(VARIABLE) or Path(cache) / "ranjax").expanduser().absolute()
    name = re.sub(r"[^\w.-]", "-", url.rstrip("/").rpartition("/")[2])[:40]
    return root / use / f"{name}-{files.digest(url.rstrip('/'))[:8]}"


def fetched(path: str | os.PathLike[str], key: str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Return the local path of `path`; of one in an object store, what is new there is read first.

    Args:
      path: a path, ``file://`` or the URL of a folder.
      key: what an error calls it.
      wanted: names of objects below the URL that are needed.

    Raises:
      ConfigError: no such place, or no right to read it.
      DataError: a file that a manifest lists is gone or changed.
      StoreError: the store does not answer.
    """
    local = local_path(path, key)
    if local is not None:
        return Path(local)
    url = os.fspath(path)
    folder = staging(url, "read")
    import fcntl  # here, as Windows has no such module

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not Mirror(ObjectStore(url, key), folder).pull(wanted):
            raise ConfigError(key, url, "a folder with objects in it")
    return folder


@contextmanager
def opened(path: str | os.PathLike[str], key: str) -> Iterator[tuple[Path, Mirror | None]]:
    """Open a folder to work in it, and yield its local path, with the mirror of one in an object store.

    The URL is leased to this process, what is there is brought here, and what is new here goes there in the background.
    At the end all is there, unless the process is interrupted at once.

    Raises:
      ConfigError: no such place, no right to write it, or another run holds it.
      StoreError: the store does not answer.
    """
    local = local_path(path, key)
    if local is not None:
        yield Path(local), None
        return
    url = os.fspath(path)
    folder = staging(url, "work")
    with Lease(url, key) as lease:
        mirror = Mirror(ObjectStore(url, key), folder, lease)
        mirror.pull()
        mirror.start()
        try:
            yield folder, mirror
        except Exception:
            mirror.stop()
            # What went wrong is said, not what it kept from being sent.
            with suppress(RunError, ConfigError):
                mirror.push()
            raise
        finally:
            mirror.stop()
        mirror.push()
