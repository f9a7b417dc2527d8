"""Room in a figure: measured on what Matplotlib draws."""

from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medexp.report.figure.layout import fitting, frame, legend, wrapped
from medexp.report.figure.watermark import watermark

MARKS = ["PHANTOM", "PARTIAL", "LEAKY", "SELECTED ON TEST"]


@pytest.mark.parametrize("marks", [MARKS[:1], MARKS[1:3], MARKS])
@pytest.mark.parametrize("size", [(2.2, 2.0), (3.0, 6.0), (9.0, 3.0)])
def test_marks_stay_in_the_box_that_they_are_sized_for(
    marks: list[str], size: tuple[float, float]
) -> None:
    figure = Figure(figsize=size)
    watermark(figure, marks, size=fitting(marks, *size))
    box = figure.texts[0].get_window_extent()
    assert box.width <= figure.bbox.width and box.height <= figure.bbox.height
    room = max(box.width / figure.bbox.width, box.height / figure.bbox.height)
    assert room > 0.5 or fitting(marks, *size) == 48


def test_words_are_kept_in_their_order_and_fold() -> None:
    text = "Performance analysis of various models against the number of patches"
    lines = wrapped(text, 3.0)
    assert " ".join(lines) == text and len(lines) > 1
    assert wrapped("", 3.0) == [""]


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("words", [1, 4, 12])
def test_titles_and_legends_stay_inside_and_leave_the_axes_their_room(
    count: int, words: int
) -> None:
    labels = [f"line {i} " + " ".join(["optimizer.lr=0.001"] * words) for i in range(count)]
    title = " ".join(["accuracy against epochs"] * words)
    figure, (axes,) = frame(title, [], ["a note"] * words, (6.0, 4.0), labels=labels)
    axes.set_xlabel("epoch", fontsize=12)
    legend(figure, [Line2D([], [], label=label) for label in labels])
    figure.draw_without_rendering()
    below: Any = figure.legends[0]
    above = figure._suptitle
    assert above is not None
    for part in (below, above):
        box = part.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height
    drawn = axes.get_tightbbox()
    assert drawn is not None
    assert below.get_window_extent().y1 <= drawn.y0 and drawn.y1 <= above.get_window_extent().y0
    assert axes.get_window_extent().height > 0.6 * 4.0 * figure.dpi
