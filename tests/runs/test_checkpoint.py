"""Checkpoints: atomic, and refused by name where they are not medexp's."""

import pickle

import pytest
import torch

from medexp.errors import MedexpError
from medexp.runs import checkpoint


def test_round_trip(tmp_path):
    state = {"model": {"w": torch.randn(3)}, "epoch": 3, "history": [{"lr": 0.1, "val_auc": None}]}
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(state, path)
    checkpoint.save(state, path)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert loaded["history"] == state["history"]
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_bad_files_are_refused_by_name(tmp_path):
    path = tmp_path / "best.pt"
    with pytest.raises(MedexpError, match="best.pt: no such checkpoint"):
        checkpoint.load(path)
    checkpoint.save({"model": {"w": torch.randn(1000)}}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MedexpError, match="best.pt: cannot be read as a checkpoint"):
        checkpoint.load(path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(MedexpError, match="holds no 'model'"):
        checkpoint.load(path)


class Evil:
    def __reduce__(self):
        return (print, ("code in a pickle ran",))


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    path = tmp_path / "best.pt"
    for write in (
        lambda: torch.save({"model": Evil()}, path),
        lambda: path.write_bytes(pickle.dumps(Evil())),
    ):
        write()
        with pytest.raises(MedexpError, match="cannot be read as a checkpoint"):
            checkpoint.load(path)
    assert "ran" not in capsys.readouterr().out
