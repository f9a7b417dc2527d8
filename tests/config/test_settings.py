"""Typed settings: what composes comes back from YAML as the same object; ranges and types."""

import pytest
import yaml

from medexp.config.compose import compose, to_yaml
from medexp.config.groups import options
from medexp.config.settings import (
    EvalSettings,
    Settings,
    Stage,
    Trainer,
    decisive,
    last_phase,
)
from medexp.config.tree import build, leaves, plain
from medexp.errors import ConfigError


@pytest.fixture(scope="module")
def settings():
    return compose(["recipe=two_stage", "model.stages.head.l2=0.5", "trainer.clip_norm=2"])


def test_config_yaml_reads_back_into_the_same_object(settings):
    content = yaml.safe_load(to_yaml(settings))
    assert build(Settings, content) == settings
    assert plain(build(Settings, content)) == content


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_reads_back(recipe):
    words = ["init_from=x"] if recipe.startswith("tbt_pt") else []
    composed = compose([f"recipe={recipe}", *words])
    assert build(Settings, yaml.safe_load(to_yaml(composed))) == composed


def test_values_are_typed_at_the_door(settings):
    assert settings.trainer.clip_norm == 2.0 and isinstance(settings.trainer.clip_norm, float)
    assert settings.trainer.switch_to == ()
    assert settings.model.stages["head"] == Stage(l2=0.5)
    assert settings.model.target == "medexp.models.pcam.NativeCNN"
    assert not {"about", "stages", "weights"} & set(settings.model.arguments())
    assert settings.dataset.split.test_share == 0.2
    assert "split" not in settings.dataset.arguments()
    with pytest.raises(AttributeError):
        settings.seed = 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trainer.epochs=0", "trainer.epochs=0: must be 1 or more"),
        ("trainer.batch_size=-3", "trainer.batch_size=-3: must be 1 or more"),
        ("trainer.threads=0", "trainer.threads=0: must be 1 or more"),
        ("trainer.min_delta=-0.1", "trainer.min_delta=-0.1: must be 0 or more"),
        ("trainer.clip_norm=0", "trainer.clip_norm=0.0: must be above 0, or null for no limit"),
        ("trainer.clip_norm=nan", "trainer.clip_norm=nan: must be above 0, or null for no limit"),
        ("trainer.ema=1", "trainer.ema=1.0: must be 0 or more, and below 1"),
        ("trainer.ema=-0.5", "trainer.ema=-0.5: must be 0 or more, and below 1"),
        ("trainer.graphs=yes", "trainer.graphs=yes: no such choice. Valid: auto, off, on"),
        ("trainer.data=ram", "trainer.data=ram: no such choice."),
        ("trainer.cache_features=maybe", "trainer.cache_features=maybe: no such choice."),
        ("trainer.amp=f16", "trainer.amp=f16: no such choice. Did you mean 'fp16'?"),
        ("source.kind=disc", "source.kind=disc: no such choice. Did you mean 'disk'?"),
        ("dataset.on_error=ignore", "dataset.on_error=ignore: no such choice."),
        ("dataset.test_share=high", "dataset.test_share='high': must be float, not str"),
        ("+model.stages.head.l3=1", "model.stages.head.l3: no such key. Did you mean 'lr'?"),
        ("model.stages.head.l2=-1", "model.stages.head.l2=-1.0: must be 0 or more"),
        ("+second.trainer.epoch=1", "second.trainer.epoch: no such key. Did you mean 'epochs'?"),
        ("+second.model=3", "second.model=3: need keys and values of that group"),
        ("+second.names.model=x", "second.names: not of a phase."),
    ],
)
def test_what_cannot_be_is_refused_with_key_and_remedy(words, message):
    with pytest.raises(ConfigError) as error:
        last_phase(compose([words]))
    assert str(error.value).startswith(message)


def test_missing_and_misspelt_keys():
    with pytest.raises(ConfigError, match=r"trainer\.epoch: no such key\. Did you mean 'epochs'"):
        build(Trainer, {"epoch": 3}, "trainer.")
    with pytest.raises(ConfigError, match=r"names: missing\. Give it as names=VALUE"):
        build(EvalSettings, {})
    with pytest.raises(ConfigError, match="trainer.switch_to='head': must be a list of str"):
        build(Trainer, {"switch_to": "head"}, "trainer.")
    with pytest.raises(ConfigError, match="trainer=3: must be keys and values"):
        build(Settings, plain(compose([])) | {"trainer": 3})


def test_the_last_phase_lays_second_over_the_first(settings):
    last = last_phase(settings)
    assert last.trainer.epochs == settings.second["trainer"]["epochs"]
    assert last.model.stages == settings.model.stages
    swapped = compose(["+second.optimizer._target_=torch.optim.Adam", "+second.optimizer.lr=0.1"])
    assert dict(last_phase(swapped).optimizer) == {"_target_": "torch.optim.Adam", "lr": 0.1}


def test_what_decides_numbers_tells_two_runs_apart(settings):
    """Everything but a few keys that are named: precision among what does, threads not."""
    content = plain(settings)
    deciding = decisive(content)
    left_out = {key for key, _ in leaves(content)} - set(deciding)
    assert {key for key in left_out if not key.startswith("paper.")} == {
        *("resume", "debug", "dataset.root", "trainer.device", "trainer.threads", "trainer.data"),
        *("trainer.profile", "trainer.cache_features"),
        *("metrics", "observers"),  # of which there are none here
    }
    for key in ("trainer.amp", "trainer.epochs", "model.stages.head.l2", "second.trainer.epochs"):
        assert key in deciding


def test_every_field_has_help():
    for kind in (Trainer, Stage, EvalSettings):
        for name, item in kind.__dataclass_fields__.items():
            if item.metadata:
                assert item.metadata["help"], name
    assert all(item.metadata for item in Trainer.__dataclass_fields__.values())
