# ruff: noqa: E402
"""TextAttack's gradient-guided substitution on CLIP's text tower, for `experiments.benchmarks.attacks`.

TextAttack attacks strings and knows classifiers, so it is given both: every token of the vocabulary is a made-up word
of letters, and a goal function raises minus the cosine to a target. Search, transformation, constraints and goal
function are TextAttack's own (`GreedySearch`, `WordSwapGradientBased`, `RepeatModification`, `MaxNumWordsModified`);
only its list of model classes for which gradients are allowed is set aside. Rows of the gradient are handed over
without the begin token, because TextAttack indexes them by word.
"""

import os
import tempfile
from pathlib import Path

# TextAttack reads NLTK's stop words when it is imported; none of them is used here.
_WORDS = Path(tempfile.mkdtemp()) / "corpora" / "stopwords"
_WORDS.mkdir(parents=True)
(_WORDS / "english").write_text("the\n")
os.environ["NLTK_DATA"] = str(_WORDS.parents[1])
os.environ["TA_CACHE_DIR"] = str(_WORDS.parents[1] / "cache")

# ruff: noqa: E402 - what is above must be there before these are imported
import nltk

nltk.download = lambda *_, **__: False  # it asks for tagger models that nothing here uses

import numpy as np
import textattack
import torch
from textattack.constraints.pre_transformation import MaxNumWordsModified, RepeatModification
from textattack.goal_functions import GoalFunction
from textattack.search_methods import GreedySearch
from textattack.transformations import WordSwapGradientBased
from textattack.transformations.word_swaps import word_swap_gradient_based

SPECIAL = 3  # ids below are padding, end and begin


def word_of(token):
    """A word of letters for a token; special tokens give a word without letters, which TextAttack does not propose."""
    if token < SPECIAL:
        return str(token)
    letters = ""
    for _ in range(3):
        token, rest = divmod(token, 26)
        letters = chr(ord("a") + rest) + letters
    return "w" + letters


class Words:
    """The tokenizer that TextAttack asks for."""

    pad_token_id = 0

    def __init__(self, number):
        self.ids = {word_of(token): token for token in range(number)}

    def convert_id_to_word(self, token):
        return word_of(token)

    def __call__(self, texts):
        rows = [[2, *(self.ids[word] for word in text.split()), 1] for text in texts]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, ids in zip(tokens, rows):
            row[: len(ids)] = torch.tensor(ids)
        return tokens


class Module(torch.nn.Module):
    def __init__(self, text):
        super().__init__()
        self.text = [text]

    def get_input_embeddings(self):
        return self.text[0].clip.text_model.embeddings.token_embedding


class Wrapper(textattack.models.wrappers.ModelWrapper):
    """Texts to minus the cosine to `target` f32[D], and its gradient."""

    def __init__(self, text):
        self.text, self.tokenizer, self.model = text, Words(text.table.shape[0]), Module(text)
        self.target = None

    def __call__(self, texts, **_):
        with torch.no_grad():
            return -(self.text.embed(self.tokenizer(texts)) @ self.target)

    def get_grad(self, text):
        tokens = self.tokenizer([text])
        embeddings = self.text.table[tokens].requires_grad_(True)
        loss = -(self.text.embed(tokens, embeddings) @ self.target).sum()
        (gradient,) = torch.autograd.grad(loss, embeddings)
        return {"ids": tokens[0, 1:].tolist(), "gradient": gradient[0, 1:].numpy()}


class Away(GoalFunction):
    """Raises what the wrapper gives, never satisfied."""

    def _is_goal_complete(self, model_output, attacked_text):
        return False

    def _get_score(self, model_output, attacked_text):
        return float(model_output)

    def _get_displayed_output(self, raw_output):
        return float(raw_output)

    def _goal_function_result_type(self):
        return textattack.goal_function_results.TextToTextGoalFunctionResult

    def _process_model_outputs(self, inputs, outputs):
        return outputs


def substitution(text, tokens, free, target, words, top_k):
    """A function of no arguments that attacks every row and gives the mean loss."""
    word_swap_gradient_based.validate_model_gradient_word_swap_compatibility = lambda model: None
    wrapper = Wrapper(text)
    goal = Away(wrapper, maximizable=True, use_cache=False, model_batch_size=top_k)
    constraints = [RepeatModification(), MaxNumWordsModified(words)]
    swap = WordSwapGradientBased(wrapper, top_n=top_k)
    attack = textattack.Attack(goal, constraints, swap, GreedySearch(), transformation_cache_size=1)
    texts = [" ".join(word_of(int(token)) for token in row[keep]) for row, keep in zip(tokens, free)]

    def run():
        found = []
        for line, aim in zip(texts, target):
            wrapper.target = aim
            attack.clear_cache()
            found.append(attack.attack(line, 0).perturbed_result.score)
        return float(np.mean(found))

    return run
