"""Renderings: from frozen JSON byte for byte, and each read back against the table."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from medexp.errors import MedexpError
from medexp.report.table.load import load_run
from medexp.report.table.render import (
    Report,
    html_table,
    json_text,
    load_tables,
    markdown,
    report,
    show,
    write_report,
    write_tables,
)
from medexp.report.table.tables import Table
from tests.report.frozen.build import HERE, SETS, runs_of

MakeRun = Callable[..., Path]
FILES = ["table.md", "table.csv", "table.tex", "table.html", "table.json"]
WORDS = {"within": "within", "differs": "differs", "n/c": "not comparable"}
WORDS |= {"no CI": "no interval", "cannot tell": "cannot tell"}


def terminal(found: Sequence[Table], width: int) -> str:
    text = StringIO()
    show(found, Console(file=text, width=width))
    return text.getvalue()


@pytest.fixture(params=sorted(SETS))
def frozen(request: pytest.FixtureRequest) -> Path:
    return HERE / request.param


# ---------------------------------------------------------------- frozen


def test_all_renderings_come_from_the_json_byte_for_byte(frozen: Path, tmp_path: Path) -> None:
    written = write_report(load_tables(frozen / "table.json"), tmp_path)
    assert [path.name for path in written] == FILES
    for path in written:
        assert path.read_bytes() == (frozen / path.name).read_bytes(), path.name


def test_the_same_runs_still_make_the_frozen_table(frozen: Path, tmp_path: Path) -> None:
    made = report(runs_of(frozen.name, tmp_path))
    assert "\n".join(map(markdown, made.tables)) == (frozen / "table.md").read_text()
    assert [line.get("metric") for line in made.lines] == [
        line.get("metric") for line in load_tables(frozen / "table.json").lines
    ]


def test_a_run_that_did_not_end_well_is_in_every_rendering() -> None:
    for name in FILES:
        text = (HERE / "half_finished" / name).read_text()
        for word in ("failed", "running", "not run", "PHANTOM", "PARTIAL", "PT + CW"):
            assert word in text, (name, word)
        if name != "table.csv":  # numbers alone
            assert "Rows left out: GRU" in text
            assert "2 GB" in text


# ---------------------------------------------------------------- JSON


def test_json_gives_back_what_was_written(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [load_run(make_run("0", marks={"LEAKY": "x"})), load_run(make_run("1", paper=False))]
    made = report(runs)
    paths = write_tables(runs, tmp_path / "out")
    assert [path.name for path in paths] == FILES
    read = load_tables(tmp_path / "out" / "table.json")
    assert read.tables == made.tables
    assert json_text(read) == json_text(made)
    content = json.loads(json_text(made))
    (accuracy, *_) = content["tables"][0]["groups"][0][2]["values"]
    test = (runs[0].metrics or {})["test"]
    assert accuracy == {
        "reported": "0.9286",
        "ours": test["accuracy"],
        "sd": None,
        "difference": test["accuracy"] - 0.9286,
        "interval": test["ci95"]["accuracy"],
        "verdict": "not comparable",
        "error": pytest.approx([0.9258, 0.9314], abs=1e-4),
        "spread": None,
        "p": None,
        "reasons": ["LEAKY"],
    }


def test_json_is_strict() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(Report((), ({"ours": float("nan")},)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a JSON object"),
        ('{"schema": 3}', "schema 3; this medexp reads 2. Make it anew from its runs"),
        ('{"schema": 2, "tables": []}', "no table.json of medexp ('lines')"),
        ('{"schema": 2, "tables": [{"groups": [[1]]}], "lines": []}', "no table.json of medexp"),
        ('{"schema": 2, "tables": [], "lines": [{"speed": 1}]}', "no table.json of medexp"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "table.json").write_text(content)
    with pytest.raises(MedexpError, match=re.escape(message)):
        load_tables(tmp_path / "table.json")


def test_a_run_directory_gets_markdown_and_csv_alone(make_run: MakeRun) -> None:
    path = make_run()
    assert write_tables([load_run(path)], path) == [path / "table.md", path / "table.csv"]
    assert sorted(file.name for file in path.glob("table.*")) == ["table.csv", "table.md"]


# ---------------------------------------------------------------- HTML


class Page(HTMLParser):
    """Rows of (tag, attributes, text) of each cell; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[tuple[str, dict[str, str | None], str]]] = []
        self.notes: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append((tag, dict(attrs), ""))
        elif tag == "li":
            self.notes.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            tag, attributes, text = self.rows[-1][-1]
            self.rows[-1][-1] = (tag, attributes, text + data)
        elif self.open and self.open[-1] == "li":
            self.notes[-1] += data


def test_html_has_the_cells_of_the_table_and_the_numbers_behind_them(frozen: Path) -> None:
    (table,) = load_tables(frozen / "table.json").tables
    page = Page(html_table(table))
    head, *rows = page.rows
    assert tuple(text for *_, text in head) == table.header
    assert {attributes["scope"] for _, attributes, _ in head} == {"col"}
    assert sum(tag == "tbody" for tag, _ in page.seen) == len(table.groups)
    kinds = [attributes["class"] for tag, attributes in page.seen if tag == "tr" and attributes]
    assert kinds == [row.kind for row in table.rows]
    values: Sequence[object] = ()
    for row, (label, *cells) in zip(table.rows, rows, strict=True):
        assert (label[0], label[1]["scope"], label[2]) == ("th", "row", row.cells[0])
        shown = [text for *_, text in cells]
        if row.cells[0] == "verdict":
            assert shown == [WORDS.get(cell, cell) for cell in row.cells[1:]]
        else:
            assert tuple(shown) == row.cells[1:]
        values = row.values or values
        for (_, attributes, text), value in zip(cells, values, strict=True):
            number = attributes.get("data-value")
            if row.kind in ("ours", "member"):
                assert number == ("" if value.ours is None else repr(value.ours))
                assert (text == "—") == (number == "")
            elif row.kind == "reported":
                assert number == (value.reported or "")
            elif text in WORDS.values():
                names = {"within": "within", "differs": "differs", "not comparable": "nc"}
                assert attributes["class"] == f"n {names.get(text, 'nointerval')}"
    assert tuple(page.notes) == table.footnotes


def test_html_lets_no_markup_through(make_run: MakeRun) -> None:
    evil = "<script>alert(1)</script>\"'&"
    runs = [
        load_run(make_run("0", overrides=[f"x={evil}"])),
        load_run(make_run("1", marks={evil: evil}, overrides=["x=1"])),
    ]
    text = "".join(map(html_table, report(runs).tables))
    assert "<script" not in text
    page = Page(text)
    assert any(evil in cell for row in page.rows for *_, cell in row)
    assert any(evil in note for note in page.notes)


# ---------------------------------------------------------------- Markdown and the terminal


def test_markdown_has_the_cells_of_the_table(frozen: Path) -> None:
    (table,) = load_tables(frozen / "table.json").tables
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    cells = [[c.strip("* ").replace("\\", "") for c in line.split("|")[1:-1]] for line in lines]
    assert [tuple(row) for row in [cells[0], *cells[2:]]] == [
        table.header,
        *(row.cells for row in table.rows),
    ]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_terminal_is_too_narrow_for_the_numbers(frozen: Path, width: int) -> None:
    found = load_tables(frozen / "table.json").tables
    text = terminal(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    (table,) = found
    words = set(text.split())
    for row in table.rows:
        assert {word for cell in row.cells[1:] for word in cell.split()} <= words
    for note in table.footnotes:
        assert " ".join(note.split()) in " ".join(text.split())


def test_long_headings_are_hyphenated_where_they_must_be(frozen: Path) -> None:
    (table,) = load_tables(HERE / "half_finished" / "table.json").tables
    assert "Infiltrative" in terminal([table], 200)
    narrow = terminal([table], 80)
    head = narrow.partition("───")[0]
    assert "Infilt-" in head and "rative" in head
    names = ["Model", *("Pneumonoultramicroscopic" for _ in table.header[1:])]
    wider = terminal([replace(table, header=tuple(names))], 80)
    assert max(map(len, wider.splitlines())) <= 80
    assert "…" not in wider
