"""Reading run directories."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medexp.errors import MedexpError
from medexp.report.table.load import find_runs, load_run, read_predictions, rescore

MakeRun = Callable[..., Path]


def test_a_finished_run(make_run: MakeRun) -> None:
    path = make_run(marks={"PHANTOM": "drawn"}, overrides=["model=native1", "seed=1"])
    run = load_run(path)
    assert (run.dataset, run.model, run.state, run.reason) == ("pcam", "native1", "done", None)
    assert run.marks == {"PHANTOM": "drawn"}
    assert run.overrides == ("model=native1", "seed=1")
    assert run.history["epoch"] == [1.0, 2.0, 3.0]
    assert set(run.history) >= {"lr", "train_loss", "val_loss", "val_auc", "val_f1"}


def test_a_failed_run_has_a_state_and_no_metrics(make_run: MakeRun) -> None:
    run = load_run(make_run(state="failed", reason="out of memory"))
    assert (run.state, run.reason, run.metrics, run.history) == (
        "failed",
        "out of memory",
        None,
        {},
    )
    assert run.model == "native1"


def test_done_without_metrics_is_unfinished(make_run: MakeRun) -> None:
    path = make_run()
    (path / "metrics.json").unlink()
    assert load_run(path).state == "unfinished"


def test_an_unfinished_phantom_run_is_marked_already(make_run: MakeRun) -> None:
    path = make_run(state="running")
    (path / "config.yaml").write_text("{names: {dataset: pcam, model: m}, source: {kind: phantom}}")
    assert "PHANTOM" in load_run(path).marks


def test_runs_below_a_folder_come_in_natural_order(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/2", "sweep/1"):
        make_run(name)
    (tmp_path / "sweep" / ".cache").mkdir()
    runs = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "2"])
    assert [run.path.name for run in runs] == ["1", "2", "10"]


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MedexpError, match=f"{tmp_path} is no run directory"):
        load_run(tmp_path)
    with pytest.raises(MedexpError, match=f"{tmp_path} holds no run directory"):
        find_runs([tmp_path])
    with pytest.raises(MedexpError, match="nowhere is no folder"):
        find_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", r"metrics.json: cannot be read as JSON"),
        ("status.json", "[]", r"status.json: holds a list, not a JSON object"),
        ("config.yaml", "a: [", r"config.yaml is not valid YAML"),
        ("history.csv", "epoch,lr\n1,fast\n", r"history.csv, line 2, lr: 'fast' is no number"),
    ],
)
def test_a_broken_file_is_named(make_run: MakeRun, name: str, text: str, message: str) -> None:
    path = make_run()
    (path / name).write_text(text)
    with pytest.raises(MedexpError, match=message):
        load_run(path)


def test_history_forgives_what_a_killed_run_leaves(make_run: MakeRun) -> None:
    path = make_run(state="failed")
    (path / "history.csv").write_text("epoch,lr,val_auc\n1,0.1,\n2,0.1,0.8\n3,0.")
    history = load_run(path).history
    assert history == {"epoch": [1.0, 2.0], "lr": [0.1, 0.1], "val_auc": [None, 0.8]}


def test_metrics_come_back_from_the_predictions_to_the_last_digit(make_run: MakeRun) -> None:
    for classes in (["a", "b"], ["a", "b", "c"]):
        path = make_run(f"run{len(classes)}", classes=classes)
        metrics = json.loads((path / "metrics.json").read_text())
        assert rescore(path) == {"val": metrics["val"], "test": metrics["test"]}


def test_predictions_by_split(make_run: MakeRun) -> None:
    predictions = read_predictions(make_run(n=12) / "predictions.csv")
    assert set(predictions) == {"val", "test"}
    ids, labels, probabilities = predictions["test"]
    assert ids[0] == "test-0"
    assert labels.shape == (12,)
    assert probabilities.shape == (12, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,p_0,p_1\n", r"the header is 'id,label,p_0,p_1'"),
        ("id,split,label,p_0,p_1\na,test,0,0.5\n", r"line 2: 4 cells; expected 5"),
        ("id,split,label,p_0,p_1\na,test,x,0.5,0.5\n", r"line 2: invalid literal"),
    ],
)
def test_broken_predictions_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(MedexpError, match=message):
        read_predictions(tmp_path / "predictions.csv")


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(MedexpError, match=r"predictions.csv: No such file"):
        read_predictions(tmp_path / "predictions.csv")


def test_the_report_imports_nothing_heavy(make_run: MakeRun) -> None:
    """Tables need neither torch, Hydra, scikit-learn nor Matplotlib; plots need no torch."""
    code = f"""
import sys
from medexp.report.table import load, tables, render
render.write_tables(load.find_runs([{str(make_run())!r}]), "out")
heavy = {{"torch", "hydra", "omegaconf", "sklearn", "scipy.stats", "matplotlib"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import medexp.report.figure.plots
medexp.report.figure.plots.write_plots({str(make_run("b"))!r})
heavy = {{"torch", "hydra", "omegaconf", "matplotlib.pyplot"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    here = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=make_run("cwd"),
        env={"PYTHONPATH": str(here), "PATH": "", "MPLCONFIGDIR": str(make_run("mpl"))},
    )
