"""Tokenizers: a fixed vocabulary, frames and words of tokens, round trips, and files of other tokenizers."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.tokenizer import Tokenizer

REPORTS = [
    "No effusion. The heart is normal.",
    "Left-sided effusion, 2.5 cm; no mass.",
    "No mass (stable). The heart is large.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.build(REPORTS)


def test_vocabulary_is_ordered_by_count_then_alphabet_after_the_specials(tokenizer):
    assert [tokenizer.token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]"]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (3, 4)
    assert [tokenizer.token(i) for i in range(5, 13)] == [".", "no", "effusion", "heart", "is", "mass", "the", "("]
    assert tokenizer.vocab_size == 5 + 20
    with pytest.raises(ValueError, match="token id 99"):
        tokenizer.token(99)


def test_the_order_of_the_texts_does_not_matter(tokenizer):
    assert Tokenizer.build(reversed(REPORTS)).fingerprint == tokenizer.fingerprint
    assert Tokenizer.build(REPORTS[:2]).fingerprint != tokenizer.fingerprint


def test_limits_keep_the_most_frequent_words():
    assert Tokenizer.build(REPORTS, max_size=8).words() == ("no", "effusion")
    assert Tokenizer.build(REPORTS, min_count=2).words() == ("no", "effusion", "heart", "is", "mass", "the")
    with pytest.raises(ConfigError, match=r"text\.max_vocabulary = 5"):
        Tokenizer.build(REPORTS, max_size=5)
    with pytest.raises(DataError, match="no word that occurs 9 times"):
        Tokenizer.build(REPORTS, min_count=9)


def test_encoding_frames_pads_and_numbers_words(tokenizer):
    tokens = tokenizer.encode(["No effusion.", ""], 7)
    assert tokens.ids.dtype == np.int32
    assert tokens.words.dtype == np.int32
    np.testing.assert_array_equal(tokens.ids, [[3, 6, 7, 5, 4, 0, 0], [3, 4, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(tokens.mask, [[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(tokens.words, [[-1, 0, 1, 2, -1, -1, -1], [-1] * 7])
    assert tokens.truncated == 0


def test_truncation_keeps_the_end_token_and_is_counted(tokenizer):
    tokens = tokenizer.encode(REPORTS, 6)
    assert tokens.truncated == 3
    assert (tokens.ids[:, -1] == tokenizer.eos_id).all()
    assert (tokens.ids[:, 0] == tokenizer.bos_id).all()
    assert tokens.mask.all()
    exact = tokenizer.encode(["no no no no"], 6)
    assert exact.truncated == 0
    with pytest.raises(ConfigError, match=r"text\.max_length = 2"):
        tokenizer.encode(REPORTS, 2)


def test_longer_padding_changes_nothing_but_the_padding(tokenizer):
    short, long = tokenizer.encode(REPORTS, 16), tokenizer.encode(REPORTS, 32)
    for name in ("ids", "mask", "words"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:, :16])


def test_decoding_gives_the_report_back_in_lower_case(tokenizer):
    tokens = tokenizer.encode(REPORTS, 24)
    for row, report in enumerate(REPORTS):
        assert tokenizer.decode(tokens.ids[row], tokens.mask[row]) == report.lower()
    with pytest.raises(ValueError, match="one row"):
        tokenizer.decode(tokens.ids, tokens.mask)


WORDS = ["no", "effusion", "heart", "left", "sided", "2", "5", ".", ",", "-", "(", ")", ";"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_encoding_a_decoded_row_gives_the_same_tokens(words):
    tokenizer = _SHARED
    tokens = tokenizer.encode([" ".join(words)], 16)
    again = tokenizer.encode([tokenizer.decode(tokens.ids[0], tokens.mask[0])], 16)
    np.testing.assert_array_equal(again.ids, tokens.ids)


_SHARED = Tokenizer.build(REPORTS)


def test_special_tokens_spelt_out_in_a_report_are_only_letters(tokenizer):
    tokens = tokenizer.encode(["No [EOS] [MASK] mass"], 16)
    assert (tokens.ids[0] == tokenizer.eos_id).sum() == 1
    assert tokenizer.mask_id not in tokens.ids[0]


def test_saving_and_loading_keeps_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        np.testing.assert_array_equal(loaded.encode(REPORTS, 16).ids, tokenizer.encode(REPORTS, 16).ids)


def test_words_and_punctuation_of_the_vocabulary(tokenizer):
    assert {tokenizer.token(i) for i in tokenizer.punctuation} == set(".,;()-")
    assert set(tokenizer.words()) >= {"no", "effusion", "2", "cm"}
    assert not set(tokenizer.words()) & set(".,;()-")
    assert tokenizer.pieces("effusion") == [7]
    assert tokenizer.pieces("left-sided") == [tokenizer.pieces(w)[0] for w in ("left", "-", "sided")]


def _word_piece(path, **config):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "pneumo", "##thorax", "no", ".", "##s", "left"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inner.decoder = tokenizers.decoders.WordPiece()
    inner.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    inner.enable_truncation(4)
    inner.enable_padding(length=9)
    inner.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "vocab.txt").write_text("\n".join(vocabulary))


def test_word_pieces_of_one_word_share_its_index(tmp_path):
    _word_piece(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.unk_id, loaded.mask_id) == (2, 3, 0, 1, 4)
    tokens = loaded.encode(["No pneumothorax left."], 8)
    np.testing.assert_array_equal(tokens.ids, [[2, 8, 6, 7, 11, 9, 3, 0]])
    np.testing.assert_array_equal(tokens.words, [[-1, 0, 1, 1, 2, 3, -1, -1]])
    assert loaded.decode(tokens.ids[0], tokens.mask[0]) == "no pneumothorax left."
    assert loaded.words() == ("a", "pneumo", "no", "left")
    assert loaded.pieces("pneumothorax") == [6, 7]
    cut = loaded.encode(["No pneumothorax left."], 5)
    np.testing.assert_array_equal(cut.ids, [[2, 8, 6, 7, 3]])


def test_words_split_by_one_tokenizer_are_counted_alike_by_another(tokenizer, tmp_path):
    texts = ["No effusion, lungs clear.", "", "heart"]
    words = tokenizer.split(texts)
    own = tokenizer.encode(texts, 16)
    assert [len(w) for w in words] == [1 + row.max(initial=-1) for row in own.words]
    assert words[0][:3] == ["No", "effusion", ","]
    _word_piece(tmp_path)
    other = Tokenizer.load(tmp_path).encode_words(words, 32)
    for row, mine in zip(other.words, own.words):
        assert set(row.tolist()) == set(mine.tolist())


def test_byte_pairs_whose_padding_is_the_end_token(tmp_path):
    vocabulary = {"no</w>": 0, "n": 1, "o</w>": 2, "a</w>": 3, "lung</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}
    vocabulary |= {letter: 7 + i for i, letter in enumerate(["l", "u", "g</w>", "lu", "ng</w>"])}
    merges = [("n", "o</w>"), ("l", "u"), ("n", "g</w>"), ("lu", "ng</w>")]
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>")
    )
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.RobertaProcessing(("<|endoftext|>", 6), ("<|startoftext|>", 5))
    inner.decoder = tokenizers.decoders.BPEDecoder("</w>")
    inner.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    specials = {"pad_token": "<|endoftext|>", "unk_token": {"content": "<|endoftext|>"}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(specials))
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.mask_id) == (5, 6, 6, None)
    tokens = loaded.encode(["no lung"], 6)
    np.testing.assert_array_equal(tokens.ids, [[5, 0, 4, 6, 6, 6]])
    np.testing.assert_array_equal(tokens.mask, [[True] * 4 + [False] * 2])
    assert loaded.decode(tokens.ids[0], tokens.mask[0]) == "no lung"
    assert loaded.words() == ("no", "o", "a", "lung", "g", "ng")


def test_a_tokenizer_that_knows_nothing_is_refused(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer.json")
    Tokenizer.load(tmp_path, sample=REPORTS)
    with pytest.raises(DataError, match="knows too few of the words at hand: 100 %"):
        Tokenizer.load(tmp_path, sample=["ausgeprägter Pleuraerguss beidseits"])


def test_files_that_are_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds neither tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is no tokenizer"):
        Tokenizer.load(tmp_path)
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="an end token at least is needed"):
        Tokenizer.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vocab.txt", "vocab.json"])
def test_folders_with_vocabulary_files_alone_are_assembled(tmp_path, kind):
    _word_piece(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    if kind == "vocab.json":
        (tmp_path / "vocab.txt").unlink()
        names = ["n", "o", "n</w>", "o</w>", "no</w>", "<|startoftext|>", "<|endoftext|>"]
        (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\nn o</w>\n")
    loaded = Tokenizer.load(tmp_path, sample=["no no"])
    tokens = loaded.encode(["no"], 4)
    expected = {"vocab.txt": [2, 8, 3, 0], "vocab.json": [5, 4, 6, 6]}[kind]
    np.testing.assert_array_equal(tokens.ids[0], expected)
