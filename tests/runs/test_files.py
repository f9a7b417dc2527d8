"""The run directory's writers."""

import csv

import numpy as np
import pytest

from medexp.errors import ConfigError, MedexpError
from medexp.runs import files as runs


def test_writing_is_atomic_and_strict(tmp_path):
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"a": 1.5, "b": None})
    assert runs.read_json(path) == {"a": 1.5, "b": None}
    with pytest.raises(ValueError):
        runs.write_json(path, {"a": float("nan")})
    assert runs.read_json(path) == {"a": 1.5, "b": None}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    path.write_text("[1]")
    with pytest.raises(MedexpError, match=r"metrics\.json: holds a list"):
        runs.read_json(path)
    path.write_text("{")
    with pytest.raises(MedexpError, match=r"metrics\.json: cannot be read as JSON"):
        runs.read_json(path)


def test_predictions_read_back_exactly(tmp_path):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    ids, labels = np.array([f"i,{k}" for k in range(50)]), np.arange(50) % 3
    runs.write_predictions(tmp_path / "predictions.csv", {"test": (ids, labels, p)})
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "split", "label", "p_0", "p_1", "p_2"]
    assert [row["id"] for row in rows] == ids.tolist()
    got = np.array([[float(row[f"p_{c}"]) for c in range(3)] for row in rows])
    assert (got == p).all()


def test_a_run_or_a_sweep_is_never_written_over(tmp_path):
    runs.refuse_overwrite(tmp_path / "new")
    (tmp_path / "sweep" / "0-a").mkdir(parents=True)
    runs.refuse_overwrite(tmp_path / "sweep")
    runs.write_status(tmp_path / "sweep" / "0-a", "running")
    with pytest.raises(ConfigError, match=r"0-a: holds a run already.*resume="):
        runs.refuse_overwrite(tmp_path / "sweep")
    assert runs.read_json(tmp_path / "sweep/0-a/status.json")["state"] == "running"


def test_provenance_names_what_a_reviewer_needs():
    content = runs.provenance(seed=3, device="cpu", data={"train": {"images": 1}}, config_dir=None)
    assert content["seed"] == 3 and content["packages"]["torch"]
    assert content["commit"] is None or len(content["commit"].rstrip("+")) == 40


@pytest.mark.parametrize(
    "state, file, free",
    [
        ("failed", "transferred.txt", True),
        ("failed", "history.csv", False),
        ("failed", "checkpoints/last.pt", False),
        ("failed", "first/checkpoints/best.pt", False),
        ("running", "transferred.txt", False),
        ("done", "transferred.txt", False),
    ],
)
def test_a_folder_is_free_again_where_a_run_never_began(tmp_path, state, file, free):
    runs.write_status(tmp_path, state, "why")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    if free:
        runs.refuse_overwrite(tmp_path)
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(ConfigError, match="holds a run already"):
            runs.refuse_overwrite(tmp_path)
        assert (tmp_path / file).exists()
