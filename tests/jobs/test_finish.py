"""What a page is made of: the figures and audits that lie in the folders."""

import json

import pytest

from medexp.jobs import finish
from medexp.report.figure import figures
from medexp.report.page import page
from medexp.report.table import load


@pytest.fixture
def pages(monkeypatch):
    """What the page would show, call by call; there are no runs."""
    shown = []
    monkeypatch.setattr(load, "find_runs", lambda folders: [])
    monkeypatch.setattr(page, "write_page", lambda runs, path, **parts: shown.append(parts) or path)
    return shown


def picture(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_figures_of_folders_are_shown_but_not_a_runs_own(pages, tmp_path):
    paper, run = tmp_path / "paper", tmp_path / "run"
    own = [picture(paper / "figures", "roc.png"), picture(paper / "plots", "lr.png")]
    picture(paper / "figures", "roc.svg")
    picture(run / "plots", "confusion.png")
    (run / "status.json").touch()
    more = picture(tmp_path, "more.png")
    target = tmp_path / "new" / "page.html"
    assert finish.write_page([paper, run], target, [more]) == target and target.parent.is_dir()
    assert pages[0]["figures"] == [*own, more]


def test_without_figures_the_runs_are_drawn_over_one_another(pages, tmp_path, monkeypatch):
    def overlay(runs, folder):
        return [picture(folder, "roc.png"), picture(folder, "roc.svg")]

    monkeypatch.setattr(figures, "overlay_figures", overlay)
    finish.write_page([tmp_path], tmp_path / "page.html")
    assert [file.name for file in pages[0]["figures"]] == ["roc.png"]


def test_a_finding_of_two_tables_is_told_once(pages, tmp_path):
    first, second = {"where": "Table 1"}, {"where": "Table 2"}
    for name, findings in (("a", [first, second]), ("b", [second])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.json").write_text(json.dumps(findings))
    finish.write_page([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    assert pages[0]["audit"] == [first, second]
