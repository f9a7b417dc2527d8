"""Two ways to search beside Hydra's full cross: one parameter at a time, and a study by Optuna.

Hydra imports this file when it starts, and takes a sweeper from no other package than
hydra_plugins. conf/tune holds the searches that use them.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from medexp.config import nearest
from medexp.errors import ConfigError
from medexp.metrics import direction

log = logging.getLogger(__name__)

# What may change from one call on a study to the next: it decides no trial's value.
NO_NUMBER = (
    "resume",
    "debug",
    "dataset.root",
    "trainer.device",
    "trainer.threads",
    "trainer.data",
    "trainer.resamples",
)


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
    """KEY -> value of all that decides a trial's value and is not searched: the composed config."""
    HydraConfig.instance().set_config(config)  # names are the choices that Hydra made
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content = OmegaConf.to_container(own, resolve=True)

    def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from leaves(f"{key}.{name}".lstrip("."), inner)
        elif key not in NO_NUMBER:
            yield key, value

    return dict(leaves("", content))


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError where a study's trials were of another config: values do not compare."""
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{key}={now.get(key)}: the study {name} was begun with {before.get(key)}, so that "
                "its trials do not compare. Begin another: hydra.sweeper.study_name=NAME"
            )


for name, sweeper in (("one_at_a_time", OneAtATime), ("study", Study)):
    target = f"{__name__}.{sweeper.__name__}"
    node = {"_target_": target, "_recursive_": False, "params": {}}
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node)
