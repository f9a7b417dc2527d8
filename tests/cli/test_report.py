"""Which functions `medexp report` calls with what; the tables themselves: tests/report."""

from pathlib import Path

import pytest

from medexp.cli import report


@pytest.fixture
def calls(monkeypatch):
    made = []
    for name in ("show", "render_again"):
        monkeypatch.setattr(report, name, lambda *args, name=name: made.append((name, *args)))

    def write_page(folders, path, more):
        made.append(("write_page", folders, path, more))
        return path

    monkeypatch.setattr(report, "write_page", write_page)
    return made


def test_runs_and_written_tables_are_told_apart(calls):
    assert report.report(["runs/a", "old/table.json", "runs/b"]) == 0
    assert calls == [
        ("render_again", Path("old/table.json")),
        ("show", [Path("runs/a"), Path("runs/b")]),
    ]


def test_figures_of_a_folder_go_on_the_page(calls, tmp_path, capsys):
    for name in ("b.png", "a.png", "a.svg"):
        (tmp_path / name).touch()
    page = tmp_path / "page.html"
    assert report.report(["runs/a", "--page", str(page), "--figures", str(tmp_path)]) == 0
    figures = [tmp_path / "a.png", tmp_path / "b.png"]
    assert calls[1:] == [("write_page", [Path("runs/a")], page, figures)]
    assert capsys.readouterr().out == f"{page}\n"
    assert report.report(["runs/a", "--page", str(page)]) == 0
    assert calls[-1] == ("write_page", [Path("runs/a")], page, [])
