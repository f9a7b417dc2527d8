"""Plots: written for what a run has, and marked where the run is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.report.figure.plots import (
    confusion_figure,
    curves_figure,
    learning_rate_figure,
    look,
    roc_figure,
    write_plots,
)
from medexp.report.table.load import load_run, read_predictions

MakeRun = Callable[..., Path]
NAMES = {"loss", "accuracy", "learning_rate", "roc", "confusion_matrix"}


def figures(path: Path) -> list[Figure]:
    run = load_run(path)
    return [
        curves_figure(run, "loss"),
        curves_figure(run, "accuracy"),
        learning_rate_figure(run),
        roc_figure(run, read_predictions(path / "predictions.csv")["test"]),
        confusion_figure(run),
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_every_plot_is_a_real_image(make_run: MakeRun, classes: list[str]) -> None:
    path = make_run(classes=classes)
    paths = write_plots(path)
    assert {p.name for p in paths} == {f"{name}.png" for name in NAMES}
    for plot in paths:
        image = np.asarray(imread(plot))
        assert min(image.shape[:2]) >= 600
        assert image[..., :3].std() > 0.02


@pytest.mark.parametrize("marks", [{}, {"PHANTOM": "drawn"}, {"PHANTOM": "d", "PARTIAL": "p"}])
def test_marks_are_in_the_title_and_across_the_plot(
    make_run: MakeRun, marks: dict[str, str]
) -> None:
    for figure in figures(make_run(marks=marks)):
        title = figure.axes[0].get_title()
        assert "pcam, native1" in title
        assert [mark for mark in ("PHANTOM", "PARTIAL") if mark in title] == list(marks)
        assert ("\n".join(marks) in texts(figure)) == bool(marks)


def test_many_marks_leave_the_axes_their_room(make_run: MakeRun) -> None:
    marks = dict.fromkeys(("PHANTOM", "PARTIAL", "LEAKY", "SELECTED ON TEST"), "a reason")
    for figure in figures(make_run(marks=marks)):
        figure.draw_without_rendering()
        box, (across,) = figure.axes[0].get_window_extent(), figure.axes[0].texts[:1]
        assert across.get_text().split("\n") == list(marks)
        assert box.width > 3.5 * figure.dpi and box.height > 2.5 * figure.dpi
        assert across.get_window_extent().height < figure.bbox.height


def test_no_two_of_forty_lines_look_alike() -> None:
    looks = [look(place) for place in range(40)]
    assert len({(one["color"], str(one["linestyle"])) for one in looks}) == 40
    assert len({(one["color"], one["marker"]) for one in looks}) == 40


def test_one_epoch_is_a_visible_point(make_run: MakeRun) -> None:
    loss, accuracy, rate, *_ = figures(make_run(epochs=1))
    for figure in (loss, accuracy, rate):
        line = figure.axes[0].lines[0]
        assert len(np.asarray(line.get_xdata())) == 1
        assert line.get_marker() == "o"


def test_the_best_epoch_is_marked(make_run: MakeRun) -> None:
    legend = figures(make_run(epochs=5))[0].axes[0].get_legend()
    assert legend is not None
    assert "best epoch: 4 (val_auc)" in [text.get_text() for text in legend.get_texts()]


def test_roc_names_area_and_interval(make_run: MakeRun) -> None:
    path = make_run()
    test = (load_run(path).metrics or {})["test"]
    legend = figures(path)[3].axes[0].get_legend()
    assert legend is not None
    low, high = test["ci95"]["auc_binary"]
    expected = f"tumour: AUC {test['auc_binary']:.3f} [{low:.3f}, {high:.3f}]"
    assert [text.get_text() for text in legend.get_texts()] == [expected, "chance"]


def test_roc_of_more_classes_is_one_against_the_rest(make_run: MakeRun) -> None:
    legend = figures(make_run(classes=["a", "b", "c"]))[3].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text()[:6] for text in legend.get_texts()] == [
        "a: AUC",
        "b: AUC",
        "c: AUC",
        "chance",
    ]
    assert legend.get_title().get_text().startswith("mean AUC ")


def test_confusion_matrix_shows_counts_and_row_shares(make_run: MakeRun) -> None:
    path = make_run()
    counts = (load_run(path).metrics or {})["test"]["confusion_matrix"]
    shown = texts(figures(path)[4])
    assert shown[0] == f"{counts[0][0]}\n{counts[0][0] / sum(counts[0]):.1%}"
    assert len(shown) == 4


def test_an_unfinished_run_gets_the_plots_it_has_data_for(make_run: MakeRun) -> None:
    path = make_run(state="failed")
    assert write_plots(path) == []
    (path / "history.csv").write_text("epoch,lr,train_loss,val_loss\n1,0.1,0.7,\n2,0.001,0.6,0.5\n")
    assert {p.stem for p in write_plots(path)} == {"loss", "learning_rate"}
    assert learning_rate_figure(load_run(path)).axes[0].get_yscale() == "log"
