"""`medexp eval`: score a finished run again, into a folder of its own inside the run."""

from pathlib import Path

from medexp.cli.groups_help import print_help
from medexp.config.line import folders_of, of_ensemble, read_line
from medexp.config.settings import EvalSettings
from medexp.errors import ConfigError

EVAL_HELP = """\
usage: medexp eval run=DIR [split=test] [GROUP=OPTION] [KEY=VALUE]

Evaluate the best checkpoint of a run again with the settings of the run; any
of them can be overridden. The same data give the same numbers to the last
digit. Writes DIR/eval/<time>/; of an ensemble, outputs/ensembles/<time>/.

  medexp eval run=outputs/pcam-native3/TIME
  medexp eval run=DIR split=val                   train | val | test | all
  medexp eval run=DIR dataset=pcam_kaggle         other data
  medexp eval run=DIR split=all dataset.root=/b   all images of an external set,
                     whose classes go by their names
  medexp eval run=DIR trainer.device=cpu
  medexp eval run=DIR tta=flips_turns             mean over 8 views; or flips
  medexp eval run=A,B,C                           an ensemble: the mean of the
                     runs' probabilities, on the data of the first; run=[A,B,C]
                     is the same
  medexp eval run=DIR explain=gradcam explain.n=12   or saliency, features
  medexp eval run=DIR --config-dir mine           a run of modules of your own:
                     it is not asked where they are
  medexp eval run=DIR trusted=timm                it may call what is in this
                     package too; SECURITY.md: what it may call anyway
"""


def evaluate(words: list[str]) -> int:
    """Evaluate one run; an ensemble of runs gets a folder in outputs/ensembles."""
    if "-h" in words or "--help" in words:
        return print_help(EVAL_HELP, words)
    from medexp.config.saved import primary_of_run
    from medexp.jobs.job import run_jobs

    line = read_line(words)
    folders = folders_of(line.text("run"))
    if not folders:
        raise ConfigError("run: missing. Give the run directory: medexp eval run=outputs/...")
    target = f"{folders[0]}/eval"
    if len(folders) > 1:
        target = "outputs/ensembles"
        line = of_ensemble(folders, line)
    place = {"run": {"dir": f"{target}/${{now:%Y-%m-%d_%H-%M-%S-%f}}"}}
    primary = primary_of_run("run", folders[0], line, place)
    return run_jobs(primary, line.argv(), eval_job)


def eval_job(settings: EvalSettings, folder: Path) -> None:
    from medexp.jobs.eval import evaluate

    evaluate(settings, folder)
