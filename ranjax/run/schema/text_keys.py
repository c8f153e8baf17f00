"""Keys of the text: tokenizer and length."""

from ranjax.core.checks import Key, at_least

KEYS = (
    Key(
        "text.tokenizer",
        "",
        "tokenizer.json or its folder; empty: that of model.weights or model.text_weights, or else the reports' words.",
        "path",
    ),
    Key(
        "text.corpus",
        "",
        "Further reports for the vocabulary and the masked LM of noise.masked_lm: a .txt (one a line), or a "
        "torchxrayvision wheel or NLMCXR_reports.tgz (real reports of Indiana University); empty: none.",
        "path",
    ),
    Key("text.max_length", 60, "Tokens a report is cut or padded to; the end token is kept.", "tokens", at_least(8)),
    Key("text.max_vocabulary", 2048, "Words kept when the tokenizer is built here.", "words", at_least(32)),
)
