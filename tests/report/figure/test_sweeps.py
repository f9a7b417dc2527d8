"""Sweeps: what varies, the panels' numbers, the ranking; held against the files of the runs."""

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.report.figure.sweeps import crossed_figure, panels_figure, quantities, write_search
from medexp.report.table.load import find_runs
from medexp.report.table.sweeps import Sweep, crossed, held, leading, monitored, ranked, read_sweep

MakeRun = Callable[..., Path]
LR, BATCH = "optimizer.lr", "trainer.batch_size"


def composed(path: Path, **changes: object) -> Path:
    """The run with these keys in its config.yaml."""
    config = yaml.safe_load((path / "config.yaml").read_text()) | changes
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def sweep_of(folder: Path) -> Sweep:
    return read_sweep(find_runs([folder]))


def scored(path: Path, key: str = "accuracy") -> float:
    return float(json.loads((path / "metrics.json").read_text())["test"][key])


def best_of(path: Path, column: str = "val_auc") -> float:
    """The history's value in the row of the best epoch, read without medexp."""
    best = json.loads((path / "metrics.json").read_text())["best_epoch"]
    with (path / "history.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if int(row["epoch"]) == best]
    return float(row[column])


def panel(figure: Figure, number: int) -> dict[str, list[tuple[float, float]]]:
    """Line -> its points."""
    drawn = {str(line.get_label()): line.lines[0] for line in figure.axes[number].containers}
    return {
        name: list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for name, line in drawn.items()
    }


def draw(sweep: Sweep, name: str = "accuracy") -> Figure:
    return panels_figure(sweep, *quantities(sweep.runs)[name])


@pytest.fixture
def star(make_run: MakeRun, tmp_path: Path) -> Path:
    """Batch size and rate varied one at a time about (32, 0.01), two networks, two seeds."""
    points = [(32, 0.01), (8, 0.01), (128, 0.01), (32, 0.1), (32, 0.001)]
    for job, (model, (batch, lr), seed) in enumerate(
        product(("native1", "native2"), points, (0, 1))
    ):
        words = [f"model={model}", f"{BATCH}={batch}", f"{LR}={lr}", f"seed={seed}", "tune=x"]
        path = make_run(f"{job}-pcam", model=model, overrides=words, separation=0.2 * job)
        composed(path, seed=seed)
    return tmp_path


# ---------------------------------------------------------------- what varies


def test_what_varies_and_of_what_kind(star: Path) -> None:
    sweep = sweep_of(star)
    assert list(sweep.values) == ["model", BATCH, LR, "seed"]
    assert sweep.numeric == (BATCH, LR)
    assert sweep.lines == ["model"] and sweep.repeats == ["seed"]
    assert set(sweep.values[LR]) == {0.1, 0.01, 0.001} and set(sweep.values[BATCH]) == {8, 32, 128}


def test_values_come_from_the_config_where_it_has_them(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (given, composed) in enumerate((("1e-3", 0.001), ("null", None), ("2", 2))):
        path = make_run(f"{number}-a", overrides=[f"+model.rate={given}", "schedule=step"])
        config = {"names": {"dataset": "pcam", "model": "native1"}, "model": {"rate": composed}}
        (path / "config.yaml").write_text(json.dumps(config))
    sweep = sweep_of(tmp_path)
    assert sweep.values == {"model.rate": (0.001, None, 2)}
    assert sweep.numeric == ("model.rate",)


def test_the_row_of_a_paper_is_no_setting(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(2):
        make_run(f"{number}-a", overrides=[f"++paper.row='#{number}'", f"{LR}={number + 1}"])
    assert list(sweep_of(tmp_path).values) == [LR]


def test_the_leading_runs_are_those_of_the_first_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    # The made runs' AUC rises with the epochs, so that the shortest runs are the last.
    for number in range(15):
        make_run(f"{number}", epochs=2 + (number * 4) % 15, n=20)
    runs = find_runs([tmp_path])
    kept, words = leading(runs)
    assert [run.path.name for run in kept] == [f"{n}" for n in range(15) if (n * 4) % 15 >= 3]
    assert words == "the best 12 of 15 by val_auc"
    assert leading(runs[:12]) == (runs[:12], "")
    (runs[0].metrics or {})["monitor"] = "val_loss"  # values of two monitors do not compare
    assert leading(runs) == (runs[:12], "the first 12 of 15")


@pytest.mark.parametrize("values", [("a", "b"), ("true", "false"), ("1", "a"), ("1", "null")])
def test_words_and_single_numbers_are_no_axis(
    make_run: MakeRun, tmp_path: Path, values: Sequence[str]
) -> None:
    for number, value in enumerate(values):
        make_run(f"{number}-a", overrides=[f"x.y={value}"])
    assert sweep_of(tmp_path).numeric == ()
    assert write_search(find_runs([tmp_path]), tmp_path) == []
    assert not (tmp_path / "search.md").exists() and not (tmp_path / "plots").exists()


def test_seeds_alone_are_repeats_and_no_search(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        composed(make_run(f"{seed}-a", overrides=[f"seed={seed}"]), seed=seed)
    assert write_search(find_runs([tmp_path]), tmp_path) == []


def test_one_at_a_time_has_a_centre_and_a_cross_has_none() -> None:
    assert held([(1, 5), (2, 5), (3, 5), (1, 6)]) == (1, 5)
    assert held([(2, 5, 0), (1, 5, 0), (1, 6, 0), (1, 5, 9), (1, 5, 0)]) == (1, 5, 0)
    assert held(list(product((1, 2), (5, 6)))) is None
    assert held([(1, 5), (2, 6), (3, 7)]) is None
    assert crossed((1, 1, 2, 2, 1), (5, 6, 5, 6, 5)) and not crossed((1, 2, 1), (5, 5, 6))


# ---------------------------------------------------------------- panels


def test_a_panel_is_of_the_runs_with_the_others_held(star: Path) -> None:
    sweep = sweep_of(star)
    figure = draw(sweep)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "(a) learning rate 0.01",
        "(b) batch size 32",
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        f"batch size ({BATCH})",
        f"learning rate ({LR})",
    ]
    for number, (model, first) in product(range(2), (("native1", 0), ("native2", 10))):
        jobs = [(8, 2), (32, 0), (128, 4)] if number == 0 else [(0.001, 8), (0.01, 0), (0.1, 6)]
        expected = [
            (x, mean(scored(star / f"{first + job + seed}-pcam") for seed in (0, 1)))
            for x, job in jobs
        ]
        assert panel(figure, number)[model] == [pytest.approx(pair) for pair in expected]


def test_bars_reach_from_the_lowest_to_the_highest_run(star: Path) -> None:
    figure = draw(sweep_of(star), "auc")
    bars = figure.axes[0].containers[0].lines[2][0].get_segments()
    for job, segment in zip((2, 0, 4), bars, strict=True):
        two = [scored(star / f"{job + seed}-pcam", "auc_binary") for seed in (0, 1)]
        assert sorted(segment[:, 1]) == pytest.approx(sorted(two))
    assert "bars: lowest and highest run" in figure.get_suptitle()


def test_the_monitor_is_that_of_the_best_epoch(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run(f"{n}-a", overrides=[f"{LR}=0.{n}"], epochs=n + 2) for n in (1, 2, 3)]
    sweep = sweep_of(tmp_path)
    assert [monitored(run) for run in sweep.runs] == [best_of(path) for path in paths]
    (points,) = panel(draw(sweep, "val_auc"), 0).values()
    assert [y for _, y in points] == pytest.approx([best_of(path) for path in paths])


def test_a_cross_is_averaged_and_a_random_search_is_points(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for job, (batch, lr) in enumerate(product((8, 16), (0.1, 0.2))):
        words = [f"{BATCH}={batch}", f"{LR}={lr}"]
        make_run(f"cross/{job}-a", overrides=words, separation=job)
    for job in range(4):
        words = [f"{BATCH}={8 + job}", f"{LR}=0.{5 - job}"]
        make_run(f"random/{job}-a", overrides=words, separation=job)
    (points,) = panel(draw(sweep_of(tmp_path / "cross")), 0).values()
    of = [scored(tmp_path / f"cross/{job}-a") for job in range(4)]
    assert points == [(8, pytest.approx(mean(of[:2]))), (16, pytest.approx(mean(of[2:])))]
    line = draw(sweep_of(tmp_path / "random")).axes[0].lines[0]
    assert line.get_linestyle() == "None" and len(np.asarray(line.get_xdata())) == 4


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((8, 16, 32), "linear"),
        ((0.01, 0.1), "log"),
        ((0, 0.01, 0.1), "symlog"),
        ((-1, 9), "linear"),
    ],
)
def test_an_axis_is_logarithmic_over_decades(
    make_run: MakeRun, tmp_path: Path, values: Sequence[float], scale: str
) -> None:
    for job, value in enumerate(values):
        make_run(f"{job}-a", overrides=[f"{LR}={value}"])
    axes = draw(sweep_of(tmp_path)).axes[0]
    assert axes.get_xscale() == scale
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"{v:g}" for v in values]


def test_marks_and_lost_jobs_are_on_the_figure(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("0-a", overrides=[f"{LR}=1"], marks={"PHANTOM": "drawn"})
    make_run("1-a", overrides=[f"{LR}=2"], marks={"PHANTOM": "drawn", "PARTIAL": "few"})
    make_run("2-a", overrides=[f"{LR}=3"], state="failed", reason="lost")
    figure = draw(sweep_of(tmp_path))
    assert "PHANTOM (some jobs) · PARTIAL (some jobs)" in figure.get_suptitle()
    assert "1 of 3 jobs without a result" in figure.get_suptitle()
    assert figure.axes[0].texts[0].get_text() == "PHANTOM\nPARTIAL"


# ---------------------------------------------------------------- the table of a cross


@pytest.mark.parametrize("monitor", ["val_auc", "val_loss"])
def test_a_cross_of_two_is_a_table_of_the_monitored_value(
    make_run: MakeRun, tmp_path: Path, monitor: str
) -> None:
    rates, strengths = (0.1, 0.01, 0.001), (1e-6, 1e-3)
    values = {}
    for job, (lr, l2) in enumerate(product(rates, strengths)):
        words = [f"{LR}={lr}", f"model.stages.head.l2={l2}"]
        path = make_run(f"{job}-a", overrides=words, epochs=2 + job)
        metrics = json.loads((path / "metrics.json").read_text())
        (path / "metrics.json").write_text(json.dumps(metrics | {"monitor": monitor}))
        values[lr, l2] = best_of(path, monitor)
    for job, l2 in ((9, 1e-6), (10, 1e-3)):
        words = [f"{LR}=1", f"model.stages.head.l2={l2}"]
        composed(
            make_run(f"{job}-a", overrides=words, state="failed"), trainer={"monitor": monitor}
        )
    names = {path.name for path in write_search(find_runs([tmp_path]), tmp_path)}
    assert {"crossed_lr_l2.png", "crossed_lr_l2.svg"} <= names
    axes = crossed_figure(sweep_of(tmp_path), LR, "model.stages.head.l2").axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.001", "0.01", "0.1", "1"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["1e-06", "0.001"]
    cells = {t.get_position(): t for t in axes.texts if t.get_rotation() == 0}  # no watermark
    for (x, lr), (y, l2) in product(enumerate(sorted(rates)), enumerate(sorted(strengths))):
        assert cells[x, y].get_text() == f"{values[lr, l2]:.4g}"
    assert cells[3, 0].get_text() == cells[3, 1].get_text() == "—"
    bold = {t.get_text() for t in cells.values() if t.get_fontweight() == "bold"}
    best = max(values.values()) if monitor == "val_auc" else min(values.values())
    assert bold == {f"{best:.4g}"}


def test_one_at_a_time_has_no_table_of_two(star: Path) -> None:
    names = [path.name for path in write_search(find_runs([star]), star)]
    assert names == [
        "search.md", "search.csv", "sweep_accuracy.png", "sweep_accuracy.svg", "sweep_auc.png",
        "sweep_auc.svg", "sweep_val_auc.png", "sweep_val_auc.svg",
    ]  # fmt: skip
    for path in (star / "plots").glob("*.png"):
        image = np.asarray(imread(path))
        assert min(image.shape[:2]) >= 600 and image[..., :3].std() > 0.02
    for path in (star / "plots").glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")


# ---------------------------------------------------------------- the ranking


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "search.csv").open() as file:
        return list(csv.DictReader(file))


def test_jobs_are_ranked_by_validation_and_not_by_test(make_run: MakeRun, tmp_path: Path) -> None:
    """The later the best epoch, the better its validation; the test scores run the other way."""
    for job, (epochs, separation) in enumerate(((3, 5.0), (8, 0.1), (5, 2.0))):
        make_run(f"{job}-a", overrides=[f"{LR}=0.{job + 1}"], epochs=epochs, separation=separation)
    make_run("3-a", overrides=[f"{LR}=0.9"], state="failed", reason="lost\nthe GPU")
    write_search(find_runs([tmp_path]), tmp_path)
    found = rows(tmp_path)
    assert [Path(row["run"]).name for row in found] == ["1-a", "2-a", "0-a", "3-a"]
    assert [row["rank"] for row in found] == ["1", "2", "3", ""]
    assert [float(row["value"]) for row in found[:3]] == [
        best_of(tmp_path / name) for name in ("1-a", "2-a", "0-a")
    ]
    assert [row["state"] for row in found] == ["done", "done", "done", "failed"]
    page = (tmp_path / "search.md").read_text()
    assert "not by the test score" in page.replace("\n", " ")
    assert "| 1 | 1-a | 0.2 |" in page and "| — | 3-a | 0.9 | — | failed |" in page
    assert "- 3-a failed: lost the GPU" in page
    for name in ("0-a", "1-a", "2-a"):
        assert f"{scored(tmp_path / name):.4f}" not in page


def test_equals_share_a_rank_and_a_loss_is_best_low() -> None:
    values = [0.5, 0.9, None, 0.9, 0.1]
    assert ranked(values, "val_auc") == [(1, 1), (1, 3), (3, 0), (4, 4), (None, 2)]
    assert ranked(values, "val_loss") == [(1, 4), (2, 0), (3, 1), (3, 3), (None, 2)]


def test_settings_are_ranked_by_their_mean_over_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    for job, (lr, epochs) in enumerate(((0.1, 9), (0.1, 2), (0.2, 5), (0.2, 6))):
        words = [f"{LR}={lr}", f"seed={job % 2}"]
        composed(make_run(f"{job}-a", overrides=words, epochs=epochs), seed=job % 2)
    write_search(find_runs([tmp_path]), tmp_path)
    first, second = ([best_of(tmp_path / f"{j}-a") for j in pair] for pair in ((0, 1), (2, 3)))
    assert max(first) > max(second) and mean(first) < mean(second)
    page = (tmp_path / "search.md").read_text()
    assert f"| 1 | 0.2 | {mean(second):.4f} | {min(second):.4f} | {max(second):.4f} | 2 |" in page
    assert f"| 2 | 0.1 | {mean(first):.4f} | {min(first):.4f} | {max(first):.4f} | 2 |" in page


def test_data_sets_are_ranked_apart(make_run: MakeRun, tmp_path: Path) -> None:
    for job, (name, lr) in enumerate(product(("pcam", "ldct"), (0.1, 0.2))):
        make_run(
            f"{job}-a", dataset=name, overrides=[f"dataset={name}", f"{LR}={lr}"], epochs=job + 2
        )
    write_search(find_runs([tmp_path]), tmp_path)
    assert [(row["dataset"], row["rank"]) for row in rows(tmp_path)] == [
        ("pcam", "1"), ("pcam", "2"), ("ldct", "1"), ("ldct", "2"),
    ]  # fmt: skip
    assert "## ldct, val_auc, highest first" in (tmp_path / "search.md").read_text()


def test_monitors_that_differ_are_ranked_apart_and_not_drawn(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for job, (lr, l2) in enumerate(product((0.1, 0.2), (1, 2))):
        path = make_run(f"{job}-a", overrides=[f"{LR}={lr}", f"model.stages.head.l2={l2}"])
        metrics = json.loads((path / "metrics.json").read_text())
        metrics["monitor"] = "val_loss" if job == 3 else "val_auc"
        (path / "metrics.json").write_text(json.dumps(metrics))
    names = {path.name for path in write_search(find_runs([tmp_path]), tmp_path)}
    assert names == {
        "search.md", "search.csv", "sweep_accuracy.png", "sweep_accuracy.svg", "sweep_auc.png",
        "sweep_auc.svg",
    }  # fmt: skip
    assert [(row["monitor"], row["rank"]) for row in rows(tmp_path)] == [
        *[("val_auc", "1")] * 3, ("val_loss", "1"),
    ]  # fmt: skip


def test_marks_are_in_the_files(make_run: MakeRun, tmp_path: Path) -> None:
    for job in range(2):
        words = [f"{LR}=0.{job + 1}"]
        make_run(f"{job}-a", overrides=words, marks={"PHANTOM": "drawn", "PARTIAL": "few"})
    write_search(find_runs([tmp_path]), tmp_path)
    page = (tmp_path / "search.md").read_text()
    assert page.startswith("# Search over 2 jobs · PHANTOM · PARTIAL\n")
    assert "- PHANTOM: drawn\n- PARTIAL: few" in page
    assert {row["marks"] for row in rows(tmp_path)} == {"PHANTOM;PARTIAL"}
