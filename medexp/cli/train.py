"""`medexp train`: one run or, with -m, a sweep that ends in one table."""

from collections.abc import Callable
from pathlib import Path

from medexp.cli.groups_help import print_help
from medexp.config.compose import sweeper_of
from medexp.config.groups import options
from medexp.config.line import Line, read_line
from medexp.config.settings import Settings
from medexp.errors import ConfigError, nearest
from medexp.runs.files import refuse_overwrite

TRAIN_HELP = """\
usage: medexp train [-m] [GROUP=OPTION] [KEY=VALUE] [--config-dir DIR]

Compose the groups below, train, evaluate the best epoch on the test split and
write outputs/<dataset>-<model>/<time>/ (metrics.json, table.md, plots, ...).

  medexp train dataset=pcam model=native3         data: ./data or $MEDEXP_DATA
  medexp train source=phantom trainer.epochs=5    synthetic data, no download
  medexp train dataset=image_folder dataset.root=FOLDER model=native3 \\
      dataset.size=96   your own images in class folders (docs/your_own_data.md)
  medexp train model=native1 optimizer.lr=0.001 schedule=step schedule.every=50
  medexp train -m model=native1,native2 optimizer.lr=0.1,0.01  a sweep: one
                     table, figures against the numbers, a ranking (search.md)
  medexp train -m tune=pcam_fig3                  a search as its YAML says
  medexp train -m paper=pcam_table4 paper.budget=smoke   a paper's table: makes
                     the runs that are missing, of one row each, and a page
  medexp train resume=outputs/pcam-native3/TIME [trainer.epochs=40]
  medexp train trainer.devices=2                  one run on two GPUs; so is
                     torchrun --nproc-per-node=2 -m medexp train ...
  medexp train --config-dir mine model=mynet      your own groups and modules
  medexp train model=native3 --cfg job            print the composed config

  -m, --multirun     run every combination of the comma-separated values
  --config-dir DIR   DIR/<group>/*.yaml join the groups; DIR/*.py can be named
                     as _target_
  --cfg job          print the config and stop
  trusted=PACKAGE    the run of resume= or init_from= may call what is in this
                     package too; SECURITY.md: what it may call anyway
"""


def train_job(settings: Settings, folder: Path) -> float:
    from medexp.jobs.train import train

    return train(settings, folder, resume=settings.resume is not None)


def train(words: list[str], work: Callable[[Settings, Path], float] = train_job) -> int:
    """Run a job, a sweep, or the runs that a paper's table needs.

    work: what a job does; of a run on several devices what its first process does.
    """
    if "-h" in words or "--help" in words:
        return print_help(TRAIN_HELP, words)
    from medexp.config.saved import primary_of_run
    from medexp.jobs.finish import finish_paper
    from medexp.jobs.job import run_jobs

    line = read_line(words)
    folder = line.text("resume")
    for key in ("explain", "tta"):
        if line.sets(key):
            raise ConfigError(f"{key}: of a finished run. Use medexp eval run=DIR {key}=...")
    primary = "train"
    if folder:
        place = {"run": {"dir": folder}, "output_subdir": None}
        primary = primary_of_run("resume", folder, line, place)
    paper = line.value("paper")
    known = options("paper", line.words)
    if paper is not None and paper not in known and not line.sweeps("paper"):
        # train.yaml's own choice is optional, so that Hydra would take none without a word.
        raise ConfigError(f"paper={paper}: no such option. {nearest(str(paper), known)}")
    if line.multirun and paper is not None:
        return run_jobs(primary, of_paper(str(paper), line), train_job, finish_paper)
    for key in ("paper.budget", "paper.only"):
        if line.sets(key):
            raise ConfigError(f"{key}: of the rows of a table. Add -m and paper=NAME")
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        if (target := line.text(key)) and not goes_on(line, Path(target)):
            refuse_overwrite(Path(target))
    previews = [key for key in ("plot_schedule", "plot_augment") if line.value(key)]
    if previews and (folder or line.multirun or line.sets("tune")):
        raise ConfigError(f"{', '.join(previews)}: of one new run. Leave -m, tune and resume out")
    other = previews or line.multirun or line.sets("tune") or "--cfg" in words
    if work is train_job and not other and (devices := devices_of(line, folder)) > 1:
        from medexp.jobs.several import launch

        return launch(devices, words)
    return run_jobs(primary, line.argv(), work)


def train_together(words: list[str]) -> int:
    """`medexp train` as one of the processes that torchrun started: a single run by all of them.

    Where torchrun starts them once more (--max-restarts) they go on with the run.
    """
    line = read_line(words)
    if line.multirun or any(line.sets(key) for key in ("tune", "plot_schedule", "plot_augment")):
        raise ConfigError(
            "torchrun: several processes train a single run. Leave out -m, tune and previews, or "
            "start medexp without torchrun"
        )
    from medexp.jobs import several

    place = several.begin()
    if place.rank:
        return several.follow(place)
    leading = several.Leading(place)
    try:
        if before := several.folder_before():
            line = read_line([f"resume={before}"])
        asked = line.value("trainer.devices")
        if asked is not None and asked != place.count:
            raise ConfigError(
                f"trainer.devices={asked}: torchrun started {place.count} processes. Leave it out, "
                f"or set --nproc-per-node={asked}"
            )
        return train([*line.without("trainer.devices"), f"trainer.devices={place.count}"], leading)
    finally:
        leading.end()


def devices_of(line: Line, folder: str | None) -> int:
    """On how many devices a single run is to train: by the command line, else as it did before."""
    from medexp.config.saved import saved_config

    if line.sets("trainer.devices"):
        devices = line.value("trainer.devices")
    else:
        devices = saved_config("resume", folder)["trainer"].get("devices") if folder else None
    return devices if isinstance(devices, int) else 1  # what is no number is refused later


def goes_on(line: Line, folder: Path) -> bool:
    """Whether a folder holds a search of an earlier call that the line may go on with."""
    from medexp.jobs.study import JOURNAL

    return (folder / JOURNAL).is_file() and sweeper_of(line).endswith(".Study")


def of_paper(paper: str, line: Line) -> list[str]:
    """The command line of the runs behind a table of a paper, in a folder that is found again."""
    from medexp.jobs import paper as table

    for key in ("tune", "hydra/sweeper"):
        if line.sets(key):
            raise ConfigError(f"{key}: a sweep of its own, and paper={paper} is one. Leave one out")
    if line.sweeps("paper"):
        raise ConfigError(f"paper={line.text('paper')}: one table at a time")
    sweeper = ["hydra/sweeper=rows"]
    if not line.sets("hydra.sweep.dir"):
        folder = table.folder_of(paper, line)
        sweeper.append(f"hydra.sweep.dir={table.quoted(folder)}")
    every = table.of_every_run(line)
    quoted = ",".join(map(table.quoted, every))
    kept = [word for word in line.argv() if word not in every]
    return [*sweeper, f"+hydra.sweeper.every=[{quoted}]", *kept]
