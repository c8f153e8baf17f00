"""Agreement with gradient-guided substitution on a small CLIP as another implementation computed it."""

import functools

import jax
import jax.numpy as jnp
import micro_text as micro
import numpy as np
import pytest

from ranjax.attacks import text
from ranjax.attacks.text import candidate_sources, candidates, gains, importance
from ranjax.attacks.text import words as words_lib

SETTINGS = text.Substitution(max_words=3, top_k=8)
for_rows = micro.quick_jit(candidates.for_rows)


@pytest.fixture(scope="module")
def case(reference_cases):
    return np.load(reference_cases / "text_micro.npz")


@pytest.fixture(scope="module")
def rows(case):
    tokens = case["ids"].astype(np.int32)
    return jnp.asarray(tokens), jnp.asarray(case["mask"] > 0), jnp.asarray(micro.slots_of(tokens))


@functools.partial(micro.quick_jit, static_argnums=0)
def attack(settings, w, image, tokens, mask, words, allowed):
    table = w["text_model.embeddings.token_embedding.weight"]
    return text.substitute(micro.cosine_loss(w, image), table, tokens, mask, words, allowed, settings)


def run(settings, w, image, rows, lists=None):
    allowed = for_rows(micro.lexicon().table, rows[0], rows[2], lists)
    return attack(settings, w, image, *rows, allowed)


def by_slot(listed: np.ndarray) -> jax.Array:
    """Candidates per position [B, L, K] -> per slot: slot s is the word at position s + 1."""
    return jnp.asarray(np.concatenate([listed[:, 1:], np.full_like(listed[:, :1], -1)], axis=1).astype(np.int32))


@pytest.mark.parametrize("kind", ["hotflip", "guided", "guided_masked"])
def test_substitution_agrees_in_float32(case, rows, reference_cases, kind):
    w = micro.weights(reference_cases / "clip_micro_trained", jnp.float32)
    image = jnp.asarray(case["image_unit_float32"])
    source = {"hotflip": None, "guided": "plain", "guided_masked": "masked"}[kind]
    lists = None if source is None else by_slot(case[f"mlm_{source}_cand_float32"])
    found = run(SETTINGS, w, image, rows, lists)
    np.testing.assert_array_equal(found.tokens, case[f"{kind}_adv_ids_float32"])
    np.testing.assert_allclose(found.loss, case[f"{kind}_final_loss_float32"], atol=1e-5)
    np.testing.assert_allclose(found.clean_loss, case[f"{kind}_r0_loss_before_float32"], atol=1e-5)
    for round_ in (1, 2):
        np.testing.assert_allclose(found.trace[round_], case[f"{kind}_r{round_}_loss_before_float32"], atol=1e-5)
    np.testing.assert_array_equal(found.mask, rows[1])
    np.testing.assert_array_equal(found.words, rows[2])
    np.testing.assert_array_equal(found.edits, (np.asarray(found.tokens) != case["ids"]).sum(1))


def test_substitution_agrees_in_float64(case, rows, reference_cases, float64):
    w = micro.weights(reference_cases / "clip_micro_trained", jnp.float64)
    found = run(SETTINGS, w, jnp.asarray(case["image_unit_float64"]), rows)
    np.testing.assert_array_equal(found.tokens, case["hotflip_adv_ids_float64"])
    np.testing.assert_allclose(found.loss, case["hotflip_final_loss_float64"], atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_first_order_scores_ranks_and_true_losses_agree(case, rows, reference_cases, dtype, float64):
    w = micro.weights(reference_cases / "clip_micro_trained", jnp.dtype(dtype))
    _, mask, words = rows
    entries = micro.lexicon().table
    table = w["text_model.embeddings.token_embedding.weight"]
    image = jnp.asarray(case[f"image_unit_{dtype}"])
    tolerance = {"float32": 1e-4, "float64": 1e-9}[dtype]

    @micro.quick_jit
    def judge(tokens):
        """Gradient, gains, and the loss of the tokens, as the attack forms them."""
        loss = lambda e: micro.cosine_loss(w, image)(e, tokens, mask)  # noqa: E731
        embeddings = table[tokens]
        gradient = jax.grad(lambda e: loss(e).sum())(embeddings)
        features = gains.candidate_features(table, entries)

        def one(tokens, gradient, words):
            return gains.word_gains(table, features, entries, tokens, gradient, words_lib.find_slots(words), None)

        return gradient, jax.vmap(one)(tokens, gradient, words), loss(embeddings)

    allowed = for_rows(entries, rows[0], words)
    free = np.asarray(allowed.open)[:, :, None] & np.asarray(entries.insertable)[None, None]
    free = free & (np.asarray(allowed.present)[:, :, None] != np.arange(micro.VOCAB)[None, None])
    for number in range(3):
        stored = {
            k: case[f"hotflip_r{number}_{k}_{dtype}"] for k in ("ids_before", "top_pos", "top_id", "top_true_loss")
        }
        before = stored["ids_before"].astype(np.int32)
        gradient, score, _ = judge(jnp.asarray(before))
        used = (before != np.asarray(rows[0]))[:, 1:]
        now = free & ~np.pad(used, ((0, 0), (0, 1)))[:, :, None]
        ranked = np.where(now, score, -np.inf).reshape(len(before), -1)
        best = np.argsort(-ranked, axis=1, kind="stable")[:, :8]
        np.testing.assert_array_equal(best // micro.VOCAB + 1, stored["top_pos"])
        np.testing.assert_array_equal(best % micro.VOCAB, stored["top_id"])
        for rank in (0, 7):
            tokens = before.copy()
            tokens[np.arange(len(before)), stored["top_pos"][:, rank]] = stored["top_id"][:, rank]
            np.testing.assert_allclose(judge(jnp.asarray(tokens))[2], stored["top_true_loss"][:, rank], atol=1e-5)
        if number == 0:
            np.testing.assert_allclose(gradient, case["hotflip_r0_grad_float64"], atol=tolerance)
            _scores_agree(score, case["hotflip_r0_score_rows01_float64"], before, np.asarray(words), tolerance)


def _scores_agree(score, stored, tokens, words, tolerance):
    for row in range(len(stored)):
        count = (words[row] >= 0).sum()
        np.testing.assert_allclose(score[row, :count], stored[row, 1 : 1 + count], atol=tolerance)
        own = score[row, np.arange(count), tokens[row, 1 : 1 + count]]
        np.testing.assert_allclose(own, 0, atol=tolerance)


def first_order_lists(case, w, rows, masked):
    """Lists per slot from a forward pass of the masked LM, and its logits."""
    tokens, mask, words = rows
    own = jnp.where(tokens == micro.BOS, micro.CLS, jnp.where(tokens == micro.EOS, micro.SEP, tokens))
    model = functools.partial(micro.masked_lm, w)
    logits = candidate_sources.masked_logits(model, own, mask, words, micro.MASK) if masked else model(own, mask)
    return candidate_sources.masked_lm_lists(
        logits, words, micro.lexicon().table, case["mlm_plain_cand_float64"].shape[2]
    ), logits


@pytest.mark.parametrize("kind", ["plain", "masked"])
def test_masked_lm_candidates_agree(case, rows, reference_cases, kind, float64):
    w = micro.weights(reference_cases / "mlm_micro", jnp.float64)
    lists, logits = micro.quick_jit(functools.partial(first_order_lists, case, masked=kind == "masked"))(w, rows)
    tokens, _, words = (np.asarray(x) for x in rows)
    top = case[f"mlm_{kind}_top_id_float64"]
    inside = words >= 0
    np.testing.assert_allclose(
        np.take_along_axis(np.asarray(logits), top, -1)[inside],
        case[f"mlm_{kind}_top_logit_float64"][inside],
        atol=1e-8,
    )
    allowed = for_rows(micro.lexicon().table, rows[0], rows[2], lists)
    lists = np.asarray(lists)
    free = np.asarray(allowed.table.insertable)[np.maximum(lists, 0)] & (
        lists != np.asarray(allowed.present)[..., None]
    )
    free &= np.asarray(allowed.open)[..., None] & (lists >= 0)
    stored = case[f"mlm_{kind}_cand_float64"]
    for row, slot in np.argwhere(np.asarray(allowed.open)):
        own = stored[row, slot + 1]
        np.testing.assert_array_equal(lists[row, slot][free[row, slot]], own[own >= 0])


@functools.partial(micro.quick_jit, static_argnames=("settings", "hide"))
def ranked(settings, w, image, rows, allowed, hide="unk"):
    table = w["text_model.embeddings.token_embedding.weight"]
    loss = micro.cosine_loss(w, image)
    return importance.ranked(loss, table, *rows, allowed, settings, hide_id=micro.UNK, hide=hide)


def test_importance_ranked_substitution_agrees(case, rows, reference_cases):
    dtype = "float32"
    w = micro.weights(reference_cases / "clip_micro_trained", jnp.dtype(dtype))
    image = jnp.asarray(case[f"image_unit_{dtype}"])
    lists = by_slot(case[f"mlm_plain_cand_{dtype}"])
    allowed = for_rows(micro.lexicon().table, rows[0], rows[2], lists)
    settings = text.Substitution(max_words=None, share=0.4)
    found = ranked(settings, w, image, rows, allowed)
    np.testing.assert_array_equal(found.tokens, case[f"bert_adv_ids_{dtype}"])
    np.testing.assert_allclose(found.loss, case[f"bert_final_loss_{dtype}"], atol=1e-5)
    words = (np.asarray(rows[2]) >= 0).sum(1)
    np.testing.assert_array_equal(words, case["bert_words"])
    np.testing.assert_array_equal(settings.budgets(32)[words], case["bert_budget"])
    steps = case[f"bert_steps_{dtype}"]
    insertable = [(lists[int(row), int(position) - 1] >= 0).sum() for row, position, *_ in steps]
    queries = np.bincount(steps[:, 0].astype(int), insertable) + np.asarray(allowed.open).sum(1)
    np.testing.assert_array_equal(found.queries, queries)


@pytest.mark.parametrize("hide", importance.HIDE)
def test_importance_agrees(case, rows, reference_cases, hide, float64):
    w = micro.weights(reference_cases / "clip_micro_trained", jnp.float64)
    loss = micro.cosine_loss(w, jnp.asarray(case["image_unit_float64"]))
    table = w["text_model.embeddings.token_embedding.weight"]
    allowed = for_rows(micro.lexicon().table, rows[0], rows[2])
    judge = functools.partial(importance.importance, loss, table, hide_id=micro.UNK, pad_id=micro.PAD, hide=hide)
    rise, _ = micro.quick_jit(judge)(*rows, allowed.open)
    stored = case[f"importance_{hide}_float64"]
    np.testing.assert_allclose(rise[:, :-1], stored[:, 1:], atol=1e-9)
    order = np.argsort(-np.asarray(rise), axis=1, kind="stable")
    if hide == "unk":
        for row, count in enumerate(np.asarray(allowed.open).sum(1)):
            np.testing.assert_array_equal(order[row, :count] + 1, case["bert_order_float64"][row, :count])
