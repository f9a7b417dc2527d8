"""`medexp eval split=all`: an external labelled set, scored whole."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from medexp.report.table.load import read_predictions
from tests.conftest import MINE, OWN, read
from tests.jobs.kit import train_once, write_folders


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_folders(folder / "own", {"benign": 30, "malignant": 30})
    return train_once(
        folder, "dataset=image_folder", "dataset.root=own", "dataset.size=16", "hydra.run.dir=run"
    )


@pytest.fixture
def place(workplace, trained):
    """A copy of it all to work in."""
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return workplace


def evaluated(medexp, *words):
    before = set(Path("run/eval").glob("*"))
    assert medexp("eval", *OWN, "run=run", "split=all", *words) == 0, medexp.err
    (folder,) = set(Path("run/eval").glob("*")) - before
    return folder


def test_every_image_of_an_external_set_counts_and_classes_go_by_name(place, medexp):
    write_folders(Path("there"), {"malignant": 5, "benign": 7}, seed=1)
    Path("there/malignant").rename("there/x")  # the squares are of the other class by number
    Path("there/benign").rename("there/malignant")
    Path("there/x").rename("there/benign")
    folder = evaluated(medexp, "dataset.root=there")
    metrics = read(folder / "metrics.json")
    assert (metrics["split"], metrics["all"]["n"]) == ("all", 12)
    assert metrics["classes"] == ["benign", "malignant"]
    told = set(metrics["marks"]) - {"CONSTANT"}  # which a barely trained network may be
    assert told == {"WHOLE SET"}, "none of them was trained on"
    assert "all images, of which no split was drawn" in metrics["notes"]
    scored = read_predictions(folder / "predictions.csv")["all"]
    named = dict(zip(scored.ids, scored.labels, strict=True))
    assert {key: int(key.startswith("malignant")) for key in named} == named
    right = np.mean((scored.probabilities[:, 1] > 0.5) == scored.labels)
    assert metrics["all"]["accuracy"] == right
    assert "WHOLE SET" in medexp.out
    with (folder / "split.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"all"}


def test_its_classes_may_stand_in_another_order_and_be_fewer(place, medexp):
    """The run's third class has no image there; two others keep their columns."""
    write_folders(Path("three"), {"a": 12, "b": 12, "c": 12})
    own = ("dataset=image_folder", "dataset.size=16", "model=toynet")
    given = ("dataset.root=three", "trainer.epochs=1", "trainer.resamples=20")
    args = ("--config-dir", MINE, *own, *given, "hydra.run.dir=other")
    assert medexp("train", *args) == 0, medexp.err
    write_folders(Path("two"), {"x": 1, "b": 6, "c": 4}, seed=2)
    shutil.rmtree("two/x")
    assert medexp("eval", *OWN, "run=other", "split=all", "dataset.root=two") == 0, medexp.err
    (folder,) = Path("other/eval").iterdir()
    scored = read_predictions(folder / "predictions.csv")["all"]
    assert np.bincount(scored.labels, minlength=3).tolist() == [0, 6, 4]
    assert scored.probabilities.shape == (10, 3)
    write_folders(Path("unknown"), {"b": 2, "d": 2})
    assert medexp("eval", *OWN, "run=other", "split=all", "dataset.root=unknown") == 2
    assert "it has no d" in medexp.err


def test_images_of_training_are_marked_under_any_name(place, medexp):
    """Half of the external set are training images under other names: the share says so."""
    write_folders(Path("there"), {"benign": 4, "malignant": 4}, seed=1)
    with open("run/split.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    for kind in ("benign", "malignant"):
        of_kind = [row["id"] for row in rows if row["id"].startswith(kind)][:4]
        for number, key in enumerate(of_kind):
            shutil.copy(f"own/{key}", f"there/{kind}/copy{number}.png")
    metrics = read(evaluated(medexp, "dataset.root=there") / "metrics.json")
    assert metrics["all"]["n"] == 16
    assert metrics["marks"]["LEAKY"].startswith("50.0% of all images are among those that run was")
    own = read(evaluated(medexp) / "metrics.json")
    share = len(rows) / 60
    assert own["marks"]["LEAKY"].startswith(f"{share:.1%} of all images")
    assert "SELECTED ON TEST" in own["marks"]


def test_what_cannot_be_read_is_refused_or_listed(place, medexp):
    write_folders(Path("there"), {"benign": 4, "malignant": 4}, seed=1)
    Path("there/benign/000.png").write_bytes(b"no picture")
    assert medexp("eval", *OWN, "run=run", "split=all", "dataset.root=there") == 1
    assert "1 of 8 images cannot be read" in medexp.err
    folder = evaluated(medexp, "dataset.root=there", "dataset.on_error=skip")
    metrics = read(folder / "metrics.json")
    assert metrics["all"]["n"] == 7 and list(metrics["skipped"]) == ["benign/000.png"]


def test_a_set_that_comes_split_and_an_ensemble(toy, medexp):
    """Toy comes as 96, 48 and 48 images of its own function; no two of them share an id."""
    runs = [toy(f"seed={seed}", "trainer.epochs=1") for seed in (0, 1)]
    assert medexp("eval", *OWN, f"run={runs[0]},{runs[1]}", "split=all") == 0, medexp.err
    (folder,) = Path("outputs/ensembles").iterdir()
    metrics = read(folder / "metrics.json")
    assert metrics["all"]["n"] == 192
    assert metrics["marks"]["LEAKY"].count("50.0% of all images") == 2
    ensemble = read_predictions(folder / "predictions.csv")["all"]
    single = read_predictions(runs[0] / "predictions.csv")["test"]
    rows = [list(ensemble.ids).index(key) for key in single.ids]
    assert np.array_equal(ensemble.labels[rows], single.labels)
