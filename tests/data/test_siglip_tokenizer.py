"""SigLIP's tokenizers against transformers' own; `experiments/parity/make_siglip_tokenizer.py` wrote the tokens."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.siglip_tokenizer import from_sentencepiece
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.data.text.tokenizer_checks import check_fits

ROOT = Path(__file__).parents[2]
SETTINGS = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.fixture(scope="module")
def stored():
    with np.load(ROOT / "tests/models/references/siglip_tokenizer.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def sentences(stored):
    return stored["sentences"].tolist()


@pytest.fixture
def folder(stored, tmp_path):
    """As SigLIP's checkpoints carry it."""
    (tmp_path / "spiece.model").write_bytes(stored["model"].tobytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return tmp_path


def test_the_tokens_are_those_of_transformers(folder, stored, sentences):
    tokenizer = Tokenizer.load(folder)
    tokens = tokenizer.encode(sentences, 64)
    np.testing.assert_array_equal(tokens.ids, stored["tokens"])
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 1, 1)
    # The end token is real, padding of the same id is not.
    last = tokens.mask.sum(axis=1) - 1
    assert (tokens.ids[np.arange(len(last)), last] == 1).all()
    assert not (tokens.ids[:, :1] == 1).any()


def test_words_are_the_report_s_own_and_a_cut_text_keeps_its_end(folder, sentences):
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.split(sentences[1:2])[0][:7] == ["There", "is", "a", "large", "LEFT", "pleural", "effusion"]
    cut = tokenizer.encode(sentences[1:2], 9)
    assert cut.truncated == 1
    assert cut.ids[0, -1] == tokenizer.eos_id
    assert cut.words[0, 0] == 0
    whole = tokenizer.encode(sentences[1:2], 64)
    assert tokenizer.decode(whole.ids[0], whole.mask[0]).startswith("there is a large left pleural effusion with")


@pytest.mark.filterwarnings("default")
def test_what_is_written_gives_the_same_tokens_here_and_in_transformers(folder, stored, sentences, tmp_path):
    from transformers import AutoTokenizer

    out = tmp_path / "out"
    out.mkdir()
    Tokenizer.load(folder).save(out / "tokenizer.json")
    # As beside an encoder; what says that the texts are to be cleaned must not clean them a second time.
    (out / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    again = Tokenizer.load(out)
    assert again.fingerprint == Tokenizer.load(folder).fingerprint
    np.testing.assert_array_equal(again.encode(sentences, 64).ids, stored["tokens"])
    theirs = AutoTokenizer.from_pretrained(out)(sentences, padding="max_length", max_length=64)
    np.testing.assert_array_equal(theirs["input_ids"], stored["tokens"])


@pytest.mark.parametrize("said", ["open_clip_config.json", "config.json"])
def test_a_tokenizer_json_that_leaves_the_cleaning_to_others_is_cleaned(said, folder, stored, sentences):
    inner = from_sentencepiece(folder / "spiece.model")
    inner.normalizer = normalizers.Sequence([normalizers.Replace("\u2014", "-"), normalizers.Replace("\u00a0", " ")])
    (folder / "spiece.model").unlink()
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "pad_token": "</s>"}))
    plain = Tokenizer.load(folder).encode(sentences, 64)
    assert (plain.ids != stored["tokens"]).any(axis=1).sum() >= 10
    text = {"context_length": 64, "tokenizer_kwargs": {"clean": "canonicalize"}}
    content = {"model_type": "siglip"} if said == "config.json" else {"model_cfg": {"text_cfg": text}}
    (folder / said).write_text(json.dumps(content))
    # Two of the sentences hold characters that are mapped after the cleaning.
    own = [i for i, text in enumerate(sentences) if text.isascii()]
    np.testing.assert_array_equal(Tokenizer.load(folder).encode(sentences, 64).ids[own], stored["tokens"][own])


@pytest.fixture
def gemma(sentences, tmp_path):
    """A tokenizer of SigLIP 2's kind: byte-pair encoding of a whole text, spaces as marks, an end token alone."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("▁+"), "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    inner.train_from_iterator([text.lower() for text in sentences], trainer)
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "padding_side": "right"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    return tmp_path


@pytest.mark.filterwarnings("default")
def test_siglip_2_s_tokens_are_lower_case_s_and_its_words_are_told_apart(gemma, sentences):
    from transformers import Siglip2Tokenizer

    tokenizer = Tokenizer.load(gemma)
    model = json.loads((gemma / "tokenizer.json").read_text())["model"]
    theirs = Siglip2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokens = tokenizer.encode(sentences, 96)
    for text, ids, mask in zip(sentences, tokens.ids, tokens.mask):
        assert ids[mask].tolist() == [*theirs(text, add_special_tokens=False)["input_ids"], 1]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, None)
    assert tokenizer.split(["No pleural Effusion."])[0] == ["No", "pleural", "Effusion."]


def test_what_is_not_siglip_s_is_refused(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    with pytest.raises(DataError, match=r"spiece\.model is read for SigLIP alone"):
        Tokenizer.load(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    tokenizer = Tokenizer.load(folder)
    check_fits(tokenizer, tokenizer.vocab_size, begins=False, pad_id=1)
    with pytest.raises(ConfigError, match="begins a text with no token of its own"):
        check_fits(tokenizer, tokenizer.vocab_size)
    with pytest.raises(ConfigError, match="pads with 0"):
        check_fits(tokenizer, tokenizer.vocab_size, begins=False, pad_id=0)
    (folder / "spiece.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="no SentencePiece model"):
        Tokenizer.load(folder)


@pytest.mark.filterwarnings("default")
def test_a_model_of_today_s_sentencepiece_gives_the_tokens_of_transformers(tmp_path):
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    sys.path.insert(0, str(ROOT))
    from experiments.parity.make_siglip_tokenizer import SENTENCES, tokens, train

    path = train(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    ours = Tokenizer.load(tmp_path)
    assert ours.pad_id == 1
    np.testing.assert_array_equal(ours.encode(list(SENTENCES), 64).ids, tokens(path))
