"""The kinds of figures over a paper's rows: what each draws of its lines."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from medexp.config.paper import Column, Paper, PaperRow
from medexp.errors import MedexpError, nearest
from medexp.report.figure.layout import frame, legend, wrapped
from medexp.report.figure.plots import BLUE, GREY, confusion_cells, history_column, look
from medexp.report.figure.schedule import schedules_figure
from medexp.report.figure.sweeps import panels_figure, quantities
from medexp.report.table.entries import entries_of, metric_of
from medexp.report.table.load import Predictions, Run, read_predictions
from medexp.report.table.repeats import Repeats, scores
from medexp.report.table.sweeps import Sweep, read_sweep

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Line:
    """What has one look in a figure: a run or its repeats. key: of the paper's row, "" of none."""

    label: str
    key: str
    found: Run | Repeats

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.found.runs if isinstance(self.found, Repeats) else (self.found,)

    @property
    def first(self) -> Run:
        """The run, or the first scored one of repeats."""
        return self.found.scored[0] if isinstance(self.found, Repeats) else self.found

    @property
    def state(self) -> str:
        """As ` (failed)`; nothing if done."""
        return "" if self.found.state == "done" else f" ({self.found.state})"


@dataclass(frozen=True, eq=False)
class Subject:
    """What a figure is of. notes: said under its title."""

    title: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    paper: Paper | None = None

    def said(
        self, drawn: Collection[Line], repeats: str = "Of several seeds or folds: the first"
    ) -> list[str]:
        """The notes, which of the lines could not be drawn, and what is drawn of repeats."""
        missing = [f"{line.label}{line.state}" for line in self.lines if line not in drawn]
        return [
            *self.notes,
            *([f"Not drawn: {', '.join(missing)}"] if missing else []),
            *([repeats] if any(len(line.runs) > 1 for line in drawn) else []),
        ]


def roc(subject: Subject) -> Figure | None:
    """ROC of all lines: of the second of two classes, of more the mean of each against the rest."""
    drawn: dict[Line, tuple[Floats, Floats]] = {}
    for line in subject.lines:
        path = line.first.path / "predictions.csv"
        if scores(line.first) and path.is_file():
            points = roc_points(read_predictions(path)[line.first.split])
            if points is not None:
                drawn[line] = points
    if not drawn:
        return None
    firsts = [line.first for line in drawn]
    several = any(len((run.metrics or {})["classes"]) > 2 for run in firsts)
    notes = ["Mean over the classes, each against the rest"] if several else []
    notes += subject.said(drawn)
    labels = [f"{line.label}: {_area(line.first)}" for line in drawn]
    figure, (axes,) = frame(subject.title, firsts, notes, (7.0, 6.4), labels=labels)
    for place, ((x, y), label) in enumerate(zip(drawn.values(), labels, strict=True)):
        axes.plot(x, y, linewidth=2, label=label, **_marked(place, len(x)))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", zorder=1.6)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel("false positive rate (1 - specificity)", fontsize=12)
    axes.set_ylabel("true positive rate (sensitivity)", fontsize=12)
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def roc_points(predictions: Predictions) -> tuple[Floats, Floats] | None:
    """False and true positive rates (n,) of one split; None if a class has no image, or all.

    Of more than two classes the curves of each against the rest are averaged at equal false
    positive rates, as scikit-learn's macro average: the area under it is the mean of theirs.
    """
    from sklearn.metrics import roc_curve

    _, labels, probabilities = predictions
    count = probabilities.shape[1]
    if len(set(labels.tolist())) < count:
        return None
    curves = [
        roc_curve(labels == c, probabilities[:, c])[:2]
        for c in (range(count) if count > 2 else [1])
    ]
    if len(curves) == 1:
        x, y = curves[0]
        return x, y
    # A curve jumps at a rate: its mean is taken just before and just after each.
    rates = np.unique(np.concatenate([x for x, _ in curves]))
    around = np.stack([rates - 1e-12, rates + 1e-12], axis=1).ravel()
    mean = np.mean([np.interp(around, x, y) for x, y in curves], axis=0)
    return np.repeat(rates, 2), mean


def _area(run: Run) -> str:
    """`AUC 0.970 [0.965, 0.975]`, in one piece where a label is folded."""
    scored = scores(run)
    key = "auc_binary" if scored.get("auc_binary") is not None else "auc_macro"
    interval = (scored.get("ci95") or {}).get(key)
    bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"AUC {scored[key]:.3f}{bounds}".replace(" ", "\N{NO-BREAK SPACE}")


def curves(subject: Subject, *, quantity: str = "val_loss", both: bool = False) -> Figure | None:
    """A column of history.csv against the epoch; both: that of training too, dashed."""
    base = quantity.removeprefix("val_")
    columns = [quantity, *([f"train_{base}"] if both else [])]
    histories = [run.history for line in subject.lines for run in line.runs if run.history]
    known = {name for history in histories for name in history}
    for name in columns:
        if subject.paper and known and name not in known:
            raise MedexpError(f"quantity={quantity}: no run has {name}. {nearest(name, known)}")
    drawn = [line for line in subject.lines if any(_has(run, quantity) for run in line.runs)]
    if not drawn:
        return None
    notes = subject.said(drawn, "Of several seeds or folds: each a thin line")
    labels = [f"{line.label}{line.state}{_times(line)}" for line in drawn]
    ways: dict[str, Literal["-", "--"]] = {"validation": "-", "training": "--"} if both else {}
    shown = [run for line in drawn for run in line.runs]
    figure, (axes,) = frame(
        subject.title, shown, notes, (7.2, 4.4), labels=[*labels, *ways], split=False
    )
    for place, (line, label) in enumerate(zip(drawn, labels, strict=True)):
        for name in columns:
            for number, run in enumerate(run for run in line.runs if _has(run, name)):
                epochs, values = history_column(run, "epoch"), history_column(run, name)
                style = _marked(place, len(epochs)) | {"linewidth": 2}
                if both:
                    style["linestyle"] = "-" if name == quantity else "--"
                if len(line.runs) > 1:
                    style |= {"linewidth": 1.1, "markersize": 4}
                named = number == 0 and name == quantity
                axes.plot(epochs, values, label=label if named else None, **style)
    handles = [Line2D([], [], color=GREY, linestyle=way, label=how) for how, way in ways.items()]
    axes.set_xlabel("epoch", fontsize=12)
    axes.set_ylabel(spelt(base if both else quantity), fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(figure, [*axes.get_legend_handles_labels()[0], *handles])
    return figure


def sweep(subject: Subject, *, quantity: str = "accuracy") -> Figure | None:
    """A panel for each number that the runs were given different values of (`sweeps`)."""
    runs = [run for line in subject.lines for run in line.runs]
    sweep = read_sweep(runs)
    # Where a run starts from follows from its row and seed.
    kept = {key: values for key, values in sweep.values.items() if key != "init_from"}
    sweep = Sweep(sweep.runs, kept, sweep.numeric)
    found = quantities(runs)
    if runs and quantity not in found:
        raise MedexpError(f"quantity={quantity}: {nearest(quantity, found)}")
    if not sweep.numeric or all(found[quantity][1](run) is None for run in runs):
        return None
    figure = panels_figure(sweep, *found[quantity])
    width = float(figure.get_figwidth())
    lines = [subject.title, *subject.notes]
    above = [part for line in lines for part in wrapped(line, width)]
    figure.set_figheight(float(figure.get_figheight()) + 0.2 * len(above))
    figure.suptitle("\n".join([*above, figure.get_suptitle()]))
    return figure


def schedules(subject: Subject) -> Figure | None:
    """The learning rates that the runs had, from their histories."""
    drawn: dict[Line, Run] = {}
    for line in subject.lines:
        if has := [run for run in line.runs if _has(run, "lr")]:
            drawn[line] = has[0]
    if not drawn:
        return None
    curves = {}
    for line, run in drawn.items():
        epochs, rates = history_column(run, "epoch"), history_column(run, "lr")
        curves[f"{line.label}{line.state}"] = (
            np.append(epochs - 1, epochs[-1]),
            np.append(rates, rates[-1]),
        )
    runs = list(drawn.values())
    notes = [*dict.fromkeys(run.dataset for run in runs), *subject.said(drawn)]
    above = [part for text in (subject.title, *notes) for part in wrapped(text, 7.0)]
    return schedules_figure(
        curves,
        title="\n".join(above),
        marks=list(dict.fromkeys(mark for run in runs for mark in run.marks)),
        note="each epoch's rate is that of its last step",
    )


def confusion(subject: Subject, *, split: str | None = None) -> Figure | None:
    """A confusion matrix a line, on one sheet; split: of which images, None: what tables are of."""
    drawn = [line for line in subject.lines if scores(line.first, split)]
    if not drawn:
        return None
    most = max(len((line.first.metrics or {})["classes"]) for line in drawn)
    side = max(3.0, 1.6 + 0.75 * most)
    columns = min(len(drawn), 3 if most <= 4 else 2)
    rows = -(-len(drawn) // columns)
    figure, panels = frame(
        subject.title,
        [line.first for line in drawn],
        subject.said(drawn),
        (side * columns + 1.0, (side + 0.1) * rows),
        grid=(rows, columns),
        split=split or True,
    )
    for axes, line in zip(panels, drawn, strict=False):
        matrix = scores(line.first, split)["confusion_matrix"]
        classes = (line.first.metrics or {})["classes"]
        image = confusion_cells(axes, matrix, classes, 0.7 * side)
        axes.set_title("\n".join(wrapped(line.label, side, 11)), fontsize=11)
    for axes in panels[len(drawn) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=panels[: len(drawn)], shrink=0.8)
    bar.set_label("share of the actual class", fontsize=11)
    return figure


def bars(subject: Subject, *, columns: Sequence[str], before: str, after: str) -> Figure | None:
    """A panel for each column: ours before and after, pair by pair, beside what the paper reports.

    before, after: what the labels of the rows start with; what follows pairs them.
    """
    paper = subject.paper
    assert paper is not None
    rows = {
        (place, row.label.removeprefix(start).strip()): row
        for place, start in enumerate((before, after))
        for row in paper.rows
        if row.label.startswith(start)
    }
    names = list(dict.fromkeys(name for _, name in rows))
    keys = {row.key for row in rows.values()}
    lines: dict[str, Line] = {}
    for line in subject.lines:
        if line.key in keys and scores(line.first):
            lines.setdefault(line.key, line)
    if not lines:
        return None
    own = Subject(subject.title, tuple(x for x in subject.lines if x.key in keys), subject.notes)
    wanted = [column for column in paper.columns if column.name in columns]
    across = min(len(wanted), 3)
    down = -(-len(wanted) // across)
    size = (max(1.0 + 0.8 * len(names), 5.0 if across == 1 else 3.2) * across, 3.2 * down)
    labels = [before.strip(), after.strip(), "reported"]
    runs = [run for line in lines.values() for run in line.runs]
    notes = [
        "Bars: ours, with 95% intervals",
        *own.said(lines.values(), "Of several seeds or folds: the mean"),
    ]
    figure, panels = frame(subject.title, runs, notes, size, grid=(down, across), labels=labels)
    for axes, column in zip(panels, wanted, strict=False):
        tops = [
            _bar(axes, names.index(name), place, column, row, lines.get(row.key))
            for (place, name), row in rows.items()
        ]
        # An interval of a few repeats may be wider than what can be: it runs out of the panel.
        axes.set_ylim(1.15 * min(0.0, *tops), 1.15 * max(0.0, *tops) or 1.0)
        doubt = " (doubtful)" if column.doubt else ""
        axes.set_title(f"{column.name}{doubt}", fontsize=12)
        axes.set_xticks(range(len(names)), names, fontsize=11)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.grid(visible=False, axis="x")
        axes.axhline(0, color="black", linewidth=0.8)
    for axes in panels[len(wanted) :]:
        axes.remove()
    bars = [Patch(**look, label=label) for look, label in zip(_BARS, labels[:2], strict=True)]
    legend(figure, [*bars, Line2D([], [], label=labels[2], **_REPORTED)])
    return figure


_BARS: tuple[dict[str, Any], ...] = (
    {"facecolor": "white", "edgecolor": BLUE, "hatch": "///"},
    {"facecolor": "#56B4E9", "edgecolor": BLUE},
)
_REPORTED: dict[str, Any] = {
    "linestyle": "",
    "marker": "D",
    "markersize": 7,
    "markerfacecolor": "#E69F00",
    "markeredgecolor": "black",
}


def _bar(
    axes: Axes, pair: int, place: int, column: Column, row: PaperRow, line: Line | None
) -> float:
    """One row's bar in its pair (0 before, 1 after), the reported number at its outer edge.

    Returns the one of the two that is farther from 0; 0 if there is neither.
    """
    x, tops = pair + (-0.2, 0.2)[place], [0.0]
    key = metric_of(column, row)
    if line is not None and key is not None:
        own = entries_of(line.found, {run.path: line.label for run in line.runs})
        (entry,) = (one for one in own if one.kind in ("run", "mean"))
        value, _, interval, *_ = entry.read(key, column.split)
        if value is not None:
            tops.append(column.scale * value)
            axes.bar(x, tops[-1], 0.36, **_BARS[place])
        if value is not None and interval is not None:
            low, high = (column.scale * end for end in interval)
            axes.errorbar(
                x, (low + high) / 2, (high - low) / 2, color="black", capsize=4, linewidth=1.5
            )
    if column.name in row.reported:
        tops.append(float(row.reported[column.name]))
        axes.plot(x + (-0.13, 0.13)[place], tops[-1], zorder=3, **_REPORTED)
    return max(tops, key=abs)


def _marked(place: int, points: int) -> dict[str, Any]:
    """The look of a line of many points: some eight markers, those of two lines apart."""
    step = max(1, points // 8)
    return look(place) | {"markevery": (place % step, step), "markersize": 6}


def _has(run: Run, column: str) -> bool:
    return any(value is not None for value in run.history.get(column, ()))


def _times(line: Line) -> str:
    return f" ({len(line.runs)} runs)" if len(line.runs) > 1 else ""


def spelt(column: str) -> str:
    part, _, rest = column.partition("_")
    words = {"val": "validation", "train": "training"}
    return f"{words[part]} {rest}" if part in words else column.replace("_", " ")
