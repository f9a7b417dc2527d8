"""The command line: which command a line names, help, exit codes.

`medexp train` and `medexp eval` are Hydra applications behind one dispatcher; the other commands
are plain. Torch and the libraries behind it are imported where a command needs them, so that help
and tab completion answer at once.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Callable

from medexp import __version__
from medexp.cli import data, datasets, models, papers, report
from medexp.cli.completion import complete
from medexp.cli.doctor import doctor
from medexp.cli.eval import evaluate
from medexp.cli.export import export
from medexp.cli.predict import predict
from medexp.cli.train import train, train_together
from medexp.config.groups import option_after
from medexp.config.saved import add_config_dir
from medexp.config.trust import set_trusted
from medexp.errors import ConfigError, MedexpError, nearest, printable

HELP = """\
medexp: config-driven experiments in medical-image classification

  medexp train   train a network, evaluate its best epoch, write a run directory
  medexp eval    evaluate a finished run again, on other data or another split
  medexp predict what a finished run says of new images, without labels
  medexp export  the network of a run as ONNX, torch.export or safetensors
  medexp models  the networks: paper, input, parameters, do the counts agree?
  medexp datasets   the data sets: source, licence, size, found here?
  medexp data check   what would falsify a result: copies, shared patients, ...
  medexp data explore   PCA, t-SNE, classes and samples of a data set as figures
  medexp data cache   what the cache holds; --clear empties it
  medexp papers  the papers' tables; papers audit: do their numbers agree?
  medexp doctor  can training work here? versions, devices, speed, data, extras
  medexp report  the table of run or sweep directories; --page: as HTML

  medexp COMMAND --help   options and examples of a command
  medexp --version
  eval "$(medexp -sc install=bash)"   tab completion in this shell

Try it without any data:   medexp train source=phantom trainer.epochs=5
"""

COMMANDS = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "export": export,
    "models": models.models,
    "datasets": datasets.datasets,
    "papers": papers.papers,
    "data": data.data,
    "report": report.report,
    "doctor": doctor,
}


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Dispatch one command line; returns its exit code."""
    os.environ["MEDEXP_COMMAND"] = shlex.join(["medexp", *arguments])  # for the provenance
    return ended(dispatch, arguments)


def ended(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command and turn what it raises into its exit code and message."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in arguments
    try:
        return command(arguments)
    except MedexpError as error:
        return complain(error, 2 if isinstance(error, ConfigError) else 1, full)
    except KeyboardInterrupt as error:
        print(f"medexp: {printable(str(error)) or 'stopped at once'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `medexp models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def complain(error: Exception, code: int, full: bool) -> int:
    """Print an error as a user reads it, before it the traceback if `full`; returns the code."""
    if full:
        traceback.print_exception(error)
    print(f"medexp: {printable(str(error))}", file=sys.stderr)
    return code


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command, rest = arguments[0], set_trusted(arguments[1:])
    if command == "--version":
        print(f"medexp {__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        return complete(rest, list(COMMANDS))
    if command == "bench":
        raise ConfigError(
            "bench: is no part of the package any more. In a checkout: python -m benchmarks.speed"
        )
    if command not in COMMANDS:
        raise ConfigError(f"{command}: no such command. {nearest(command, COMMANDS)}")
    os.environ.pop("MEDEXP_CONFIG_DIR", None)  # only the command line says whose modules run
    if several() and command != "train":
        refuse_copies(command)
    if folder := option_after(rest, "--config-dir"):
        add_config_dir(folder)
    return train_together(rest) if several() else COMMANDS[command](rest)


def several() -> bool:
    """Whether torchrun started several of us for one command line."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def refuse_copies(command: str) -> None:
    """Raise ConfigError: each of the processes would do the whole command."""
    processes = os.environ["WORLD_SIZE"]
    raise ConfigError(
        f"{command}: started {processes} times (WORLD_SIZE={processes}, as torchrun sets it), "
        f"and each process would do all of it. Start it once: medexp {command}"
    )
