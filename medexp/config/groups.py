"""The Hydra groups and their options, as files: needs no Hydra, so that help is quick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def conf_dir() -> Path:
    """The Hydra groups: inside the installed package, else those of the checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def groups() -> list[str]:
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def train_yaml() -> dict[str, Any]:
    """The content of conf/train.yaml, before Hydra makes anything of it."""
    return dict(yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8")))


def composed_groups() -> list[str]:
    """The groups of which every run has an option, in the order of train.yaml: dataset is last."""
    defaults = [one for one in train_yaml()["defaults"] if isinstance(one, dict)]
    chosen = {group: option for one in defaults for group, option in one.items()}
    return [group for group, option in chosen.items() if option and " " not in group]


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
