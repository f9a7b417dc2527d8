"""What a sweep found: quantities against the parameters that vary, and all its jobs ranked.

A parameter is a key that the command lines of the jobs set to different values. A numeric one gets
a panel, as in Figure 3 of Johny et al. (2021); the others (model, schedule, ...) are lines in it;
seeds and folds are repeats. Jobs are ranked by what picked their best epoch, never by the test
split: who chooses by that trains on it.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from medexp.report.table.sweeps import (
    NAMES,
    Point,
    Quantity,
    Sweep,
    crossed,
    csv_text,
    markdown,
    monitor_of,
    monitored,
    name_of,
    numbers_of,
    others_of,
    read_sweep,
    shortened,
    table_cell,
)
from medexp.report.table.tables import MISSING
from medexp.runs.files import write_text
from medexp.score.metrics import direction, headline

# ---------------------------------------------------------------- what varies


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
        rest = sweep.points(others_of(sweep.numeric, *pair))
        if ended and crossed(*(sweep.values[key] for key in pair), rest):
            figures["_".join(["crossed", *map(shortened, pair)])] = crossed_figure(sweep, *pair)
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
        crossed(shown.values[key], shown.points(others_of(keys, key)))
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
        _axis(panel, numbers_of(shown.values[key]), ticks=joined[number])
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
    xs, ys = (numbers_of(sweep.values[key]) for key in (across, down))
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
    xs, ys = (numbers_of(sweep.values[key]) for key in (across, down))
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


# ---------------------------------------------------------------- words


def _label(key: str) -> str:
    return f"{NAMES[key]} ({key})" if key in NAMES else key


def _line_name(sweep: Sweep, name: Point) -> str:
    """`native1`, `native1 schedule=step`: the values that tell a line from the others."""
    words = zip(sweep.lines, name, strict=True)
    return " ".join(f"{v}" if key in ("model", "dataset") else f"{key}={v}" for key, v in words)


def _fixed(sweep: Sweep, shown: Sweep, key: str) -> str:
    """`batch size 32`: what a panel's runs share and other runs vary."""
    held = {other: set(shown.values[other]) for other in others_of(sweep.numeric, key)}
    same = {other: found.pop() for other, found in held.items() if len(found) == 1}
    return ", ".join(f"{name_of(other)} {table_cell(value)}" for other, value in same.items())
