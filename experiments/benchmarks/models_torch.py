"""The torch contestants of `experiments.benchmarks.models`: FOLDER NAME, run by an interpreter of their own.

NAME is eager, sdpa, compiled, sdpa_bf16 (transformers) or open_clip. What needs no gradient is frozen, and gradients
are taken by autograd.grad, which is the fastest plain form.
"""

import json
import os
import sys
import time
from pathlib import Path

import platforms
from peak import peak_mb

os.environ["HF_HUB_OFFLINE"] = "1"
FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]
BF16 = NAME.endswith("bf16")


def build():
    import numpy as np
    import torch

    device = platforms.torch_device()
    torch.set_default_device(device)  # what is made below is made there
    given = np.load(FOLDER / "inputs.npz")
    pixels = torch.tensor(given["images"]).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(given[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    small = "tokens" in given
    texts = (torch.tensor(given["tokens"]).long(), torch.tensor(given["mask"]).long()) if small else None
    model, image_features, contrast = (open_clip_model if NAME == "open_clip" else transformers_model)(texts)
    model.to(device)
    tower = [p for name, p in model.named_parameters() if name.startswith(("vision_model", "visual."))]
    weights = torch.tensor(given["weights"])

    def features(x):
        with torch.autocast(device, torch.bfloat16, enabled=BF16):
            return image_features((x - mean) / std).float()

    def loss(x):
        return (features(x) * weights).sum()

    if NAME == "compiled":
        loss = torch.compile(loss)

    def forward():
        with torch.inference_mode():
            found = loss(pixels)
        return lambda: float(found)

    def image_gradient():
        model.requires_grad_(False)
        x = pixels.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(loss(x), x)
        return lambda: float(found.double().abs().sum())

    def parameter_gradient():
        model.requires_grad_(False)
        for p in tower:
            p.requires_grad_(True)
        found = torch.autograd.grad(loss(pixels), tower, allow_unused=True)
        return lambda: float(sum(g.double().abs().sum() for g in found if g is not None))

    side = platforms.ceiling_side()
    square = torch.tensor(np.random.default_rng(0).normal(size=(side, side)), dtype=torch.float32)
    square = square.bfloat16() if BF16 else square
    calls = {"forward": forward, "image_gradient": image_gradient, "parameter_gradient": parameter_gradient}

    def ceiling():
        found = square @ square
        return lambda: float(found.float().abs().double().sum())

    calls["ceiling"] = ceiling
    if small:
        calls["step"] = step(model, (pixels - mean) / std, contrast)
    return calls


def step(model, pixels, contrast):
    import torch

    held = {}

    def call():
        if not held:
            model.requires_grad_(True).train()
            decay = [p for p in model.parameters() if p.ndim >= 2]
            rest = [p for p in model.parameters() if p.ndim < 2]
            groups = [{"params": decay, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}]
            held["optimizer"] = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, fused=True)
            held["loss"] = torch.compile(contrast) if NAME == "compiled" else contrast
        model.requires_grad_(True)
        held["optimizer"].zero_grad(set_to_none=True)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=BF16):
            loss = held["loss"](pixels)
        loss.backward()
        held["optimizer"].step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        return lambda: float(loss)

    return call


def transformers_model(texts):
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.CLIPModel.from_pretrained(
        FOLDER, attn_implementation="eager" if NAME == "eager" else "sdpa"
    ).eval()

    def image_features(x):
        found = model.get_image_features(pixel_values=x)
        return getattr(found, "pooler_output", found)

    def contrast(x):
        return model(input_ids=texts[0], attention_mask=texts[1], pixel_values=x, return_loss=True).loss

    return model, image_features, contrast


def open_clip_model(texts):
    """The same shape with weights of its own: open_clip reads another layout."""
    import torch
    from open_clip import ClipLoss
    from open_clip.model import CLIP

    torch.manual_seed(0)
    shape = json.loads((FOLDER / "config.json").read_text())
    vision, text = shape["vision_config"], shape["text_config"]
    model = CLIP(
        shape["projection_dim"],
        {
            "image_size": vision["image_size"], "patch_size": vision["patch_size"], "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"], "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        {
            "context_length": text["max_position_embeddings"], "vocab_size": text["vocab_size"],
            "width": text["hidden_size"], "heads": text["num_attention_heads"], "layers": text["num_hidden_layers"],
        },
        quick_gelu=True,
    )  # fmt: skip
    criterion = ClipLoss()

    def contrast(x):
        image, words, scale = model(x, texts[0])
        return criterion(image, words, scale)

    return model, model.encode_image, contrast


def main():
    calls = None
    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            return
        if word == "ready":
            try:
                calls = build()
                print(json.dumps({}), flush=True)
            except (ImportError, RuntimeError) as error:
                print(json.dumps({"absent": str(error)}), flush=True)
            continue
        began = time.perf_counter()
        told = calls[word]()
        platforms.wait(platforms.torch_device())
        seconds = time.perf_counter() - began
        peak = platforms.torch_peak_mb(peak_mb)
        print(json.dumps({"seconds": seconds, "value": told(), "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
