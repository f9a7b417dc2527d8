import pytest
from matplotlib.figure import Figure

from medexp.report.figure.watermark import watermark


@pytest.mark.parametrize("on_axes", [False, True])
def test_every_mark_lies_across_and_none_where_there_is_none(on_axes):
    figure = Figure()
    on = figure.add_subplot() if on_axes else figure
    watermark(on, [])
    assert not on.texts
    watermark(on, ["PHANTOM", "LEAKY"], size=20)
    (text,) = on.texts
    assert text.get_text() == "PHANTOM\nLEAKY" and text.get_fontsize() == 20
    assert text.get_rotation() == 30 and text.get_alpha() < 0.5
    centre = on.transAxes if on_axes else figure.transSubfigure
    assert text.get_transform() == centre and text.get_position() == (0.5, 0.5)
