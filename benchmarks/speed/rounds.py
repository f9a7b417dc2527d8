"""The rounds: files once, then medexp and each peer in turn, every run a process of its own."""

import argparse
import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed import figures, process, tables
from benchmarks.speed.figures import Measured
from benchmarks.speed.peers import PEERS
from medexp import __version__
from medexp.errors import MedexpError

MEDEXP = "medexp"  # its name among the contestants


@dataclass(frozen=True)
class Setup:
    """What is measured: the composed settings and where everything lies.

    overrides: of `medexp train`. patches: None for the user's own data. environment: of medexp's
    own processes. load: of the machine before anything was started.
    """

    given: argparse.Namespace
    settings: dict[str, Any]
    overrides: list[str]
    folder: Path
    patches: int | None
    augment: dict[str, bool]
    environment: dict[str, str]
    load: float

    def python(self, name: str) -> str:
        """The interpreter that runs a contestant."""
        return str(self.given.tf_python) if name == "tf-keras" else sys.executable


def prepare(plan: Setup) -> dict[str, Any]:
    """Write the files and fill medexp's cache; returns bench/prepare.py's facts."""
    job = {
        "settings": plan.settings,
        "data": str(plan.folder / "files"),
        "patches": plan.patches,
    }
    with working("writing the files and medexp's cache"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.speed.prepare",
            write_job(plan, "prepare", job),
        ]
        done = process.run(command, plan.folder, plan.environment)
    process.raise_for(done, "Preparing the files")
    return process.report_of(done.out)


def in_turn(
    plan: Setup, facts: Mapping[str, Any], peers: Sequence[str], left_out: dict[str, str]
) -> dict[str, list[Measured]]:
    """Contestant -> its measurements, one a round; who fails goes to `left_out` with the reason."""
    found: dict[str, list[Measured]] = {name: [] for name in (MEDEXP, *peers)}
    todo = [(number, name) for number in range(plan.given.rounds) for name in found]
    taken: dict[str, float] = {}
    for position, (number, name) in enumerate(todo):
        if name in left_out:
            continue
        ahead = [later for _, later in todo[position:] if later not in left_out]
        where = f"round {number + 1}/{plan.given.rounds}  {name}"
        began = time.monotonic()
        try:
            with working(where + time_left(figures.seconds_left(taken, ahead))):
                one = measure(name, plan, facts, number)
        except MedexpError as error:
            if name == MEDEXP:
                raise
            left_out[name] = f"failed: {error}"
            del found[name]
            say(f"{where}  {left_out[name]}")
            continue
        taken[name] = time.monotonic() - began
        found[name].append(one)
        left = time_left(figures.seconds_left(taken, ahead[1:])) if ahead[1:] else ""
        say(f"{where}  {tables.grouped(one.images_per_s)} images/s{left}")
    return found


def measure(name: str, plan: Setup, facts: Mapping[str, Any], number: int) -> Measured:
    """One run of one contestant, in a process of its own."""
    if name == MEDEXP:
        return measure_medexp(plan, facts, plan.folder / f"run-{number}")
    python = plan.python(name)
    own = facts["precision"]
    job = {
        "settings": plan.settings,
        "data": str(plan.folder / "files"),
        "augment": plan.augment,
        "epochs": plan.given.epochs,
        "workers": cores(),
        "precision": own if plan.given.precision == "same" else "float32",
        "own_precision": own,
        **{key: facts[key] for key in ("images", "shape", "dtype", "classes", "device")},
    }
    environment = process.python_path() if python == sys.executable else {"PYTHONPATH": ""}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if facts["device"] == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
    job_file = write_job(plan, name, job)
    done = process.run([python, *PEERS[name].script, job_file], plan.folder, environment)
    if done.status:
        raise MedexpError(process.reason_of(done))
    report = process.report_of(done.out)
    return figures.measured(report, started=done.started, memory=done.memory)


def measure_medexp(plan: Setup, facts: Mapping[str, Any], folder: Path) -> Measured:
    """`medexp train` as a user starts it, read from what it writes into its run directory."""
    notes = plan.folder / "notes.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed.watched",
        str(notes),
        "train",
        *plan.overrides,
    ]
    done = process.run([*command, f"hydra.run.dir={folder}"], plan.folder, plan.environment)
    process.raise_for(done, "medexp train")
    with (folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    provenance = json.loads((folder / "provenance.json").read_text())
    images = provenance["data"]["train"]["images"]
    if images != facts["images"]["train"]:
        raise MedexpError(
            f"medexp trains on {images:,} images, the files have {facts['images']['train']:,}: not "
            "the same work. Leave out what changes the split, or add --own-data"
        )
    report = {
        "images": images,
        "epoch_seconds": [float(row["seconds"]) for row in history],
        "train_seconds": [images / float(row["images_per_s"]) for row in history],
        "precision": facts["precision"],
        "versions": {"medexp": __version__},
        "extra": {"auc": [row.get("val_auc") for row in history], "commit": provenance["commit"]},
        **json.loads(notes.read_text()),
    }
    shutil.rmtree(folder)
    return figures.measured(report, started=done.started, memory=done.memory)


def write_job(plan: Setup, name: str, job: Mapping[str, Any]) -> str:
    path = plan.folder / f"{name}.json"
    path.write_text(json.dumps(job))
    return str(path)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def working(text: str) -> Iterator[None]:
    """A line that stands on a terminal while something runs, drawn rarely: it is being timed."""
    from rich.console import Console

    with Console(stderr=True).status(text, refresh_per_second=1):
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"  (about {seconds / 60:.0f} min left)" if seconds >= 90 else f"  ({seconds:.0f} s left)"
    )
