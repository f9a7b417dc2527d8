"""The command line: dispatch, help, completion, exit codes.

`medexp train` and `medexp eval` are Hydra applications behind one dispatcher; the other commands
are plain. Torch and the libraries behind it are imported where a command needs them, so that help
and tab completion answer at once.
"""

import logging
import os
import shlex
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medexp import __version__
from medexp.bench import command as bench
from medexp.cli import data as data_commands
from medexp.cli import listing, papers
from medexp.cli import report as reporting
from medexp.config import compose
from medexp.errors import ConfigError, MedexpError, nearest
from medexp.jobs import paper as reproduce
from medexp.runs.files import refuse_overwrite, write_status, write_text

Work = Callable[[dict[str, Any], Path], float | None]

HELP = """\
medexp: config-driven experiments in medical-image classification

  medexp train   train a network, evaluate its best epoch, write a run directory
  medexp eval    evaluate a finished run again, on other data or another split
  medexp models  the networks: paper, input, parameters, do the counts agree?
  medexp datasets   the data sets: source, licence, size, found here?
  medexp data check   what would falsify a result: copies, shared patients, ...
  medexp data explore   PCA, t-SNE, classes and samples of a data set as figures
  medexp data cache   what the cache holds; --clear empties it
  medexp papers  the papers' tables; papers audit: do their numbers agree?
  medexp report  the table of run or sweep directories; --page: as HTML
  medexp bench   its speed beside plain PyTorch, Lightning and Keras

  medexp COMMAND --help   options and examples of a command
  medexp --version
  eval "$(medexp -sc install=bash)"   tab completion in this shell

Try it without any data:   medexp train source=phantom trainer.epochs=5
"""

TRAIN_HELP = """\
usage: medexp train [-m] [GROUP=OPTION] [KEY=VALUE] [--config-dir DIR]

Compose the groups below, train, evaluate the best epoch on the test split and
write outputs/<dataset>-<model>/<time>/ (metrics.json, table.md, plots, ...).

  medexp train dataset=pcam model=native3         data: ./data or $MEDEXP_DATA
  medexp train source=phantom trainer.epochs=5    synthetic data, no download
  medexp train model=native1 optimizer.lr=0.001 schedule=step schedule.every=50
  medexp train -m model=native1,native2 optimizer.lr=0.1,0.01  a sweep: one
                     table, figures against the numbers, a ranking (search.md)
  medexp train -m tune=pcam_fig3                  a search as its YAML says
  medexp train -m paper=pcam_table4 paper.budget=smoke   a paper's table: makes
                     the runs that are missing, of one row each, and a page
  medexp train resume=outputs/pcam-native3/TIME [trainer.epochs=40]
  medexp train --config-dir mine model=mynet      your own groups and modules
  medexp train model=native3 --cfg job            print the composed config

  -m, --multirun     run every combination of the comma-separated values
  --config-dir DIR   DIR/<group>/*.yaml join the groups; DIR/*.py can be named
                     as _target_
  --cfg job          print the config and stop
"""

EVAL_HELP = """\
usage: medexp eval run=DIR [split=test] [GROUP=OPTION] [KEY=VALUE]

Evaluate the best checkpoint of a run again with the settings of the run; any
of them can be overridden. The same data give the same numbers to the last
digit. Writes DIR/eval/<time>/; of an ensemble, outputs/ensembles/<time>/.

  medexp eval run=outputs/pcam-native3/TIME
  medexp eval run=DIR split=val                   train | val | test
  medexp eval run=DIR dataset=pcam_kaggle         other data
  medexp eval run=DIR trainer.device=cpu
  medexp eval run=DIR tta=flips_turns             mean over 8 views; or flips
  medexp eval run=A,B,C                           an ensemble: the mean of the
                     runs' probabilities, on the data of the first; run=[A,B,C]
                     is the same
  medexp eval run=DIR explain=gradcam explain.n=12   or saliency, features
"""

PREVIEWS = ("plot_schedule", "plot_augment")
COMMANDS = ("train", "eval", "models", "datasets", "papers", "data", "report", "bench")


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Dispatch one command line and turn what it raises into its exit code and message."""
    os.environ["MEDEXP_COMMAND"] = shlex.join(["medexp", *arguments])  # for the provenance
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in arguments
    try:
        return dispatch(arguments)
    except MedexpError as error:
        return complain(error, 2 if isinstance(error, ConfigError) else 1, full)
    except KeyboardInterrupt as error:
        print(f"medexp: {error or 'stopped at once'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `medexp models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def complain(error: Exception, code: int, full: bool) -> int:
    if full:
        traceback.print_exception(error)
    print(f"medexp: {error}", file=sys.stderr)
    return code


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print(f"medexp {__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        return complete(rest)
    if command not in COMMANDS:
        raise ConfigError(f"{command}: no such command. {nearest(command, COMMANDS)}")
    before = compose.override_of(rest, "run") or compose.override_of(rest, "resume")
    folder = compose.option_after(rest, "--config-dir")
    if before and not folder:
        used = filter(None, map(compose.config_dir_of_run, compose.folders_of(before)))
        if folders := list(dict.fromkeys(used)):
            folder, *others = folders
            rest = [*rest, "--config-dir", folder]
            for other in others:  # what the other runs of an ensemble were made of
                compose.add_config_dir(other)
    if folder:
        compose.add_config_dir(folder)
    if command in ("train", "eval"):
        if "-h" in rest or "--help" in rest:
            print(TRAIN_HELP if command == "train" else EVAL_HELP)
            print(groups_help(rest), end="")
            return 0
        return train(rest) if command == "train" else evaluate(rest)
    commands = {
        "models": listing.models,
        "datasets": listing.datasets,
        "papers": papers.papers,
        "data": data_commands.data,
        "report": reporting.report,
        "bench": bench.bench,
    }
    return commands[command](rest)


def groups_help(arguments: list[str]) -> str:
    """The groups and their options, wrapped to 80 columns."""
    lines = ["Groups and their options:"]
    for group in compose.groups():
        names = ", ".join(compose.options(group, arguments))
        lines += textwrap.wrap(
            names, 78, initial_indent=f"  {group:<10} ", subsequent_indent=" " * 13
        )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- train and eval


def train(arguments: list[str]) -> int:
    """`medexp train`: one run or, with -m, a sweep that ends in one table."""
    primary = "train"
    for key in ("explain", "tta"):
        if compose.override_of(arguments, key):
            raise ConfigError(f"{key}: of a finished run. Use medexp eval run=DIR {key}=...")
    if any(compose.override_of(arguments, key) == "true" for key in PREVIEWS):
        return preview(arguments)
    if folder := compose.override_of(arguments, "resume"):
        settings = {"run": {"dir": folder}, "output_subdir": None}
        primary = compose.primary_of_run("resume", folder, arguments, settings)
    several = "-m" in arguments or "--multirun" in arguments
    paper = compose.override_of(arguments, "paper")
    known = compose.options("paper", arguments)
    if paper not in (None, "null", *known) and "," not in str(paper):
        # train.yaml's own choice is optional, so that Hydra would take none without a word.
        raise ConfigError(f"paper={paper}: no such option. {nearest(str(paper), known)}")
    if several and paper not in (None, "null"):
        return run_jobs(
            primary, of_paper(str(paper), arguments), train_work, reporting.finish_paper
        )
    for key in ("paper.budget", "paper.only"):
        if compose.override_of(arguments, key):
            raise ConfigError(f"{key}: of the rows of a table. Add -m and paper=NAME")
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        if target := compose.override_of(arguments, key):
            refuse_overwrite(Path(target))
    return run_jobs(primary, arguments, train_work)


def of_paper(paper: str, arguments: list[str]) -> list[str]:
    """The command line of the runs behind a table of a paper, in a folder that is found again."""
    for key in ("tune", "hydra/sweeper"):
        if compose.override_of(arguments, key):
            raise ConfigError(f"{key}: a sweep of its own, and paper={paper} is one. Leave one out")
    if "," in paper:
        raise ConfigError(f"paper={paper}: one table at a time")
    user = reproduce.said(arguments)
    budget, source = (user.get(key, [default])[0] for key, default in (
        ("paper.budget", "full"), ("source", "disk"),
    ))  # fmt: skip
    folder = reproduce.folder_of(paper, budget, source, user)
    sweeper = ["hydra/sweeper=rows"]
    if not compose.override_of(arguments, "hydra.sweep.dir"):
        sweeper.append(f"hydra.sweep.dir={reproduce.quoted(folder)}")
    every = reproduce.of_every_run(arguments)
    words = ",".join(map(reproduce.quoted, every))
    kept = [a for a in arguments if a not in every]
    return [*kept, *sweeper, f"+hydra.sweeper.every=[{words}]"]


def preview(arguments: list[str]) -> int:
    """Pictures of what a run would do, into a folder of their own; nothing is trained."""
    from medexp.jobs import experiment

    if "-m" in arguments or "--multirun" in arguments:
        raise ConfigError("plot_schedule, plot_augment: of one run, not of a sweep. Leave -m out")
    settings = compose.compose([a for a in arguments if "=" in a and a[:2] != "--"], arguments)
    folder = Path("outputs/preview", time.strftime("%Y-%m-%d_%H-%M-%S"))
    folder.mkdir(parents=True, exist_ok=True)
    for path in experiment.preview(settings, folder):
        print(path)
    return 0


def evaluate(arguments: list[str]) -> int:
    """`medexp eval`: score a finished run again, into a folder of its own inside the run.

    An ensemble of runs gets a folder in outputs/ensembles.
    """
    folders = compose.folders_of(compose.override_of(arguments, "run") or "")
    if not folders:
        raise ConfigError("run: missing. Give the run directory: medexp eval run=outputs/...")
    target = f"{folders[0]}/eval"
    if len(folders) > 1:
        target = "outputs/ensembles"
        arguments = compose.of_ensemble(folders, arguments)
    settings = {"run": {"dir": f"{target}/${{now:%Y-%m-%d_%H-%M-%S-%f}}"}}
    primary = compose.primary_of_run("run", folders[0], arguments, settings)
    return run_jobs(primary, arguments, eval_work)


def run_jobs(
    primary: str, arguments: list[str], work: Work, finish: Callable[[Path], int] | None = None
) -> int:
    """Run the job, or all jobs of a sweep: one that fails must not lose the others.

    finish: what is done with the folder of a sweep at its end; None: `reporting.finish_sweep`.
    """
    folders: list[Path] = []
    failures: list[Exception] = []

    def task(config: Any) -> float | None:
        folders.append(compose.output_dir())
        try:
            return job(config, folders[-1], work)
        except Exception as error:
            failures.append(error)
            return None

    sweep = compose.hydra_main(primary, task, arguments)
    if sweep is not None:
        return (finish or reporting.finish_sweep)(sweep)
    if failures:
        raise told(failures[0])
    reporting.show(folders)  # empty after --cfg job and its like
    return 0


def told(error: Exception) -> MedexpError:
    """What the user reads; a defect becomes a failed run that says where its traceback is."""
    if isinstance(error, MedexpError):
        return error
    message = MedexpError(
        f"{type(error).__name__}: {error}\nThis is a defect, of medexp or of a module that a "
        "_target_ names. Its traceback is in run.log; debug=true prints it"
    )
    message.__cause__ = error
    return message


def train_work(settings: dict[str, Any], folder: Path) -> float:
    from medexp.jobs import experiment

    resume = settings.pop("resume") is not None
    return experiment.train(settings, folder, resume=resume)


def eval_work(settings: dict[str, Any], folder: Path) -> None:
    from medexp.jobs import experiment

    experiment.evaluate(settings, folder)


def job(config: Any, folder: Path, work: Work) -> float | None:
    """Write config.yaml, work, write tables and plots; status.json says how it stands."""
    write_status(folder, "running")
    try:
        settings = compose.resolved(config)
        write_text(folder / "config.yaml", compose.to_yaml(settings | {"resume": None}))
        result = work(settings, folder)
    except BaseException as error:
        reason = str(told(error) if isinstance(error, Exception) else error) or "stopped at once"
        write_status(folder, "failed", reason)
        if not isinstance(error, (MedexpError, KeyboardInterrupt)):
            logging.getLogger("medexp.file").exception("The run failed")
        raise
    write_status(folder, "done")
    from medexp.report.figure import plots
    from medexp.report.table import load, render

    render.write_tables(load.find_runs([folder]), folder)
    plots.write_plots(folder)
    return result


# ---------------------------------------------------------------- completion


def complete(arguments: list[str]) -> int:
    """Tab completion: the commands here, everything behind train and eval by Hydra.

    Hydra's script for the shell asks the console script with the whole line in COMP_LINE; Hydra
    knows no subcommands, so ours is cut out of the line before it is asked.
    """
    words = os.environ.get("COMP_LINE", "").split()
    primary = "train"
    if any(argument.startswith("query=") for argument in arguments):
        ended = os.environ["COMP_LINE"].endswith(" ")
        if len(words) < 2 or (len(words) == 2 and not ended):
            print(" ".join(COMMANDS))
            return 0
        if words[1] == "data" and (len(words) < 3 or (len(words) == 3 and not ended)):
            print(" ".join(data_commands.ACTIONS))
            return 0
        if words[1] not in ("train", "eval", "data", "bench"):
            return 0
        dropped = ("-m", "--multirun", *data_commands.ACTIONS)
        kept = [word for word in words[2:] if word not in dropped]
        if words[1] == "bench":  # Hydra's parser would stop at options of ours
            kept = [word for word in kept if "=" in word or word is words[-1]]
            kept = [word for word in kept if word[0] != "-"]
        if words[1] == "eval":
            if not ended and words[-1].startswith("run="):
                print(" ".join(compose.complete_folders(words[-1])))
                return 0
            primary = compose.primary_of_eval(kept)
            kept = [word for word in kept if not word.startswith("run=")]
        os.environ["COMP_LINE"] = " ".join(["medexp", *kept]) + (" " if ended or not kept else "")
    compose.hydra_main(primary, lambda config: None, ["-sc", *arguments])
    return 0
