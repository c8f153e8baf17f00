"""Abbreviations of the page, each spelled out where it is first read."""

from __future__ import annotations

import re

ABBREVIATIONS = {
    "RAN": "rectify adversarial noise",
    "LP": "linear probe",
    "MLP": "multi-layer perceptron",
    "NMTune": "noisy-model tuning",
    "LoRA": "low-rank adaptation",
    "FFT": "full fine-tuning",
    "AT": "adversarial training",
    "TeCoA": "text-guided contrastive adversarial training",
    "FARE": "fine-tuning for adversarially robust embeddings",
    "PMG-AFT": "pre-trained model guided adversarial fine-tuning",
    "TTC": "test-time counterattacks",
    "DBD": "directional bias-guided defence",
    "R-TPT": "robust test-time prompt tuning",
    "TTP": "test-time padding",
    "PGD": "projected gradient descent",
    "APGD": "automatic projected gradient descent",
    "DLR": "difference of logits ratio",
    "FGSM": "fast gradient sign method",
    "SGA": "set-level guidance attack",
    "Co-Attack": "collaborative attack on image and report",
    "AUROC": "area under the receiver operating characteristic",
    "R@k": "recall at k: the share of queries whose partner is among the k nearest",
    "R@1": "recall at 1: the share of queries whose partner is the nearest",
    "Holm": "Holm's step-down correction for the number of tests",
    "ECE": "expected calibration error",
    "mCE": "mean corruption error",
    "SVE": "singular value entropy",
    "LSVR": "largest singular value ratio",
    "CT": "computed tomography",
    "CSV": "comma-separated values",
    "MSE": "mean squared error",
    "KL": "Kullback-Leibler divergence",
    "SVD": "singular value decomposition",
}
"""Abbreviations that the page's own words, labels and headings use."""

_UNREAD = ("style", "title", "svg", "code", "pre")
_TAG = re.compile(r"(<[^>]+>)")
_FIRST = re.compile(rf"(?<![\w@/-])(?:{'|'.join(map(re.escape, ABBREVIATIONS))})(?![\w@]|-\w)")


def spelled_out(html: str) -> str:
    """Return a page with the words of each abbreviation in brackets behind its first use in the text.

    Args:
      html: a whole document whose attributes hold no ">". Code, plots and style sheets stay as they are.
    """
    met: set[str] = set()
    closed: list[str] = []

    def first(match: re.Match[str]) -> str:
        found = match.group()
        if found in met:
            return found
        met.add(found)
        return f"<abbr>{found}</abbr> ({ABBREVIATIONS[found]})"

    pieces = _TAG.split(html)
    for index, piece in enumerate(pieces):
        if index % 2:
            name = re.match(r"</?([\w-]*)", piece)
            if name and name.group(1) in _UNREAD and not piece.endswith("/>"):
                closed = closed[:-1] if piece.startswith("</") else [*closed, name.group(1)]
        elif not closed:
            pieces[index] = _FIRST.sub(first, piece)
    return "".join(pieces)
