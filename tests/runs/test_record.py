"""The record: what it holds comes back; two of them are compared fact by fact."""

from dataclasses import replace

import pytest

from medexp.errors import MedexpError
from medexp.runs.record import (
    Part,
    Record,
    digest_of_ids,
    read_record,
)
from tests.conftest import MINE, read


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


def test_a_run_of_an_older_version_has_none(tmp_path):
    assert read_record(tmp_path) is None
    (tmp_path / "record.json").write_text("[1]")
    with pytest.raises(MedexpError, match="record.json: holds a list"):
        read_record(tmp_path)


def test_the_digest_of_ids_is_of_the_set():
    assert digest_of_ids(["b", "a"]) == digest_of_ids(["a", "b"]) != digest_of_ids(["a", "c"])


def test_a_run_keeps_its_record_when_it_goes_on(toy, medexp):
    run = toy("trainer.epochs=1")
    made = read(run / "record.json")
    assert (made["dataset"], made["model"], made["classes"]) == ("toy", "toynet", ["a", "b"])
    assert made["recipe"]["trainer.epochs"] == 1 and made["seed"] == 0
    assert "trainer.threads" not in made["recipe"]
    assert medexp("train", "--config-dir", MINE, f"resume={run}", "trainer.epochs=2") == 0, (
        medexp.err
    )
    assert read(run / "record.json") == made
    (stretch,) = read(run / "provenance.json")["resumed"]
    assert stretch["changes"] == {"trainer.epochs": {"was": 1, "now": 2}}
