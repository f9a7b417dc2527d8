"""Why a number is not the paper's: each mark by its reason."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from medexp.config.settings import Names, Source
from medexp.data.base import Dataset, Split
from medexp.jobs.marks import budget_of, marks


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
