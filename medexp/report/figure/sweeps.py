"""What a sweep found: quantities against the parameters that vary, and all its jobs ranked.

A parameter is a key that the command lines of the jobs set to different values. A numeric one gets
a panel, as in Figure 3 of Johny et al. (2021); the others (model, schedule, ...) are lines in it;
seeds and folds are repeats. Jobs are ranked by what picked their best epoch, never by the test
split: who chooses by that trains on it.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from medexp.report.figure.layout import fitting, marks_of
from medexp.report.figure.plots import look, save_twice
from medexp.report.figure.watermark import watermark
from medexp.report.table.load import Run
from medexp.report.table.repeats import scores
from medexp.report.table.tables import MISSING
from medexp.runs.files import write_text
from medexp.score.metrics import direction, headline

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
        others = _others(self.numeric, key)
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


# ---------------------------------------------------------------- what varies


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
        if key not in REPEATS and len(_numbers(column)) > 1 and all(map(_numeric, column))
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
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
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


# ---------------------------------------------------------------- files


def write_search(runs: Sequence[Run], folder: str | Path) -> list[Path]:
    """Write what a sweep found into its folder; the paths, none where no number varies.

    plots/sweep_<quantity>.png and .svg: a panel for each numeric parameter, of the monitored
    validation value, of accuracy and AUC on the split that was scored. plots/crossed_<a>_<b>.png
    and .svg: the monitored value in a table of two parameters of which all combinations were run.
    search.md, search.csv: all jobs ranked by the monitored value.
    """
    folder, sweep = Path(folder), read_sweep(runs)
    if not sweep.numeric:
        return []
    write_text(folder / "search.md", markdown(sweep))
    write_text(folder / "search.csv", csv_text(sweep))
    figures, found = {}, quantities(runs)
    ended = monitor_of(runs[0]) in found and any(monitored(run) is not None for run in runs)
    for name, (label, quantity) in found.items():
        if any(quantity(run) is not None for run in runs):
            figures[f"sweep_{name}"] = panels_figure(sweep, label, quantity)
    for pair in combinations(sweep.numeric, 2):
        rest = sweep.points(_others(sweep.numeric, *pair))
        if ended and crossed(*(sweep.values[key] for key in pair), rest):
            figures["_".join(["crossed", *map(_short, pair)])] = crossed_figure(sweep, *pair)
    paths = [folder / "search.md", folder / "search.csv"]
    for name, figure in figures.items():
        paths += save_twice(figure, folder / "plots", name)
    return paths


def quantities(runs: Sequence[Run]) -> dict[str, tuple[str, Quantity]]:
    """Name -> label and value of a run, for the figures."""
    splits = " and ".join(dict.fromkeys(run.split for run in runs if run.metrics))

    def scored(short: str) -> Quantity:
        return lambda run: scores(run).get(headline((run.metrics or {}).get("classes", ()))[short])

    found: dict[str, tuple[str, Quantity]] = {
        name: (f"{label} on the {splits} split", scored(name))
        for name, label in (("accuracy", "accuracy"), ("auc", "AUC"))
    }
    monitors = list(dict.fromkeys(map(monitor_of, runs)))
    if len(monitors) == 1:
        found[monitors[0]] = (f"{monitors[0]} at the best epoch", monitored)
    return found


# ---------------------------------------------------------------- figures


def panels_figure(sweep: Sweep, label: str, quantity: Quantity) -> Figure:
    """A panel for each numeric parameter: means, with bars from the lowest to the highest run.

    Where neither all combinations were run nor one parameter at a time, each run is a point.
    """
    keys = sweep.numeric
    of_panel = [sweep.against(key) for key in keys]
    # A line through the means of each value says something only if the others are the same.
    joined = [
        crossed(shown.values[key], shown.points(_others(keys, key)))
        for shown, key in zip(of_panel, keys, strict=True)
    ]
    spread = len(set(sweep.points([*sweep.lines, *keys]))) < len(sweep.runs)
    spread = spread or (len(keys) > 1 and crossed(*(sweep.values[key] for key in keys)))
    what = f"{label}, mean; bars: lowest and highest run" if spread and any(joined) else label
    figure, axes = _figure(sweep, what, len(keys))
    names = list(dict.fromkeys(sweep.points(sweep.lines)))
    for number, (panel, key, shown) in enumerate(zip(axes, keys, of_panel, strict=True)):
        for place, name in enumerate(names):
            _draw(panel, shown, key, name, quantity, place, joined[number])
        _axis(panel, _numbers(shown.values[key]), ticks=joined[number])
        panel.set_xlabel(_label(key), fontsize=12)
        panel.set_title(f"({chr(ord('a') + number)}) {_fixed(sweep, shown, key)}", loc="left")
    axes[0].set_ylabel(label, fontsize=12)
    handles, texts = axes[0].get_legend_handles_labels()
    if len(texts) > 1:
        columns = max(1, min(len(texts), 45 * len(keys) // (max(map(len, texts)) + 8)))
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, fontsize=10)
    return figure


def crossed_figure(sweep: Sweep, across: str, down: str) -> Figure:
    """The monitored value, mean over the runs of a cell, by two parameters; the best is bold."""
    monitor = monitor_of(sweep.runs[0])
    lowest = direction(monitor) == "min"
    names = list(dict.fromkeys(sweep.points(sweep.lines)))
    tables = [_cells(sweep, across, down, name) for name in names]
    xs, ys = (_numbers(sweep.values[key]) for key in (across, down))
    size = (1.6 + 0.85 * len(xs), 1.8 + 0.6 * len(ys))
    figure, axes = _figure(sweep, f"{monitor} at the best epoch", len(names), size)
    shown = Normalize(float(np.nanmin(tables)), float(np.nanmax(tables)))
    colours = "viridis_r" if lowest else "viridis"  # the better, the brighter
    for panel, table, name in zip(axes, tables, names, strict=True):
        image = panel.imshow(table, cmap=colours, norm=shown, aspect="auto")
        known = table[~np.isnan(table)]
        best = None if not len(known) else known.min() if lowest else known.max()
        for y, x in np.ndindex(table.shape):
            value = table[y, x]
            bright = np.isnan(value) or (shown(value) < 0.5) == lowest
            panel.text(
                x,
                y,
                MISSING if np.isnan(value) else f"{value:.4g}",
                ha="center",
                va="center",
                fontsize=11,
                fontweight="bold" if value == best else "normal",
                color="black" if bright else "white",
            )
        panel.grid(visible=False)
        panel.set_xticks(range(len(xs)), [f"{x:g}" for x in xs], fontsize=10)
        panel.set_yticks(range(len(ys)), [f"{y:g}" for y in ys], fontsize=10)
        panel.set_xlabel(_label(across), fontsize=12)
        panel.set_title(_line_name(sweep, name), fontsize=12)
    axes[0].set_ylabel(_label(down), fontsize=12)
    figure.colorbar(image, ax=axes, shrink=0.9)
    return figure


def _cells(sweep: Sweep, across: str, down: str, name: Point) -> npt.NDArray[np.float64]:
    """(values of `down`, values of `across`): mean monitored value of a line; NaN for none."""
    xs, ys = (_numbers(sweep.values[key]) for key in (across, down))
    found: dict[tuple[int, int], list[float]] = {}
    for run, line, (x, y) in zip(
        sweep.runs, sweep.points(sweep.lines), sweep.points((across, down)), strict=True
    ):
        value = monitored(run)
        if line == name and value is not None and x is not None and y is not None:
            found.setdefault((ys.index(y), xs.index(x)), []).append(value)
    table = np.full((len(ys), len(xs)), np.nan)
    for cell, values in found.items():
        table[cell] = np.mean(values)
    return table


def _draw(
    axes: Axes,
    sweep: Sweep,
    key: str,
    name: Point,
    quantity: Quantity,
    place: int,
    joined: bool,
) -> None:
    """One line of a panel: the runs whose other parameters are `name`."""
    found: dict[float, list[float]] = {}
    for run, line, x in zip(sweep.runs, sweep.points(sweep.lines), sweep.values[key], strict=True):
        if line == name and x is not None and (value := quantity(run)) is not None:
            found.setdefault(x, []).append(value)
    shown = look(place) | {"label": _line_name(sweep, name), "markersize": 7}
    if not joined:
        points = [(x, value) for x, values in found.items() for value in values]
        axes.plot(*np.array(points).reshape(-1, 2).T, alpha=0.8, **shown | {"linestyle": ""})
        return
    xs = sorted(found)
    mean, low, high = (np.array([f(found[x]) for x in xs]) for f in (np.mean, np.min, np.max))
    bars = np.array([mean - low, high - mean]).reshape(2, -1)
    axes.errorbar(
        xs,
        mean,
        yerr=bars if bars.any() else None,
        linewidth=2,
        capsize=4,
        **shown,
    )


def _figure(
    sweep: Sweep, what: str, count: int, size: tuple[float, float] = (4.6, 4.4)
) -> tuple[Figure, list[Axes]]:
    """A row of panels under a title that says what, of which data, and the marks of the runs."""
    figure = Figure(figsize=(max(size[0] * count + 0.8, 5.0), size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for panel in axes:
        panel.tick_params(labelsize=11)
        panel.grid(visible=True, color="#dddddd", linewidth=0.8)
        panel.set_axisbelow(True)
        marks = list(dict.fromkeys(mark for run in sweep.runs for mark in run.marks))
        room = fitting(marks, size[0] - 0.6, size[1] - 1.2)
        watermark(panel, marks, size=min(34, room), in_layout=False)
    fixed = [key for key in ("dataset", "model") if key not in sweep.lines]
    about = [str(getattr(sweep.runs[0], key)) for key in fixed]
    failed = sum(run.state != "done" for run in sweep.runs)
    state = [f"{failed} of {len(sweep.runs)} jobs without a result"] if failed else []
    figure.suptitle("\n".join([what, " · ".join([*about, *marks_of(sweep.runs), *state])]).strip())
    return figure, axes


def _axis(axes: Axes, values: Sequence[float], *, ticks: bool) -> None:
    """Logarithmic from a factor of ten on; up to eight chosen values are the ticks themselves."""
    positive = [value for value in values if value > 0]
    if values[0] >= 0 and values[-1] >= 10 * positive[0]:
        if values[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive[0])
    if ticks and len(values) <= 8:
        crowded = sum(len(f"{x:g}") for x in values) > 24
        axes.set_xticks(
            values,
            [f"{x:g}" for x in values],
            rotation=45 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor",
        )
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------- the ranking


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
            ["rank", "job", *map(_name, keys), monitor, "best epoch"],
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
    """search.csv: a line for each job, best first; `value` is exact, of the column `monitor`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(sweep.values)
    writer.writerow(
        ["rank", "run", "dataset", *keys, "monitor", "value", "best_epoch", "marks", "state"]
    )
    for (dataset, monitor), places in _comparable(sweep).items():
        part = sweep.of(places)
        for rank, i in ranked([monitored(run) for run in part.runs], monitor):
            run = part.runs[i]
            writer.writerow(
                [
                    rank,
                    run.path,
                    dataset,
                    *(column[i] for column in part.values.values()),
                    monitor,
                    monitored(run),
                    (run.metrics or {}).get("best_epoch"),
                    ";".join(run.marks),
                    run.state,
                ]
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
        ["rank", *map(_name, keys), "mean", "lowest", "highest", "runs"],
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
        return f"| {' | '.join(_cell(cell) for cell in cells)} |"

    return [line(header), "|" + " --- |" * len(header), *map(line, rows)]


# ---------------------------------------------------------------- words


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = "null" if value is None else str(value)
    return text.replace("|", "\\|").replace("_", "\\_")


def _value(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _name(key: str) -> str:
    return NAMES.get(key, key)


def _label(key: str) -> str:
    return f"{NAMES[key]} ({key})" if key in NAMES else key


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _line_name(sweep: Sweep, name: Point) -> str:
    """`native1`, `native1 schedule=step`: the values that tell a line from the others."""
    words = zip(sweep.lines, name, strict=True)
    return " ".join(f"{v}" if key in ("model", "dataset") else f"{key}={v}" for key, v in words)


def _fixed(sweep: Sweep, shown: Sweep, key: str) -> str:
    """`batch size 32`: what a panel's runs share and other runs vary."""
    held = {other: set(shown.values[other]) for other in _others(sweep.numeric, key)}
    same = {other: found.pop() for other, found in held.items() if len(found) == 1}
    return ", ".join(f"{_name(other)} {_cell(value)}" for other, value in same.items())


def _others(keys: Sequence[str], *without: str) -> list[str]:
    return [key for key in keys if key not in without]


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _numbers(values: Sequence[Any]) -> list[float]:
    """The distinct numbers, in order."""
    return sorted({value for value in values if _numeric(value) and value is not None})
