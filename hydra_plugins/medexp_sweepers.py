"""Sweeps beside Hydra's full cross: one parameter at a time, a study by Optuna, a paper's rows.

Hydra imports this file when it starts, and takes a sweeper from no other package than
hydra_plugins. conf/tune holds the searches that use them.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra.utils
from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from medexp.config.compose import to_yaml
from medexp.config.settings import decisive
from medexp.errors import ConfigError, nearest
from medexp.jobs import study as searching
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


class Study(BasicSweeper):
    """A search by Optuna; the same command with the same folder goes on (medexp/jobs/study.py).

    What is sought is the best value of trainer.monitor. A job that fails is a failed trial.

    sampler: an Optuna sampler's node, without its seed, which is made of `seed` and the number of
    trials before this call. params: what is searched, in Hydra's words: interval(a, b),
    tag(log, ...), choice(...). storage: a journal file or a database's URL; null is
    study.journal in the sweep's folder. study_name: null is <dataset>-<model>-<monitor>. n_trials:
    jobs of this call, n_jobs of them handed to the launcher at a time.
    """

    def __init__(
        self,
        *,
        sampler: Any,
        params: Any,
        storage: str | None = None,
        study_name: str | None = None,
        n_trials: int = 20,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(None, params)
        self.sampler, self.seed, self.storage, self.name = sampler, seed, storage, study_name
        self.batches = {"n_trials": n_trials, "n_jobs": n_jobs}

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None and self.hydra_context is not None
        words = [*self._parse_config(), *arguments]
        loader = self.hydra_context.config_loader
        space = searching.search_space(OverridesParser.create(loader).parse_overrides(words))
        facts = decisive(plain(self.config))
        facts.pop("trainer.resamples")  # intervals are no trial's value
        monitor = facts["trainer.monitor"]
        name = self.name or f"{facts['names.dataset']}-{facts['names.model']}-{monitor}"
        folder = Path(self.config.hydra.sweep.dir)
        storage = self.storage or str(folder / searching.JOURNAL)
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            study = searching.open_study(name, storage, facts, monitor)
            log.info("Study %s in %s: %d trials before", name, storage, len(study.trials))
            seed = searching.seed_of(study, self.seed)
            study.sampler = hydra.utils.instantiate(self.sampler, seed=seed)
            jobs = searching.Jobs(folder, self.place, self.launch, monitor)
            searching.search(study, space, jobs, **self.batches)
            searching.write_results(study, folder)

    def place(self, words: list[str], number: int) -> searching.Placed:
        assert self.config is not None and self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        with open_dict(config):
            config.hydra.job.num = number
        settings = decisive(plain(config))
        return searching.Placed(Path(config.hydra.sweep.dir, config.hydra.sweep.subdir), settings)

    def launch(self, lines: list[list[str]]) -> list[float | None]:
        assert self.launcher is not None
        returns = self.launcher.launch(lines, initial_job_idx=self.batch_index)
        self.batch_index += len(lines)
        return [job.return_value for job in returns]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder; ConfigError while another process does."""
    try:
        with FileLock(folder / ".study.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: another process searches in it. Wait for its end, or share "
            "a hydra.sweeper.storage from another folder"
        ) from error


def plain(config: Any) -> dict[str, Any]:
    """A job's composed config without Hydra's own node, resolved."""
    HydraConfig.instance().set_config(config)  # names are the choices that Hydra made
    without_hydra = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content: Any = OmegaConf.to_container(without_hydra, resolve=True)
    return dict(content)


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
        overrides = OverridesParser.create(loader).parse_overrides([*arguments, *self.every])
        (crossed,) = BasicSweeper.split_arguments(overrides, None)
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
            task_words = [word for word in words if not word.startswith("hydra.")]
            take(twin, folder, to_yaml(composed | {"resume": None}), task_words)
            write_tables([load_run(folder)], folder)
            log.info("%s: taken from %s, which has the same settings", folder, twin)
            return None
        return words


for name, sweeper in (("one_at_a_time", OneAtATime), ("study", Study), ("rows", Rows)):
    target = f"{__name__}.{sweeper.__name__}"
    node = {"_target_": target, "_recursive_": False, "params": {}}
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node)
