"""Questions about images through the stage's own parts: both fusions, heads of every kind, attacks on either side."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.data.prepared import PreparedSet
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.evaluation.questions import Questions, rows_by_kind, varied
from ranjax.models.dual_encoder import DualEncoder, split
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.tower_configs import TextTransformerConfig, ViTConfig
from ranjax.run.config import default_config, typed, validate
from ranjax.run.context import Context
from ranjax.run.plan import StageRun
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation import question_answering
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.question_attacks import attack
from ranjax.run.stages.evaluation.question_fusion import FusedQuestions
from ranjax.run.stages.evaluation.result_record import Record
from ranjax.training.devices import make_mesh

CORNERS = ("upper left", "upper right", "lower left", "lower right")
TEXTS = tuple(f"is the {corner} corner bright" for corner in CORNERS)
WORDS = ("corner area region dark bright", "upper lower left right", "is the it")


def pictures(count, seed):
    """Images of 8 x 8 with two bright corners of four, so that neither image nor question tells the answer alone."""
    rng = np.random.default_rng(seed)
    bright = rng.permuted(np.tile([0, 0, 1, 1], (count, 1)), axis=1).reshape(count, 2, 2)
    pixels = np.kron(80 + 90 * bright, np.ones((4, 4), int)) + rng.integers(0, 15, (count, 8, 8))
    return bright.reshape(count, 4), pixels.astype(np.uint8)[..., None]


def of_split(name, count, seed):
    bright, images = pictures(count, seed)
    ids = [f"{name}-{i}" for i in range(count)]
    groups = [
        {"question": TEXTS[i % 4], "answer": "yes" if bright[i, i % 4] else "no", "kind": "closed"}
        for i in range(count)
    ]
    labels = np.arange(count, dtype=np.int32) % 2
    return inputs.Split(ids, images, ["bright corner"] * count, labels, [g["question"] for g in groups]), groups


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    config = default_config()
    evaluate = config.evaluate
    evaluate.fusion, evaluate.question_seeds, evaluate.batch_size, evaluate.bootstrap = "coattention", 1, 64, 20
    evaluate.question_attacks, evaluate.epsilon = ("image", "question", "both", "typos"), "40/255"
    evaluate.coattention.width, evaluate.coattention.heads, evaluate.coattention.outputs = 16, 2, 16
    evaluate.coattention.epochs, evaluate.coattention.batch_size = 25, 32
    evaluate.coattention.learning_rate, evaluate.coattention.dropout = 1e-2, 0.0
    evaluate.pgd.steps, config.adapt.attack_steps, config.noise.protect = 3, 1, False
    run = StageRun("evaluate", "clean", 0.0, (), (), print)
    context = Context(
        typed(config), folder, run, (run,), "", make_mesh(jax.devices()[:1]), lambda: False, lambda _: None
    )
    tokenizer = Tokenizer.build([*TEXTS, *WORDS])
    image = ViTConfig(image_size=8, channels=1, patch_size=4, width=16, layers=1, heads=2)
    size = {"vocab_size": tokenizer.vocab_size, "max_length": 12, "width": 16, "layers": 1, "heads": 2}
    text = TextTransformerConfig(**size, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    found = object.__new__(EvaluatedEncoder)
    functions, params = split(DualEncoder(DualEncoderConfig(image=image, text=text, embed_dim=8), nnx.Rngs(0)))
    prepared = PreparedSet(Path(folder), {}, ("dark", "bright"), {}, (), {}, {}, (), "", "")
    data = inputs.Data(prepared, tokenizer, 12)
    splits = {
        name: of_split(name, n, seed)
        for seed, (name, n) in enumerate((("adapt", 512), ("validation", 128), ("test", 128)))
    }
    data.__dict__["_splits"] = {name: one for name, (one, _) in splits.items()} | {"train": splits["adapt"][0]}
    found.context, found.config, found.data = context, context.config.evaluate, data
    found.functions, found.params, found.condition = functions, params, "clean"
    asked = {name: question_answering.questions.given(groups) for name, (_, groups) in splits.items()}
    return found, asked, FusedQuestions(found, asked, ["no", "yes"])


def accuracy(fits, fused, name="test"):
    answers = [question_answering._answers(one, features[name]).argmax(-1) for one, features in fits]
    return np.mean(np.stack(answers) == fused.splits[name].labels[None])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lp", "mlp", "nmtune", "robust_ridge", "ran_v1"])
def test_every_kind_of_head_answers_on_the_fused_vector(encoder, method):
    found, _, fused = encoder
    fits = question_answering._fit(found, fused, method, range(1))
    assert accuracy(fits, fused) > 0.9
    if method == "lp":  # what the stage computes end to end is what the head was fitted on
        one, features = fits[0]
        every = fused.splits["test"]
        z = one.reader(one.shared, jnp.asarray(every.images / np.float32(255)), *map(jnp.asarray, fused.texts(every)))
        np.testing.assert_allclose(z, features["test"].features, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_attacks_go_through_the_fusion_and_lower_accuracy_on_either_side(encoder):
    found, _, fused = encoder
    answering = question_answering._fit(found, fused, "lp", range(1))[0][0]
    part = fused.splits["test"].take(np.arange(64))
    result = attack(found, fused, answering, part, ("image", "question", "both", "typos", "importance"))
    right = {name: hits.mean() for name, hits in result.right.items()}
    assert right["none"] > 0.9
    assert right["image"] < right["none"] - 0.2
    assert right["question"] < right["none"] - 0.2
    assert right["both"] <= min(right["image"], right["question"]) + 0.02
    assert result.open.all()
    # A slip of the pen makes an unknown word of a corner's name; a near word is one of five candidates.
    assert right["typos"] < right["none"] - 0.2
    assert right["importance"] <= right["none"]


@pytest.mark.slow
def test_rows_are_by_kind_with_chance_and_attacks_and_controls_stay_at_the_prior(encoder, monkeypatch):
    found, asked, _ = encoder
    monkeypatch.setattr(question_answering, "_questions", lambda _, split: asked[split])
    monkeypatch.setattr(
        question_answering, "cluster_ids", lambda _, split: np.arange(len(asked[split].texts), dtype=np.int32)
    )
    record = Record("clean", 0.0, ("dark", "bright"), 20, 0)
    question_answering.answer(found, record, ("test",))
    rows = {(r["method"], r["task"], r["attack"]): r["value"] for r in record.rows if r["seed"] is None}
    assert rows["lp", "questions_varied", "none"] == rows["lp", "questions_closed", "none"] > 0.9
    for control in ("lp_image", "lp_question"):
        assert abs(rows[control, "questions_closed", "none"] - record.chance["questions_closed/test"]) < 0.15
        assert (control, "questions_closed", "on image") not in rows
    assert rows["mlp", "questions_closed", "on both"] < rows["mlp", "questions_closed", "none"]
    assert rows["mlp", "questions_closed", "on typos"] < rows["mlp", "questions_closed", "none"]
    assert any("0 % of the attacked questions have no word" in note for note in record.notes)


def test_questions_are_varied_where_training_answers_them_differently():
    train = Questions(np.zeros(4, int), ["a", "a", "b", "b"], ["x", "y", "x", "x"], ["open"] * 4)
    test = Questions(np.zeros(3, int), ["a", "b", "c"], ["x", "x", "x"], ["open", "closed", "open"])
    assert varied(train, test).tolist() == [True, False, True]
    assert {kind: rows.tolist() for kind, rows in rows_by_kind(train, test).items()} == {
        "open": [0, 2],
        "closed": [1],
        "varied": [0, 2],
    }


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("question_methods", ("lora",), "heads on features of both image and question"),
        ("question_methods", ("lp_image",), "heads on features of both image and question"),
        ("question_attacks", ("image",), "at least 1 where evaluate.question_attacks are given"),
        ("fusion", "sum", "product"),
    ],
)
def test_what_cannot_answer_questions_is_refused(key, value, expected):
    config = default_config()
    config.evaluate[key] = value
    with pytest.raises(ConfigError, match=expected):
        validate(config)
