"""Keys of a tokenizer's files: used, known to change no token, or refused by name."""

import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<blank>", "no", "effusion", "é", "a", "b"]
SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.fixture
def folder(tmp_path):
    """BERT's tokenizer of ten words, in lower case, with the files that transformers writes beside it."""
    inner = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inner.add_special_tokens(VOCABULARY[:5])
    inner.save(str(tmp_path / "tokenizer.json"))
    usual = {
        **{"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": True, "do_basic_tokenize": True},
        **{"model_max_length": 512, "never_split": None, "tokenizer_class": "BertTokenizer", "sp_model_kwargs": {}},
        **{"name_or_path": "x", "clean_up_tokenization_spaces": True, "mask_token": "[MASK]", "padding_side": "right"},
        "added_tokens_decoder": {"4": {"content": "[MASK]", "special": True, "lstrip": False}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SPECIALS | usual))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**SPECIALS, "pad_token": {"content": "[PAD]"}}))
    return tmp_path


def edited(folder, file, change):
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | change))
    return folder


def test_what_transformers_writes_passes_and_its_tokens_are_used(folder):
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode(["No effusion"], 5).ids.tolist() == [[2, 6, 7, 3, 0]]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 4)
    edited(folder, "tokenizer_config.json", {"mask_token": "<blank>"})
    assert Tokenizer.load(folder).mask_id == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalization": True}, "normalization = True"),
        ({"do_lowercase": True}, "do_lowercase = True.*did you mean 'do_lower_case'"),
        ({"do_lower_case": False}, "do_lower_case = False: expected true, as tokenizer.json"),
        ({"do_lower_case": "no"}, "do_lower_case = 'no': expected true or false"),
        ({"strip_accents": True}, "strip_accents = True: expected false"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars = False"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize = False"),
        ({"never_split": ["COPD"]}, "never_split"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs"),
        ({"wordpieces_prefix": "@@"}, "wordpieces_prefix"),
        ({"padding_side": "left"}, "pads on the left"),
        ({"truncation_side": "left"}, "truncation_side = 'left': expected 'right'"),
        ({"pad_token": "[UNK]"}, r"pad_token = '\[UNK\]': expected '\[PAD\]', as special_tokens_map.json"),
        ({"mask_token": "<mask>"}, "mask_token = '<mask>': expected a token of the vocabulary"),
        ({"unk_token": 7}, "unk_token = 7: expected the text of a token"),
        ({"additional_special_tokens": ["<image>"]}, r"additional_special_tokens\[0\] = '<image>'"),
        ({"added_tokens_decoder": {"6": {"content": "effusion"}}}, "the id in the vocabulary, where the token is 7"),
        ({"added_tokens_decoder": {"11": {"content": "new"}}}, "where the token is absent"),
        ({"bos_token": "no", "cls_token": "no"}, "cls_token = 'no'"),
        ({"add_eos_token": False, "eos_token": "[SEP]"}, "add_eos_token = False: expected true"),
        ({"add_bos_token": True, "bos_token": "[CLS]"}, None),
        ({"lowercase": False}, "lowercase = False"),
        ({"additional_special_tokens": ["effusion"]}, "additional_special_tokens = 'effusion': expected no word"),
        ({"added_tokens_decoder": {"6": {"content": "no", "special": True}}}, "added_tokens_decoder = 'no'"),
    ],
)
def test_a_key_that_would_give_other_tokens_is_refused(change, said, folder):
    edited(folder, "tokenizer_config.json", change)
    if said is None:
        Tokenizer.load(folder)
        return
    with pytest.raises((ConfigError, DataError), match=said) as error:
        Tokenizer.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("surprise",), 3, "tokenizers library|no tokenizer"),
        (("normalizer", "remove_stop_words"), True, "normalizer.remove_stop_words = True"),
        (("model", "max_words"), 3, "model.max_words = 3"),
        (("added_tokens", 0, "weight"), 3, r"added_tokens\[0\].weight = 3"),
        (("truncation",), {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
         "truncation.direction = 'Left'"),
        (("padding",), {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 3,
                        "pad_type_id": 0, "pad_token": "[PAD]"}, r"padding.pad_id = 3: expected 0"),
    ],
)  # fmt: skip
def test_a_key_of_tokenizer_json_that_its_library_passes_over_is_refused(path, value, said, folder):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises((ConfigError, DataError), match=said) as error:
        Tokenizer.load(folder)
    assert "\n" not in str(error.value)


def test_a_text_is_padded_as_tokenizer_json_says_where_nothing_else_does(folder):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink()
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    edited(folder, "tokenizer.json", {"padding": {**padding, "pad_id": 5, "pad_type_id": 0, "pad_token": "<blank>"}})
    assert Tokenizer.load(folder).pad_id == 5


def test_a_vocabulary_without_its_tokens_or_with_an_id_twice_is_refused(folder):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["unk_token"] = "<unknown>"
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"model\.unk_token = '<unknown>': expected a token of the vocabulary"):
        Tokenizer.load(folder)
    content["model"] |= {"unk_token": "[UNK]", "vocab": content["model"]["vocab"] | {"b": 9}}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="two tokens of its tokenizer have the id 9"):
        Tokenizer.load(folder)
    file.unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8-sig")
    with pytest.raises(DataError, match=r"lacks '\[PAD\]'"):
        Tokenizer.load(folder)


def test_byte_pairs_that_are_left_out_by_chance_are_refused(tmp_path):
    names = ["<s>", "</s>", "n", "o", "no"]
    inner = tokenizers.Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [("n", "o")], dropout=0.1))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    inner.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match="dropout"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", ["{", "[]", "7", '{"a": ', "\x00", '"x"'])
def test_a_damaged_file_beside_a_tokenizer_is_one_line(file, content, folder):
    (folder / file).write_text(content)
    with pytest.raises(DataError, match="JSON") as error:
        Tokenizer.load(folder)
    assert "\n" not in str(error.value)


def test_vocabulary_files_that_are_another_class_s_or_damaged_are_refused(folder):
    (folder / "tokenizer.json").unlink()
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY))
    edited(folder, "tokenizer_config.json", {"strip_accents": None, "added_tokens_decoder": {}})
    assert Tokenizer.load(folder).encode(["no"], 4).ids.tolist() == [[2, 6, 3, 0]]
    path.write_text("\n".join([*VOCABULARY, "no"]))
    with pytest.raises(DataError, match="'no' stands twice"):
        Tokenizer.load(folder)
    path.write_text("\n".join(VOCABULARY[3:]))
    with pytest.raises(DataError, match=r"lacks '\[UNK\]'"):
        Tokenizer.load(folder)
    path.write_text("\n".join(VOCABULARY))
    edited(folder, "tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"})
    with pytest.raises(ConfigError, match="tokenizer_class = 'BertJapaneseTokenizer'"):
        Tokenizer.load(folder)
    path.unlink()
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(VOCABULARY)}))
    with pytest.raises(DataError, match="without merges"):
        Tokenizer.load(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ConfigError, match="tokenizer_class"):
        Tokenizer.load(folder)
    edited(folder, "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 0}))
    with pytest.raises(DataError, match="ids are not 0 to 1"):
        Tokenizer.load(folder)
