"""The config that a run left: of today's version, of an older one, of none."""

import pytest
import yaml

from medexp.config.compose import compose
from medexp.config.groups import conf_dir
from medexp.config.saved import MOVED, OPTIONS, of_today, read_config, saved_config
from medexp.config.settings import Settings
from medexp.config.targets import locate
from medexp.config.tree import build, plain
from medexp.errors import ConfigError, MedexpError


def older(node):
    """A node as an older version wrote it."""
    was = {new: old for old, new in MOVED.items()}
    if isinstance(node, dict):
        made = {key: older(value) for key, value in node.items()}
        if isinstance(target := made.get("_target_"), str):
            module, _, name = target.rpartition(".")
            made["_target_"] = f"{was.get(module, module)}.{name}"
        return made
    return [older(one) for one in node] if isinstance(node, list) else node


@pytest.mark.parametrize("recipe", ["two_stage", "cervixnet2", "allnet", "ucf50"])
def test_a_run_of_an_older_version_reads_as_todays(recipe):
    settings = compose([f"recipe={recipe}"])
    before = older(plain(settings))
    assert before != plain(settings)
    assert build(Settings, of_today(before)) == settings


def test_a_network_that_became_data_is_found_by_its_option():
    settings = plain(compose(["model=ldct_m4", "model.dense_units=7"]))
    before = settings | {"model": dict(settings["model"])}
    before["model"]["_target_"] = "medexp.models.ldct.LdctM4"
    for key in ("blocks", "head"):
        del before["model"][key]
    assert of_today(before) == settings


@pytest.mark.parametrize(
    ("old", "new"), [("load_folder", "image_folder"), ("load_table", "csv_table")]
)
def test_the_readers_of_photographs_are_found_in_their_own_files(old, new):
    made = of_today({"dataset": {"_target_": f"medexp.data.folders.{old}"}})
    assert made == {"dataset": {"_target_": f"medexp.data.read.{new}.load"}}
    assert callable(locate(made["dataset"]["_target_"], "dataset._target_"))


def test_every_place_that_is_named_is_there():
    assert all((conf_dir() / f"{option}.yaml").is_file() for option in OPTIONS.values())
    for module in MOVED.values():
        with pytest.raises(ConfigError, match="has no 'nothing'"):
            locate(f"{module}.nothing", "_target_")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="run=.*: no config.yaml there, so it is not a run"):
        saved_config("run", str(tmp_path))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": 1}))
    with pytest.raises(MedexpError, match="config.yaml: is not the config of a run"):
        read_config(tmp_path)
