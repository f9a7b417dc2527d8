"""When a job of a sweep is hopeless: the median stopping rule of Golovin et al. (2017).

D. Golovin et al., Google Vizier: a service for black-box optimization, KDD 2017, section 3.2.2: a
trial ends at a step where its best value so far is strictly worse than the median of the running
averages, up to that step, of the others. Of files alone, so that it works for every sweeper and
launcher, needs no database, and a job that is resumed is judged by the same rule.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from medexp.runs.guard import read_yaml
from medexp.score.metrics import direction

OTHERS = 4  # fewer have no median worth the name


def hopeless(run: Path, rows: Sequence[Mapping[str, Any]], monitor: str) -> str | None:
    """Why a run need not go on, or None.

    rows: its epochs so far, as history.csv has them. The others are the jobs beside it in the sweep
    that have as many epochs, finished or not; where they are fewer than OTHERS, or the run is of no
    sweep, it goes on.
    """
    if not of_a_sweep(run):
        return None
    sign = {"min": -1.0, "max": 1.0}[direction(monitor)]
    averages = []
    for path in sorted(run.resolve().parent.glob("*/history.csv")):
        values = read_values(path, monitor)[: len(rows)]
        if path.parent != run.resolve() and len(values) == len(rows):
            averages.append(sign * mean(values))
    best = max(sign * float(row[monitor]) for row in rows)
    if len(averages) < OTHERS or best >= median(averages):
        return None
    return (
        f"ended after epoch {len(rows)}: its best {monitor} {sign * best:.4g} is worse than "
        f"{sign * median(averages):.4g}, the median over {len(averages)} other jobs of their means"
    )


def of_a_sweep(run: Path) -> bool:
    """Whether Hydra made the run as a job of a sweep; runs of one folder may be unrelated."""
    path = run / ".hydra" / "hydra.yaml"
    if not path.is_file():
        return False
    content = read_yaml(path)
    return bool(content["hydra"]["mode"] == "MULTIRUN")


def read_values(path: Path, column: str) -> list[float]:
    """A column of history.csv up to its first gap; empty where there is no such column."""
    values = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row.get(column):
                break
            values.append(float(row[column]))
    return values
