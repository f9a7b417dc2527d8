"""What varies over the jobs of a sweep, and how they rank: search.md and search.csv."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medexp.errors import MedexpError
from medexp.report.figure.layout import marks_of
from medexp.report.table.load import Run
from medexp.report.table.tables import MISSING
from medexp.runs.guard import cell, parse_yaml
from medexp.score.metrics import direction

REPEATS = ("seed", "dataset.fold", "dataset.split_seed", "source.seed")
NAMES = {
    "dataset.max_train": "training images",
    "trainer.batch_size": "batch size",
    "optimizer.lr": "learning rate",
    "trainer.epochs": "epochs",
}
MOST = 12  # lines that one pair of axes can hold, runs that are compared pair by pair
Point = tuple[Any, ...]
Quantity = Callable[[Run], float | None]


@dataclass(frozen=True)
class Sweep:
    """Runs and what varies among them.

    values: KEY -> its value in each run, for the keys of which the runs have different values.
    numeric: the keys that a panel can be drawn against, of two or more numbers.
    """

    runs: tuple[Run, ...]
    values: Mapping[str, tuple[Any, ...]]
    numeric: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The other keys, whose values tell the lines of a panel from one another."""
        return [key for key in self.values if key not in (*REPEATS, *self.numeric)]

    @property
    def repeats(self) -> list[str]:
        return [key for key in self.values if key in REPEATS]

    def points(self, keys: Sequence[str]) -> list[Point]:
        """The values of some keys in each run."""
        return [tuple(self.values[key][i] for key in keys) for i in range(len(self.runs))]

    def against(self, key: str) -> "Sweep":
        """The runs that a panel of one numeric key is of.

        Where one parameter was varied at a time, those with all others at the held value, else all.
        """
        centre = held(self.points(self.numeric))
        others = others_of(self.numeric, key)
        if centre is None or not others:
            return self
        at = dict(zip(self.numeric, centre, strict=True))
        kept = [
            i
            for i in range(len(self.runs))
            if all(self.values[other][i] == at[other] for other in others)
        ]
        return self.of(kept)

    def of(self, places: Sequence[int]) -> "Sweep":
        """Some of the runs, with the same keys."""
        values = {key: tuple(column[i] for i in places) for key, column in self.values.items()}
        return Sweep(tuple(self.runs[i] for i in places), values, self.numeric)


def read_sweep(runs: Sequence[Run]) -> Sweep:
    """What the overrides of the runs set to different values, in the order of the command line.

    The row of a paper's table that a run stands in (`paper.row`) is no setting.
    """
    keys = [o.partition("=")[0].lstrip("+") for run in runs for o in run.overrides if "=" in o]
    keys = [key for key in keys if not key.startswith("paper.")]
    values = {key: tuple(value_of(run, key) for run in runs) for key in dict.fromkeys(keys)}
    values = {key: column for key, column in values.items() if len(set(column)) > 1}
    numeric = (
        key
        for key, column in values.items()
        if key not in REPEATS and len(numbers_of(column)) > 1 and all(map(_numeric, column))
    )
    return Sweep(tuple(runs), values, tuple(numeric))


def value_of(run: Run, key: str) -> Any:
    """A number, truth value or text: the composed value, or of a group the chosen option."""
    found: Any = run.config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None or isinstance(found, dict):
        given = [o.partition("=")[2] for o in run.overrides if o.lstrip("+").startswith(f"{key}=")]
        names = run.config.get("names") or {}
        found = _read(given[-1]) if given else names.get(key)
    return found if isinstance(found, bool | int | float | None) else str(found)


def _read(text: str) -> Any:
    """A value of the command line; YAML 1.1 takes 1e-3, which has no point, for a word."""
    try:
        return float(text) if "e" in text.lower() else parse_yaml(text, "an override")
    except (ValueError, MedexpError):
        return text


def held(points: Sequence[Point]) -> Point | None:
    """The point that all others differ from in one place at most; None if there is none.

    It exists where one parameter was varied at a time, and in no cross of two or more.
    """
    for centre in dict.fromkeys(points):
        if all(sum(a != b for a, b in zip(centre, p, strict=True)) <= 1 for p in points):
            return centre
    return None


def crossed(*columns: Sequence[Any]) -> bool:
    """Whether every combination of the columns' values is there."""
    return len(set(zip(*columns, strict=True))) == math.prod(len(set(c)) for c in columns)


def monitor_of(run: Run) -> str:
    """The history's column that picks the best epoch."""
    trainer = run.config.get("trainer") or {}
    return str((run.metrics or {}).get("monitor") or trainer.get("monitor"))


def monitored(run: Run) -> float | None:
    """The monitor at the best epoch; None where the run has not come to its end."""
    best, column = (run.metrics or {}).get("best_epoch"), run.history.get(monitor_of(run))
    epochs = run.history.get("epoch", [])
    return column[epochs.index(best)] if column and best in epochs else None


def leading(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """At most MOST of the runs, in their order, and in words which; "" if all.

    The first by rank where all were monitored by the same value, else the first as given.
    """
    if len(runs) <= MOST:
        return list(runs), ""
    monitors = set(map(monitor_of, runs))
    if len(monitors) > 1:
        return list(runs[:MOST]), f"the first {MOST} of {len(runs)}"
    order = ranked([monitored(run) for run in runs], *monitors)
    kept = sorted(place for _, place in order[:MOST])
    return [runs[i] for i in kept], f"the best {MOST} of {len(runs)} by {monitors.pop()}"


def markdown(sweep: Sweep) -> str:
    """search.md: the jobs of each data set and monitor, and the settings by mean over repeats."""
    lines = [
        f"# {' · '.join([f'Search over {len(sweep.runs)} jobs', *marks_of(sweep.runs)])}",
        "",
        "Ranked by the monitored value of the validation split at each job's best epoch, not by the"
        " test score: choosing by that would make the test split part of the training. The scores"
        " of the chosen job are in table.md.",
    ]
    keys = list(sweep.values)
    for (dataset, monitor), places in _comparable(sweep).items():
        part = sweep.of(places)
        best = "lowest" if direction(monitor) == "min" else "highest"
        lines += ["", f"## {dataset}, {monitor}, {best} first", ""]
        lines += _table(
            ["rank", "job", *map(name_of, keys), monitor, "best epoch"],
            [
                [
                    rank or MISSING,
                    part.runs[i].path.name,
                    *(column[i] for column in part.values.values()),
                    _value(monitored(part.runs[i])),
                    (part.runs[i].metrics or {}).get("best_epoch", part.runs[i].state),
                ]
                for rank, i in ranked([monitored(run) for run in part.runs], monitor)
            ],
        )
        if part.repeats:
            lines += ["", f"Mean over {' and '.join(part.repeats)}:", "", *_settings(part, monitor)]
    reasons = (reason for run in sweep.runs for reason in run.marks.items())
    notes = dict.fromkeys(f"{mark}: {why}" for mark, why in reasons)
    for run in sweep.runs:
        if run.state != "done":
            why = " ".join((run.reason or "no reason is known").split())
            notes[f"{run.path.name} {run.state}: {why}"] = None
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def csv_text(sweep: Sweep) -> str:
    """search.csv: a line for each job, best first; `value` is exact, of the column `monitor`.

    A text that a spreadsheet would take for a formula has a quote before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(sweep.values)
    names = ["rank", "run", "dataset", *keys, "monitor", "value", "best_epoch", "marks", "state"]
    writer.writerow(map(cell, names))
    for (dataset, monitor), places in _comparable(sweep).items():
        part = sweep.of(places)
        for rank, i in ranked([monitored(run) for run in part.runs], monitor):
            run = part.runs[i]
            writer.writerow(
                cell(value)
                for value in (
                    rank,
                    run.path,
                    dataset,
                    *(column[i] for column in part.values.values()),
                    monitor,
                    monitored(run),
                    (run.metrics or {}).get("best_epoch"),
                    ";".join(run.marks),
                    run.state,
                )
            )
    return text.getvalue()


def ranked(values: Sequence[float | None], monitor: str) -> list[tuple[int | None, int]]:
    """(rank, place in `values`), best first; equals share a rank, None comes last without one."""
    sign = 1.0 if direction(monitor) == "min" else -1.0
    known = sorted((sign * v, i) for i, v in enumerate(values) if v is not None)
    firsts: dict[float, int] = {}
    for rank, (value, _) in enumerate(known, start=1):
        firsts.setdefault(value, rank)
    found: list[tuple[int | None, int]] = [(firsts[value], i) for value, i in known]
    return found + [(None, i) for i, value in enumerate(values) if value is None]


def _settings(sweep: Sweep, monitor: str) -> list[str]:
    """The table of the settings, which are the jobs but for seeds and folds."""
    keys = [key for key in sweep.values if key not in REPEATS]
    groups: dict[Point, list[float]] = {}
    for run, point in zip(sweep.runs, sweep.points(keys), strict=True):
        value = monitored(run)
        groups.setdefault(point, []).extend([] if value is None else [value])
    means = [float(np.mean(found)) if found else None for found in groups.values()]
    settings = list(groups.items())
    return _table(
        ["rank", *map(name_of, keys), "mean", "lowest", "highest", "runs"],
        [
            [
                rank or MISSING,
                *settings[i][0],
                _value(means[i]),
                _value(min(settings[i][1], default=None)),
                _value(max(settings[i][1], default=None)),
                len(settings[i][1]),
            ]
            for rank, i in ranked(means, monitor)
        ],
    )


def _comparable(sweep: Sweep) -> dict[tuple[str, str], list[int]]:
    """(data set, monitor) -> the places of its runs: others' values do not compare."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(sweep.runs):
        groups.setdefault((run.dataset, monitor_of(run)), []).append(i)
    return groups


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return f"| {' | '.join(table_cell(cell) for cell in cells)} |"

    return [line(header), "|" + " --- |" * len(header), *map(line, rows)]


def table_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = "null" if value is None else str(value)
    return text.replace("|", "\\|").replace("_", "\\_")


def _value(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def name_of(key: str) -> str:
    return NAMES.get(key, key)


def shortened(key: str) -> str:
    return key.rpartition(".")[2]


def others_of(keys: Sequence[str], *without: str) -> list[str]:
    return [key for key in keys if key not in without]


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def numbers_of(values: Sequence[Any]) -> list[float]:
    """The distinct numbers, in order."""
    return sorted({value for value in values if _numeric(value) and value is not None})
