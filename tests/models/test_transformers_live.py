"""What is written here loads in transformers on torch to the same outputs. Needs torch (the `parity` extra)."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_encoder import TINY

from ranjax.models import load_bert_mlm, save, save_bert

torch = pytest.importorskip("torch", reason="the parity extra is not installed")


@pytest.fixture(autouse=True)
def _quiet():
    import transformers

    transformers.logging.set_verbosity_error()


@pytest.mark.filterwarnings("default")
def test_an_exported_clip_gives_the_same_features_in_transformers(tiny, batch, encode, tmp_path):
    from transformers import CLIPModel

    functions, params = tiny
    save(tmp_path, functions, params, layout="clip")
    model, report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images, tokens, mask = (np.asarray(part) for part in batch)
    pixels = (images - TINY.pixel_mean[0]) / TINY.pixel_std[0]
    with torch.no_grad():
        image = model.eval().get_image_features(torch.tensor(pixels.transpose(0, 3, 1, 2)).float())
        text = model.get_text_features(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    ours = encode(functions, params, *batch)
    np.testing.assert_allclose(image.pooler_output, ours[0], atol=2e-5)
    np.testing.assert_allclose(text.pooler_output, ours[1], atol=2e-5)


@pytest.mark.filterwarnings("default")
def test_an_exported_masked_language_model_gives_the_same_logits(reference_cases, tmp_path):
    from transformers import BertForMaskedLM

    functions, params, _ = load_bert_mlm(reference_cases / "mlm_micro")
    save_bert(tmp_path, functions, params)
    model, report = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = np.random.default_rng(0).integers(5, 1000, (2, 7))
    with torch.no_grad():
        theirs = model.eval()(input_ids=torch.tensor(tokens)).logits
    ours = functions.logits(params, jnp.asarray(tokens, jnp.int32), jnp.ones((2, 7), bool))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
