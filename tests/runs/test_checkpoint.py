"""Checkpoints: atomic, and refused by name where they are not medexp's."""

import pickle
import resource
import struct
import zipfile

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


def test_what_unpacks_to_more_than_it_has_bytes_is_refused(tmp_path):
    """torch reads packed entries of its zip files, and writes none: a hundredfold from nothing."""
    plain, path = tmp_path / "plain.pt", tmp_path / "best.pt"
    torch.save({"model": {"w": torch.zeros(2**20)}}, plain)
    with zipfile.ZipFile(plain) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert path.stat().st_size < plain.stat().st_size / 100
    assert torch.load(path, weights_only=True)["model"]["w"].shape == (2**20,)
    with pytest.raises(MedexpError, match=r"best.pt: cannot .* unpack to 4,19\d,\d+, and"):
        checkpoint.load(path)
    checkpoint.load(plain)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_claimed_size_is_not_allocated(tmp_path, zipped):
    """8 GB that a file of 32 kB says it has: torch holds both of its formats against the bytes."""
    path = tmp_path / "best.pt"
    content = {"model": {"w": torch.zeros(7919)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    short, long = b"M" + struct.pack("<H", 7919), b"\x8a\x08" + struct.pack("<q", 2 * 10**9)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data.replace(short, long))
    else:
        path.write_bytes(path.read_bytes().replace(short, long))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MedexpError, match="best.pt: cannot be read as a checkpoint"):
        checkpoint.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_a_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "best.tmp").symlink_to("mine")
    checkpoint.save({"model": {}}, tmp_path / "best.pt")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "best.pt").is_symlink()


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
