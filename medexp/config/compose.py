"""The package's only module that sees Hydra or OmegaConf: all others get plain dicts and arguments.

The sweepers beside the package (hydra_plugins) see them too: Hydra takes sweepers from there only.
"""

import glob
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import hydra.errors
import hydra.utils
import omegaconf.errors as refusals
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict

from medexp.config.settings import FACTS, Config, EvalConfig
from medexp.config.targets import check_node, check_schema
from medexp.errors import ConfigError, MedexpError, nearest
from medexp.runs.files import read_json

ConfigStore.instance().store(name="schema", node=Config)
ConfigStore.instance().store(name="eval_schema", node=EvalConfig)


# ---------------------------------------------------------------- groups and the command line


def conf_dir() -> Path:
    """The Hydra groups: inside the installed package, else those of the checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def groups() -> list[str]:
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def options(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """The options of a group: YAML files of the package and of --config-dir."""
    folders = [conf_dir()]
    if extra := option_after(arguments, "--config-dir"):
        folders.append(Path(extra))
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def header(group: str, option: str, arguments: Sequence[str] = ()) -> str | None:
    """The first line of an option's YAML where it is a comment: what the option is."""
    folders = [Path(option_after(arguments, "--config-dir") or conf_dir()), conf_dir()]
    for folder in folders:
        if (file := folder / group / f"{option}.yaml").is_file():
            first = file.read_text(encoding="utf-8").partition("\n")[0]
            return first.removeprefix("#").strip() if first.startswith("#") else None
    return None


def option_after(arguments: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`."""
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


def override_of(arguments: Sequence[str], key: str) -> str | None:
    """The value that the command line gives to a key, if it does."""
    given = [a.split("=", 1)[1] for a in arguments if a.startswith(key + "=")]
    return given[-1].strip("'\"") if given else None


def folders_of(value: str) -> list[str]:
    """The run directories that `run=` names: DIR, or for an ensemble A,B,C or [A,B,C]."""
    if value and Path(value).is_dir():  # its name may hold a comma
        return [value]
    parts = (part.strip(" '\"") for part in value.removeprefix("[").removesuffix("]").split(","))
    return [part for part in parts if part]


def complete_folders(word: str) -> list[str]:
    """Completions of run=outputs/pc, or of the last folder of run=A,B: a run, or a folder on."""
    start = max(map(word.rfind, "=[,")) + 1
    before, typed = word[:start], word[start:]
    folders = sorted(glob.glob(glob.escape(typed) + "*/"))
    return [
        before + (folder.rstrip("/") if (Path(folder) / "config.yaml").is_file() else folder)
        for folder in folders
    ]


def of_ensemble(folders: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """A command line with run=A,B,C spelled as Hydra takes it: run=A ensemble=[A,B,C].

    Unquoted, Hydra takes A,B,C for a sweep, and [A,B,C] for a list that the key `run` is not.
    """
    if own := [a for a in arguments if re.match(r"[+~]*model[=.]", a)]:
        raise ConfigError(f"{own[0]}: the runs of an ensemble bring their networks. Leave it out")
    quoted = [json.dumps(folder, ensure_ascii=False) for folder in folders]
    rest = [a for a in arguments if not a.startswith("run=")]
    return [*rest, f"run={quoted[0]}", f"ensemble=[{','.join(quoted)}]"]


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """The same command line with its overrides together: Hydra's parser takes one run of them."""
    overrides = [a for a in arguments if re.match(r"~|[+]{0,2}[\w./@:]+=", a)]
    return overrides + [a for a in arguments if a not in overrides]


def config_dir_of_run(folder: str) -> str | None:
    """The --config-dir that a run was started with, if it is still there."""
    path = Path(folder) / "provenance.json"
    given = read_json(path).get("config_dir") if path.is_file() else None
    return given if given and Path(given).is_dir() else None


def add_config_dir(folder: str) -> None:
    """Make the modules beside a user's groups importable, in the processes of a launcher too."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder")
    sys.path.insert(0, str(path))
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MEDEXP_CONFIG_DIR"] = str(path)


# ---------------------------------------------------------------- errors


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Hydra and OmegaConf refuse into one ConfigError with key, value and remedy."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a text of its own and exits with 1
    try:
        yield
    except (hydra.errors.HydraException, refusals.OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def explain(error: Exception) -> str:
    """The one thing to say about a composition that failed: key, value, nearest valid name."""
    text = str(error).splitlines()
    if isinstance(error, hydra.errors.MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if group and error.options:
            return f"{group}={option}: no such option. {nearest(option, error.options)}"
        return f"{error.missing_cfg_file}: no such config. {nearest(group or option, groups())}"
    if isinstance(error, hydra.errors.OverrideParseException):
        return (
            f"{error.override}: cannot be parsed ({text[0]}). Quote values with brackets or commas"
        )
    if "No match in the defaults list" in str(error):
        key = text[0].split("'")[1]
        return f"{key}: no such group. {nearest(key, groups())}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, refusals.OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, refusals.OmegaConfBaseException):
        key = str(cause.full_key or cause.key)
        unknown = (refusals.ConfigKeyError, refusals.ConfigAttributeError)
        if isinstance(cause, unknown) and cause.parent_node is not None:
            siblings: Any = cause.parent_node
            valid = [str(name) for name in siblings if name != "hydra"]
            for name in valid.copy():
                inner = OmegaConf.select(siblings, name)
                if OmegaConf.is_dict(inner) and str(cause.key) in inner:
                    return f"{key}: no such key. Did you mean '{name}.{cause.key}'?"
            where = f" ({text[0].split(':')[0]})" if text[0].startswith("In '") else ""
            return f"{key}: no such key{where}. {nearest(str(cause.key), valid)}"
        if isinstance(cause, refusals.MissingMandatoryValue):
            return f"{key}: missing. Give it as {key}=VALUE"
        return f"{key}: {str(cause).splitlines()[0]}"
    return " ".join(line.strip() for line in text[:2])


# ---------------------------------------------------------------- composition


def compose(overrides: Sequence[str], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved config of `medexp train OVERRIDES`, with --config-dir if `arguments` give it."""
    GlobalHydra.instance().clear()
    overrides = list(overrides)
    if folder := option_after(arguments, "--config-dir"):
        overrides.append(f"hydra.searchpath=[file://{Path(folder).resolve()}]")
    with explained(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("train", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return resolved(config)


def compose_node(group: str, option: str, arguments: Sequence[str] = ()) -> Any:
    """The resolved node of one option of a group, without the rest of a config.

    For options that refer to no other group; faster than `compose`.
    """
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="of_group", node={"defaults": [{group: option}, "_self_"]})
    overrides = []
    if folder := option_after(arguments, "--config-dir"):
        overrides.append(f"hydra.searchpath=[file://{Path(folder).resolve()}]")
    with explained(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("of_group", overrides)
        return OmegaConf.to_container(config[group], resolve=True, throw_on_missing=True)


def resolved(config: Any) -> dict[str, Any]:
    """A composed config as plain data, interpolations resolved."""
    with explained():
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    settings = {str(key): value for key, value in content.items()}
    check_schema(settings, EvalConfig if "run" in settings else Config)
    return settings


def to_yaml(settings: Mapping[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(dict(settings)))


def primary_of_run(key: str, folder: str, arguments: list[str], hydra_node: dict[str, Any]) -> str:
    """Register the config of a run as a primary config, and return its name.

    key: `resume` or `run`, which names the folder on the command line. Groups that the command
    line swaps come from conf/, everything else is as the run had it. `hydra_node` is laid over
    train.yaml's own.
    """
    saved = saved_config(key, folder)
    settings = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))["hydra"]
    swapped = [group for group in groups() if override_of(arguments, group) is not None]
    if "dataset" in swapped and "paper" not in swapped:
        swapped.append("paper")
    defaults: list[Any] = ["eval_schema" if key == "run" else "schema"]
    for group in swapped:
        saved.pop(group, None)
        if group in saved["names"]:
            saved["names"][group] = f"${{hydra:runtime.choices.{group}}}"
        if group == "paper" and override_of(arguments, group) is None:
            defaults.append({"optional paper": "${dataset}"})
        else:
            # Of a sweep the first; each job then brings its own.
            defaults.append({group: str(override_of(arguments, group)).split(",")[0]})
    node = {
        "defaults": [*defaults, "_self_"],
        **saved,
        key: folder,
        "hydra": {**settings, **hydra_node},
    }
    name = f"of_{key}"
    ConfigStore.instance().store(name=name, node=node)
    return name


def primary_of_eval(arguments: list[str]) -> str:
    """Register what completion behind `medexp eval` looks up, and return its name.

    That is the config of the run where one is named, else the one of `medexp train`.
    """
    folders = folders_of(override_of(arguments, "run") or "")
    if folders and (Path(folders[0]) / "config.yaml").is_file():
        return primary_of_run("run", folders[0], arguments, {})
    node = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))
    node["defaults"] = ["eval_schema" if d == "schema" else d for d in node["defaults"]]
    ConfigStore.instance().store(name="of_eval", node=node)
    return "of_eval"


def saved_config(key: str, folder: str) -> dict[str, Any]:
    """The resolved config that a run left; ConfigError where the folder is no run."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{key}={folder}: no config.yaml there, so it is not a run directory. Give the folder "
            "that `medexp train` named at its end"
        )
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "names" not in content:
        raise MedexpError(f"{path}: is not the config of a run (it has no 'names')")
    return content


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


# ---------------------------------------------------------------- Hydra's application


class SweepFolder(Callback):
    """Notes where a sweep writes, whichever launcher runs its jobs."""

    path: Path | None = None

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        SweepFolder.path = Path(config.hydra.sweep.dir)


def hydra_main(primary: str, task: Callable[[Any], Any], arguments: list[str]) -> Path | None:
    """Run a Hydra application on a command line; returns the folder of a sweep, None of a run."""
    SweepFolder.path = None
    sys.argv = ["medexp", *overrides_first(arguments)]
    with explained():
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=primary)(task)()
    return SweepFolder.path


def output_dir() -> Path:
    """Inside a task: the directory that Hydra made for it, relative where it lies below here."""
    path = Path(HydraConfig.get().runtime.output_dir)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
