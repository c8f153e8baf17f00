"""Costs read from compiled programs: against closed forms, and the collectives that the design promises."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from experiments.scale import collectives, estimate, flops, towers
from experiments.scale.chips import CHIPS
from ranjax.core.errors import ConfigError
from ranjax.models import DualEncoder
from ranjax.run import config as configs
from ranjax.run.stages.pretrain import encoder_shape

ROOT = Path(__file__).resolve().parents[2]


def test_products_of_a_matrix_product_a_loop_and_a_convolution():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert flops.products(jax.make_jaxpr(jnp.matmul)(a, b)) == 2 * 3 * 5 * 7

    def loop(a, b):
        return jax.lax.fori_loop(0, 4, lambda i, x: x @ b @ b.T, a)

    assert flops.products(jax.make_jaxpr(loop)(a, b)) == 4 * (2 * 3 * 5 * 7) * 2

    def convolution(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    jaxpr = jax.make_jaxpr(jax.jit(convolution))(jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4)))
    assert flops.products(jaxpr) == 2 * (3 * 3 * 3) * (2 * 8 * 8 * 4)


def test_collectives_are_read_with_their_bytes():
    text = """
  %ar = (f32[10,4]{1,0}, f32[6]{0}) all-reduce(%a, %b), replica_groups={{0,1}}, to_apply=%add
  %ag = bf16[8,4]{1,0} all-gather(%c), dimensions={0}
  ROOT %x = f32[] add(%d, %e)
"""
    found = collectives.read(text)
    assert [(c.kind, c.bytes) for c in found] == [("all-reduce", 184), ("all-gather", 64)]
    assert collectives.moved(found, 4) == pytest.approx(2 * 0.75 * 184 + 0.75 * 64)


def test_collectives_in_a_loop_count_once_a_turn():
    text = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %in = f32[4]{0} all-reduce(%x), to_apply=%add
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %w2 = (s32[], f32[4]{0}) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"2"}}
  %one = f32[8]{0} all-gather(%a), dimensions={0}
}
"""
    assert collectives.totals(collectives.read(text)) == {"all-gather": (1, 32), "all-reduce": (6, 96)}


def test_collectives_are_read_as_a_tpu_s_compiler_writes_them():
    """Heads with comments, loops whose turns stand in their condition, and one gather in two fusions."""
    text = """
%cond (p: (s32[], f32[4], /*index=5*/f32[4])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3), metadata={op_name="x"}
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%body (p: (s32[], f32[4], /*index=5*/f32[4])) -> (s32[], f32[4]) {
  %in = f32[4]{0:T(128)} all-reduce(%x), channel_id=4, to_apply=%add
}

%first (p: bf16[8]) -> bf16[32] {
  %ag1 = bf16[32]{0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}

%second (p: bf16[8]) -> bf16[32] {
  %ag2 = bf16[32]{0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  %ag3 = bf16[32]{0} all-gather(%q), channel_id=1, frontend_attributes={chain_id="1"}
}

ENTRY %main (a: f32[4], /*index=1*/b: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%body, metadata={op_name="y"}
}
"""
    assert collectives.totals(collectives.read(text)) == {"all-gather": (2, 128), "all-reduce": (3, 48)}


@pytest.fixture(scope="module")
def tiny():
    config = configs.default_config()
    config.data.image_size, config.text.max_length = 32, 12
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.width = config.model.text_transformer.width = 32
    config.model.embed_dim = 16
    config.pretrain.batch_size = 32
    return config


@pytest.fixture(scope="module")
def programs(tiny):
    return {count: estimate.pretrain_program(tiny, count, vocab_size=64) for count in (1, 8)}


@pytest.mark.slow
def test_a_step_sends_every_gradient_once_and_gathers_the_embeddings_of_both_towers(programs):
    program = programs[8]
    kinds = program.summary()
    gathered = 32 * 16 * 4  # the global batch's embeddings of one tower, f32
    assert kinds["all-gather"] == (2, 2 * gathered)
    assert kinds["reduce-scatter"] == (2, 2 * gathered // 8)
    # The gradients of all parameters, the loss with its accuracies, and a few hundred bytes of sums that XLA shares.
    total = sum(c.bytes for c in program.collectives if c.kind == "all-reduce")
    assert 4 * program.parameters <= total <= 4 * program.parameters + 1024
    assert set(kinds) == {"all-gather", "reduce-scatter", "all-reduce"}
    assert program.state == pytest.approx(3 * 4 * program.parameters, abs=64)
    assert program.rows == 4


@pytest.mark.slow
def test_products_shrink_with_the_rows_and_efficiency_falls_with_the_devices(programs):
    one, eight = programs[1], programs[8]
    assert not one.moved
    # Encoders: an eighth of the rows a device. The matrix of cosines: an eighth of its rows, too.
    assert eight.flops == pytest.approx(one.flops / 8, rel=0.02)
    chip = CHIPS["v5e"]
    assert estimate.predict(one, chip, 0.4).low == 1.0
    found = estimate.predict(eight, chip, 0.4)
    assert 0 < found.low < found.high <= 1
    assert found.compute == pytest.approx(eight.flops / (0.4 * chip.flops))


@pytest.mark.slow
def test_parameters_are_counted_once(tiny, programs):
    shape = encoder_shape(tiny, 64, eos_id=1, bos_id=2, pad_id=0)
    params = nnx.state(nnx.eval_shape(lambda: DualEncoder(shape, nnx.Rngs(0))), nnx.Param)
    assert programs[1].parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.slow
def test_with_a_model_axis_weights_are_gathered_and_each_device_keeps_its_part(tiny, programs):
    split = tiny.copy_and_resolve_references()
    split.model_axis, split.pretrain.accumulate = 4, 2
    program = estimate.pretrain_program(split, 8, vocab_size=64)
    kinds = program.summary()
    gathered = 2 * 32 * 16 * 4
    # What is split is gathered (XLA's CPU compiler keeps it for the backward pass) and its gradient is scattered once,
    # then summed over the two copies; small arrays are summed whole.
    weights = kinds["all-gather"][1] - gathered
    assert 0.9 * 4 * program.parameters <= weights <= 4 * program.parameters
    assert kinds["reduce-scatter"][1] == gathered // 8 + weights // 4
    small = 4 * program.parameters - weights
    assert weights // 4 + small <= kinds["all-reduce"][1] <= weights // 4 + small + 2048
    assert program.state == pytest.approx(3 * (weights / 4 + small), abs=64)
    assert program.state < 0.35 * programs[8].state


@pytest.mark.slow
def test_accumulation_sends_no_more_and_chunks_never_hold_the_matrix(tiny, programs):
    parts = tiny.copy_and_resolve_references()
    parts.pretrain.accumulate, parts.pretrain.loss_chunk = 4, 1
    program = estimate.pretrain_program(parts, 8, vocab_size=64)
    assert program.summary()["all-reduce"][1] == pytest.approx(programs[8].summary()["all-reduce"][1], abs=1024)
    assert program.moved == pytest.approx(programs[8].moved, rel=0.02)


@pytest.mark.slow
def test_crafting_sends_nothing(tiny):
    config = tiny.copy_and_resolve_references()
    config.noise.batch_size, config.noise.pgd.steps, config.noise.max_words, config.noise.top_k = 2, 3, 1, 2
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    program = estimate.craft_program(config, 8, vocab_size=64)
    assert not program.collectives
    assert program.rows == 2
    # A step of PGD costs at least the image tower's forward and its backward pass to the pixels, two pairs a device.
    shape = encoder_shape(config, 64, eos_id=1, bos_id=2, pad_id=0)
    functions, params = estimate.abstract_encoder(shape)
    images = jax.ShapeDtypeStruct((2, shape.image_size, shape.image_size, shape.channels), jnp.float32)
    forward = flops.products(jax.make_jaxpr(functions.image_features)(params, images))
    assert program.flops > 3 * 1.8 * forward
    assert estimate.predict(program, CHIPS["v5e"], 0.4).low == 1.0
    config.noise.recipe = "gaussian"
    with pytest.raises(ConfigError, match=r"noise\.recipe"):
        estimate.craft_program(config, 8, vocab_size=64)


@pytest.mark.slow
def test_towers_named_by_their_folders_have_the_published_sizes():
    config = configs.load(str(ROOT / "configs" / "roco_rn50.py"))
    with pytest.raises(ConfigError, match=r"model\.text_weights = 'weights/pubmedbert'.* experiments/scale/shapes"):
        towers.shape_of(config, 64)
    for key, name in (("image_weights", "resnet50"), ("text_weights", "bert_base")):
        config.model[key] = str(ROOT / "experiments" / "scale" / "shapes" / name)
    _, params = estimate.abstract_encoder(towers.shape_of(config, 64))
    counts = {part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("vision", "text")}
    # torchvision's 25,557,032 without its classifier, with 53,120 running statistics; Hugging Face's BertModel.
    assert counts == {"vision": 25_557_032 - 2_049_000 + 53_120, "text": 109_482_240}
    config.model.weights, config.model.text_weights = "somewhere", ""
    with pytest.raises(ConfigError, match=r"model\.weights"):
        towers.shape_of(config, 64)
