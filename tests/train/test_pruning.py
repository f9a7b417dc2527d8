"""The median stopping rule, by hand and against NumPy, over the files of a sweep."""

import numpy as np
import pytest

from medexp.runs.files import write_csv
from medexp.train.pruning import OTHERS, hopeless, of_a_sweep


def job(sweep, name, values, mode="MULTIRUN"):
    """A run with these values of val_auc, and val_loss = 1 - val_auc."""
    run = sweep / name
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  mode: {mode}\n  job: {{num: 3}}\n")
    rows = rows_of(values)
    if rows:
        write_csv(run / "history.csv", rows)
    return run, rows


def rows_of(values):
    return [
        {"epoch": k, "val_auc": value, "val_loss": None if value is None else 1 - value}
        for k, value in enumerate(values, start=1)
    ]


@pytest.fixture
def sweep(tmp_path):
    """Means up to epoch 2: 0.6, 0.7, 0.8, 0.9, so their median is 0.75; one has one epoch only."""
    curves = ([0.5, 0.7, 0.99], [0.6, 0.8], [0.7, 0.9], [0.8, 1.0], [0.1], [])
    for number, values in enumerate(curves):
        job(tmp_path, f"{number}-a", values)
    return tmp_path


@pytest.mark.parametrize(("best", "ended"), [(0.74, True), (0.76, False), (0.9, False)])
def test_the_best_value_against_the_median_of_the_others_means(sweep, best, ended):
    run, rows = job(sweep, "9-a", [best, 0.0])
    assert (hopeless(run, rows, "val_auc") is not None) == ended
    assert (hopeless(run, rows, "val_loss") is not None) == ended


def test_the_reason_has_the_numbers(sweep):
    run, rows = job(sweep, "9-a", [0.5, 0.6])
    assert hopeless(run, rows, "val_auc") == (
        "ended after epoch 2: its best val_auc 0.6 is worse than 0.75, the median over 4 other "
        "jobs of their means"
    )
    assert "its best val_loss 0.4 is worse than 0.25," in hopeless(run, rows, "val_loss")


def test_it_equals_numpy_on_random_curves(tmp_path):
    rng = np.random.default_rng(0)
    verdicts = []
    for trial in range(30):
        curves = rng.random((6, 5))
        runs = [job(tmp_path / str(trial), f"{k}-a", list(c))[0] for k, c in enumerate(curves)]
        n = trial % 5 + 1
        expected = curves[0, :n].max() < np.median(curves[1:, :n].mean(1))
        found = hopeless(runs[0], rows_of(curves[0, :n].tolist()), "val_auc")
        assert (found is not None) == expected
        verdicts.append(expected)
    assert 0 < sum(verdicts) < 30


def test_few_others_end_nothing(tmp_path):
    run, rows = job(tmp_path, "9-a", [0.1])
    for number in range(OTHERS):
        assert hopeless(run, rows, "val_auc") is None
        job(tmp_path, f"{number}-a", [0.9])
    assert hopeless(run, rows, "val_auc") is not None


def test_a_gap_or_another_monitor_is_no_curve_to_compare_with(tmp_path):
    run, rows = job(tmp_path, "9-a", [0.1, 0.1])
    for number, values in enumerate(([0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [None, 0.9])):
        job(tmp_path, f"{number}-a", values)
    assert hopeless(run, rows, "val_auc") is None
    write_csv(tmp_path / "3-a" / "history.csv", [{"epoch": k, "val_f1": 0.9} for k in (1, 2)])
    assert hopeless(run, rows, "val_auc") is None
    write_csv(tmp_path / "3-a" / "history.csv", rows_of([0.9, 0.9]))
    assert hopeless(run, rows, "val_auc") is not None


def test_runs_beside_one_another_are_no_sweep(tmp_path):
    for number in range(OTHERS):
        job(tmp_path, f"{number}-a", [0.9], mode="RUN")
    run, rows = job(tmp_path, "9-a", [0.1], mode="RUN")
    assert hopeless(run, rows, "val_auc") is None and not of_a_sweep(run)
    (run / ".hydra" / "hydra.yaml").unlink()
    assert not of_a_sweep(run)
