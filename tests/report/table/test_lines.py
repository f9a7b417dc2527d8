"""The long form: exact numbers of every run, and nothing lost on the way to CSV and back."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medexp.report.table.lines import COLUMNS, lines
from medexp.report.table.load import Run, load_run
from medexp.report.table.render import csv_text

MakeRun = Callable[..., Path]


def read(runs: list[Run]) -> list[dict[str, str]]:
    return list(csv.DictReader(csv_text(lines(runs)).splitlines()))


def every_value(scored: dict[str, Any]) -> dict[str, float | None]:
    """Key -> value of what `metrics.score` returned, read without the code under test."""
    flat = {key: value for key, value in scored.items() if isinstance(value, float)}
    for name, rates in scored["per_class"].items():
        flat |= {f"per_class.{name}.{rate}": v for rate, v in rates.items() if rate != "support"}
    return flat


def placed(path: Path, row: str, **changes: Any) -> Run:
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["paper"] |= {"row": row, **changes}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return load_run(path)


def test_all_metrics_are_there_exactly(make_run: MakeRun) -> None:
    run = load_run(make_run())
    rows = [row for row in read([run]) if row["run"]]
    assert tuple(rows[0]) == COLUMNS
    test = (run.metrics or {})["test"]
    values = every_value(test)
    assert {row["metric"] for row in rows} == set(values) == set(test["ci95"])
    assert len(rows) == len(values)
    for row in rows:
        assert float(row["ours"]) == values[row["metric"]]
        assert [float(row["ci_low"]), float(row["ci_high"])] == test["ci95"][row["metric"]]
    by_metric = {row["metric"]: row for row in rows}
    accuracy = by_metric["accuracy"]
    assert (accuracy["row"], accuracy["column"]) == ("#1", "Accuracy")
    assert accuracy["reported"] == "0.9286"
    assert float(accuracy["difference"]) == test["accuracy"] - 0.9286
    assert accuracy["verdict"] == "cannot tell" and 0.05 <= float(accuracy["p"]) <= 1
    assert by_metric["f1_binary"]["verdict"] == "not comparable (contradicts its row)"
    kappa = by_metric["kappa"]
    assert kappa["reported"] == kappa["difference"] == kappa["verdict"] == kappa["column"] == ""


def test_ours_keep_the_metrics_unit_and_the_difference_has_the_papers(make_run: MakeRun) -> None:
    columns = [
        {"name": "Accuracy %", "metric": "accuracy", "digits": 2, "scale": 100},
        {"name": "Val loss", "metric": "log_loss", "digits": 2, "split": "val"},
        {"name": "Seconds", "metric": None, "digits": 0},
    ]
    reported = {"Accuracy %": "83.02", "Val loss": "0.5", "Seconds": "9"}
    path = make_run(marks={"PHANTOM": "x", "LEAKY": "y"})
    run = placed(path, "M1", columns=columns, rows=[{"label": "M1", "reported": reported}])
    metrics = run.metrics or {}
    first, second, third, *others = read([run])
    accuracy = metrics["test"]["accuracy"]
    assert (first["metric"], first["scale"]) == ("accuracy", "100.0")
    assert float(first["ours"]) == accuracy
    assert float(first["difference"]) == 100 * accuracy - 83.02
    assert first["verdict"] == "not comparable (PHANTOM, LEAKY)"
    assert first["marks"] == "PHANTOM;LEAKY"
    assert (second["split"], second["metric"]) == ("val", "log_loss")
    assert float(second["ours"]) == metrics["val"]["log_loss"]
    assert (third["metric"], third["reported"], third["ours"]) == ("", "9", "")
    # The loss of the test split has no column of the paper's and is there all the same.
    assert "log_loss" in {row["metric"] for row in others}
    assert {row["split"] for row in others} == {"test"}
    assert "accuracy" not in {row["metric"] for row in others}
    assert {row["row"] for row in others} == {"M1"}


def test_a_run_of_two_rows_has_the_numbers_of_both(make_run: MakeRun) -> None:
    columns = [{"name": "Recall", "metric": "per_class.{class}.recall", "digits": 2}]
    rows = [
        {"label": f"M1 {name}", "group": "M1", "class": name, "reported": {"Recall": "0.5"}}
        for name in ("normal", "tumour")
    ]
    run = placed(make_run(), "M1", columns=columns, rows=rows)
    found = {row["row"]: row for row in read([run]) if row["reported"]}
    assert set(found) == {"M1 normal", "M1 tumour"}
    for name in ("normal", "tumour"):
        recall = (run.metrics or {})["test"]["per_class"][name]["recall"]
        assert float(found[f"M1 {name}"]["ours"]) == recall


@pytest.mark.parametrize("state", ["failed", "running"])
def test_what_has_no_numbers_is_a_line_without(make_run: MakeRun, state: str) -> None:
    found = read([load_run(make_run(state=state))])
    assert [(row["state"], row["row"]) for row in found] == [
        (state, "#1"),
        ("not run", "#2"),
        ("not run", "#3"),
        ("not run", "#4"),
    ]
    assert not any(row["metric"] or row["ours"] or row["difference"] for row in found)


def test_a_run_without_a_paper_has_its_metrics_alone(make_run: MakeRun) -> None:
    rows = read([load_run(make_run(paper=False, model="net", classes=["a", "b", "c"]))])
    assert len(rows) > 20
    assert {(row["row"], row["reported"], row["verdict"]) for row in rows} == {("", "", "")}
