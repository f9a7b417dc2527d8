"""What Hydra refuses, with its remedy."""

import pytest

from medexp.config.compose import compose
from medexp.errors import ConfigError


def option(folder, group, text):
    (folder / group).mkdir(parents=True)
    (folder / group / "mine.yaml").write_text(text)
    return [f"{group}=mine"], ["--config-dir", str(folder)]


@pytest.mark.parametrize("group", ["experiment", "recipe", "tune"])
def test_a_yaml_that_sets_other_groups_needs_its_first_line(tmp_path, group):
    words, where = option(tmp_path / "without", group, "# mine\ntrainer:\n  epochs: 7\n")
    with pytest.raises(ConfigError) as error:
        compose(words, where)
    text = str(error.value)
    assert text.startswith(f"{group}/mine.yaml: its keys were put below `{group}`")
    remedy = "# @package _global_"
    assert remedy in text.splitlines()
    words, where = option(tmp_path / "with", group, f"{remedy}\ntrainer:\n  epochs: 7\n")
    assert compose(words, where).trainer.epochs == 7


def test_a_misspelt_key_of_an_experiment_is_still_that(tmp_path):
    text = "# @package _global_\ntrainer:\n  epoch: 7\n"
    words, where = option(tmp_path, "experiment", text)
    with pytest.raises(ConfigError, match=r"trainer.epoch: no such key .*Did you mean 'epochs'\?"):
        compose(words, where)
