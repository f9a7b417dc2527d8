"""What forbids a comparison, laid across a figure: a picture that is copied keeps its mark."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOUR = "#D55E00"  # vermillion of Okabe and Ito's colour-blind safe set


def watermark(on: Figure | Axes, marks: Sequence[str], *, size: int = 48, **text: Any) -> None:
    """Write the marks across a figure or axes, see-through; nothing where there are none.

    text: further arguments of matplotlib's text. On axes it lies above an image and below lines
    and numbers: seen, but nothing is hard to read for it.
    """
    if not marks:
        return
    if isinstance(on, Axes):
        text = {"transform": on.transAxes, "zorder": 1.5, **text}
    on.text(
        0.5,
        0.5,
        "\n".join(marks),
        ha="center",
        va="center",
        rotation=30,
        fontsize=size,
        fontweight="bold",
        color=COLOUR,
        alpha=0.22,
        **text,
    )
