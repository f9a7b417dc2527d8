"""Draw a run: loss, accuracy, learning rate, ROC and confusion matrix, as PNG files.

Each `*_figure` is a pure function of what `load` read. Figures carry their own Agg canvas instead
of pyplot's global state, so that a sweep neither leaks figures nor needs a display. Colours are
Okabe & Ito's (2008), which colour-blind readers can tell apart; lines also differ in style.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from medexp.report.figure.layout import fitting
from medexp.report.figure.watermark import watermark
from medexp.report.table.load import Predictions, Run, load_run, read_predictions

DPI = 150
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
# Their yellow is darkened: on white paper it is not seen.
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")
# Five: with eight colours no two of forty lines look alike.
STYLES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)))


def look(place: int) -> dict[str, Any]:
    """Colour, marker and line style of the line at a place: no two of the first forty agree."""
    shape = place + place // len(SHAPES)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": SHAPES[shape % len(SHAPES)],
        "linestyle": STYLES[place % len(STYLES)],
    }


def save_twice(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    figure.savefig(paths[0], dpi=DPI)
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(paths[1], dpi=DPI, metadata={"Date": None})
    return paths


def write_plots(run_dir: str | Path) -> list[Path]:
    """Write `plots/*.png` (150 dpi) into a run directory; the paths written.

    A run without history.csv, metrics.json or predictions.csv gets the plots it has data for.

    Raises:
        MedexpError: `run_dir` is no run directory or one of its files cannot be parsed.
    """
    run = load_run(run_dir)
    figures: dict[str, Figure] = {}
    if run.history.get("epoch"):
        for quantity in ("loss", "accuracy"):
            if {f"train_{quantity}", f"val_{quantity}"} & set(run.history):
                figures[quantity] = curves_figure(run, quantity)
        if "lr" in run.history:
            figures["learning_rate"] = learning_rate_figure(run)
    predictions = run.path / "predictions.csv"
    if (run.metrics or {}).get(run.split):
        figures["confusion_matrix"] = confusion_figure(run)
        if predictions.exists():
            figures["roc"] = roc_figure(run, read_predictions(predictions)[run.split])
    folder = run.path / "plots"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def curves_figure(run: Run, quantity: str) -> Figure:
    """`train_<quantity>` and `val_<quantity>` against the epoch, the best epoch marked."""
    figure, axes = _figure(run, quantity.replace("_", " ").capitalize())
    _curve(axes, run, f"train_{quantity}", "training", BLUE, "--")
    _curve(axes, run, f"val_{quantity}", "validation", VERMILLION, "-")
    _best_epoch(axes, run)
    _epoch_axis(axes, quantity)
    axes.legend(fontsize=11, framealpha=0.9)
    return figure


def learning_rate_figure(run: Run) -> Figure:
    """`lr` against the epoch, on a logarithmic axis if it spans more than a factor of ten."""
    figure, axes = _figure(run, "Learning rate")
    _curve(axes, run, "lr", "learning rate", BLUE, "-")
    rates = [rate for rate in run.history.get("lr", ()) if rate is not None]
    if rates and min(rates) > 0 and max(rates) > 10 * min(rates):
        axes.set_yscale("log")
    elif rates:
        axes.set_ylim(0, 1.1 * max(rates) or 1)
    _epoch_axis(axes, "learning rate")
    return figure


def roc_figure(run: Run, predictions: Predictions) -> Figure:
    """ROC of one split: of the second of two classes, else of each class against the rest."""
    from sklearn.metrics import roc_curve

    figure, axes = _figure(run, f"ROC on the {run.split} split", size=(6.4, 6.4))
    metrics = run.metrics or {}
    scored: dict[str, Any] = metrics.get(run.split) or {}
    classes: Sequence[str] = metrics.get("classes") or ()
    _, labels, probabilities = predictions
    drawn = [1] if len(classes) == 2 else range(len(classes))
    for c in drawn:
        positive = labels == c
        area = scored["per_class"][classes[c]]["auc"]
        if area is None:
            axes.plot([], [], " ", label=f"{classes[c]}: undefined")
            continue
        false_positive, true_positive, _ = roc_curve(positive, probabilities[:, c])
        interval = _interval(scored, "auc_binary") if len(classes) == 2 else ""
        axes.plot(
            false_positive,
            true_positive,
            color=COLOURS[c % len(COLOURS)] if len(classes) > 2 else BLUE,
            linestyle=STYLES[c // len(COLOURS) % len(STYLES)],
            linewidth=2,
            label=f"{classes[c]}: AUC {area:.3f}{interval}",
        )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    mean = scored.get("auc_macro")
    heading = (
        f"mean AUC {mean:.3f}{_interval(scored, 'auc_macro')}"
        if len(classes) > 2 and mean is not None
        else None
    )
    axes.legend(
        loc="lower right", fontsize=10 if len(classes) <= 8 else 7, framealpha=0.9, title=heading
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate (1 - specificity)", fontsize=12)
    axes.set_ylabel("true positive rate (sensitivity)", fontsize=12)
    return figure


def confusion_figure(run: Run) -> Figure:
    """Counts and row percentages of the split; colour is the row percentage."""
    metrics = run.metrics or {}
    classes: Sequence[str] = metrics["classes"]
    side = max(5.5, 2.5 + 0.75 * len(classes))
    figure, axes = _figure(run, f"Confusion matrix, {run.split} split", size=(side + 0.8, side))
    image = confusion_cells(axes, metrics[run.split]["confusion_matrix"], classes, 0.65 * side)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the actual class", fontsize=11)
    return figure


def confusion_cells(
    axes: Axes, matrix: Sequence[Sequence[int]], classes: Sequence[str], inches: float
) -> AxesImage:
    """Draw a confusion matrix (rows actual) into axes whose cells share so many inches."""
    counts = np.array(matrix, dtype=np.int64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 13 if len(classes) <= 4 else 9
    for actual, predicted in np.ndindex(counts.shape):
        axes.text(
            predicted,
            actual,
            f"{counts[actual, predicted]:,}\n{share[actual, predicted]:.1%}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share[actual, predicted] > 0.5 else "black",
        )
    # A character of 11 points is 0.1 inch wide.
    crowded = max(map(len, classes)) * 0.1 > inches / len(classes)
    axes.set_xticks(
        range(len(classes)),
        classes,
        fontsize=11,
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(classes)), classes, fontsize=11)
    axes.grid(visible=False)
    axes.set_xlabel("predicted", fontsize=12)
    axes.set_ylabel("actual", fontsize=12)
    return image


def _figure(run: Run, what: str, size: tuple[float, float] = (7.0, 4.6)) -> tuple[Figure, Axes]:
    """A titled figure that carries the run's marks in its title and across it."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    title = " · ".join([f"{run.dataset}, {run.model}", *run.marks])
    axes.set_title(f"{what}\n{title}", fontsize=13)
    axes.tick_params(labelsize=11)
    axes.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    marks = list(run.marks)
    watermark(axes, marks, size=fitting(marks, size[0] - 1, size[1] - 1), in_layout=False)
    return figure, axes


def _curve(axes: Axes, run: Run, column: str, label: str, colour: str, style: str) -> None:
    if column not in run.history:
        return
    epochs, values = history_column(run, "epoch"), history_column(run, column)
    # Without markers a run of one epoch would draw nothing; with many they hide the line.
    marker = "o" if len(epochs) <= 40 else None
    axes.plot(epochs, values, style, color=colour, marker=marker, linewidth=2, label=label)


def _best_epoch(axes: Axes, run: Run) -> None:
    best = (run.metrics or {}).get("best_epoch")
    if best is not None:
        monitor = (run.metrics or {}).get("monitor")
        label = f"best epoch: {best}" + (f" ({monitor})" if monitor else "")
        axes.axvline(best, color=GREEN, linestyle=":", linewidth=2, zorder=1.8, label=label)


def _epoch_axis(axes: Axes, quantity: str) -> None:
    axes.set_xlabel("epoch", fontsize=12)
    axes.set_ylabel(quantity.replace("_", " "), fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def history_column(run: Run, name: str) -> npt.NDArray[np.float64]:
    """A history column (epochs,) float64; empty cells are NaN, which Matplotlib leaves out."""
    return np.array([np.nan if v is None else v for v in run.history[name]], dtype=np.float64)


def _interval(scored: dict[str, Any], key: str) -> str:
    interval = (scored.get("ci95") or {}).get(key)
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
