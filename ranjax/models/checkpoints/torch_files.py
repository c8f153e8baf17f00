"""Reads the tensors of torch's files (.pth, .pt, .bin) without torch, and without running anything that a file says.

Such a file is a pickle: a program that a reader runs, and that may call any function of Python. Here its instructions
are read as data (`pickletools`), and of the things that it may name only those of a state dict are understood:
tensors, their storages, an ordered dict. Every other name, and every other instruction, is refused by its name.
Both formats are read: a zip (torch 1.6 and newer), and a row of pickles before raw numbers (older).
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from ranjax.core.errors import DataError

LIMIT = 64 << 20
"""Bytes of a pickle at most: it names tensors, whose numbers lie elsewhere."""
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_BFLOAT16 = "BFloat16"
_STORAGES = {  # bfloat16 as its bits, as numpy has no such type
    "Double": np.float64, "Float": np.float32, "Half": np.float16, _BFLOAT16: np.uint16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip
# What scripts wrap a state dict in, outermost first.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Scripted CLIPs carry these numbers among their weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


_DAMAGES = (
    OSError, EOFError, ValueError, LookupError, TypeError, OverflowError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


_Stream = io.BytesIO | mmap.mmap


class _Refused(Exception):
    """What a file asks for and does not get; its message is the reason."""


class _Storage(NamedTuple):
    """A row of numbers of a file; `kind` is a key of `_STORAGES`."""

    kind: str
    key: str
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Type of its numbers in the file."""
        return np.dtype(_STORAGES[self.kind])


class _Tensor(NamedTuple):
    """A view of a storage; `shape` and `strides` in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A function or class that a file names; nothing is looked up by it."""

    name: str


_MARK = object()


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict by name, C-contiguous, as stored (bfloat16 widened to float32).

    Args:
      path: a file of `torch.save`. A dict that holds the state dict as ``state_dict``, ``model_state_dict`` or
        ``model`` is looked into; what is no tensor in it (an epoch) is left out; ``module.`` before names goes.

    Raises:
      DataError: no such file, one that asks for anything but tensors, or one that is damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return _state_dict(*_zipped(file))
            # A map of the file reads no more than it has, whatever length a file claims; plain files take memory first.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _state_dict(*_in_a_row(content))
    except _Refused as refused:
        raise DataError(f"{path} is refused: {refused}. Only files of tensors are read") from None
    except _DAMAGES as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is no whole file of torch ({reason}); a cut-off download looks like this") from error


def _zipped(file: io.BufferedReader) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Return the content of a zip, and what gives the numbers of a storage."""
    archive = zipfile.ZipFile(file)
    (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    folder = name.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder", 16) != b"little":
        raise _Refused("its numbers are stored in big-endian order")

    def numbers(storage: _Storage) -> np.ndarray:
        data = _member(archive, f"{folder}data/{storage.key}", storage.size * storage.dtype.itemsize)
        return np.frombuffer(data, storage.dtype, storage.size)

    return _run(io.BytesIO(_member(archive, name, LIMIT))), numbers


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise _Refused(f"{name} in it is larger than the {most} bytes that it should have")
    return archive.read(name)


def _in_a_row(file: mmap.mmap) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Return the same of the older format: four pickles, the keys of the storages, their counts and numbers."""
    if _run(file) != _MAGIC or _run(file) != _PROTOCOL:
        raise _Refused("it is a pickle, but not of torch")
    if not _run(file)["little_endian"]:
        raise _Refused("its numbers are stored in big-endian order")
    seen: dict[str, _Storage] = {}
    content, keys = _run(file, seen), _run(file)
    found = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if count != seen[key].size:
            raise _Refused(f"storage {key} holds {count} numbers, not {seen[key].size}")
        found[key] = np.frombuffer(file.read(count * seen[key].dtype.itemsize), seen[key].dtype, count)
    return content, lambda storage: found[storage.key]


def _run(file: _Stream, seen: dict[str, _Storage] | None = None) -> Any:
    """Return what a pickle describes, up to its end; `seen` takes the storages that it names, by key."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        if number > LIMIT:
            raise _Refused("its pickle is too long")
        name = operation.name
        if name == "STOP":
            (content,) = stack
            return content
        _step(name, argument, stack, memo, {} if seen is None else seen)
    raise _Refused("its pickle has no end")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], seen: dict[str, _Storage]) -> None:
    """Carry out one instruction on the stack."""
    match name:
        case "PROTO" | "FRAME":
            pass
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
            stack.append(argument)
        case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        case "MARK":
            stack.append(_MARK)
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        case "APPEND" | "APPENDS":
            values = _since_mark(stack) if name == "APPENDS" else [stack.pop()]
            _checked(stack[-1], list).extend(values)
        case "SETITEM" | "SETITEMS":
            items = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _checked(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        case "GLOBAL":
            stack.append(_named(argument.replace(" ", ".")))
        case "STACK_GLOBAL":
            last = stack.pop()
            stack.append(_named(f"{_checked(stack.pop(), str)}.{_checked(last, str)}"))
        case "BINPERSID":
            storage = _storage(stack.pop())
            seen[storage.key] = storage
            stack.append(storage)
        case "REDUCE":
            given = stack.pop()
            stack.append(_made(_checked(stack.pop(), _Name).name, _checked(given, tuple)))
        case "BUILD":
            stack.pop()  # The state dict's own notes: versions of its modules.
            _checked(stack[-1], dict)
        case _:
            raise _Refused(f"its pickle holds the instruction {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    place = max(i for i, value in enumerate(stack) if value is _MARK)
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is tuple and isinstance(value, _Name | _Storage | _Tensor)):
        raise _Refused(f"its pickle has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


_FUNCTIONS = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_parameter",
}  # fmt: skip


def _named(name: str) -> _Name:
    storage = name.removeprefix("torch.").removesuffix("Storage")
    if name not in _FUNCTIONS and not (name == f"torch.{storage}Storage" and storage in _STORAGES):
        raise _Refused(f"it names {name}, which is no part of a tensor and could be any code")
    return _Name(name)


def _storage(given: Any) -> _Storage:
    """Return what ("storage", type, key, device, count, view) names; `view` in the older format alone."""
    word, kind, key, _, count, *view = _checked(given, tuple)
    if word != "storage" or any(part is not None for part in view) or _checked(count, int) < 0:
        raise _Refused("it names a storage in an unknown way")
    name = _checked(kind, _Name).name.removeprefix("torch.").removesuffix("Storage")
    return _Storage(name, _checked(key, str), count)


def _made(name: str, given: tuple[Any, ...]) -> Any:
    """Return what calling a name would make."""
    if name == "collections.OrderedDict":
        pairs = _checked(given[0], list) if given else []
        return dict(pairs)
    if name == "torch._utils._rebuild_parameter":
        return _checked(given[0], _Tensor)
    if not name.startswith("torch._utils._rebuild_tensor"):
        raise _Refused(f"it calls {name}")
    storage, offset, shape, strides = given[:4]
    _checked(storage, _Storage)
    numbers = (offset, *_checked(shape, tuple), *_checked(strides, tuple))
    if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise _Refused("it has a tensor of an impossible shape")
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides))
    if size and (last >= storage.size or size > storage.size):
        raise _Refused("it has a tensor that reaches beyond its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _state_dict(content: Any, numbers: Callable[[_Storage], np.ndarray]) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise _Refused(f"it holds a {type(content).__name__.lstrip('_').lower()}, not the tensors of a model by name")
    tensors = dict(_tensors(content, numbers))
    if not tensors:
        raise _Refused("it holds no tensors by name")
    return tensors


def _tensors(content: Mapping[Any, Any], numbers: Callable[[_Storage], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in content.items():
        if not isinstance(value, _Tensor) or key in _NOT_WEIGHTS:
            continue
        row = numbers(value.storage)[value.offset :]
        size = row.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(row, value.shape, tuple(step * size for step in value.strides))
        tensor = np.array(view, order="C")
        if value.storage.kind == _BFLOAT16:  # the upper half of the float32 that it stands for
            tensor = (tensor.astype(np.uint32) << np.uint32(16)).view(np.float32)
        yield str(key).removeprefix("module."), tensor
