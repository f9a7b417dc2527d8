"""Sweeps beside Hydra's full cross: one parameter at a time, a study by Optuna, a paper's rows.

Hydra imports this file when it starts, and takes a sweeper from no other package than
hydra_plugins. conf/tune holds the searches that use them.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from medexp.config.compose import to_yaml
from medexp.config.settings import decisive
from medexp.errors import ConfigError, nearest
from medexp.jobs.paper import (
    Job,
    find_twin,
    plan,
    quoted,
    read_paper,
    set_aside,
    state_of,
    take,
)
from medexp.score.metrics import direction

log = logging.getLogger(__name__)


class OneAtATime(BasicSweeper):
    """The jobs of Hydra's cross in which at most one of the keys `vary` is off its first value.

    Three lists of five values are so 13 jobs, not 125. Lists of other keys (model, seed, ...) are
    crossed with them.
    """

    def __init__(self, vary: Sequence[str], params: Any, max_batch_size: int | None = None) -> None:
        super().__init__(max_batch_size, params)
        self.vary = list(vary)

    def split_arguments(self, overrides: Any, max_batch_size: int | None) -> Any:  # type: ignore
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        kept = one_at_a_time(jobs, self.vary)
        return list(self.split_overrides_to_chunks(kept, max_batch_size))


def one_at_a_time(jobs: Sequence[list[str]], vary: Sequence[str]) -> list[list[str]]:
    """Of a cross, each job a list of KEY=VALUE, those off the first one in one of `vary` at most.

    Raises ConfigError for a key of `vary` that the jobs do not set.
    """
    keys = [word.split("=", 1)[0].lstrip("+") for word in jobs[0]]
    for name in vary:
        if name not in keys:
            raise ConfigError(
                f"hydra.sweeper.vary: {name} has no values. Give {name}=A,B,C; the first is where "
                f"it stays while another varies. {nearest(name, keys)}"
            )
    watched = [place for place, key in enumerate(keys) if key in vary]
    return [job for job in jobs if sum(job[i] != jobs[0][i] for i in watched) <= 1]


class Study(Sweeper):
    """A search by Optuna, through hydra-optuna-sweeper, in a database: a later call goes on.

    What is sought is the best value of trainer.monitor: the lowest of a loss, else the highest. A
    job that fails is a failed trial.

    storage: an SQLAlchemy URL; study_name: null is <dataset>-<model>-<monitor>; n_trials: jobs of
    this call; params: what is searched, in Hydra's words: interval(a, b), tag(log, ...), choice().
    sampler: a partial of an Optuna sampler. Its seed is made of `seed` and the number of trials
    before this call, so that a call that goes on does not draw the first trials again.
    """

    def __init__(
        self,
        *,
        sampler: Any,
        storage: str,
        params: Any,
        study_name: str | None = None,
        n_trials: int = 20,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        self.sampler, self.seed, self.storage, self.name = sampler, seed, storage, study_name
        self.settings = {"params": params, "n_trials": n_trials, "n_jobs": n_jobs}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its import
        try:
            optuna = import_module("optuna")
            plugin = import_module("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper")
        except ImportError as error:
            raise ConfigError(
                "hydra.sweeper: this search needs Optuna and hydra-optuna-sweeper, which are not "
                'installed. Install them: pip install "medexp[tune]"'
            ) from error
        facts = searched_config(config)
        facts.pop("trainer.resamples")  # intervals are no trial's value
        monitor = facts["trainer.monitor"]
        name = self.name or f"{facts['names.dataset']}-{facts['names.model']}-{monitor}"
        goal = {"min": "minimize", "max": "maximize"}[direction(monitor)]
        if self.storage.startswith("sqlite:///"):
            Path(self.storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(logging.WARNING)
        for known in optuna.get_all_study_summaries(self.storage):
            if known.study_name == name:
                refuse_other(known.user_attrs.get("config") or {}, facts, name)
        self.study = optuna.create_study(
            study_name=name, storage=self.storage, direction=goal, load_if_exists=True
        )
        self.study.set_user_attr("config", facts)
        before = len(self.study.trials)
        log.info("Study %s in %s: %d trials before", name, self.storage, before)
        seed = int(np.random.SeedSequence([self.seed, before]).generate_state(1)[0])
        self.inner = plugin.OptunaSweeper(
            sampler=hydra.utils.instantiate(self.sampler, seed=seed),
            direction=goal,
            storage=self.storage,
            study_name=name,
            max_failure_rate=1.0,
            search_space=None,
            custom_search_space=None,
            **self.settings,
        )
        self.inner.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        try:
            self.inner.sweep(arguments)
        except ValueError:  # what Optuna raises when asked for the best of no trials
            if any(trial.value is not None for trial in self.study.trials):
                raise
            log.warning("No trial was completed")


def searched_config(config: Any) -> dict[str, Any]:
    """KEY -> value of all that decides the numbers of a job's composed config."""
    return decisive(plain(config))


def plain(config: Any) -> dict[str, Any]:
    """A job's composed config without Hydra's own node, resolved."""
    HydraConfig.instance().set_config(config)  # names are the choices that Hydra made
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content: Any = OmegaConf.to_container(own, resolve=True)
    return dict(content)


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError where a study's trials were of another config: values do not compare."""
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{key}={now.get(key)}: the study {name} was begun with {before.get(key)}, so that "
                "its trials do not compare. Begin another: hydra.sweeper.study_name=NAME"
            )


class Rows(BasicSweeper):
    """The runs behind a table of a paper: those that are not there yet (medexp/jobs/paper.py).

    Runs lie in the sweep's folder by the name of their row. One that is done with the same settings
    is taken, one that was cut short goes on, one that failed is moved aside and made again.

    every: what the command line says of every run. It is no part of the config that Hydra composes
    first, in which a row's data set is not chosen yet.
    """

    def __init__(self, params: Any, every: Sequence[str] = ()) -> None:
        super().__init__(None, params)
        self.every = list(every)

    def sweep(self, arguments: list[str]) -> None:
        from medexp.report.figure.figures import (
            check_figures,  # Matplotlib, which no other sweep owes
        )

        assert self.config is not None and self.hydra_context is not None and self.launcher
        loader = self.hydra_context.config_loader
        given = OverridesParser.create(loader).parse_overrides([*arguments, *self.every])
        (crossed,) = BasicSweeper.split_arguments(given, None)
        user: dict[str, list[str]] = {}
        for words in crossed:
            for key, value in (word.split("=", 1) for word in words):
                if value not in user.setdefault(key, []):
                    user[key].append(value)
        node = plain(loader.load_sweep_config(self.config, arguments))
        paper = read_paper(user["paper"][0], node["paper"])
        check_figures(paper)  # better refused now than after the runs
        root = Path(self.config.hydra.sweep.dir)
        root.mkdir(parents=True, exist_ok=True)
        budget, only = node["paper"].get("budget", "full"), node["paper"].get("only") or ()
        jobs = plan(paper, user, root=root, budget=budget, only=only)
        for before in (True, False):  # rows start from the runs before them
            part = [job for job in jobs if job.before == before]
            wanted = [words for words in (self.wanted(root, job) for job in part) if words]
            if wanted:
                self.launcher.launch(wanted, initial_job_idx=0)

    def wanted(self, root: Path, job: Job) -> list[str] | None:
        """The command line of a job; None if its run is there or being made."""
        from medexp.report.table.load import load_run
        from medexp.report.table.render import write_tables

        assert self.config is not None and self.hydra_context is not None
        words = job.overrides()
        composed = plain(self.hydra_context.config_loader.load_sweep_config(self.config, words))
        settings = decisive(composed)
        folder = root / job.folder
        state = state_of(folder, settings)
        if state in ("done", "running"):
            log.info("%s: %s, taken", folder, state)
            return None
        if state == "resume":
            return job.overrides(f"resume={quoted(str(folder))}")
        if state in ("failed", "other"):
            why = {"failed": "it failed", "other": "its settings are others"}[state]
            log.info("%s: %s, made again; the earlier one is %s", folder, why, set_aside(folder))
        if twin := find_twin(root, settings, composed["paper"]):
            own = [word for word in words if not word.startswith("hydra.")]
            take(twin, folder, to_yaml(composed | {"resume": None}), own)
            write_tables([load_run(folder)], folder)
            log.info("%s: taken from %s, which has the same settings", folder, twin)
            return None
        return words


for name, sweeper in (("one_at_a_time", OneAtATime), ("study", Study), ("rows", Rows)):
    target = f"{__name__}.{sweeper.__name__}"
    node = {"_target_": target, "_recursive_": False, "params": {}}
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node)
