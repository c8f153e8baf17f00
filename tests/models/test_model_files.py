"""What surrounds the layouts: detection, hashes, conversion of pickles, other sizes, towers brought apart, attacks."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from test_torch_references import read, unpack
from test_tower_references import ENCODERS, folder_of

from ranjax.attacks import jitted, pgd, text
from ranjax.attacks.text import candidates
from ranjax.core import keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.math import unit
from ranjax.models import DualEncoderFunctions, load, resize_positions, save
from ranjax.models.checkpoints.assemble import beside_bert
from ranjax.models.checkpoints.bert_files import save_bert
from ranjax.models.checkpoints.layouts import kind_of
from ranjax.models.checkpoints.naming import paths
from ranjax.models.checkpoints.weight_files import read_weights
from ranjax.models.towers.bert import Bert, BertConfig, split_bert
from ranjax.objectives import contrastive
from ranjax.training.contrastive_step import make_step
from ranjax.training.optimizer import AdamWSettings, TrainState, adamw


def test_one_file_of_weights_is_read_with_the_config_beside_it(tmp_path):
    folder_of("siglip", tmp_path)
    params = load(tmp_path)[1]
    jax.tree.map(np.testing.assert_array_equal, params, load(tmp_path / "model.safetensors")[1])
    (tmp_path / "weights.bin").write_bytes(b"\x80\x02")
    with pytest.raises(DataError, match=r"refused.*ranjax\.models\.checkpoints\.convert"):
        load(tmp_path / "weights.bin")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_numbers_that_are_not_finite_are_named_by_file_and_tensor(dtype, tmp_path):
    path, sound = tmp_path / "model.safetensors", np.full((3, 4), 6e4).astype(dtype)  # whose sum float16 cannot hold
    broken = sound.copy()
    broken[1, 2] = np.nan
    save_file({"a": sound, "text.b": broken, "text.c": -broken}, path)
    with pytest.raises(DataError, match=r"1 of the 12 numbers of text\.b .* and some of 1 other tensors") as error:
        read_weights(tmp_path)
    assert str(path) in str(error.value)
    endless = np.where(np.eye(3) > 0, 0, -np.inf).astype(dtype)
    save_file({"a": sound, "text.attn_mask": endless, "ids": np.arange(3)}, path)
    assert set(read_weights(tmp_path)) == {"a", "text.attn_mask", "ids"}


def test_a_known_hash_is_compared_and_another_file_refused(tmp_path):
    weights = folder_of("siglip", tmp_path) / "model.safetensors"
    right = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{right}  model.safetensors\n")
    load(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(DataError, match=rf"has SHA-256 {right}, not 0000"):
        load(tmp_path)


def test_what_open_clip_can_do_and_is_not_implemented_is_refused_by_name(tmp_path):
    folder_of("open_clip_vit", tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    for change, words in (
        ({"attentional_pool": True}, "vision_cfg.attentional_pool = True"),
        ({"timm_model_name": "convnext_base"}, "timm_model_name = 'convnext_base'"),
    ):
        changed = {**content["model_cfg"], "vision_cfg": content["model_cfg"]["vision_cfg"] | change}
        path.write_text(json.dumps(content | {"model_cfg": changed}))
        with pytest.raises(ConfigError, match=words):
            load(tmp_path)


def test_a_layout_that_cannot_hold_an_encoder_says_why(tmp_path):
    functions, params, _ = load(folder_of("siglip", tmp_path))
    with pytest.raises(ConfigError, match=r"layout = 'clip'.*transformers' CLIP has an image tower of its own kind"):
        save(tmp_path / "out", functions, params, layout="clip")


def test_a_siglip_goes_from_open_clip_to_transformers_and_back(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    functions, params, config = load(folder_of("open_clip_siglip", source))
    save(tmp_path / "hf", functions, params, layout="siglip")
    there, loaded, same = load(tmp_path / "hf")
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    assert (same.image.activation, same.text.activation) == ("gelu", "gelu_tanh")
    assert save(tmp_path / "back", there, loaded, layout="open_clip") == "open_clip"
    content = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())["model_cfg"]
    assert content["vision_cfg"]["timm_model_name"] == "vit_base_patch4_siglip_12"
    # The published conversions to transformers have the approximate GELU, timm's tower of that name the exact one.
    tanh = dataclasses.replace(same, image=dataclasses.replace(same.image, activation="gelu_tanh"))
    with pytest.raises(ConfigError, match="timm's vit_base_patch4_siglip_12 has another nonlinearity"):
        save(tmp_path / "other", DualEncoderFunctions(tanh), loaded, layout="open_clip")


@pytest.mark.parametrize(
    ("files", "pad"), [({}, 1), ({"pad_token": "<pad>"}, 5), ({"pad_token": {"content": "</s>"}}, 3)]
)
def test_siglip_s_padding_is_its_tokenizer_s(files, pad, tmp_path):
    folder_of("open_clip_siglip", tmp_path)
    if files:
        added = {"3": {"content": "</s>"}, "5": {"content": "<pad>"}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(files | {"added_tokens_decoder": added}))
    assert load(tmp_path)[2].text.pad_id == pad


def test_medclip_s_archive_is_told_by_its_keys_and_its_pickle_refused_with_the_command(tmp_path, caplog):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"python -m ranjax\.models\.checkpoints\.convert .*pytorch_model\.bin"):
        load(tmp_path)
    folder_of("medclip", tmp_path)
    (tmp_path / "config.json").unlink()  # As published: weights alone, heads told by the width.
    config = load(tmp_path)[2]
    assert "holds no config.json" in caplog.text
    assert (config.layout, config.image_size, config.text.pooling) == ("medclip", 224, "mean_of_1_2_last")
    assert config.pixel_mean == (0.5862785803043838,) * 3
    assert kind_of(tmp_path) == "medclip"
    weights = load_file(tmp_path / "model.safetensors")
    swin = {key: value for key, value in weights.items() if not key.startswith("vision_model.model.fc")}
    save_file(swin, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="no tower here is a Swin"):
        load(tmp_path)


def test_medclip_s_pooling_is_the_same_recomputed_and_no_other_layout_holds_it(tmp_path):
    functions, params, config = load(folder_of("medclip", tmp_path))
    tokens = jnp.asarray([[1, 7, 9, 22, 0, 0]], jnp.int32)
    again = DualEncoderFunctions(dataclasses.replace(config, remat=True))

    @jax.jit
    def features(tokens):
        short = tokens[:, :4]
        own = functions.text_features(params, tokens, tokens > 0), functions.text_features(params, short, short > 0)
        return *own, again.text_features(params, tokens, tokens > 0)

    padded, bare, recomputed = features(tokens)
    np.testing.assert_allclose(bare, padded, rtol=1e-5)
    np.testing.assert_allclose(recomputed, padded, rtol=1e-5)
    with pytest.raises(ConfigError, match="open_clip knows no pooling mean_of_1_2_last"):
        save(tmp_path / "out", functions, params, layout="open_clip")


def test_open_clip_s_vit_goes_out_as_transformers_clip_with_the_same_features(tmp_path):
    functions, params, _ = load(folder_of("open_clip_vit", tmp_path))
    save(tmp_path / "clip", functions, params, layout="clip")
    jax.tree.map(np.testing.assert_array_equal, params, load(tmp_path / "clip")[1])


def test_positions_of_every_tower_resize_and_scan_is_refused_for_residual_networks(tmp_path, caplog):
    for name, size in (("open_clip_modified_resnet", 96), ("siglip", 20), ("open_clip_resnet50", 60)):
        folder = tmp_path / name
        folder.mkdir()
        functions, params, config = load(folder_of(name, folder))
        larger, resized = resize_positions(functions, params, size, config.max_length + 2)
        images = jnp.zeros((1, size, size, 3), jnp.float32)
        tokens = jnp.ones((1, config.max_length + 2), jnp.int32)
        shapes = jax.eval_shape(
            lambda: (larger.image_features(resized, images), larger.text_features(resized, tokens, tokens > 0))  # noqa: B023
        )
        assert [part.shape for part in shapes] == [(1, config.embed_dim)] * 2
    assert "2 x 2 patches to 3 x 3" in caplog.text
    with pytest.raises(ConfigError, match=r"model\.scan = True"):
        load(folder, scan=True)


def test_siglip_s_features_do_not_depend_on_how_far_a_text_is_filled_up(tmp_path):
    functions, params, config = load(folder_of("siglip", tmp_path))
    tokens = jnp.asarray([[1, 7, 9, 2, 0, 0, 0]], jnp.int32)
    mask = jnp.asarray([[True] * 4 + [False] * 3])
    encode = jax.jit(lambda tokens, mask: functions.text_features(params, tokens, mask))
    whole = encode(tokens, mask)
    np.testing.assert_allclose(encode(tokens[:, :4], mask[:, :4]), whole, rtol=1e-5)
    np.testing.assert_allclose(encode(jnp.where(mask, tokens, config.text.pad_id), mask | True), whole, rtol=1e-5)


def test_two_towers_that_came_apart_are_joined_and_written_as_open_clip(tmp_path):
    tower, words = tmp_path / "resnet", tmp_path / "bert"
    tower.mkdir()
    unpack(read("resnet_bottleneck"), tower)
    bert = BertConfig(vocab_size=20, width=8, layers=1, heads=2, mlp_width=16, max_length=9)
    save_bert(words, *split_bert(Bert(bert, nnx.Rngs(0))))
    how = {"image": tower, "embed_dim": 6, "rngs": nnx.Rngs(1)}
    functions, params, config = beside_bert(words, pooling="mean", projection="mlp", **how)
    assert config.layout == "open_clip"
    assert save(tmp_path / "out", functions, params) == "open_clip"
    again, loaded, same = load(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    assert same.text == dataclasses.replace(config.text, pooling="mean", name=".")
    with pytest.raises(ConfigError, match="holds no pooler"):
        beside_bert(words, **how)


def test_a_pickle_converts_to_the_same_tensors(tmp_path):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    from ranjax.models.checkpoints.convert import main

    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save({"state_dict": {"module.a": torch.tensor(value)}, "epoch": 3}, path)
    assert main([str(path)]) == 0
    np.testing.assert_array_equal(load_file(tmp_path / "open_clip_model.safetensors")["a"], value)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert main([str(path)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in ENCODERS if name not in ("open_clip_siglip", "medclip")]
)  # As "siglip", but for keys.
def test_every_encoder_is_attacked_by_image_and_text_and_trained_a_step(name, tmp_path):
    functions, params, config = load(folder_of(name, tmp_path))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, config.image_size, config.image_size, 3)), jnp.float32)
    tokens = jnp.asarray([[1, 5, 6, 7, 23, 0, 0], [1, 8, 9, 10, 11, 12, 23]], jnp.int32)
    mask = tokens > 0
    words = jnp.asarray([[-1, 0, 1, 2, -1, -1, -1], [-1, 0, 1, 2, 3, 4, -1]], jnp.int32)

    def away(shown, written):
        return -jnp.sum(unit(shown) * unit(written), axis=-1)

    fixed = functions.text_features(params, tokens, mask)
    settings = pgd.PGD(epsilon="8/255", step_size="4/255", steps=3)
    names = keys.example_keys(keys.stream(0, "images"), ["a", "b"])
    attack = jitted(lambda p, x, t: away(functions.image_features(p, x), t), settings)
    found = attack(params, images, names, fixed)
    assert (found.loss > found.clean_loss).all()

    shown = functions.image_features(params, images)
    table = candidates.build([str(token) for token in range(5, 20)], lambda word: [int(word)], pad_id=0).table
    attack = jax.jit(
        lambda params, *rows: text.substitute(
            lambda rows, tokens, mask: away(shown, functions.text_features(params, tokens, mask, rows)),
            functions.token_table(params),
            *rows,
            table,
            text.Substitution(max_words=1),
        )
    )(params, tokens, mask, words)
    assert (attack.loss > attack.clean_loss).any()
    assert (attack.loss >= attack.clean_loss).all()

    optimizer = adamw(AdamWSettings(learning_rate=1e-3, steps=2))
    objective = contrastive.sigmoid_loss if config.logit_bias_init is not None else contrastive.info_nce
    step = jax.jit(make_step(functions, optimizer, objective=objective, axis_name=None))
    batch = {"image": images, "tokens": tokens, "mask": mask}
    state, metrics = step(TrainState.create(params, optimizer), batch, jax.random.key(0))
    assert metrics["finite"]
    before, after = (paths(tree) for tree in (params, state.params))
    still = {path for path, value in before.items() if (value == after[path]).all()}
    statistics = {path for path in before if path[-1] in ("mean", "var")}
    assert statistics <= still
    # What an attention adds to all of its scores alike has no gradient, nor has the bias of every logit under InfoNCE.
    assert {path[-2:] for path in still - statistics} <= {("key", "bias")}
