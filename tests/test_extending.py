"""docs/extending.md, followed to the letter out of the tree: its files, its commands."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medexp.report.table.load import read_predictions
from tests.conftest import ROOT, read

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FILES = re.findall(r"`(mine/[\w./]+)`:\n\n```\w+\n(.*?)```", PAGE, re.S)
COMMANDS = [shlex.split(line) for line in re.findall(r"```sh\nmedexp (.*?)\n```", PAGE)]


def write_images(folder):
    """40 patients; what is malignant has a bright square."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(40):
        image = rng.integers(0, 120, (24, 24, 3)).astype(np.uint8)
        if number % 2:
            image[8:16, 8:16] += 100
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
        facts = {"malignant": number % 2, "patient": f"p{number // 4}"}
        (folder / f"{number:02}.json").write_text(json.dumps(facts))


@pytest.fixture
def mine(workplace, monkeypatch):
    for name, text in FILES:
        # Another test's module of that name would be found in its folder.
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    write_images(Path("data/mydata"))


def test_every_page_of_it_works_as_it_stands(mine, medexp):
    assert len(FILES) == 9 and len(COMMANDS) == 3
    check, table, observed = COMMANDS
    assert medexp(*check) in (0, 1), medexp.err
    assert "mydata" in medexp.out

    assert medexp(*table) == 0, medexp.err
    assert "Balanced" in medexp.out
    (run,) = Path("outputs/papers").glob("*/hinge")
    metrics = read(run / "metrics.json")
    rows = [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    test = [row for row in rows if row[1] == "test"]
    labels = [int(row[2]) for row in test]
    predicted = [int(float(row[4]) > float(row[3])) for row in test]
    assert metrics["test"]["balanced"] == balanced_accuracy_score(labels, predicted)
    assert f"{metrics['test']['balanced']:.3f}" in (run.parent / "table.md").read_text()

    assert medexp(*observed) == 0, medexp.err
    diary = Path("outputs/observed/diary.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in diary] == ["epoch 1", "epoch 2"]


def test_a_metric_may_not_take_the_place_of_another(mine, medexp):
    words = ("--config-dir", "mine", "dataset=mydata", "model=mynet", "dataset.size=16")
    more = ("trainer.epochs=1", "trainer.monitor=val_loss", "trainer.resamples=0")
    taken = "+metrics.accuracy=mymetrics.balanced_accuracy"
    assert medexp("train", *words, *more, taken) == 2
    assert "metrics.accuracy: medexp has a score of that name" in medexp.err
    missing = "+metrics.balanced=mymetrics.balance"
    assert medexp("train", *words, *more, missing) == 2
    assert "metrics.balanced=mymetrics.balance: mymetrics has no 'balance'" in medexp.err
    assert "epoch 1" not in medexp.err  # refused before anything is trained


def test_its_reader_reads_new_images(mine, medexp):
    words = ("--config-dir", "mine", "dataset=mydata", "model=mynet", "dataset.size=16")
    more = ("trainer.epochs=1", "trainer.monitor=val_loss", "trainer.resamples=0")
    run = Path("run")
    assert medexp("train", *words, *more, f"hydra.run.dir={run}") == 0, medexp.err
    new = ("--config-dir", "mine", f"run={run}", "images=data/mydata", "out=new.csv")
    assert medexp("predict", *new) == 0, medexp.err
    scored = read_predictions(run / "predictions.csv")["test"]
    expected = dict(zip(scored.ids, scored.probabilities[:, 1], strict=True))
    with open("new.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and sum(row["known"] == "test" for row in rows) == len(expected)
    for row in rows:
        if row["known"] == "test":
            got = float(row["p_malignant"])
            assert got == pytest.approx(expected[Path(row["path"]).name], abs=1e-6)
