"""Tables as text: the terminal, Markdown, CSV, LaTeX (`latex`), HTML and JSON.

table.json holds all that the others show: each is a pure function of it, so that a table written
once is rendered again to the same bytes wherever its runs are.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from medexp.errors import MedexpError, printable
from medexp.report.page.markup import escaped
from medexp.report.table.latex import latex
from medexp.report.table.lines import COLUMNS, Line, lines
from medexp.report.table.load import Run
from medexp.report.table.tables import DIFFERENCE, INTERVAL, NOT_RUN, VERDICT, Row, Table, tables
from medexp.runs.files import is_run, read_json, write_text
from medexp.runs.guard import cell
from medexp.score.verdict import (
    CANNOT_TELL,
    DIFFERS,
    NO_INTERVAL,
    NOT_COMPARABLE,
    WITHIN,
    Compared,
)

SCHEMA = 2
_LABELS = 18  # columns of the terminal that labels keep
_STYLES = {"reported": "bold", "ours": "", "member": "dim", "detail": "dim"}
_CLASSES = {
    WITHIN: "within",
    DIFFERS: "differs",
    CANNOT_TELL: "nointerval",
    NOT_COMPARABLE: "nc",
    NO_INTERVAL: "nointerval",
}


@dataclass(frozen=True)
class Report:
    """What table.json holds: the tables of some runs, and all their metrics in long form.

    deviations: run -> KEY -> {row, run}, all in which a run marked DEVIATES is not its row's.
    """

    tables: tuple[Table, ...]
    lines: tuple[Line, ...]
    deviations: dict[str, Any] = field(default_factory=dict)


def report(runs: Sequence[Run]) -> Report:
    """The tables of runs.

    Raises:
        MedexpError: a run's `paper` node is not one (see `parse_paper`).
    """
    deviations = {
        str(run.path): run.metrics["deviates"]
        for run in runs
        if run.metrics and run.metrics.get("deviates")
    }
    return Report(tuple(tables(runs)), tuple(lines(runs)), deviations)


def write_tables(runs: Sequence[Run], folder: str | Path) -> list[Path]:
    """Write the tables of runs into `folder` (`write_report`); the paths.

    A run directory gets table.md and table.csv alone: all else is of what it lies among.
    """
    short = ("table.md", "table.csv") if is_run(Path(folder)) else None
    return write_report(report(runs), folder, short)


def write_report(
    content: Report, folder: str | Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Write table.md, .csv, .tex, .html and .json into `folder`, made if need be; their paths.

    names: those to be written; None: all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.md": "\n".join(map(markdown, content.tables)),
        "table.csv": csv_text(content.lines),
        "table.tex": "\n".join(map(latex, content.tables)),
        "table.html": html(content.tables),
        "table.json": json_text(content),
    }
    for name in names or texts:
        write_text(folder / name, texts[name])
    return [folder / name for name in names or texts]


# ---------------------------------------------------------------- JSON


def json_text(content: Report) -> str:
    """Strict JSON, a line of text for each line of a table and of the long form."""
    found = ",\n".join(map(_json_table, content.tables))
    long = ",\n".join(map(_compact, content.lines))
    text = f'{{"schema": {SCHEMA},\n"tables": [\n{found}\n],\n"lines": [\n{long}\n]'
    if content.deviations:
        text += f',\n"deviations": {_compact(content.deviations)}'
    return text + "}\n"


def _json_table(table: Table) -> str:
    parts = asdict(table)
    groups = parts.pop("groups")
    text = ",\n".join(f'"{key}": {_compact(value)}' for key, value in parts.items())
    rows = "],\n[".join(",\n ".join(map(_compact, group)) for group in groups)
    return f'{{{text},\n"groups": [\n[{rows}]\n]}}'


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def load_tables(path: str | Path) -> Report:
    """Read a table.json.

    Raises:
        MedexpError: it cannot be read, is none, or was written in another version of the format.
    """
    path = Path(path)
    content = printable(read_json(path))
    if content.get("schema") != SCHEMA:
        raise MedexpError(
            f"{path}: schema {content.get('schema')}; this medexp reads {SCHEMA}. Make it anew from"
            " its runs: medexp report DIR"
        )
    try:
        tabled = tuple(map(_table, content["tables"]))
        found = Report(tabled, tuple(content["lines"]), dict(content.get("deviations") or {}))
        csv_text(found.lines)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MedexpError(f"{path}: no table.json of medexp ({error})") from error
    return found


def _table(node: dict[str, Any]) -> Table:
    groups = tuple(tuple(map(_row, group)) for group in node["groups"])
    lists = {key: tuple(node[key]) for key in ("marks", "header", "footnotes")}
    return Table(**node | lists | {"groups": groups})


def _row(node: dict[str, Any]) -> Row:
    lists = {key: tuple(node[key]) for key in ("cells", "marks")}
    return Row(**node | lists | {"values": tuple(map(_compared, node["values"]))})


def _compared(node: dict[str, Any]) -> Compared:
    pairs = {key: tuple(node[key]) for key in ("interval", "error") if node.get(key)}
    return Compared(**node | pairs | {"reasons": tuple(node["reasons"])})


# ---------------------------------------------------------------- CSV


def csv_text(found: Iterable[Line]) -> str:
    """The long form (`lines`) as CSV: numbers are exact (`repr`), what is missing is empty.

    A text that a spreadsheet would take for a formula has a quote before it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in line.items()} for line in found)
    return text.getvalue()


# ---------------------------------------------------------------- Markdown


def markdown(table: Table) -> str:
    """One table as GitHub-flavoured Markdown, its title a heading, its footnotes a list."""
    text = [
        f"## {_plain(table.title)}",
        "",
        _markdown_row(table.header),
        "| --- |" + " ---: |" * (len(table.header) - 1),
        *(_markdown_row(row.cells, bold=row.kind == "reported") for row in table.rows),
        "",
        *(f"- {_plain(note)}" for note in table.footnotes),
    ]
    return "\n".join(text) + "\n"


def _markdown_row(cells: Sequence[str], *, bold: bool = False) -> str:
    marked = (f"**{_plain(one)}**" if bold else _plain(one) for one in cells)
    return f"| {' | '.join(marked)} |"


def _plain(text: str) -> str:
    return re.sub(r"[\\|*_<]", r"\\\g<0>", text)


# ---------------------------------------------------------------- HTML


def html(found: Sequence[Table]) -> str:
    """All tables as one bare page, in UTF-8."""
    title = escaped(" / ".join(table.title for table in found))
    body = "\n".join(map(html_table, found))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def html_table(table: Table) -> str:
    """One table with its footnotes, to stand in a page.

    A <tbody> a group. Classes: of a row its kind; of a cell `n`, and of a verdict's `within`,
    `differs`, `nc` or `nointerval`. data-value: the exact number behind a cell, empty if none.
    """
    first, *names = map(escaped, table.header)
    head = f'<th scope="col">{first}</th>'
    head += "".join(f'<th scope="col" class="n">{name}</th>' for name in names)
    bodies = "".join(f"<tbody>\n{_html_group(group)}</tbody>\n" for group in table.groups)
    notes = "".join(f"<li>{escaped(note)}</li>\n" for note in table.footnotes)
    return (
        f'<div class="wide" role="region" aria-label="{escaped(table.name)}" tabindex="0">\n'
        f'<table class="results">\n<caption>{escaped(table.title)}</caption>\n'
        f"<thead>\n<tr>{head}</tr>\n</thead>\n{bodies}</table>\n</div>\n"
        f'<ul class="footnotes">\n{notes}</ul>\n'
    )


def _html_group(group: Sequence[Row]) -> str:
    text = ""
    values: tuple[Compared, ...] = ()
    for row in group:
        values = row.values or values  # a detail is of the line above it
        label, *printed = row.cells
        cells = "".join(map(partial(_html_cell, row.kind, label), printed, values))
        text += f'<tr class="{row.kind}"><th scope="row">{escaped(label)}</th>{cells}</tr>\n'
    return text


def _html_cell(kind: str, label: str, printed: str, value: Compared) -> str:
    if (kind, label) == ("detail", VERDICT) and value.verdict:
        return f'<td class="n {_CLASSES[value.verdict]}">{value.verdict}</td>'
    exact: str | float | None
    if kind == "reported":
        exact = value.reported
    elif kind != "detail":
        exact = value.ours
    else:
        low = value.interval and value.interval[0]
        exact = {DIFFERENCE: value.difference, INTERVAL: low}.get(label)
    number = "" if exact is None else escaped(exact)
    return f'<td class="n" data-value="{number}">{escaped(printed)}</td>'


# ---------------------------------------------------------------- the terminal


def show(arranged: Iterable[Table], console: Console | None = None, *, brief: bool = False) -> None:
    """Print tables; in a narrow terminal intervals break over lines, numbers never.

    brief: without the rows that no run makes and all notes but those on marks, which a screen of 24
    lines has no room for.
    """
    console = console or Console()
    for table in map(_brief, arranged) if brief else arranged:
        console.print()
        console.print(Text(printable(table.title), style="bold"))
        console.print(_grid(table, console.width))
        for note in table.footnotes:
            console.print(Text(printable(note), style="dim"))


def _brief(table: Table) -> Table:
    made = [
        group for group in table.groups if any(row.state not in (None, NOT_RUN) for row in group)
    ]
    marks = {mark for row in table.rows for mark in row.marks} | {"DIFFERENT IMAGES"}
    kept = [note for note in table.footnotes if note.startswith(tuple(marks))]
    return replace(table, groups=tuple(made) or table.groups, footnotes=tuple(kept))


def _grid(table: Table, width: int) -> Grid:
    columns = list(zip(table.header, *(row.cells for row in table.rows), strict=True))
    words = [max(len(part) for cell in cells for part in cell.split()) for _, *cells in columns[1:]]
    tight = sum(max(map(len, column)) + 2 for column in columns) > width
    names = _fitted(table.header[1:], words, width) if tight else table.header[1:]
    grid = Grid(
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, collapse_padding=True
    )
    grid.add_column(table.header[0], overflow="fold")
    for name, word in zip(names, words, strict=True):
        # Rich shrinks the widest column first; it is to break intervals at their space before that.
        least = max(word, *map(len, name.split()))
        grid.add_column(
            Text(name), justify="right", min_width=least, max_width=least if tight else None
        )
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        # Text, not str: Rich would read [brackets] in an override as markup.
        cells = map(printable, (_indented(row), *row.cells[1:]))
        line = [Text(one, style=_STYLES[row.kind]) for one in cells]
        grid.add_row(*line, end_section=following is not None and following.kind == "reported")
    return grid


def _fitted(names: Sequence[str], words: Sequence[int], width: int) -> list[str]:
    """Headings with long words hyphenated, as far as it takes to leave room for the labels.

    words: the longest in the cells below each.
    """
    for most in range(max(map(len, names)), 5, -1):
        fitted = [_broken(name, max(most, word)) for name, word in zip(names, words, strict=True)]
        needed = (
            max(word, *map(len, name.split())) + 2 for name, word in zip(fitted, words, strict=True)
        )
        if sum(needed) + _LABELS <= width:
            break
    return fitted


def _broken(name: str, most: int) -> str:
    """Words of `most` letters at most: broken behind their hyphens, then anywhere."""
    parts = []
    for word in name.split():
        for part in word.replace("-", "- ").split() if len(word) > most else [word]:
            while len(part) > most:
                parts.append(f"{part[: most - 1]}-")
                part = part[most - 1 :]
            parts.append(part)
    return " ".join(parts)


def _indented(row: Row) -> str:
    return ("  " if row.kind == "detail" else "") + row.cells[0]
