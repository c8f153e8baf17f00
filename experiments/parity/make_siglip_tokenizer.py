"""Writes a small SentencePiece model of SigLIP's kind and the tokens that transformers' SiglipTokenizer gives with it.

    python experiments/parity/make_siglip_tokenizer.py tests/models/references/siglip_tokenizer.npz

Needs sentencepiece 0.2.2 and transformers 5.23.0. The file holds spiece.model (as bytes), the sentences, and i64[S, 64]
of their tokens, filled up with the end token as SigLIP's are.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
from transformers import SiglipTokenizer

SENTENCES = (
    "No acute cardiopulmonary abnormality.",
    "There is a large LEFT pleural effusion, with adjacent atelectasis!",
    "Heart size is normal; mediastinal contours are unremarkable.",
    "A 3.5-mm nodule in the right upper lobe (unchanged since 2019).",
    "PA/lateral views:   lungs are clear.  No pneumothorax.",
    "Patchy opacities\nin both lower lobes - pneumonia vs. edema?",
    "Status post CABG; sternal wires & clips are intact.",
    "ET tube tip is 4 cm above the carina (good position).",
    'Chronic "coarse" interstitial markings, e.g. fibrosis.',
    "Osteopenia. Degenerative changes of the thoracic spine_",
    "[Cardiomegaly] with mild pulmonary vascular congestion...",
    "Fluid is seen in the left pleural space \u2014 na\u00efve reader, 50\u00a0% chance.",
)


def train(folder: Path, rule: Path | None = None) -> Path:
    """A unigram model laid out as SigLIP's: <pad> 0, </s> 1, <unk> 2, no begin token; normalised by `rule` or NFKC."""
    texts = folder / "texts.txt"
    texts.write_text("\n".join(text.lower().replace("\n", " ") for text in SENTENCES) + "\n", encoding="utf-8")
    how = {"normalization_rule_tsv": str(rule)} if rule else {"normalization_rule_name": "nmt_nfkc"}
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(folder / "spiece"),
        vocab_size=230,
        model_type="unigram",
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        **how,
        num_threads=1,
        minloglevel=2,
    )
    return folder / "spiece.model"


def tokens(model: Path) -> np.ndarray:
    """What transformers makes of the sentences, i64[S, 64]."""
    tokenizer = SiglipTokenizer(str(model))
    return np.asarray(tokenizer(list(SENTENCES), padding="max_length", truncation=True, max_length=64)["input_ids"])


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # A short rule keeps the file small: a no-break space is a space, a dash a hyphen.
        rule = folder / "rule.tsv"
        rule.write_text("A0\t20\n2014\t2D\n", encoding="utf-8")
        model = train(folder, rule)
        content = np.frombuffer(model.read_bytes(), np.uint8)
        np.savez_compressed(path, model=content, sentences=np.array(SENTENCES), tokens=tokens(model))
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
