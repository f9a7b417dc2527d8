"""Room in a figure: its title, marks and notes above, its legend below, the marks across.

Nothing overflows and nothing is covered, however long the names and however many the lines.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medexp.report.figure.watermark import watermark
from medexp.report.table.load import Run


def frame(
    title: str,
    runs: Sequence[Run],
    notes: Sequence[str],
    size: tuple[float, float],
    *,
    grid: tuple[int, int] = (1, 1),
    labels: Sequence[str] = (),
    split: bool | str = True,
) -> tuple[Figure, list[Axes]]:
    """A figure under its title, data, marks and notes, with room for the labels of a legend.

    size: inches, without the title and the legend. split: as `about` takes it.
    """
    width, height = size
    above = [
        part for text in (title, about(runs, split=split), *notes) for part in wrapped(text, width)
    ]
    folded = _folded(labels, width)
    below = -(-sum(1 + label.count("\n") for label in folded) // _columns(folded, width))
    figure = Figure(
        figsize=(width, height + 0.22 * len(above) + 0.22 * below), layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(above), fontsize=12)
    panels = list(figure.subplots(*grid, squeeze=False).ravel())
    marks = list(dict.fromkeys(mark for run in runs for mark in run.marks))
    size_of_marks = fitting(marks, width / grid[1] - 0.9, height / grid[0] - 0.6)
    for axes in panels:
        axes.tick_params(labelsize=11)
        axes.grid(visible=True, color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        watermark(axes, marks, size=size_of_marks, in_layout=False)
    return figure, panels


def marks_of(runs: Sequence[Run]) -> list[str]:
    """All marks of the runs, those that not every run has with a word."""
    count = Counter(mark for run in runs for mark in run.marks)
    return [mark if n == len(runs) else f"{mark} (some jobs)" for mark, n in count.items()]


def fitting(marks: Sequence[str], width: float, height: float) -> int:
    """Points of marks that, turned by 30 degrees, stay in a box of so many inches; 48 at most.

    A bold letter is 0.8 of its size wide, a line 1.2 of it high.
    """
    long, high = 0.8 * max(map(len, marks), default=1), 1.2 * len(marks)
    along, across = np.cos(np.pi / 6), np.sin(np.pi / 6)
    most = min(
        width / (long * along + high * across), height / (long * across + high * along), 48 / 72
    )
    return int(72 * most)


def about(runs: Sequence[Run], *, split: bool | str) -> str:
    """Data set, split and marks: `pcam · test split · PHANTOM`.

    split: whether to name the split that the runs' tables are of, or another's name.
    """
    datasets = dict.fromkeys(run.dataset for run in runs)
    shown = [split] if isinstance(split, str) else [run.split for run in runs]
    splits = " and ".join("validation" if name == "val" else name for name in dict.fromkeys(shown))
    return " · ".join([*datasets, *([f"{splits} split"] if split else []), *marks_of(runs)])


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """The labels of lines and patches below the figure, where they cover nothing."""
    width = float(figure.get_figwidth())
    labels = _folded([str(handle.get_label()) for handle in handles], width)
    columns = _columns(labels, width)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=10)


def _folded(labels: Sequence[str], width: float) -> list[str]:
    return ["\n".join(wrapped(label, width - 0.8, 10)) for label in labels]


def _columns(labels: Sequence[str], width: float) -> int:
    """Of a legend of 10 points in so many inches: a letter is 0.085 wide, a sample 0.6."""
    longest = max((len(part) for label in labels for part in label.split("\n")), default=0)
    return max(1, min(len(labels), int(width / (0.085 * longest + 0.6))))


def wrapped(text: str, width: float, size: float = 12) -> list[str]:
    """Lines of a text that fit into so many inches: a letter is 0.6 of its size wide."""
    return textwrap.wrap(text, max(10, int(72 * width / (0.6 * size)))) or [""]
