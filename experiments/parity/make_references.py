"""Writes the reference values that tests/models compares with: small seeded models of `transformers` on torch.

    python experiments/parity/make_references.py tests/models/references

Needs torch 2.13.0, transformers 5.23.0 and numpy. Each .npz holds a config.json (as bytes), the weights (float16,
exact when widened), inputs, and in float64 the outputs and their gradients with respect to the inputs:

    features      image or text embeddings, or masked-LM logits
    direction     a fixed array of the same shape
    gradient      of sum(features * direction), by pixels in [0, 1] or by the rows of the token table
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
GREY_MEAN, GREY_STD = (0.5,), (0.25,)


def clip_config(activation, image_size, patch_size, channels, eos):
    common = {"num_hidden_layers": 2, "hidden_act": activation}
    vision = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 3}
    vision |= {"image_size": image_size, "patch_size": patch_size, "num_channels": channels}
    text = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}
    text |= {"vocab_size": 24, "max_position_embeddings": 7, "bos_token_id": 1, "eos_token_id": eos, "pad_token_id": 0}
    return hf.CLIPConfig(text_config=text | common, vision_config=vision | common, projection_dim=6)


def bert_config(activation="gelu"):
    shape = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": 24, "max_position_embeddings": 9, "pad_token_id": 0, "hidden_act": activation}
    return hf.BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def seeded(model, seed):
    """Gives every parameter N(0, 0.3^2), norm scales around 1, in values that float16 holds exactly."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, value in sorted(model.named_parameters()):
        centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        drawn = rng.normal(centre, 0.3, tuple(value.shape)).astype(np.float16)
        weights[name] = drawn
        value.data = torch.from_numpy(drawn.astype(np.float64))
    return model.double().eval(), weights


def texts(rng, eos):
    ids, mask = np.zeros((3, 7), np.int64), np.zeros((3, 7), np.int64)
    for row, length in enumerate((3, 5, 7)):
        ids[row, :length] = rng.integers(3, 22, length)
        ids[row, 0], ids[row, length - 1], mask[row, :length] = 1, eos, 1
    return ids, mask


def image_case(encode, size, channels, rng):
    pixels = np.round(rng.random((2, size, size, channels)) * 255) / 255
    mean, std = (MEAN, STD) if channels == 3 else (GREY_MEAN, GREY_STD)
    x = torch.tensor(pixels, requires_grad=True)
    features = encode(((x - torch.tensor(mean, dtype=x.dtype)) / torch.tensor(std, dtype=x.dtype)).permute(0, 3, 1, 2))
    return {"images": pixels} | graded(features, x, rng)


def text_case(encode, embedding, ids, mask, rng):
    kept = []
    hook = embedding.register_forward_hook(lambda module, given, rows: kept.append(rows.requires_grad_()) or rows)
    features = encode(torch.tensor(ids), torch.tensor(mask))
    hook.remove()
    return {"tokens": ids.astype(np.int32), "mask": mask > 0} | graded(features, kept[0], rng)


def graded(features, inputs, rng):
    direction = rng.normal(size=tuple(features.shape))
    (gradient,) = torch.autograd.grad((features * torch.tensor(direction)).sum(), inputs)
    return {"features": features.detach().numpy(), "direction": direction, "gradient": gradient.numpy()}


def write(path, config, weights, parts):
    content = {"config": np.frombuffer(json.dumps(config.to_dict(), default=str).encode(), np.uint8)}
    content |= {f"weights/{name}": value for name, value in weights.items()}
    content |= {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    np.savez_compressed(path, **content)
    print(path.name, path.stat().st_size, "bytes")


def two_towers(path, model, config, seed, eos, embedding):
    rng = np.random.default_rng(seed)
    model, weights = seeded(model, seed)
    vision = config.vision_config
    image = image_case(lambda x: model.get_image_features(x).pooler_output, vision.image_size, vision.num_channels, rng)
    encode = lambda ids, mask: model.get_text_features(ids, attention_mask=mask).pooler_output  # noqa: E731
    write(path, config, weights, {"image": image, "text": text_case(encode, embedding, *texts(rng, eos), rng)})


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, *shape, eos) in enumerate(
        (
            ("clip_gelu_patch4_grey", "gelu", 12, 4, 1, 23),
            ("clip_quick_gelu_patch8", "quick_gelu", 16, 8, 3, 23),
            # With this EOS id transformers pools at the largest id of a text, here always 23.
            ("clip_largest_id_pooled", "quick_gelu", 10, 5, 3, 2),
        )
    ):
        config = clip_config(*shape, eos)
        model = hf.CLIPModel(config)
        table = model.text_model.embeddings.token_embedding
        two_towers(folder / f"{name}.npz", model, config, seed, 23, table)

    vision = clip_config("gelu", 12, 6, 3, 23).vision_config
    config = hf.VisionTextDualEncoderConfig(
        vision_config=vision.to_dict(), text_config=bert_config().to_dict(), projection_dim=6
    )
    model = hf.VisionTextDualEncoderModel(config)
    table = model.text_model.embeddings.word_embeddings
    two_towers(folder / "vision_bert.npz", model, config, 10, 22, table)

    config = bert_config("gelu_new")
    model, weights = seeded(hf.BertForMaskedLM(config), 20)
    rng = np.random.default_rng(20)
    encode = lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits  # noqa: E731
    case = text_case(encode, model.bert.embeddings.word_embeddings, *texts(rng, 22), rng)
    write(folder / "bert_mlm.npz", config, weights, {"text": case})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
