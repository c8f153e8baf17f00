"""Keys of the text: tokenizer and length."""

from dataclasses import dataclass

from ranjax.core.checks import at_least
from ranjax.core.settings import keys_of, setting


@dataclass(frozen=True)
class Text:
    """Settings of reports and their tokenizer."""

    tokenizer: str = setting(
        "",
        "tokenizer.json or its folder; empty: that of model.weights or model.text_weights, or else the reports' words.",
        "path",
    )
    corpus: str = setting(
        "",
        "Further reports for the vocabulary and the masked LM of noise.masked_lm: a .txt (one a line), or a "
        "torchxrayvision wheel or NLMCXR_reports.tgz (real reports of Indiana University); empty: none.",
        "path",
    )
    max_length: int = setting(60, "Tokens a report is cut or padded to; the end token is kept.", "tokens", at_least(8))
    max_vocabulary: int = setting(2048, "Words kept when the tokenizer is built here.", "words", at_least(32))


KEYS = keys_of("text", Text)
