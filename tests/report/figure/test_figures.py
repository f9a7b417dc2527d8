"""Figures over several runs: what is drawn is what the runs' files hold."""

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from scipy import stats
from sklearn.metrics import roc_auc_score

from medexp.config.paper import Paper, parse_paper
from medexp.errors import MedexpError
from medexp.report.figure import figures
from medexp.report.figure.figures import check_figures, overlay_figures, write_figures
from medexp.report.figure.kinds import roc_points
from medexp.report.figure.plots import save_twice
from medexp.report.table.load import find_runs, read_predictions
from tests.conftest import ROOT

MakeRun = Callable[..., Path]

COLUMNS = {"Accuracy": ("accuracy", 100.0), "AUC": ("auc_binary", 1.0)}
REPORTED = {"before #1": (82.45, 0.9), "after #1": (87.18, 0.94), "after #2": (85.46, 0.92)}


def paper_of(*drawn: dict[str, Any], labels: tuple[str, ...] = ()) -> dict[str, Any]:
    """A node of a paper with these figures, whose rows are of one network each."""
    labels = labels or ("before #1", "before #2", "after #1", "after #2")
    columns = [
        {"name": name, "metric": metric, "digits": 2, "scale": scale}
        for name, (metric, scale) in COLUMNS.items()
    ]
    rows = [
        {
            "label": label,
            "run": {"model": f"native{label[-1]}"},
            "reported": dict(zip(COLUMNS, map(str, REPORTED.get(label, ())), strict=False)),
        }
        for label in labels
    ]
    named = [{"file": f"f{i}", "title": f"Figure {i}", **node} for i, node in enumerate(drawn)]
    return {
        "title": "A paper",
        "citation": "Someone",
        "table": "Table 3",
        "dataset": "pcam",
        "columns": columns,
        "rows": rows,
        "figures": named,
    }


@pytest.fixture
def make_row(make_run: MakeRun) -> Callable[..., Path]:
    """A run that makes the row of a paper."""

    def make(node: dict[str, Any], row: str, seed: int = 0, **options: Any) -> Path:
        name = f"{row.replace(' ', '-')}-{seed}"
        model = f"native{row[-1]}"
        path = make_run(name, model=model, overrides=[f"seed={seed}"], **options)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config |= {"seed": seed, "paper": {**node, "figures": [], "row": row}}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        return path

    return make


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that would be saved, by its file's name."""
    found: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        found[name] = figure
        return [folder / f"{name}.png", folder / f"{name}.svg"]

    monkeypatch.setattr(figures, "save_twice", keep)
    return found


def draw(node: dict[str, Any], folder: Path) -> list[Path]:
    return write_figures(parse_paper(node), find_runs([folder]), folder / "figures")


def metrics(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "metrics.json").read_text())["test"]
    return found


def column(path: Path, name: str) -> list[float]:
    with (path / "history.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def change(path: Path, key: str, value: Any) -> None:
    content = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps(content | {key: value}))


def labelled(axes: Axes) -> dict[str, Line2D]:
    return {
        str(line.get_label()): line
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


def entries(figure: Figure) -> list[str]:
    (below,) = figure.legends
    return [" ".join(text.get_text().split()) for text in below.get_texts()]


# ---------------------------------------------------------------- all kinds

KINDS: list[dict[str, Any]] = [
    {"draw": "roc"},
    {"draw": "curves", "quantity": "val_accuracy", "both": True},
    {"draw": "sweep", "quantity": "accuracy"},
    {"draw": "bars", "columns": ["Accuracy", "AUC"], "before": "before", "after": "after"},
    {"draw": "schedules"},
    {"draw": "confusion"},
]


def test_every_kind_is_a_real_picture_and_carries_the_marks(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of(*KINDS)
    assert {kind["draw"] for kind in KINDS} == set(figures._KINDS)
    marks = {"PHANTOM": "drawn", "SELECTED ON TEST": "no validation"}
    for number, row in enumerate(("before #1", "before #2", "after #1", "after #2")):
        path = make_row(node, row, marks=marks, separation=0.5 * number)
        overrides = [f"model=native{row[-1]}", f"optimizer.lr={0.1 if number < 2 else 0.01}"]
        words = [*overrides, f"++paper.row={row}", f"init_from=x{number}"]
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    paths = draw(node, tmp_path)
    assert [path.name for path in paths] == [
        f"f{i}.{ending}" for i in range(len(KINDS)) for ending in ("png", "svg")
    ]
    for name, figure in kept.items():
        png, svg = save_twice(figure, tmp_path / "figures", name)
        image = np.asarray(imread(png))
        assert min(image.shape[:2]) >= 450 and image[..., :3].std() > 0.02
        assert b"<svg" in svg.read_bytes()[:2000]
    for number, figure in enumerate(kept.values()):
        title = figure.get_suptitle()
        assert title.startswith(f"Figure {number}\n") and "pcam" in title
        assert "PHANTOM · SELECTED ON TEST" in title
        across = [t.get_text() for on in (figure, *figure.axes) for t in on.texts]
        assert "PHANTOM\nSELECTED ON TEST" in across
        shown = figure._suptitle
        assert shown is not None
        for part in (shown, *figure.legends):
            box = part.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
        sizes = [axes.get_window_extent() for axes in figure.axes]
        assert all(box.width > 0.2 * figure.dpi and box.height > figure.dpi for box in sizes)
    assert kept["f2"].axes[0].get_xlabel() == "learning rate (optimizer.lr)"
    assert list(entries(kept["f2"])) == ["native1", "native2"]  # neither row nor start is a setting


def test_the_same_runs_give_the_same_bytes(make_row: Callable[..., Path], tmp_path: Path) -> None:
    node = paper_of({"draw": "roc"})
    make_row(node, "after #1")
    first = [path.read_bytes() for path in draw(node, tmp_path)]
    assert [path.read_bytes() for path in draw(node, tmp_path)] == first


def test_what_is_missing_is_named_and_nothing_is_drawn_of_nothing(
    make_row: Callable[..., Path],
    tmp_path: Path,
    kept: dict[str, Figure],
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = paper_of(*KINDS)
    failed = make_row(node, "after #2", state="failed")
    with caplog.at_level(logging.WARNING):
        assert draw(node, tmp_path) == []
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(KINDS) and "figure f0: not drawn" in said[0]
    assert not kept
    make_row(node, "after #1")
    (failed / "history.csv").write_text("epoch,lr,train_accuracy,val_accuracy\n1,0.1,0.7,0.5\n")
    draw(node, tmp_path)
    assert set(kept) == {"f0", "f1", "f3", "f4", "f5"}  # one rate alone is no sweep
    for name, figure in kept.items():
        words = " ".join(figure.get_suptitle().split())
        assert "No run of before #1, before #2" in words
        absent = "Not drawn: after #2: native2 (failed)" in words
        assert absent == (name in ("f0", "f3", "f5"))
    assert "after #2: native2 (failed)" in entries(kept["f1"])


def test_runs_of_no_row_or_of_another_table_are_not_drawn(
    make_row: Callable[..., Path], make_run: MakeRun, tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "roc"})
    make_row(node, "after #1")
    make_row(node | {"table": "Table 4"}, "after #2")
    make_row(node | {"before": {"start": {"run": {"model": "native1"}}}}, "before: start")
    make_run("plain", paper=False)
    draw(node, tmp_path)
    assert [entry[:8] for entry in entries(kept["f0"])] == ["after #1"]


def test_rows_of_one_run_are_one_line_and_a_row_of_several_settings_is_several(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "roc"})
    node["rows"] = [{**row, "group": row["label"][-2:]} for row in node["rows"]]
    make_row(node, "#1")
    for rate in (0.1, 0.01):
        path = make_row(node, "#2", seed=int(100 * rate))
        words = ["seed=0", f"optimizer.lr={rate}"]
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
        config = yaml.safe_load((path / "config.yaml").read_text())
        config |= {"seed": 0, "optimizer": {"lr": rate}}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
    draw(node, tmp_path)
    assert [entry.split(": AUC")[0] for entry in entries(kept["f0"])] == [
        "#1: native1",
        "#2: native2 optimizer.lr=0.01",
        "#2: native2 optimizer.lr=0.1",
    ]


# ---------------------------------------------------------------- each kind


def test_roc_is_that_of_the_predictions_with_area_and_interval(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "roc"}, labels=("after #2", "after #1"))
    paths = [make_row(node, row, separation=s) for row, s in (("after #1", 0.2), ("after #2", 2))]
    draw(node, tmp_path)
    scored = [metrics(path) for path in reversed(paths)]  # in the order of the paper's rows
    assert entries(kept["f0"]) == [
        "after #{0}: native{0}: AUC {1:.3f} [{2:.3f}, {3:.3f}]".format(
            2 - i, s["auc_binary"], *s["ci95"]["auc_binary"]
        )
        for i, s in enumerate(scored)
    ]
    for line, s in zip(kept["f0"].axes[0].lines, scored, strict=False):
        x, y = (np.asarray(values, float) for values in line.get_data())
        assert np.trapezoid(y, x) == pytest.approx(s["auc_binary"])
    assert kept["f0"].axes[0].lines[-1].get_linestyle() == ":"  # chance


@pytest.mark.parametrize("classes", ["ab", "abc", "abcdefg"])
def test_the_mean_curve_has_the_mean_area(make_run: MakeRun, classes: str) -> None:
    path = make_run(classes=list(classes), n=150, separation=0.8)
    split = read_predictions(path / "predictions.csv")["test"]
    points = roc_points(split)
    assert points is not None
    x, y = points
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= -1e-9).all()
    assert (x[0], x[-1]) == (0, 1) and y[-1] == pytest.approx(1)
    wanted = (
        roc_auc_score(split.labels, split.probabilities[:, 1])
        if len(classes) == 2
        else roc_auc_score(split.labels, split.probabilities, multi_class="ovr")
    )
    assert np.trapezoid(y, x) == pytest.approx(wanted, abs=1e-6)
    rounded = split._replace(probabilities=split.probabilities.round(1))  # ties: slanted lines
    x, y = roc_points(rounded) or ([], [])
    area = np.mean(
        [
            roc_auc_score(split.labels == c, rounded.probabilities[:, c])
            for c in range(len(classes))[-len(classes) if len(classes) > 2 else -1 :]
        ]
    )
    assert np.trapezoid(y, x) == pytest.approx(area, abs=1e-6)
    assert roc_points(split._replace(labels=np.zeros_like(split.labels))) is None


def test_curves_are_the_histories_training_dashed(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "curves", "quantity": "val_loss", "both": True}, {"draw": "curves"})
    paths = [make_row(node, row, epochs=e) for row, e in (("before #1", 30), ("after #1", 1))]
    draw(node, tmp_path)
    (axes,) = kept["f0"].axes
    assert len(axes.lines) == 4
    for pair, path in zip((axes.lines[:2], axes.lines[2:]), paths, strict=True):
        for line, name, style in zip(pair, ("val_loss", "train_loss"), ["-", "--"], strict=True):
            np.testing.assert_array_equal(line.get_xdata(), column(path, "epoch"))
            np.testing.assert_array_equal(line.get_ydata(), column(path, name))
            assert line.get_linestyle() == style and line.get_marker() not in ("", "None")
        assert pair[0].get_color() == pair[1].get_color()
    assert axes.get_ylabel() == "loss"
    names = ["before #1: native1", "after #1: native1"]
    assert entries(kept["f0"]) == [*names, "validation", "training"]
    assert entries(kept["f1"]) == names
    assert kept["f1"].axes[0].get_ylabel() == "validation loss"
    looks = {(line.get_color(), line.get_linestyle()) for line in kept["f1"].axes[0].lines}
    assert len(looks) == 2


def test_repeats_are_thin_lines_of_one_look_and_the_first_is_the_roc(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "curves"}, {"draw": "roc"}, {"draw": "confusion"})
    paths = [make_row(node, "after #1", seed, separation=0.5 + seed) for seed in range(3)]
    make_row(node, "after #2")
    draw(node, tmp_path)
    lines = kept["f0"].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines[:3]}) == 1
    assert {line.get_linewidth() for line in lines[:3]} == {1.1} and lines[3].get_linewidth() == 2
    assert entries(kept["f0"]) == ["after #1: native1 (3 runs)", "after #2: native2"]
    assert "Of several seeds or folds: each a thin line" in kept["f0"].get_suptitle()
    area = metrics(paths[0])["auc_binary"]
    assert f"native1: AUC {area:.3f}" in entries(kept["f1"])[0] and len(entries(kept["f1"])) == 2
    assert all(
        "Of several seeds or folds: the first" in kept[name].get_suptitle() for name in ("f1", "f2")
    )
    counts = [text.get_text().split("\n")[0] for text in kept["f2"].axes[0].texts]
    matrix = metrics(paths[0])["confusion_matrix"]
    assert [int(count) for count in counts] == [n for row in matrix for n in row]


def test_bars_are_ours_with_intervals_beside_the_reported(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    kind = {"draw": "bars", "columns": ["AUC", "Accuracy"], "before": "before", "after": "after"}
    node = paper_of(kind)
    one = make_row(node, "before #1", separation=0.3)
    several = [make_row(node, "after #1", seed, separation=1 + 0.1 * seed) for seed in range(3)]
    draw(node, tmp_path)
    figure = kept["f0"]
    assert [axes.get_title() for axes in figure.axes] == list(COLUMNS)
    assert entries(figure) == ["before", "after", "reported"]
    assert "No run of before #2, after #2" in figure.get_suptitle()
    assert "Of several seeds or folds: the mean" in figure.get_suptitle()
    for axes, (place, (metric, scale)) in zip(
        figure.axes, enumerate(COLUMNS.values()), strict=True
    ):
        scored, values = metrics(one), [metrics(path)[metric] for path in several]
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx([scale * scored[metric], scale * np.mean(values)])
        assert [bar.get_hatch() for bar in axes.patches] == ["///", None]
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        ends = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
        assert np.ravel(ends) == pytest.approx(
            np.multiply(scale, [*scored["ci95"][metric], low, high])
        )
        marks = [line for line in axes.lines if line.get_marker() == "D"]
        assert [float(line.get_ydata()[0]) for line in marks] == [
            REPORTED[row][place] for row in ("before #1", "after #1", "after #2")
        ]
        assert [round(float(line.get_xdata()[0])) for line in marks] == [0, 0, 1]
        assert axes.get_ylim()[0] == 0
        assert [label.get_text() for label in axes.get_xticklabels()] == ["#1", "#2"]


def test_bars_of_a_class_and_below_zero(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    kind = {"draw": "bars", "columns": ["Recall", "Kappa"], "before": "before", "after": "after"}
    node = paper_of(kind)
    node["columns"] = [
        {"name": "Recall", "metric": "per_class.{class}.recall", "digits": 2, "doubt": "lost"},
        {"name": "Kappa", "metric": "kappa", "digits": 2},
    ]
    node["rows"] = [{**row, "class": "tumour", "reported": {}} for row in node["rows"]]
    path = make_row(node, "after #1", separation=-2)
    draw(node, tmp_path)
    recall, kappa = kept["f0"].axes
    assert recall.get_title() == "Recall (doubtful)"
    wanted = metrics(path)["per_class"]["tumour"]["recall"]
    assert [bar.get_height() for bar in recall.patches] == [wanted]
    (bar,) = kappa.patches
    assert bar.get_height() == metrics(path)["kappa"] < 0
    assert kappa.get_ylim()[0] < bar.get_height()


def test_schedules_are_the_rates_of_the_histories(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "schedules"})
    paths = [make_row(node, row, epochs=e) for row, e in (("before #1", 45), ("after #1", 2))]
    draw(node, tmp_path)
    for line, path in zip(kept["f0"].axes[0].lines, paths, strict=True):
        x, y = (np.asarray(values, float) for values in line.get_data())
        rates = column(path, "lr")
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(x, np.arange(len(rates) + 1))
        np.testing.assert_array_equal(y, [*rates, rates[-1]])
    assert entries(kept["f0"]) == ["before #1: native1", "after #1: native1"]


def test_a_sheet_has_a_matrix_a_row(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "confusion"})
    rows = ("before #1", "before #2", "after #1", "after #2")
    classes = ["one", "two", "three"]
    paths = [make_row(node, row, classes=classes, separation=i) for i, row in enumerate(rows)]
    draw(node, tmp_path)
    *panels, bar = kept["f0"].axes
    assert [axes.get_title() for axes in panels] == [f"{row}: native{row[-1]}" for row in rows]
    for axes, path in zip(panels, paths, strict=True):
        counts = [int(text.get_text().split("\n")[0]) for text in axes.texts]
        assert np.reshape(counts, (3, 3)).tolist() == metrics(path)["confusion_matrix"]
    assert bar.get_ylabel() == "share of the actual class"


def test_a_sheet_of_the_validation_split_says_so(
    make_row: Callable[..., Path], tmp_path: Path, kept: dict[str, Figure]
) -> None:
    node = paper_of({"draw": "confusion", "split": "val"}, {"draw": "confusion"})
    path = make_row(node, "before #1")
    scored = json.loads((path / "metrics.json").read_text())
    change(path, "val", scored["test"] | {"confusion_matrix": [[5, 6], [7, 8]]})
    draw(node, tmp_path)
    counts = [[int(t.get_text().split("\n")[0]) for t in kept[f].axes[0].texts] for f in kept]
    assert counts[0] == [5, 6, 7, 8] != counts[1]
    assert "pcam · validation split" in kept["f0"].get_suptitle()
    assert "pcam · test split" in kept["f1"].get_suptitle()


def test_figures_14_and_16_of_the_cervix_paper_are_of_its_validation_images() -> None:
    """ "Figure 14. Confusion matrix for 32 validation data points", 16: "100 validation [...]"."""
    for table, file in (("cervix_table3", "fig14"), ("cervix_table5", "fig16")):
        node = yaml.safe_load((ROOT / f"conf/paper/{table}.yaml").read_text())
        (figure,) = (one for one in node["figures"] if one["file"] == file)
        assert figure["draw"] == "confusion" and figure["split"] == "val"


# ---------------------------------------------------------------- what is refused

ROC = {"draw": "roc"}
BARS = {"draw": "bars", "columns": ["AUC"], "before": "before", "after": "after"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([{"draw": "rox"}], r"figure f0: draw=rox is no kind. Did you mean 'roc'\? Valid: bars, "),
        ([{}], "figure f0: draw=None is no kind"),
        ([ROC | {"both": True}], "no such key 'both' where draw is roc. .*Valid: draw, file, "),
        ([{"draw": "curves", "quantitiy": "x"}], "'quantitiy' .* Did you mean 'quantity'"),
        ([{"draw": "curves", "both": "yes"}], "both=yes; expected a bool"),
        ([{"draw": "curves", "quantity": 3}], "quantity=3; expected a str"),
        ([{"draw": "curves", "quantity": "lr", "both": True}], "quantity=lr; both=true"),
        ([{"draw": "bars", "columns": ["AUC"], "before": "b"}], "the key 'after' is missing"),
        ([BARS | {"columns": ["AUV"]}], r"columns=AUV is none. Did you mean 'AUC'\?"),
        ([BARS | {"columns": "AUC"}], "columns=AUC; expected a list"),
        ([BARS | {"after": "then"}], "after=then; no row's label starts with it. Rows: before #1,"),
        ([{"draw": "confusion", "split": "train"}], "split=train; a run is scored on val and test"),
        ([ROC, ROC | {"file": "f0"}], "figure f0: give each figure a file name of its own"),
        ([ROC | {"file": "../x"}], "without a folder"),
        ([ROC | {"title": None}], "title=None; expected a str"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_beforehand(
    nodes: list[dict[str, Any]], message: str
) -> None:
    paper = parse_paper(paper_of(*nodes))
    with pytest.raises(MedexpError, match=message):
        check_figures(paper)
    with pytest.raises(MedexpError, match=message):
        write_figures(paper, [], Path("nowhere"))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"draw": "curves", "quantity": "val_acuracy"}, "no run has val_acuracy. Did you mean"),
        ({"draw": "sweep", "quantity": "acc"}, "quantity=acc: .*Valid: accuracy, auc, val_auc"),
    ],
)
def test_a_quantity_that_no_run_has_is_refused(
    make_row: Callable[..., Path], tmp_path: Path, node: dict[str, Any], message: str
) -> None:
    paper = paper_of(node)
    make_row(paper, "after #1")
    with pytest.raises(MedexpError, match=message):
        draw(paper, tmp_path)


def test_the_figures_of_all_tables_in_conf_can_be_drawn() -> None:
    papers: list[Paper] = []
    for path in sorted((ROOT / "conf" / "paper").glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "rows" in node:
            papers.append(parse_paper({k: v for k, v in node.items() if k != "defaults"}))
    assert papers
    for paper in papers:
        check_figures(paper)


# ---------------------------------------------------------------- any runs


def test_runs_are_laid_over_one_another_by_data_set(
    make_run: MakeRun, tmp_path: Path, kept: dict[str, Figure]
) -> None:
    for dataset, model in product(("pcam", "all"), ("m1", "m2")):
        make_run(f"{dataset}-{model}", dataset=dataset, model=model, paper=False)
    make_run("alone", dataset="ldct", paper=False)
    make_run("all-m3", dataset="all", model="m3", paper=False, state="failed")
    paths = overlay_figures(find_runs([tmp_path]), tmp_path / "plots")
    wanted = {
        f"overlay_{what}_{dataset}"
        for what, dataset in product(("roc", "val_loss", "val_accuracy"), ("pcam", "all"))
    }
    assert set(kept) == wanted and {path.stem for path in paths} == wanted
    assert [entry.split(":")[0] for entry in entries(kept["overlay_roc_pcam"])] == ["m1", "m2"]
    assert "Not drawn: m3 (failed)" in kept["overlay_roc_all"].get_suptitle()
    assert kept["overlay_val_loss_all"].get_suptitle().startswith("Validation loss\nall")


def test_of_many_runs_the_best_are_drawn_which_the_figure_says(
    make_run: MakeRun, tmp_path: Path, kept: dict[str, Figure]
) -> None:
    for number in range(14):
        make_run(f"{number}", model=f"m{number:02}", epochs=2 + number % 7, paper=False, n=20)
    # The monitor grows with the epochs: the worst two are those of two.
    overlay_figures(find_runs([tmp_path]), tmp_path / "plots")
    assert set(kept) == {"overlay_roc", "overlay_val_loss", "overlay_val_accuracy"}
    for figure in kept.values():
        assert "Shown: the best 12 of 14 by val_auc" in figure.get_suptitle()
        shown = [entry[:3] for entry in entries(figure)]
        assert shown == [f"m{n:02}" for n in range(14) if n % 7]
        lines = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
        assert len(lines) == len(looks) == 12


def test_runs_without_results_leave_no_figure(make_run: MakeRun, tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        make_run(model, model=model, state="failed")
    assert overlay_figures(find_runs([tmp_path]), tmp_path / "plots") == []


def test_it_imports_neither_torch_nor_pyplot() -> None:
    script = (
        "import sys; from medexp.report.figure import figures\n"
        "from medexp.report.table import compare\n"
        "assert not {'torch', 'hydra', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
