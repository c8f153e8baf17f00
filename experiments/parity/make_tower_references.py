"""Writes the reference values of the towers beyond CLIP's: small seeded models of open_clip, timm and transformers.

    python experiments/parity/make_tower_references.py tests/models/references

Needs torch 2.13.0, transformers 5.23.0, open_clip_torch 3.3.0, timm 1.0.31 and numpy. Files are as those of
`make_references.py`: config (as bytes), float16 weights, inputs, and in float64 features and gradients by the inputs.
"""

import sys
import tempfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import transformers as hf

from experiments.parity.make_references import MEAN, STD, bert_config, image_case, seeded, text_case, texts, write
from experiments.parity.peers import stand_in_for_torchvision

stand_in_for_torchvision()

import timm  # noqa: E402
from open_clip.hf_model import HFTextEncoder  # noqa: E402
from open_clip.model import CLIP, CustomTextCLIP  # noqa: E402
from torch import nn  # noqa: E402

VOCABULARY, LENGTH, EMBED = 24, 7, 6
TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 8, "heads": 2, "layers": 1, "mlp_ratio": 1.5}
IDENTITY = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


class Content(dict):
    """A config that `write` can store."""

    def to_dict(self):
        return dict(self)


def with_statistics(model, weights, seed):
    """Draws every batch norm's mean and (positive) variance too, and its scale around 1 whatever its name.

    seeded() does the parameters alone, and takes scales named bn1 for weights around 0: a deep tower of such is dead
    behind its ReLUs, and its gradients are 0.
    """
    rng = np.random.default_rng(seed + 1000)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            scale = np.abs(rng.normal(1, 0.3, tuple(module.weight.shape))).astype(np.float16)
            weights[f"{name}.weight"] = scale
            module.weight.data = torch.from_numpy(scale.astype(np.float64))
    for name, value in sorted(model.named_buffers()):
        if name.endswith(("running_mean", "running_var")):
            drawn = rng.normal(0, 0.3, tuple(value.shape))
            drawn = (np.abs(drawn) + 0.5 if name.endswith("var") else drawn).astype(np.float16)
            weights[name] = drawn
            value.data = torch.from_numpy(drawn.astype(np.float64))
    return weights


def both(path, model, content, seed, size, channels, encode_text, embedding, eos=VOCABULARY - 1, text=texts):
    rng = np.random.default_rng(seed)
    model, weights = seeded(model, seed)
    weights = with_statistics(model, weights, seed)
    image = image_case(model.encode_image, size, channels, rng)
    parts = {"image": image, "text": text_case(encode_text, embedding, *text(rng, eos), rng)}
    write(path, Content(content), weights, parts)


def open_clip_native(path, vision, size, quick, seed):
    vision = vision | {"image_size": size}
    config = {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick}
    model = CLIP(**config)
    content = {"model_cfg": config, "preprocess_cfg": IDENTITY}
    both(path, model, content, seed, size, 3, lambda ids, mask: model.encode_text(ids), model.token_embedding)


def open_clip_timm(path, trunk, name, size, text_extra, seed, projection, own):
    """A trunk of timm beside a BERT, put together from open_clip's and timm's own modules."""
    bert = bert_config()
    with tempfile.TemporaryDirectory() as folder:
        bert.save_pretrained(folder)
        text_cfg = {"hf_model_name": folder, "hf_model_pretrained": False} | text_extra
        dummy = {"image_size": 32, "layers": 1, "width": 8, "head_width": 4, "patch_size": 16}
        model = CustomTextCLIP(EMBED, dummy, text_cfg)
    model.visual = nn.Module()
    model.visual.trunk, model.visual.head = trunk, projection
    model.encode_image = lambda x: model.visual.head(model.visual.trunk(x))
    vision = {"timm_model_name": name, "timm_pool": "", "image_size": size, "timm_model_pretrained": False}
    kinds = {"proj": ("linear", False), "mlp": ("mlp", False)}
    vision["timm_proj"], vision["timm_proj_bias"] = kinds[next(iter(dict(projection.named_children())))]
    config = {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text_cfg | {"hf_model_name": "a-bert"}}
    content = {"model_cfg": config, "preprocess_cfg": IDENTITY, "ranjax": own, "bert": bert.to_dict()}
    assert isinstance(model.text, HFTextEncoder)
    table = model.text.transformer.embeddings.word_embeddings
    both(path, model, content, seed, size, 3, lambda ids, mask: model.encode_text(ids), table)


def open_clip_siglip(path, seed):
    """SigLIP as open_clip has it: timm's tower pooled by attention, its own text tower with a linear module behind."""
    shape = {"img_size": 12, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    trunk = timm.models.vision_transformer.VisionTransformer(
        **shape, num_classes=0, class_token=False, global_pool="map"
    )
    text_cfg = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 8, "heads": 2, "layers": 2}
    text_cfg |= {"mlp_ratio": 1.5, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    text_cfg |= {"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}}
    dummy = {"image_size": 32, "layers": 1, "width": 8, "head_width": 4, "patch_size": 16}
    model = CustomTextCLIP(12, dummy, text_cfg, init_logit_bias=-10)
    model.visual = nn.Module()
    model.visual.trunk = trunk
    model.encode_image = lambda x: model.visual.trunk(x)
    vision = {"timm_model_name": "vit_base_patch4_siglip_12", "timm_pool": "map", "timm_proj": "none", "image_size": 12}
    vision["timm_model_pretrained"] = False
    config = {"embed_dim": 12, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text_cfg}
    content = {"model_cfg": config, "preprocess_cfg": IDENTITY, "ranjax": {"image_heads": 3}}
    encode = lambda ids, mask: model.encode_text(ids)  # noqa: E731
    both(path, model, content, seed, 12, 3, encode, model.text.token_embedding, text=padded)


def padded(rng, eos):
    """As SigLIP is used: filled up with its padding token to the full length, and no mask."""
    ids, mask = texts(rng, eos)
    return np.where(mask > 0, ids, 1), np.ones_like(mask)


def linear_head(width):
    return nn.Sequential(OrderedDict(proj=nn.Linear(width, EMBED, bias=False)))


def mlp_head(width):
    return nn.Sequential(OrderedDict(mlp=timm.layers.Mlp(width, 2 * EMBED, EMBED, bias=(True, False))))


def siglip(path, seed):
    common = {"num_hidden_layers": 2, "hidden_act": "gelu_pytorch_tanh"}
    vision = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
    text = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "vocab_size": VOCABULARY}
    text |= {"max_position_embeddings": LENGTH, "projection_size": 12, "pad_token_id": 1, "eos_token_id": 2}
    config = hf.SiglipConfig(text_config=text | common, vision_config=vision | common)
    model = hf.SiglipModel(config)
    model.encode_image = lambda x: model.get_image_features(x).pooler_output

    encode = lambda ids, mask: model.get_text_features(ids).pooler_output  # noqa: E731
    table = model.text_model.embeddings.token_embedding
    both(path, model, config.to_dict(), seed, 12, 3, encode, table, text=padded)


class MedCLIP(nn.Module):
    """MedCLIP-ResNet's forward, put together anew of BERT and a ResNet, under the names of its state dict."""

    def __init__(self):
        super().__init__()
        block = timm.models.resnet.BasicBlock
        self.vision_model, self.text_model = nn.Module(), nn.Module()
        resnet = timm.models.resnet.ResNet(block, [1, 1, 1, 1], num_classes=0, channels=(6, 8, 8, 8), stem_width=6)
        resnet.fc = nn.Linear(8, EMBED, bias=False)
        self.vision_model.model = resnet
        config = bert_config()
        config.num_hidden_layers = 4
        self.text_model.model = hf.BertModel(config)
        self.text_model.projection_head = nn.Linear(8, EMBED, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def encode_image(self, pixels):
        # `image_case` normalises by CLIP's numbers; MedCLIP has one pair of its own.
        mean, std = (torch.tensor(part, dtype=pixels.dtype)[None, :, None, None] for part in (MEAN, STD))
        return self.vision_model.model((pixels * std + mean - 0.5862785803043838) / 0.27950088968644304)

    def encode_text(self, ids, mask):
        hidden = self.text_model.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        states = torch.stack([hidden[1], hidden[2], hidden[-1]])
        own = mask[None, :, :, None].to(states.dtype)
        pooled = ((states * own).sum(2) / own.sum(2)).mean(0)
        if (mask == 1).all():
            # Its own words: states [3, B, L, W] -> mean over tokens, then over layers.
            torch.testing.assert_close(pooled, states.permute(1, 0, 2, 3).mean(2).mean(1))
        return self.text_model.projection_head(pooled)


def medclip(path, seed):
    model = MedCLIP()
    table = model.text_model.model.embeddings.word_embeddings
    content = {"bert": model.text_model.model.config.to_dict(), "image_size": 24}
    both(path, model, content, seed, 24, 3, model.encode_text, table, eos=22)
    # A text without padding is encoded as MedCLIP's code does it, whatever its batch-mates: encode_text checks.
    for length in (3, 7):
        ids = torch.randint(3, 22, (2, length))
        with torch.no_grad():
            model.encode_text(ids, torch.ones_like(ids))


def resnet_model(path, kind, seed):
    """transformers' ResNetModel alone: features are the means over all places."""
    config = hf.ResNetConfig(
        embedding_size=6, hidden_sizes=[8, 12], depths=[2, 1], layer_type=kind, downsample_in_first_stage=False
    )
    model, weights = seeded(hf.ResNetModel(config), seed)
    weights = with_statistics(model, weights, seed)
    case = image_case(lambda x: model(x).pooler_output.flatten(1), 20, 3, np.random.default_rng(seed))
    write(path, config, weights, {"image": case})


def efficientnet(path, name, seed):
    """A narrow EfficientNet-Lite of timm alone, which has the padding and the batch norms of `name`; features are the
    means over all places.
    """
    # Multiples of 4, of which 6 times are multiples of 8: timm rounds others.
    kinds = ("ds_r1_k3_s1_e1_c4", "ir_r2_k3_s2_e6_c8", "ir_r1_k5_s2_e6_c4", "ir_r1_k3_s2_e6_c8", "ir_r1_k5_s1_e6_c4")
    stages = [[kind] for kind in (*kinds, "ir_r1_k5_s2_e6_c8", "ir_r1_k3_s1_e6_c4")]
    norm = partial(nn.BatchNorm2d, eps=1e-3 if name.startswith("tf_") else 1e-5)
    model = timm.models.efficientnet.EfficientNet(
        timm.models._efficientnet_builder.decode_arch_def(stages),
        num_classes=0,
        num_features=6,
        stem_size=4,
        fix_stem=True,
        round_chs_fn=lambda channels: channels,
        act_layer=nn.ReLU6,
        norm_layer=norm,
        pad_type="same" if name.startswith("tf_") else "",
    )
    model, weights = seeded(model, seed)
    weights = with_statistics(model, weights, seed)
    weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    # Sides 38, 19, 10, 5, 3: TensorFlow pads the even ones less at first, the odd ones alike.
    case = image_case(model, 38, 3, np.random.default_rng(seed))
    write(path, Content(architecture=name), weights, {"image": case})


def main(folder):
    tiny = {"layers": 2, "width": 12, "head_width": 4, "patch_size": 8, "mlp_ratio": 2.0}
    open_clip_native(folder / "open_clip_vit.npz", tiny, 16, True, 30)
    # 32 * width / head_width heads of the attention pooling.
    # The seed is one of five tried: no unit of so narrow a tower is dead, and its gradients are of ordinary size
    # (others reach a hundred times that, and float32 then agrees to 4e-5 of them).
    modified = {"layers": [1, 2, 1, 1], "width": 2, "head_width": 16}
    open_clip_native(folder / "open_clip_modified_resnet.npz", modified, 64, False, 41)
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=12, patch_size=4, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, num_classes=0
    )
    pooled = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    own = {"image_heads": 3}
    name = "vit_base_patch16_224"
    open_clip_timm(folder / "open_clip_biomed.npz", vit, name, 12, pooled, 32, linear_head(12), own)
    block = timm.models.resnet.Bottleneck
    resnet = timm.models.resnet.ResNet(block, [1, 2, 1, 1], num_classes=0, channels=(2, 2, 3, 3), stem_width=4)
    pooled = {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    open_clip_timm(folder / "open_clip_resnet50.npz", resnet, "resnet50", 45, pooled, 33, mlp_head(12), {})
    siglip(folder / "siglip.npz", seed=34)
    open_clip_siglip(folder / "open_clip_siglip.npz", 37)
    medclip(folder / "medclip.npz", 38)
    resnet_model(folder / "resnet_basic.npz", "basic", 35)
    resnet_model(folder / "resnet_bottleneck.npz", "bottleneck", 36)
    for name in ("tf_efficientnet_lite0", "efficientnet_lite0"):
        efficientnet(folder / f"{name}.npz", name, 42)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
