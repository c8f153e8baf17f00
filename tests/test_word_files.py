"""Files of the user that decide about words: refused where they are absent, told by their hashes."""

import pytest

from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run.stages import word_candidates as candidates
from ranjax.training.devices import make_mesh


def config_of(**noise_keys):
    config = configs.default_config()
    config.noise.update(noise_keys)
    configs.validate(config)
    return config


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"lists": ("negation=nowhere.txt",)}, "noise.lists"),
        ({"candidates": ("thesaurus",), "thesaurus": "nowhere.txt"}, "noise.thesaurus"),
        ({"candidates": ("masked_lm",), "masked_lm": "nowhere"}, "noise.masked_lm"),
    ],
)
def test_word_files_that_are_not_there_are_refused_before_anything_runs(keys, named, tmp_path):
    with pytest.raises(ConfigError) as error:
        pipeline.execute(
            config_of(**keys), tmp_path / "run", mesh=make_mesh(1), stop=lambda: False, say=lambda line: None
        )
    assert error.value.key == named
    assert "nowhere" in str(error.value)
    assert not (tmp_path / "run" / "prepare").exists()


def test_files_of_the_user_that_decide_about_words_are_told_by_their_hashes(tmp_path):
    words, sides = tmp_path / "synonyms.txt", tmp_path / "sides.txt"
    words.write_text("large, small\n")
    sides.write_text("left\n")
    lists = (f"laterality={sides}", "negation=off")
    noise = configs.typed(config_of(candidates=("thesaurus",), thesaurus=str(words), lists=lists)).noise
    assert candidates.files_of(noise) == {str(path): files.sha256(path) for path in (sides, words)}
    assert candidates.files_of(configs.typed(config_of(candidates=("thesaurus",))).noise) == {}  # bundled
