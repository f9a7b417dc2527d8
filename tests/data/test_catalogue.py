"""The rows of `medexp datasets`, and what the command prints of them."""

import json

from medexp.cli.datasets import datasets
from medexp.config.groups import options
from medexp.data.catalogue import dataset_rows
from tests.conftest import MINE


def test_every_data_set_has_a_row(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDEXP_DATA", str(tmp_path))
    (tmp_path / "pcam").mkdir()
    rows = {row["dataset"]: row for row in dataset_rows()}
    assert list(rows) == options("dataset") and json.loads(json.dumps(rows)) == rows
    pcam, kaggle = rows["pcam"], rows["pcam_kaggle"]
    assert pcam["counts"] == {"train": 262144, "val": 32768, "test": 32768}
    assert pcam["phantom"] and pcam["found"] and pcam["root"] == str(tmp_path / "pcam")
    assert kaggle["found"] is False


def test_the_command_prints_the_facts_of_each(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDEXP_DATA", str(tmp_path))
    assert datasets([]) == 0
    said = "".join(capsys.readouterr().out.split())  # lines end at hyphens too
    for row in dataset_rows():
        for fact in (row[key] for key in ("title", "licence", "size", "url")):
            assert "".join((fact or "").split()) in said, row["dataset"]
    assert f"notfoundin{tmp_path}/pcam" in said
    monkeypatch.syspath_prepend(str(MINE))  # as the dispatcher does with --config-dir
    assert datasets(["--json", "--config-dir", str(MINE)]) == 0
    own = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)}["toy"]
    assert (own["url"], own["counts"], own["phantom"]) == (None, None, False)
