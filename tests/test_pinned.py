"""The comparison of two recordings notices what matters, and nothing else."""

import json

import pytest

from tests.pinned import compare


@pytest.fixture
def recordings(tmp_path):
    """Two recordings of one run that differ in time, place and the dotted place of a target."""
    folders = []
    for number, room in enumerate(("", "read."), start=1):
        root = tmp_path / f"recording{number}"
        run = root / "work" / "runs" / "plain"
        run.mkdir(parents=True)
        (root / "out").mkdir()
        (root / "out" / "plain.code").write_text("0\n")
        (root / "out" / "plain.err").write_text(f"{root}/work: {number},000 img/s\n")
        scores = {"accuracy": 0.5, "wall_seconds": number / 3, "target": f"medexp.data.{room}load"}
        (run / "metrics.json").write_text(json.dumps(scores, indent=1))
        (run / "history.csv").write_text(f"epoch,seconds,images_per_s\n1,{number}.5,{number}\n")
        (run / "config.yaml").write_text(f"a: {number}\n")
        folders.append(root)
    return folders


def test_times_places_and_targets_are_put_aside(recordings, capsys):
    assert compare(*recordings) == 0
    assert "4 and 4 files, 0 differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("work/runs/plain/metrics.json", '"accuracy": 0.5', '"accuracy": 0.51'),
        ("work/runs/plain/history.csv", "\n1,", "\n2,"),
        ("out/plain.code", "0", "1"),
        ("out/plain.err", "img/s", "img/s: the loss is nan"),
    ],
)
def test_what_moved_is_named(recordings, capsys, file, old, new):
    path = recordings[1] / file
    path.write_text(path.read_text().replace(old, new))
    assert compare(*recordings) == 1
    assert f"{file}:" in capsys.readouterr().out


def test_a_file_that_is_gone_is_named(recordings, capsys):
    (recordings[1] / "work/runs/plain/metrics.json").unlink()
    assert compare(*recordings) == 1
    assert "work/runs/plain/metrics.json: only in OLD" in capsys.readouterr().out
