"""Hydra: a command line and the groups composed into typed settings, jobs run, targets called."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import hydra.errors
import hydra.utils
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict

from medexp.config.groups import composed_groups, conf_dir, option_after
from medexp.config.line import Line
from medexp.config.refusals import explained
from medexp.config.settings import FACTS, EvalSettings, Settings
from medexp.config.targets import check_node
from medexp.config.tree import build, plain, schema_of


def folder_of(names: Mapping[str, str], *previews: bool) -> str:
    """Where a command writes below: a run, or pictures of what one would do (train.yaml)."""
    return "outputs/preview" if any(previews) else f"outputs/{names['dataset']}-{names['model']}"


OmegaConf.register_new_resolver("folder_of", folder_of, replace=True)
ConfigStore.instance().store(name="schema", node=schema_of(Settings))
ConfigStore.instance().store(name="eval_schema", node=schema_of(EvalSettings))


def compose(overrides: Sequence[str], arguments: Sequence[str] = ()) -> Settings:
    """The settings of `medexp train OVERRIDES`, with --config-dir if `arguments` give it.

    Inside a job Hydra's own state, which is the job's, is as it was afterwards.
    """
    with (
        _kept_state(),
        explained(),
        hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"),
    ):
        words = [*overrides, *_search_path(arguments)]
        config = hydra.compose("train", words, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return settings_of(config)


@contextmanager
def _kept_state() -> Iterator[None]:
    hydra_of_job, config_of_job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = hydra_of_job
        HydraConfig.instance().cfg = config_of_job


def compose_node(group: str, option: str, arguments: Sequence[str] = ()) -> Any:
    """The resolved node of one option of a group, without the rest of a config.

    For options that refer to no other group; faster than `compose`.
    """
    GlobalHydra.instance().clear()
    # A data set's YAML overrides other groups, which must stand before it.
    others: list[Any] = [{other: None} for other in composed_groups() if other != group]
    node = {"defaults": [*others, {group: option}, "_self_"]}
    ConfigStore.instance().store(name="of_group", node=node)
    with explained(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("of_group", _search_path(arguments))
        return OmegaConf.to_container(config[group], resolve=True, throw_on_missing=True)


def sweeper_of(line: Line) -> str:
    """The dotted path of what makes the jobs of a command line with -m."""
    choices = [o.input_line for o in line.overrides if o.key_or_group in ("tune", "hydra/sweeper")]
    GlobalHydra.instance().clear()
    with explained(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [*map(str, choices), *_search_path(line.words)]
        config = hydra.compose("train", words, return_hydra_config=True)
        return str(config.hydra.sweeper._target_)


def _search_path(arguments: Sequence[str]) -> list[str]:
    folder = option_after(arguments, "--config-dir")
    return [f"hydra.searchpath=[file://{Path(folder).resolve()}]"] if folder else []


def settings_of(config: Any) -> Settings:
    """The typed settings of what Hydra composed, interpolations resolved.

    Raises ConfigError for a key that is none, a value of another type or out of its range.
    """
    with explained():
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    values = {str(key): value for key, value in content.items()}
    return build(EvalSettings if "run" in values else Settings, values)


def to_yaml(settings: Any) -> str:
    """Settings, or plain data, as the YAML that config.yaml holds."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(settings)))


def instantiate(key: str, node: Mapping[str, Any], **supplied: Any) -> Any:
    """Call the `_target_` of a group's node after its keys are held against the signature.

    `supplied` are offered: those that the target does not take are left out.
    """
    accepted = check_node(key, node, supplied)
    arguments = {name: value for name, value in node.items() if name not in FACTS.get(key, ())}
    try:
        return hydra.utils.instantiate(arguments, **accepted, _convert_="all")
    except hydra.errors.InstantiationException as error:
        # Hydra's own text names the target and hides what the target said.
        raise (error.__cause__ or error) from None


class SweepFolder(Callback):
    """Notes where a sweep writes, whichever launcher runs its jobs."""

    path: Path | None = None

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        SweepFolder.path = Path(config.hydra.sweep.dir)


def hydra_main(primary: str, task: Callable[[Any], Any], words: list[str]) -> Path | None:
    """Run a Hydra application on a command line; returns the folder of a sweep, None of a run."""
    SweepFolder.path = None
    sys.argv = ["medexp", *words]
    with explained():
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=primary)(task)()
    return SweepFolder.path


def output_dir() -> Path:
    """Inside a task: the directory that Hydra made for it, relative where it lies below here."""
    path = Path(HydraConfig.get().runtime.output_dir)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
