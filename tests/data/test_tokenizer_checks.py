"""A tokenizer travels with its checkpoint; one that would mean other tokens to the tower is refused with the reason."""

import json

import numpy as np
import pytest
import tokenizers

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.data.text.tokenizer_checks import check_ends, check_fits
from ranjax.data.text.tokenizer_files import recorded_id

REPORTS = ["No effusion. The heart is normal.", "Left-sided effusion, 2.5 cm; no mass."]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.build(REPORTS)


def framed(bos, eos, pad=None, last=False):
    """A word-level tokenizer with the given special tokens; `last` puts the end token at the largest id."""
    words = list(dict.fromkeys(["[UNK]", bos, *([pad] if pad else []), "a", "no", "mass"]))
    words = [*(w for w in words if w != eos), eos] if last else list(dict.fromkeys([eos, *words]))
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(name, words.index(name)) for name in dict.fromkeys([bos, eos])]
    )
    return Tokenizer(inner, pad)


def test_the_id_travels_with_the_files_and_an_exchanged_file_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    assert recorded_id(tmp_path) == tokenizer.fingerprint == Tokenizer.load(tmp_path).fingerprint
    assert recorded_id(tmp_path / "nowhere") == ""
    other = Tokenizer.build(REPORTS[:1])
    other.save(tmp_path / "other" / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text((tmp_path / "other" / "tokenizer.json").read_text())
    with pytest.raises(DataError, match=f"its id is {other.fingerprint}.* records {tokenizer.fingerprint}"):
        Tokenizer.load(tmp_path)


def test_a_named_padding_token_survives_a_round_trip(tmp_path):
    first = framed("<s>", "</s>", pad="<pad>")
    assert (first.token(first.pad_id), first.pad_id == first.eos_id) == ("<pad>", False)
    first.save(tmp_path / "tokenizer.json")
    second = Tokenizer.load(tmp_path)
    assert (second.pad_id, second.eos_id, second.bos_id) == (first.pad_id, first.eos_id, first.bos_id)


def test_a_tokenizer_of_another_size_or_id_is_refused(tokenizer):
    rows = tokenizer.vocab_size
    check_fits(tokenizer, rows, pools="eos", eos_id=tokenizer.eos_id, recorded=tokenizer.fingerprint)
    check_fits(tokenizer, rows + 1000, pools="eos", eos_id=tokenizer.eos_id)
    with pytest.raises(ConfigError, match=rf"text\.tokenizer = .*at most the {rows - 1} rows"):
        check_fits(tokenizer, rows - 1)
    with pytest.raises(ConfigError, match=f"its token table has 30522 rows, this one {rows} tokens"):
        check_fits(tokenizer, 30522)
    with pytest.raises(ConfigError, match=f"written with \\(id 0123; this one's is {tokenizer.fingerprint}"):
        check_fits(tokenizer, rows, recorded="0123", key="model.weights", value="here")


def test_an_end_token_that_the_tower_does_not_pool_at_is_refused(tokenizer):
    rows = tokenizer.vocab_size
    with pytest.raises(ConfigError, match="its end token is 7, this one's 4"):
        check_fits(tokenizer, rows, pools="eos", eos_id=7)
    with pytest.raises(ConfigError, match=f"largest id.* here it is 4 of 0 to {rows - 1}"):
        check_fits(tokenizer, rows, pools="highest_id")
    last = framed("<s>", "</s>", last=True)
    check_fits(last, last.vocab_size, pools="highest_id")
    same = framed("<|end|>", "<|end|>")
    with pytest.raises(ConfigError, match="end token is not its begin token"):
        check_fits(same, same.vocab_size, pools="eos", eos_id=same.eos_id)
    # A BERT does not pool there.
    check_fits(same, same.vocab_size)


def test_an_end_token_inside_a_text_is_refused():
    inner = framed("<s>", "</s>")._tokenizer
    ids = {name: inner.token_to_id(name) for name in ("<s>", "</s>")}
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> </s> $A </s>", special_tokens=list(ids.items())
    )
    doubled = Tokenizer(inner)
    with pytest.raises(ConfigError, match="at the end of a text alone; it gives"):
        check_fits(doubled, doubled.vocab_size, pools="eos", eos_id=doubled.eos_id)


def test_padding_taken_for_the_end_token_is_refused():
    confused, sound = framed("[CLS]", "[SEP]"), framed("[CLS]", "[SEP]", pad="[PAD]")
    assert confused.pad_id == confused.eos_id
    with pytest.raises(ConfigError, match=rf"pads with 9.*pads with {confused.pad_id} \(it is its end token: name pad"):
        check_fits(confused, confused.vocab_size, pad_id=9)
    check_fits(sound, sound.vocab_size, pad_id=sound.pad_id)
    # Where both share an id, the mask still ends behind the end token, never before it.
    row = confused.encode(["no mass"], 8)
    assert row.mask[0].tolist() == [True] * 4 + [False] * 4
    assert (row.ids[0, 3:] == confused.eos_id).all()
    check_ends(row.ids, row.mask, confused.eos_id)
    with pytest.raises(DataError, match="1 of 1 texts do not end with the end token"):
        check_ends(row.ids, row.mask & (row.ids != confused.pad_id), confused.eos_id)


def test_texts_cut_without_their_end_token_are_refused(tokenizer):
    kept, whole = tokenizer.encode(REPORTS, 6), tokenizer.encode(REPORTS, 32)
    check_ends(kept.ids, kept.mask, tokenizer.eos_id)
    with pytest.raises(DataError, match=r"2 of 2 texts.*\(p1, p2\): they were cut without keeping it"):
        check_ends(whole.ids[:, :6], whole.mask[:, :6], tokenizer.eos_id, ["p1", "p2"])
    with pytest.raises(DataError, match="row 0"):
        check_ends(kept.ids, np.zeros_like(kept.mask), tokenizer.eos_id)


def test_padding_on_the_left_and_names_of_a_hub_are_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    with pytest.raises(DataError, match="pads on the left"):
        Tokenizer.load(tmp_path)
    with pytest.raises(
        DataError, match=r"someone/some-clip is no file or folder of this machine, and nothing is fetched"
    ):
        Tokenizer.load("someone/some-clip")


def test_reading_a_tokenizer_opens_no_connection(tokenizer, tmp_path, monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_transformers_loads_the_saved_tokenizer_to_the_same_tokens(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.bos_token_id) == (0, 4, 3)
    for length in (6, 24):
        ours = tokenizer.encode(REPORTS, length)
        found = theirs(REPORTS, padding="max_length", truncation=True, max_length=length)
        np.testing.assert_array_equal(found["input_ids"], ours.ids)
        np.testing.assert_array_equal(found["attention_mask"], ours.mask)
        assert "token_type_ids" not in found
