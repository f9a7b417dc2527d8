"""Jobs: one run or all runs of a sweep, each with its status, its tables and its plots."""

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medexp.config.compose import hydra_main, output_dir, settings_of, to_yaml
from medexp.config.saved import saved_config
from medexp.config.settings import Settings
from medexp.config.tree import build, plain
from medexp.errors import MedexpError, RefusedError
from medexp.jobs.binding import changes_on_resume, noted
from medexp.jobs.finish import finish_sweep, show
from medexp.runs.files import is_run, read_json, write_json, write_status, write_text

# Errors of the operating system that are the machine's: no room, no right, a disk to read only.
MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

Work = Callable[[Any, Path], float | None]


def run_jobs(
    primary: str,
    words: list[str],
    work: Work,
    finish: Callable[[Path], int] = finish_sweep,
) -> int:
    """Run the job, or all jobs of a sweep: one that fails must not lose the others.

    primary: the name of Hydra's primary config. work: what a job does with its settings and its
    folder. finish: what is done with the folder of a sweep at its end. Returns the exit code.
    """
    folders: list[Path] = []
    failures: list[Exception] = []

    def task(config: Any) -> float | None:
        folders.append(output_dir())
        try:
            return job(config, folders[-1], work)
        except Exception as error:
            failures.append(error)
            return None

    sweep = hydra_main(primary, task, words)
    if sweep is not None:
        return finish(sweep)
    if failures:
        raise told(failures[0])
    show([folder for folder in folders if is_run(folder)])  # none after --cfg job and previews
    return 0


def job(config: Any, folder: Path, work: Work) -> float | None:
    """Write config.yaml, work, write tables and plots; status.json says how it stands.

    Where the settings ask for previews these are drawn in place of all that: it is no run.
    """
    if config.plot_schedule or config.plot_augment:
        from medexp.jobs.preview import preview

        for path in preview(settings_of(config), folder):
            print(path)
        return None
    before = as_it_was(folder)
    write_status(folder, "running")
    try:
        settings = settings_of(config)
        if settings.resume is not None:
            goes_on(settings, folder)
        write_text(folder / "config.yaml", to_yaml(plain(settings) | {"resume": None}))
        result = work(settings, folder)
    except BaseException as error:
        if isinstance(error, RefusedError) and before:
            for name, text in before.items():
                write_text(folder / name, text)
            raise
        reason = str(told(error) if isinstance(error, Exception) else error) or "stopped at once"
        write_status(folder, "failed", reason)
        if not isinstance(error, (MedexpError, KeyboardInterrupt)):
            logging.getLogger("medexp.file").exception("The run failed")
        raise
    write_status(folder, "done")
    from medexp.report.figure import plots  # Matplotlib: half a second, not before the work
    from medexp.report.table import load, render

    render.write_tables(load.find_runs([folder]), folder)
    plots.write_plots(folder)
    return result


def as_it_was(folder: Path) -> dict[str, str]:
    """File -> text of what a run's folder says of it, to be put back where a resume is refused."""
    names = ("status.json", "config.yaml", "provenance.json")
    return {
        name: (folder / name).read_text(encoding="utf-8")
        for name in names
        if (folder / name).is_file()
    }


def goes_on(settings: Settings, folder: Path) -> None:
    """Hold a resume against the run, and note in provenance.json what it changes.

    Raises RefusedError for what cannot change.
    """
    was = build(Settings, saved_config("resume", str(folder)))
    changes = changes_on_resume(was, settings)
    path = folder / "provenance.json"
    if path.is_file():
        stretch = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changes": noted(changes)}
        content = read_json(path)
        write_json(path, content | {"resumed": [*content.get("resumed", ()), stretch]})


def told(error: Exception) -> MedexpError:
    """What the user reads; a defect becomes a failed run that says where its traceback is.

    What the machine lacks, memory, room or a right, is no defect.
    """
    if isinstance(error, MedexpError):
        return error
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, torch.OutOfMemoryError):
        text = (
            f"The device has too little memory ({first}). Lower trainer.batch_size, or compute a "
            "batch in parts with trainer.accumulate=2"
        )
    elif isinstance(error, OSError) and error.errno in MACHINE:
        text = f"{error.filename or 'The disk'}: {error.strerror}. Make room, or write elsewhere"
    else:
        text = (
            f"{type(error).__name__}: {error}\nThis is a defect, of medexp or of a module that a "
            "_target_ names. Its traceback is in run.log; debug=true prints it"
        )
    message = MedexpError(text)
    message.__cause__ = error
    return message
