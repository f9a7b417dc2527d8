"""Why a number is not the paper's: each mark by its reason."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from medexp.config.settings import Names, Source
from medexp.data.base import Dataset, Split
from medexp.jobs.marks import budget_of, marks, of_scores
from tests.conftest import read


def data(**facts):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    split = Split(images, np.array([0, 1, 2, 0]), np.arange(4).astype(str))
    return Dataset("toy", ("a", "b", "c"), split, split, split, **facts)


def settings(**changes):
    return SimpleNamespace(
        **{
            "names": Names("toy", "toynet"),
            "source": Source("disk", 64, 0),
            "paper": {"epochs": 100, "rows": [{"models": ["toynet"]}]},
            **changes,
        }
    )


def test_marks_say_why_a_number_is_not_the_papers():
    assert marks(settings(), data(), 100) == {}
    assert marks(settings(paper=None), data(), 1) == {}
    assert marks(settings(names=Names("toy", "of no paper")), data(), 1) == {}
    assert marks(settings(), data(partial=("5 of 9 patches",)), 10) == {
        "PARTIAL": "10 of 100 epochs; 5 of 9 patches"
    }
    phantom = replace(Source(), kind="phantom", seed=3)
    assert marks(settings(source=phantom), data(partial=("5 of 9",)), 100) == {
        "PHANTOM": "4 synthetic training images (seed 3)"
    }
    leaky = data(marks={"LEAKY": "all of them"})
    assert marks(settings(), leaky, 100) == {"LEAKY": "all of them"}
    assert marks(settings(), data(), 100, "val") == {
        "VAL SPLIT": "scored on the val split, not on the test split"
    }


def test_a_budget_says_what_it_changed():
    rows = [
        {"label": "a", "budgets": {"smoke": {"trainer.epochs": 1}}},
        {"label": "b", "group": "both"},
    ]
    paper = {
        "rows": rows,
        "budgets": {"smoke": {"trainer.epochs": 2, "dataset.max_train": None}},
        "before": {"warm": {"budgets": {"smoke": {"trainer.epochs": 3}}}},
        "budget": "smoke",
        "row": "a",
        "epochs": 9,
    }
    assert budget_of(paper, "a", "smoke") == {"trainer.epochs": 1, "dataset.max_train": None}
    assert budget_of(paper, "both", "smoke") == {"trainer.epochs": 2, "dataset.max_train": None}
    assert budget_of(paper, "before: warm", "smoke") == {"trainer.epochs": 3}
    assert marks(settings(paper=paper), data(), 1) == {
        "PARTIAL": "1 of 9 epochs; budget smoke (trainer.epochs=1, dataset.max_train=null)"
    }


def called(*classes, labels):
    """Marks of a split with these labels whose images are called so, of three classes."""
    images, ids = np.zeros((len(labels), 8, 8, 1), np.uint8), np.arange(len(labels)).astype(str)
    split = replace(data().test, ids=ids, labels=np.array(labels), images=images)
    return of_scores(split, np.eye(3)[list(classes)], ("a", "b", "c"), "test")


def test_scores_that_say_less_than_they_seem_to(caplog):
    assert called(0, 1, 2, 0, labels=[0, 1, 2, 1]) == {}
    assert called(2, 2, 2, 2, labels=[0, 1, 2, 2]) == {
        "CONSTANT": "the network calls all 4 test images c, which 50.0% of them are: it tells no "
        "class from another"
    }
    lacking = called(0, 1, 2, labels=[0, 0, 1])
    assert lacking == {
        "LACKS CLASS": "no test image is c: scores of that class and means over the classes are "
        "undefined or mean little"
    }
    assert list(called(0, 0, 0, labels=[0, 0, 1])) == ["LACKS CLASS", "CONSTANT"]
    one = called(1, 1, 1, labels=[1, 1, 1])  # right, as far as such a split can tell
    assert one == {
        "ONE CLASS": "all 3 test images are b: an accuracy here tells nothing of the other "
        "classes, and there is no AUC"
    }
    assert "LACKS CLASS: no test image is c" in caplog.text


def test_a_network_that_calls_all_images_the_same_is_marked(medexp):
    """Of images that are all black it can say one thing only; training, eval and tables tell."""
    Path("black").mkdir()
    content = {"images": np.zeros((90, 28, 28), np.uint8), "labels": np.arange(90) % 3}
    np.savez("black/data.npz", **content)
    words = ("dataset=arrays", "dataset.root=black", "trainer.epochs=1", "trainer.resamples=0")
    assert medexp("train", *words, "hydra.run.dir=run") == 0, medexp.err
    assert "CONSTANT: the network calls all " in medexp.err
    content = read("run/metrics.json")
    matrix = np.array(content["test"]["confusion_matrix"])
    assert (matrix.sum(0) > 0).sum() == 1 and "CONSTANT" in content["marks"]
    assert "CONSTANT" in Path("run/table.md").read_text().splitlines()[0]
    assert medexp("eval", "run=run", "split=val") == 0, medexp.err
    (file,) = Path("run/eval").glob("*/metrics.json")
    assert " val images" in read(file)["marks"]["CONSTANT"]


def test_a_split_that_lacks_a_class_is_marked_where_it_is_scored(medexp):
    rows = np.arange(120) % 2
    for seed, (name, tested) in enumerate((("whole", rows < 2), ("single", rows == 1))):
        grey = (
            np.random.default_rng(seed).integers(0, 90, (120, 28, 28)) + 120 * rows[:, None, None]
        )
        content = {f"{part}_images": grey.astype(np.uint8) for part in ("train", "val")}
        content |= {f"{part}_labels": rows for part in ("train", "val")}
        content |= {"test_images": grey[tested].astype(np.uint8), "test_labels": rows[tested]}
        Path(name).mkdir()
        np.savez(f"{name}/data.npz", **content)
    words = ("dataset=arrays", "trainer.epochs=2", "trainer.resamples=0", "hydra.run.dir=run")
    assert medexp("train", *words, "dataset.root=whole") == 0, medexp.err
    assert "ONE CLASS" not in read("run/metrics.json")["marks"]
    assert medexp("eval", "run=run", "dataset.root=single") == 0, medexp.err
    assert "ONE CLASS: all 60 test images are 1" in medexp.err
    (folder,) = Path("run/eval").glob("*")
    assert "ONE CLASS" in (folder / "table.md").read_text().splitlines()[0]
