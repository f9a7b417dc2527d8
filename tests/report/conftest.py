"""A factory of small run directories, as `medexp train` writes them."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medexp.score.metrics import headline, score

PAPER = Path(__file__).parents[2] / "conf" / "paper" / "pcam_table4.yaml"

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str = "run",
        *,
        model: str = "native1",
        dataset: str = "pcam",
        classes: Sequence[str] = ("normal", "tumour"),
        paper: bool = True,
        state: str = "done",
        reason: str | None = None,
        marks: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        epochs: int = 3,
        n: int = 60,
        separation: float = 1.0,
    ) -> Path:
        path = tmp_path / name
        (path / ".hydra").mkdir(parents=True)
        config: dict[str, Any] = {"names": {"dataset": dataset, "model": model}, "seed": 0}
        if paper:
            config["paper"] = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
        (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        (path / "status.json").write_text(json.dumps({"state": state, "reason": reason}))
        if state == "done":
            _write_results(path, model, dataset, classes, marks or {}, epochs, n, separation)
        return path

    return make


def _write_results(
    path: Path,
    model: str,
    dataset: str,
    classes: Sequence[str],
    marks: Mapping[str, str],
    epochs: int,
    n: int,
    separation: float,
) -> None:
    rng = np.random.default_rng(1)
    scored = {}
    with (path / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "label", *(f"p_{c}" for c in range(len(classes)))])
        for split in ("val", "test"):
            labels = rng.permutation(np.arange(n) % len(classes))
            logits = rng.normal(size=(n, len(classes)))
            logits[np.arange(n), labels] += separation
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            scored[split] = score(labels, p, classes, resamples=50, seed=3)
            for i in range(n):
                writer.writerow([f"{split}-{i}", split, labels[i], *map(repr, p[i].tolist())])
    metrics = {
        "schema": 1,
        "dataset": dataset,
        "model": model,
        "classes": list(classes),
        "marks": dict(marks),
        "notes": ["assumption: native1 pools by 2x2"],
        **scored,
        "parameters": {"trainable": 1000, "total": 1200},
        "best_epoch": max(1, epochs - 1),
        "epochs": epochs,
        "wall_seconds": 12.3,
        "monitor": "val_auc",
    }
    (path / "metrics.json").write_text(json.dumps(metrics, allow_nan=False), encoding="utf-8")
    columns = [f"val_{short}" for short in headline(classes)]
    with (path / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", *columns]
        writer.writerow([*names, "seconds", "images_per_s"])
        for epoch in range(1, epochs + 1):
            gain = 0.4 * (1 - 0.9**epoch)
            writer.writerow(
                [epoch, 0.01 * 0.5 ** (epoch // 20), 0.7 - gain, 0.52 + gain, 0.72 - 0.8 * gain]
                + [0.5 + 0.9 * gain] * len(columns)
                + [1.5, 900]
            )
