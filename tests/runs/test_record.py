"""The record: what it holds comes back; two of them are compared fact by fact."""

from dataclasses import replace

import pytest

from medexp.errors import MedexpError
from medexp.runs.record import (
    Difference,
    Part,
    Record,
    differences,
    digest_of_ids,
    read_record,
)
from tests.conftest import read


def record(**changes):
    return replace(
        Record(
            dataset="toy",
            reader={"_target_": "toy.load", "size": 8},
            classes=("a", "b"),
            image_shape=(8, 8, 3),
            parts={"train": Part(4, "x", "y"), "test": Part(2, "z", "w")},
            model="toynet",
            network={"_target_": "toy.Net", "width": 4},
            weights=None,
            normalised=False,
            recipe={"optimizer.lr": 0.1, "trainer.epochs": 3},
            seed=0,
            versions={"torch": "2"},
        ),
        **changes,
    )


def test_it_reads_back_as_it_was(tmp_path):
    record().write(tmp_path)
    assert read_record(tmp_path) == record()
    assert differences(record(), read_record(tmp_path)) == []


def test_a_run_of_an_older_version_has_none(tmp_path):
    assert read_record(tmp_path) is None
    (tmp_path / "record.json").write_text("[1]")
    with pytest.raises(MedexpError, match="record.json: holds a list"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"versions": {"torch": "3"}}, []),
        ({"seed": 1}, [("seed", 0, 1)]),
        ({"classes": ("b", "a")}, [("classes", ["a", "b"], ["b", "a"])]),
        ({"reader": {"_target_": "toy.load", "size": 9}}, [("reader.size", 8, 9)]),
        ({"recipe": {"optimizer.lr": 0.1}}, [("recipe.trainer.epochs", 3, None)]),
        ({"parts": {"train": Part(4, "x", "y"), "test": Part(2, "z", "v")}},
         [("parts.test.pixels", "w", "v")]),
        ({"parts": {"train": Part(4, "x", "y")}}, [("parts.test", {}, None)]),
    ],
)  # fmt: skip
def test_a_difference_names_the_fact(changes, found):
    seen = differences(record(), record(**changes))
    if "test" not in changes.get("parts", {"test": 1}):
        assert [one.fact for one in seen] == ["parts.test"]
    else:
        assert seen == [Difference(*one) for one in found]
    only = differences(record(), record(**changes, model="other"), ["model"])
    assert only == [Difference("model", "toynet", "other")]
    assert only[0].text() == "model: 'other', and the run had 'toynet'"


def test_the_digest_of_ids_is_of_the_set():
    assert digest_of_ids(["b", "a"]) == digest_of_ids(["a", "b"]) != digest_of_ids(["a", "c"])


def test_every_command_holds_itself_against_the_record(toy, medexp):
    run = toy("trainer.epochs=1")
    made = read(run / "record.json")
    assert (made["dataset"], made["model"], made["classes"]) == (
        "toy",
        "toynet",
        ["a", "b"],
    )
    assert made["recipe"]["trainer.epochs"] == 1 and made["seed"] == 0
    assert "trainer.threads" not in made["recipe"]
    assert medexp("train", f"resume={run}", "trainer.epochs=2") == 0, medexp.err
    assert f"Differs from {run} in recipe.trainer.epochs: 2, and the run had 1" in (
        (run / "run.log").read_text()
    )
    assert read(run / "record.json") == made
    assert medexp("eval", f"run={run}", "dataset.n=80") == 0, medexp.err
    (log,) = run.glob("eval/*/run.log")
    assert f"Differs from {run} in reader.n: 80" in log.read_text()
