"""The figure of a learning rate before training, and the sampling behind it."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.errors import ConfigError
from medexp.report.figure import schedule as drawing
from medexp.report.figure.schedule import caveat, draw_schedules, rates
from medexp.train import schedules
from tests.conftest import ROOT

STEP = partial(schedules.step, factor=0.1, every=2)
COSINE = partial(schedules.cosine)
PLATEAU = partial(schedules.plateau, factor=0.1, patience=2)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved, for a look at what stands in it."""
    figures: list[Figure] = []
    save = drawing._save

    def keep(figure: Figure, *arguments: object) -> Path:
        figures.append(figure)
        return save(figure, *arguments)

    monkeypatch.setattr(drawing, "_save", keep)
    return figures


def test_rates_are_those_of_every_step() -> None:
    times, values = rates(COSINE, 0.1, epochs=3, steps=4)
    np.testing.assert_allclose(times, np.arange(13) / 4)
    half = 0.05 * (1 + np.cos(np.pi * np.arange(12) / 12))
    np.testing.assert_allclose(values, [*half, half[-1]])
    assert times.dtype == values.dtype == np.float64
    np.testing.assert_allclose(
        rates(STEP, 1.0, epochs=4, steps=2)[1][::2], [1, 0.1, 0.1, 0.01, 0.01]
    )


def test_a_long_run_is_sampled_from_its_first_step_to_its_last() -> None:
    times, values = rates(COSINE, 0.1, epochs=1000, steps=6554)
    assert len(times) == len(values) == 4097 and (np.diff(times) > 0).all()
    assert (times[0], times[-1]) == (0, 1000) and times[-2] == 1000 - 1 / 6554
    np.testing.assert_allclose(
        values[:-1], 0.05 * (1 + np.cos(np.pi * times[:-1] / 1000)), atol=1e-12
    )


def test_a_schedule_gets_only_what_it_takes() -> None:
    def mine(lr: float, *, epoch: int) -> float:
        return lr / (1 + epoch)

    np.testing.assert_allclose(rates(mine, 6.0, epochs=3, steps=1)[1], [6, 3, 2, 2])


def test_a_schedule_that_follows_the_loss() -> None:
    assert set(rates(PLATEAU, 0.1, epochs=9, steps=2)[1]) == {0.1}
    assert "as if that fell in every epoch" in caveat(PLATEAU)
    assert caveat(COSINE) == caveat(STEP) == ""
    losses = [3.0, 2.0, 2.0, 2.0, 1.0]
    _, values = rates(PLATEAU, 0.1, epochs=6, steps=1, history=losses)
    np.testing.assert_allclose(values, [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_a_parameter_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.warmup=5: .* the 5 epochs of the run"):
        rates(partial(COSINE, warmup=5), 0.1, epochs=5, steps=10)


def test_the_curves_are_in_the_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = {
        "step": rates(STEP, 0.1, epochs=6, steps=2),
        "flat": rates(PLATEAU, 0.1, epochs=6, steps=2),
    }
    path = draw_schedules(curves, tmp_path / "new" / "s.png", title="Learning rate", note="a note")
    image = np.asarray(imread(path))
    assert path == tmp_path / "new" / "s.png"
    assert min(image.shape[:2]) >= 600 and image[..., :3].std() > 0.02
    (figure,) = drawn
    assert figure.get_suptitle() == "Learning rate"
    assert figure.axes[0].get_title() == "a note"
    for axes in figure.axes:
        for line, name in zip(axes.lines, curves, strict=True):
            assert line.get_label() == name and line.get_drawstyle() == "steps-post"
            np.testing.assert_array_equal(line.get_xdata(), curves[name][0])
            np.testing.assert_array_equal(line.get_ydata(), curves[name][1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    assert figure.texts == [figure._suptitle]


def test_decades_are_drawn_on_a_logarithmic_axis_too(tmp_path: Path, drawn: list[Figure]) -> None:
    for schedule in (STEP, PLATEAU, COSINE, partial(schedules.polynomial, power=3.0)):
        draw_schedules(
            {"a": rates(schedule, 0.1, epochs=7, steps=99)}, tmp_path / "s.png", title=""
        )
    scales = [[axes.get_yscale() for axes in figure.axes] for figure in drawn]
    assert scales == [["linear", "log"], ["linear"], ["linear", "log"], ["linear", "log"]]
    stepped, _, cosine, _ = (figure.axes[-1].get_ylim() for figure in drawn)
    assert stepped[0] < 1e-4 < 0.1 < stepped[1]  # down to the last of the four rates
    assert 1e-6 < cosine[0] < 1e-5  # no further than four decades: it goes to zero
    for figure in drawn:
        assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[-1].get_xlim() == (0, 7)


def test_a_rate_of_zero_can_be_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    off = (np.array([0.0, 1.0]), np.array([0.0, 0.0]))
    draw_schedules({"off": off}, tmp_path / "1.png", title="")
    draw_schedules({"off": off, "on": (off[0], off[1] + 1)}, tmp_path / "2.png", title="")
    assert [len(figure.axes) for figure in drawn] == [1, 2]


@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize("words", [1, 7])
def test_names_stay_inside_and_no_two_curves_look_alike(
    tmp_path: Path, drawn: list[Figure], count: int, words: int
) -> None:
    curve = rates(STEP, 0.1, epochs=4, steps=2)
    curves = {f"{k} " + " ".join(["factor=0.5"] * words): curve for k in range(count)}
    draw_schedules(curves, tmp_path / "s.png", title="Learning rate")
    (figure,) = drawn
    looks = {(line.get_color(), str(line._dash_pattern)) for line in figure.axes[0].lines}
    assert len(looks) == count
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert figure.axes[0].get_window_extent().height > 0.25 * figure.dpi * 7


def test_marks_stand_above_and_across(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = {"a": rates(STEP, 0.1, epochs=4, steps=2)}
    draw_schedules(curves, tmp_path / "s.png", title="Rate", marks=("PHANTOM", "PARTIAL"))
    above, across = (text.get_text() for text in drawn[0].texts)
    assert above == "Rate\nPHANTOM · PARTIAL" and across == "PHANTOM\nPARTIAL"


def test_it_imports_neither_torch_nor_pyplot() -> None:
    script = (
        "import sys; from medexp.report.figure import schedule\n"
        "assert not {'torch', 'hydra', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
