"""Draw learning rates against epochs before training (Johny et al. 2021, Fig. 5), as a PNG file.

Plain arrays in, without torch. Curves differ in colour (Okabe and Ito 2008) and in line style.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medexp.report.figure.plots import DPI, GREY, look
from medexp.report.figure.watermark import watermark

POINTS = 4096  # of a curve: more than a figure has pixels
DECADES = 4  # of the logarithmic axis: a rate that goes to zero would fill it

Floats = npt.NDArray[np.float64]


def rates(
    schedule: Callable[..., float],
    lr: float,
    *,
    epochs: int,
    steps: int,
    history: Sequence[float] | None = None,
) -> tuple[Floats, Floats]:
    """A schedule's rates over a run: time in epochs from 0 to `epochs` (n,), rates (n,), float64.

    Each point is the rate from its time on. All steps are sampled, or 4,096 evenly spread ones of a
    longer run; the last rate is repeated at the end of the run. steps: of an epoch; history:
    val_loss of each epoch, of which an epoch sees those before it. None: no loss is known, so that
    a schedule that follows it stays where it starts.

    Raises ConfigError for a parameter of the schedule out of its range.
    """
    total = epochs * steps
    iterations = np.unique(np.linspace(0, total - 1, min(total, POINTS)).round().astype(np.int64))
    taken = inspect.signature(schedule).parameters
    sampled = []
    for iteration in iterations.tolist():
        epoch = iteration // steps
        clock = {
            "epoch": epoch,
            "iteration": iteration,
            "epochs": epochs,
            "steps": steps,
            "history": list(history or ())[:epoch],
        }
        sampled.append(schedule(lr, **{k: v for k, v in clock.items() if k in taken}))
    times = np.append(iterations / steps, epochs)
    return times, np.array([*sampled, sampled[-1]], np.float64)


def caveat(schedule: Callable[..., float]) -> str:
    """What a curve drawn before training cannot know, as a note for the figure; "" if nothing."""
    if "history" not in inspect.signature(schedule).parameters:
        return ""
    return "A rate that follows the validation loss is drawn as if that fell in every epoch"


def draw_schedules(
    curves: Mapping[str, tuple[Floats, Floats]],
    path: str | Path,
    *,
    title: str,
    marks: Sequence[str] = (),
    note: str = "",
) -> Path:
    """Save `schedules_figure`. Returns `path`."""
    return _save(schedules_figure(curves, title=title, marks=marks, note=note), path)


def schedules_figure(
    curves: Mapping[str, tuple[Floats, Floats]],
    *,
    title: str,
    marks: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Rates against epochs, a curve a name; where they span decades, again on a logarithmic axis.

    curves: name -> (times in epochs (n,), rates (n,)), as of `rates`. marks: named above and laid
    across; note: stands under the title.
    """
    values = np.concatenate([drawn for _, drawn in curves.values()])
    positive = values[values > 0]
    spans = len(positive) > 0 and values.max() > 10 * values.min()
    columns = _columns(curves)
    height = (7.2 if spans else 4.6) + 0.25 * -(-len(curves) // columns)
    figure = Figure(figsize=(7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if spans else 1, 1, sharex=True, squeeze=False)[:, 0]
    for axes in panels:
        _draw(axes, curves)
    panels[0].set_ylim(0, 1.08 * values.max() or 1)
    if spans:
        lowest = max(positive.min(), values.max() / 10**DECADES)
        panels[1].set_yscale("log")
        panels[1].set_ylim(lowest / 1.5, values.max() * 1.5)
    panels[-1].set_xlabel("epoch", fontsize=12)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=10)
    figure.suptitle("\n".join(part for part in (title, " · ".join(marks)) if part), fontsize=13)
    if note:
        panels[0].set_title(note, fontsize=10, color=GREY)
    watermark(figure, marks)
    return figure


def _draw(axes: Axes, curves: Mapping[str, tuple[Floats, Floats]]) -> None:
    for number, (name, (times, drawn)) in enumerate(curves.items()):
        axes.plot(
            times,
            drawn,
            linewidth=2,
            drawstyle="steps-post",
            label=name,
            **look(number) | {"marker": ""},
        )
    axes.set_ylabel("learning rate", fontsize=12)
    axes.tick_params(labelsize=11)
    axes.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    longest = max(times[-1] for times, _ in curves.values())
    axes.set_xlim(0, longest)
    axes.xaxis.set_major_locator(MaxNLocator(integer=longest >= 3, min_n_ticks=1))


def _columns(curves: Mapping[str, object]) -> int:
    """Of the legend: three of short names, one of names as long as a list of overrides."""
    return max(1, min(3, len(curves), 75 // (max(map(len, curves)) + 8)))


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path
