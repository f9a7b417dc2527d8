"""The config that a run left, as the start of a later command's."""

import glob
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from medexp.config.groups import composed_groups, conf_dir, groups, train_yaml
from medexp.config.line import Line, folders_of
from medexp.config.trust import check_saved
from medexp.errors import ConfigError, MedexpError
from medexp.runs.files import read_json
from medexp.runs.guard import read_yaml, refuse_ways_out

OF_RUN = "of_run"  # the option of a group that is the run's own, of which conf/ need have no YAML

# Where the targets of runs that an older version made are now.
MOVED = {
    **{f"medexp.{name}": f"medexp.train.{name}" for name in ("losses", "optimizers", "sampling")},
    "medexp.schedules": "medexp.train.schedules",
    "medexp.evaluate": "medexp.score.predict",
    "medexp.explain": "medexp.explain.explainers",
    "medexp.data.folders.load_folder": "medexp.data.read.image_folder.load",
    "medexp.data.folders.load_table": "medexp.data.read.csv_table.load",
    **{
        f"medexp.data.{name}": f"medexp.data.read.{name}"
        for name in ("all", "cervix", "ldct", "pcam", "tbt", "ucf50")
    },
}


def read_config(folder: Path) -> dict[str, Any]:
    """The plain config of a run, held against what one that is not the user's own may name.

    Raises MedexpError where its config.yaml is none, or the folder holds what leads out of it, and
    ConfigError for what it may not name (config/trust.py). Nothing that it names is imported.
    """
    path = folder / "config.yaml"
    refuse_ways_out(folder)
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("names"), dict):
        raise MedexpError(f"{path}: is not the config of a run (it has no 'names')")
    made = dict(of_today(content))
    check_saved(made, path, config_dir_of_run(folder))
    return made


# Targets that one target with more arguments has taken the place of: the option that says which.
OPTIONS = {f"medexp.models.ldct.LdctM{k}": f"model/ldct_m{k}" for k in (1, 2, 3, 4)}


def of_today(content: Any) -> Any:
    """The same data with the targets of an older version under their names of today."""
    if isinstance(content, Mapping):
        made = {key: of_today(value) for key, value in content.items()}
        if isinstance(target := made.get("_target_"), str):
            if target in OPTIONS:
                text = (conf_dir() / f"{OPTIONS[target]}.yaml").read_text(encoding="utf-8")
                option = yaml.safe_load(text)
                return {**option, **made, "_target_": option["_target_"]}
            module, _, name = target.rpartition(".")
            made["_target_"] = MOVED.get(target) or f"{MOVED.get(module, module)}.{name}"
        return made
    return [of_today(value) for value in content] if isinstance(content, list) else content


def saved_config(key: str, folder: str) -> dict[str, Any]:
    """The plain config that a run left; ConfigError where the folder is no run."""
    if not (Path(folder) / "config.yaml").is_file():
        raise ConfigError(
            f"{key}={folder}: no config.yaml there, so it is not a run directory. Give the folder "
            "that `medexp train` named at its end"
        )
    return read_config(Path(folder))


def primary_of_run(key: str, folder: str, line: Line, hydra_node: Mapping[str, Any]) -> str:
    """Register the config of a run as a primary config, and return its name.

    key: `resume` or `run`, which names the folder on the command line. Groups that the command
    line swaps come from conf/, everything else is as the run had it. `hydra_node` is laid over
    train.yaml's own.
    """
    saved = saved_config(key, folder)
    defaults_of_hydra = train_yaml()["hydra"]
    swapped = [group for group in groups() if line.sets(group)]
    defaults: list[Any] = ["eval_schema" if key == "run" else "schema"]
    overrides: list[Any] = []
    if "dataset" in swapped:
        # Other data bring their paper's table, but what its YAML would train with is not the run's.
        for group in composed_groups():
            if group not in swapped:
                node = saved.pop(group)
                ConfigStore.instance().store(group=group, name=OF_RUN, node=node)
                defaults.append({group: OF_RUN})
                overrides.append({f"override /{group}": OF_RUN})
        last = ["dataset", "paper"]  # in this order
        swapped = [*(group for group in swapped if group not in last), *last]
    for group in swapped:
        saved.pop(group, None)
        if group in saved["names"]:
            saved["names"][group] = f"${{hydra:runtime.choices.{group}}}"
        if group == "paper" and not line.sets(group):
            defaults.append({"optional paper": "${dataset}"})
        else:
            # Of a sweep the first value; each job then brings its own.
            defaults.append({group: line.value(group)})
    node = {
        "defaults": [*defaults, "_self_", *overrides],
        **saved,
        key: folder,
        "hydra": {**defaults_of_hydra, **hydra_node},
    }
    name = f"of_{key}"
    ConfigStore.instance().store(name=name, node=node)
    return name


def primary_of_eval(line: Line) -> str:
    """Register what completion behind `medexp eval` looks up, and return its name.

    That is the config of the run where one is named, else the one of `medexp train`.
    """
    folders = folders_of(line.text("run"))
    with suppress(MedexpError):  # what eval would refuse has nothing to complete
        if folders and (Path(folders[0]) / "config.yaml").is_file():
            return primary_of_run("run", folders[0], line, {})
    node = train_yaml()
    node["defaults"] = ["eval_schema" if d == "schema" else d for d in node["defaults"]]
    ConfigStore.instance().store(name="of_eval", node=node)
    return "of_eval"


def complete_folders(word: str) -> list[str]:
    """Completions of run=outputs/pc, or of the last folder of run=A,B: a run, or a folder on."""
    start = max(map(word.rfind, "=[,")) + 1
    before, typed = word[:start], word[start:]
    folders = sorted(glob.glob(glob.escape(typed) + "*/"))
    return [
        before + (folder.rstrip("/") if (Path(folder) / "config.yaml").is_file() else folder)
        for folder in folders
    ]


def config_dir_of_run(folder: Path) -> str | None:
    """The --config-dir that a run says it was started with: to be told, never to be searched."""
    path = folder / "provenance.json"
    used = read_json(path).get("config_dir") if path.is_file() else None
    return used if isinstance(used, str) else None


def add_config_dir(folder: str) -> None:
    """Make the modules beside a user's groups importable, in the processes of a launcher too."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder")
    sys.path.insert(0, str(path))
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MEDEXP_CONFIG_DIR"] = str(path)
