"""Several processes of one command line: never the same work twice without a word."""

import pytest


@pytest.mark.parametrize("command", ["eval", "report", "data", "models"])
def test_torchrun_does_not_do_the_same_work_twice(medexp, monkeypatch, command):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert medexp(command, "source=phantom") == 2
    assert f"medexp: {command}: started 2 times (WORLD_SIZE=2" in medexp.err
    assert f"Start it once: medexp {command}" in medexp.err


def test_one_process_of_torchrun_is_an_ordinary_one(toy, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert toy("trainer.epochs=1").is_dir()
