"""Figures over several runs: those of a paper's rows, and of any runs beside one another.

What is drawn of a paper stands in its node (`figures`: draw, file, title and options). A line of a
figure is a row's run, or its repeats over seeds or folds. Lines differ in colour (Okabe and Ito
2008) and in marker or style; every figure is a PNG and an SVG file, and carries the marks of the
runs in it. A row without what a figure shows is named in the figure, and a figure without any is
not drawn.
"""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medexp.config.paper import Paper
from medexp.errors import MedexpError, nearest
from medexp.report.figure.kinds import (
    Line,
    Subject,
    bars,
    confusion,
    curves,
    roc,
    schedules,
    spelt,
    sweep,
)
from medexp.report.figure.plots import save_twice
from medexp.report.table.entries import paper_rows, run_labels
from medexp.report.table.load import Run
from medexp.report.table.repeats import Repeats, arranged, find_repeats, group_label
from medexp.report.table.sweeps import leading

log = logging.getLogger(__name__)


# ---------------------------------------------------------------- of a paper


def write_figures(paper: Paper, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write what `paper.figures` asks for, of the runs that stand in its rows; the paths.

    A figure for which no run has data is left out and logged.

    Raises:
        MedexpError: a node of `figures` is not as `check_figures` says, or asks for a quantity that
            the runs do not have.
    """
    check_figures(paper)
    lines = paper_lines(paper, runs)
    absent = dict.fromkeys(row.key for row in paper.rows if row.run or row.models)
    absent = {key: None for key in absent if key not in {line.key for line in lines}}
    notes = (f"No run of {', '.join(absent)}",) if absent else ()
    paths = []
    for node in paper.figures:
        options = {k: v for k, v in node.items() if k not in _COMMON}
        figure = _KINDS[node["draw"]](Subject(node["title"], lines, notes, paper), **options)
        if figure is None:
            log.warning("figure %s: not drawn, as no run has what it shows", node["file"])
        else:
            paths += save_twice(figure, folder, node["file"])
    return paths


def check_figures(paper: Paper) -> None:
    """Refuse a node of `paper.figures` that cannot be drawn, before anything is trained.

    Raises:
        MedexpError: `draw`, an option or its value is unknown, a key is missing, or two figures
            share a file.
    """
    files: set[str] = set()
    for place, node in enumerate(paper.figures):
        where = f"paper: figure {node.get('file', place + 1)}"
        draw = node.get("draw")
        if draw not in _KINDS:
            raise MedexpError(f"{where}: draw={draw} is no kind. {nearest(str(draw), _KINDS)}")
        options = {
            p.name: p.default
            for p in inspect.signature(_KINDS[draw]).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        for key in node:
            if key not in (*_COMMON, *options):
                valid = nearest(key, (*_COMMON, *options))
                raise MedexpError(f"{where}: no such key {key!r} where draw is {draw}. {valid}")
        needed = [key for key, default in options.items() if default is inspect.Parameter.empty]
        for key in (*_COMMON, *needed):
            if key not in node:
                raise MedexpError(f"{where}: the key {key!r} is missing")
        _check_values(where, node, paper)
        if node["file"] in files or Path(node["file"]).name != node["file"]:
            raise MedexpError(f"{where}: give each figure a file name of its own, without a folder")
        files.add(node["file"])


def _check_values(where: str, node: Mapping[str, Any], paper: Paper) -> None:
    both = node.get("both", False)
    types = {"both": bool, "columns": list}
    for key, value in node.items():
        wanted = types.get(key, str)
        if not isinstance(value, wanted):
            raise MedexpError(f"{where}: {key}={value}; expected a {wanted.__name__}")
    if both and not node.get("quantity", "val_loss").startswith("val_"):
        raise MedexpError(
            f"{where}: quantity={node['quantity']}; both=true draws training beside a val_ one"
        )
    if node.get("split", "val") not in ("val", "test"):
        raise MedexpError(f"{where}: split={node['split']}; a run is scored on val and test")
    names = [column.name for column in paper.columns]
    for name in node.get("columns", ()):
        if name not in names:
            raise MedexpError(f"{where}: columns={name} is none. {nearest(str(name), names)}")
    for key in ("before", "after"):
        if key in node and not any(row.label.startswith(node[key]) for row in paper.rows):
            raise MedexpError(
                f"{where}: {key}={node[key]}; no row's label starts with it. "
                f"Rows: {', '.join(row.label for row in paper.rows)}"
            )


def paper_lines(paper: Paper, runs: Sequence[Run]) -> tuple[Line, ...]:
    """The lines of the paper's rows, in the paper's order; a row of several settings is several."""
    found = [(run, paper_rows(run)) for run in runs]
    keys = {
        run.path: place[1][0].key
        for run, place in found
        if place and place[1] and (place[0].title, place[0].table) == (paper.title, paper.table)
    }
    order = list(dict.fromkeys(row.key for row in paper.rows))
    own = [run for run in runs if run.path in keys]
    lines = [
        Line(f"{keys[line.first.path]}: {line.label}", keys[line.first.path], line.found)
        for line in run_lines(own)
    ]
    return tuple(sorted(lines, key=lambda line: order.index(line.key)))


def run_lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """A line for each run, or for each group of repeats, under its label of the tables."""
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    return tuple(
        Line(group_label(one, labels) if isinstance(one, Repeats) else labels[one.path], "", one)
        for one in arranged(runs, groups)
    )


# ---------------------------------------------------------------- of any runs


def overlay_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """ROC, validation loss and validation accuracy of all runs of a data set in one axes each.

    overlay_<what>.png and .svg, with the data set in the name where there are several; nothing of a
    data set of a single run. Of more than 12 runs the 12 best by the value that picked their best
    epoch, which the figure says (`sweeps.leading`). Returns the paths.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.dataset, []).append(run)
    paths = []
    for dataset, own in found.items():
        lines = run_lines(own)
        kept, words = leading([line.first for line in lines])
        lines = tuple(line for line in lines if line.first in kept)
        if len(lines) < 2:
            continue
        notes = (f"Shown: {words}",) if words else ()
        figures = {"roc": roc(Subject("ROC", lines, notes))}
        for quantity in ("val_loss", "val_accuracy"):
            subject = Subject(spelt(quantity).capitalize(), lines, notes)
            figures[quantity] = curves(subject, quantity=quantity)
        ending = f"_{dataset}" if len(found) > 1 else ""
        for name, figure in figures.items():
            if figure is not None:
                paths += save_twice(figure, folder, f"overlay_{name}{ending}")
    return paths


# ---------------------------------------------------------------- the kinds


_KINDS: dict[str, Callable[..., Figure | None]] = {
    "roc": roc,
    "curves": curves,
    "sweep": sweep,
    "bars": bars,
    "schedules": schedules,
    "confusion": confusion,
}
_COMMON = ("draw", "file", "title")


# ---------------------------------------------------------------- words and looks
