"""The torch contestants of `experiments.benchmarks.attacks`, run by an interpreter of their own, without ranjax.

Parameters are frozen and gradients taken by autograd.grad, which is the fastest plain form.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import platforms
import torch
import torch.nn.functional as F
from peak import peak_mb
from transformers import CLIPModel


class Classifier(torch.nn.Module):
    """Images in [0, 1] to logits over the batch's captions; normalisation inside, as every library here expects."""

    def __init__(self, clip, captions):
        super().__init__()
        self.clip, self.captions, self.scale = clip, captions, clip.logit_scale.exp().detach().clamp(max=100)
        for name, values in (
            ("mean", (0.48145466, 0.4578275, 0.40821073)),
            ("std", (0.26862954, 0.26130258, 0.27577711)),
        ):
            self.register_buffer(name, torch.tensor(values)[None, :, None, None])

    def embed(self, images):
        found = self.clip.get_image_features(pixel_values=(images - self.mean) / self.std)
        return F.normalize(getattr(found, "pooler_output", found), dim=-1)

    def forward(self, images):
        return self.scale * self.embed(images) @ self.captions.T


def pgd(loss_fn, images, epsilon, step, steps):
    """Plain PGD that keeps the best iterate of every row."""
    x = (images + torch.empty_like(images).uniform_(-epsilon, epsilon)).clamp(0, 1)
    best, best_loss = x, torch.full((len(images),), -torch.inf)
    for number in range(steps + 1):
        x = x.detach().requires_grad_(number < steps)
        with torch.set_grad_enabled(number < steps):
            loss = loss_fn(x)
        better = loss.detach() > best_loss
        best = torch.where(better[:, None, None, None], x.detach(), best)
        best_loss = torch.where(better, loss.detach(), best_loss)
        if number < steps:
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            x = torch.maximum(torch.minimum(x + step * gradient.sign(), images + epsilon), images - epsilon).clamp(0, 1)
    return best, best_loss


class Text:
    """CLIP's text tower from embeddings, so that a gradient by them can be taken."""

    def __init__(self, clip):
        self.clip, self.table = clip, clip.text_model.embeddings.token_embedding.weight.detach()

    def embed(self, tokens, embeddings=None):
        """Unit embeddings f32[N, D] of tokens i64[N, L]."""
        inner = self.clip.text_model
        if embeddings is None:
            found = self.clip.get_text_features(input_ids=tokens)
            return F.normalize(getattr(found, "pooler_output", found), dim=-1)
        original = inner.embeddings.token_embedding.forward
        inner.embeddings.token_embedding.forward = lambda ids: embeddings
        try:
            found = self.clip.get_text_features(input_ids=tokens)
        finally:
            inner.embeddings.token_embedding.forward = original
        return F.normalize(getattr(found, "pooler_output", found), dim=-1)

    def substitute(self, tokens, free, target, words, top_k):
        """Greedy gradient-guided substitution, all rows and candidates in one batch; the loss is minus the cosine."""
        rows, length = tokens.shape
        used = torch.zeros_like(free)
        with torch.no_grad():
            best = -(self.embed(tokens) * target).sum(-1)
        number = self.table.shape[0]
        for _ in range(words):
            embeddings = self.table[tokens].requires_grad_(True)
            loss = -(self.embed(tokens, embeddings) * target).sum()
            (gradient,) = torch.autograd.grad(loss, embeddings)
            gain = gradient @ self.table.T - (gradient * self.table[tokens]).sum(-1, keepdim=True)
            gain[~(free & ~used)] = -torch.inf
            gain[:, :, :3] = -torch.inf
            gain.scatter_(2, tokens[..., None], -torch.inf)
            where = gain.reshape(rows, -1).topk(top_k).indices
            slot, choice = where // number, where % number
            tried = tokens[:, None].repeat(1, top_k, 1)
            tried.scatter_(2, slot[..., None], choice[..., None])
            with torch.no_grad():
                features = self.embed(tried.reshape(-1, length)).reshape(rows, top_k, -1)
            losses = -(features * target[:, None]).sum(-1)
            found, index = losses.max(1)
            take = found > best
            picked = torch.arange(rows)
            tokens = torch.where(take[:, None], tried[picked, index], tokens)
            used[picked[take], slot[picked, index][take]] = True
            best = torch.where(take, found, best)
        return tokens, best


def scaled(images, scales, noise):
    """The copies of SGA: noise, resize, clip, resize back; scale 1 as it is."""
    size = images.shape[-1]
    found = []
    for factor in sorted(scales, key=lambda s: s != 1):
        if factor == 1:
            found.append(images)
            continue
        moved = images + noise * torch.randn_like(images)
        small = F.interpolate(moved, size=(int(factor * size),) * 2, mode="bicubic", align_corners=False).clamp(0, 1)
        found.append(F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False))
    return torch.cat(found)


def build(folder, workload, name):
    settings = json.loads((folder / "inputs.json").read_text())
    given = np.load(folder / "inputs.npz")
    device = platforms.torch_device()
    torch.set_default_device(device)  # what is made below is made there
    clip = CLIPModel.from_pretrained(folder).eval().requires_grad_(False).to(device)
    images = torch.tensor(given["images"]).permute(0, 3, 1, 2).contiguous()
    tokens, mask = torch.tensor(given["tokens"]).long(), torch.tensor(given["mask"])
    text = Text(clip)
    with torch.no_grad():
        captions = text.embed(tokens)
    model, labels = Classifier(clip, captions), torch.arange(len(images))
    epsilon, step, steps = settings["epsilon"], settings["step"], settings["steps"]

    def reached(attacked):
        with torch.no_grad():
            return float(F.cross_entropy(model(attacked), labels))

    if workload.startswith(("text", "sga")):
        free = mask & (tokens > 2)
        if workload.startswith("text"):
            with torch.no_grad():
                target = model.embed(images)
            if name == "textattack":
                import attacks_textattack

                return attacks_textattack.substitution(text, tokens, free, target, settings["words"], settings["top_k"])
            return lambda: float(text.substitute(tokens, free, target, settings["words"], settings["top_k"])[1].mean())

        def sga():
            with torch.no_grad():
                target = model.embed(images)
            first, _ = text.substitute(tokens, free, target, settings["words"], settings["top_k"])
            with torch.no_grad():
                hurt = text.embed(first)

            def loss(x):
                copies = scaled(x, settings["scales"], settings["noise"])
                return (
                    -(model.embed(copies) * hurt.repeat(len(settings["scales"]), 1))
                    .sum(-1)
                    .reshape(len(settings["scales"]), -1)
                    .sum(0)
                )

            attacked, _ = pgd(loss, images, epsilon, step, steps)
            with torch.no_grad():
                target = model.embed(attacked)
            return float(text.substitute(tokens, free, target, settings["words"], settings["top_k"])[1].mean())

        return sga
    if name == "torch":

        def plain():
            def loss(x):
                return F.cross_entropy(model(x), labels, reduction="none")

            return float(pgd(loss, images, epsilon, step, steps)[1].mean())

        return plain
    if name == "torchattacks":
        import torchattacks

        attack = torchattacks.PGD(model, eps=epsilon, alpha=step, steps=steps, random_start=True)
        return lambda: reached(attack(images, labels))
    if name == "foolbox":
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=True)
        return lambda: reached(attack.run(wrapped, images, labels, epsilon=epsilon))
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), tuple(images.shape[1:]), len(images), clip_values=(0, 1)
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=epsilon, eps_step=step, max_iter=steps, num_random_init=1, batch_size=len(images), verbose=False
    )
    return lambda: reached(torch.tensor(attack.generate(images.cpu().numpy(), labels.cpu().numpy())))


def main():
    folder, workload, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    run = None
    for line in sys.stdin:
        if line.strip() == "end":
            break
        if run is None:
            try:
                run = build(folder, workload, name)
            except ImportError as error:
                print(json.dumps({"absent": str(error)}), flush=True)
                continue
        began, cpu = time.perf_counter(), time.process_time()
        loss = run()
        platforms.wait(platforms.torch_device())
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = platforms.torch_peak_mb(peak_mb)
        print(json.dumps({"seconds": seconds, "cpu": cpu, "loss": loss, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
