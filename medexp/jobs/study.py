"""A search by Optuna: what to try next is asked of a study, what the jobs gave is told to it.

Plain functions over an Optuna study; the sweeper `study` in hydra_plugins starts the jobs. A study
lies in the sweep's folder, in Optuna's journal file, so that the same command with the same folder
goes on with the trials that are there: a job that was cut short goes on where it stopped.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medexp.errors import ConfigError
from medexp.jobs.paper import quoted, state_of
from medexp.runs.files import refuse_overwrite, write_text
from medexp.score.metrics import direction
from medexp.train.pruning import read_values

log = logging.getLogger(__name__)

JOURNAL = "study.journal"  # in the sweep's folder
RESULTS = "optimization_results.yaml"

# The jobs of some command lines, run side by side: the value of each, None where it failed.
Launch = Callable[[list[list[str]]], Sequence[float | None]]


@dataclass(frozen=True)
class Space:
    """What is searched, KEY -> Optuna's distribution, and the words that every job is given."""

    searched: Mapping[str, Any]
    fixed: Sequence[str]

    def words(self, params: Mapping[str, Any]) -> list[str]:
        """The command line of a trial."""
        return [*self.fixed, *(f"{key}={value}" for key, value in params.items())]


@dataclass(frozen=True)
class Placed:
    """A job as it would be composed: its folder, and KEY -> value of what decides its numbers."""

    folder: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Jobs:
    """How a study's trials become jobs.

    folder: the sweep's. place: command line, number of the trial -> what it composes to. monitor:
    the column of history.csv whose best value is sought.
    """

    folder: Path
    place: Callable[[list[str], int], Placed]
    launch: Launch
    monitor: str

    def subdir(self, folder: Path) -> str:
        """The override that puts a job into a folder of the sweep."""
        return f"hydra.sweep.subdir={quoted(str(folder.relative_to(self.folder)))}"


def optuna() -> Any:
    """Optuna, whose lines go through logging; ConfigError where it is not installed."""
    try:
        module = import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            "hydra.sweeper: this search needs Optuna 4 or newer, which is not installed. Install "
            'it: pip install "medexp[tune]"'
        ) from error
    module.logging.disable_default_handler()
    module.logging.enable_propagation()
    module.logging.set_verbosity(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its import
    warnings.simplefilter("ignore", module.exceptions.ExperimentalWarning)
    return module


# ---------------------------------------------------------------- the search space


def search_space(overrides: Iterable[Any]) -> Space:
    """The space that Hydra's parsed overrides span; of several of one key the last one counts.

    interval(a, b) holds real numbers, int(interval(a, b)) whole ones; tag(log, ...) searches them
    on a logarithmic scale. choice(...), range(...) and A,B,C are unordered choices. A single value
    is not searched. Raises ConfigError for an interval that cannot be.
    """
    latest = {one.key_or_group: one for one in overrides}
    searched = {
        one.get_key_element(): distribution(one)
        for one in latest.values()
        if one.is_sweep_override()
    }
    fixed = [str(one.input_line) for one in latest.values() if not one.is_sweep_override()]
    return Space(searched, fixed)


def distribution(override: Any) -> Any:
    """Optuna's distribution of an override with several values; choices are texts, as typed."""
    distributions = optuna().distributions
    if not override.is_interval_sweep():
        return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    interval = override.value()
    ends = (interval.start, interval.end)
    whole = all(isinstance(end, int) for end in ends)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    try:
        return kind(*ends, log="log" in interval.tags)
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {error}") from error


# ---------------------------------------------------------------- the study


def open_study(name: str, storage: str, facts: Mapping[str, Any], monitor: str) -> Any:
    """The study of that name, begun or gone on with.

    storage: a journal file, or a URL of a database (sqlite:///FILE). facts: KEY -> value of all
    that decides a job's numbers; the trials of a study share them. What is sought is the best value
    of the monitor: the lowest of a loss, else the highest.

    Raises ConfigError where the study's trials have other facts: their values do not compare.
    """
    module = optuna()
    file = Path(storage.removeprefix("sqlite:///"))
    if "://" not in storage or storage.startswith("sqlite:///"):
        file.parent.mkdir(parents=True, exist_ok=True)
    if "://" not in storage:
        backend = module.storages.journal.JournalFileBackend(str(file))
        opened = module.storages.JournalStorage(backend)
    else:
        opened = storage
    study = module.create_study(
        study_name=name,
        storage=opened,
        direction={"min": "minimize", "max": "maximize"}[direction(monitor)],
        load_if_exists=True,
    )
    if "config" in study.user_attrs:
        refuse_other(study.user_attrs["config"], facts, name)
    else:
        study.set_user_attr("config", dict(facts))
    return study


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError where a study's trials were of another config: values do not compare."""
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{key}={now.get(key)}: the study {name} was begun with {before.get(key)}, so that "
                "its trials do not compare. Begin another one in another folder (hydra.sweep.dir); "
                "where hydra.sweeper.storage is set, by another name (hydra.sweeper.study_name)"
            )


def seed_of(study: Any, seed: int) -> int:
    """The sampler's seed in this call, so that it does not draw the first trials again."""
    return int(np.random.SeedSequence([seed, len(study.trials)]).generate_state(1)[0])


def search(study: Any, space: Space, jobs: Jobs, *, n_trials: int, n_jobs: int) -> None:
    """Make `n_trials` jobs, `n_jobs` of them at a time, those that were cut short first."""
    waiting = cut_short(study, space, jobs)[:n_trials]
    for start in range(0, n_trials, n_jobs):
        batch = waiting[start : start + n_jobs]
        while len(batch) < min(n_jobs, n_trials - start):
            batch.append(ask(study, space, jobs))
        try:
            values = jobs.launch([words for _, words in batch])
        except Exception:  # Ctrl-C is none: its trials are left running, and go on next time
            for number, _ in batch:
                tell(study, number, None)
            raise
        for (number, _), value in zip(batch, values, strict=True):
            tell(study, number, value)


def ask(study: Any, space: Space, jobs: Jobs) -> tuple[int, list[str]]:
    """A new trial: its number and the command line of its job."""
    try:
        trial = study.ask(dict(space.searched))
    except ValueError as error:
        raise ConfigError(
            f"hydra.sweeper.params: the study {study.study_name} cannot go on with these: {error}. "
            "Begin another one in another folder (hydra.sweep.dir)"
        ) from error
    trial.set_user_attr("folder", str(jobs.folder))
    words = space.words(trial.params)
    try:
        placed = jobs.place(words, trial.number)
        refuse_overwrite(placed.folder)
    except Exception:
        tell(study, trial.number, None)
        raise
    return trial.number, [*words, jobs.subdir(placed.folder)]


def tell(study: Any, number: int, value: float | None) -> None:
    """What the job of a trial gave; without a value, or with NaN, it is a failed trial."""
    if value is None or math.isnan(value):
        study.tell(number, state=optuna().trial.TrialState.FAIL)
    else:
        study.tell(number, value)


def cut_short(study: Any, space: Space, jobs: Jobs) -> list[tuple[int, list[str]]]:
    """Trials of an earlier call in this folder whose jobs can go on: number, command line.

    Of the others, those whose job is done are told, and those that cannot go on have failed.
    """
    running = optuna().trial.TrialState.RUNNING
    waiting = []
    for trial in study.get_trials(states=(running,)):
        if trial.user_attrs.get("folder") != str(jobs.folder):
            continue  # another process may be at it
        words = space.words(trial.params)
        placed = jobs.place(words, trial.number)
        state = state_of(placed.folder, placed.settings)
        if state == "resume":
            resume = f"resume={quoted(str(placed.folder))}"
            waiting.append((trial.number, [*words, resume, jobs.subdir(placed.folder)]))
        elif state != "running":
            done = state == "done"
            tell(study, trial.number, best_of(placed.folder, jobs.monitor) if done else None)
    return waiting


def best_of(run: Path, monitor: str) -> float | None:
    """The best value of a column of a run's history.csv."""
    best = {"min": min, "max": max}[direction(monitor)]
    return best(read_values(run / "history.csv", monitor), default=None)


def write_results(study: Any, folder: Path) -> None:
    """optimization_results.yaml: the best trial's values of what was searched, and its value."""
    completed = [trial for trial in study.trials if trial.value is not None]
    if not completed:
        log.warning("No trial was completed")
        return
    best = {
        key: yaml.safe_load(value) if isinstance(value, str) else value
        for key, value in study.best_trial.params.items()
    }
    content = {"name": "optuna", "best_params": best, "best_value": study.best_value}
    write_text(folder / RESULTS, yaml.safe_dump(content, sort_keys=False))
