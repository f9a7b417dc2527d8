"""Tables as text: the terminal, Markdown and CSV."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from medexp.report.load import Run
from medexp.report.repeats import Repeats, arranged, find_repeats, group_label, scores
from medexp.report.tables import Row, Table, paper_row, run_labels, tables
from medexp.runs import write_text

Line = dict[str, Any]

CSV_COLUMNS = (
    "run", "model", "dataset", "metric", "reported", "ours", "difference", "ci_low", "ci_high",
    "marks", "state", "mean_of", "sd",
)  # fmt: skip
_STYLES = {"reported": "bold", "ours": "", "member": "dim", "detail": "dim"}


def show(arranged: Iterable[Table], console: Console | None = None) -> None:
    """Print tables; at 80 columns intervals break over two lines, numbers never."""
    console = console or Console()
    for table in arranged:
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(_grid(table, console.width))
        for note in table.footnotes:
            console.print(Text(note, style="dim"))


def markdown(table: Table) -> str:
    """One table as GitHub-flavoured Markdown, its title a heading, its footnotes a list."""
    lines = [
        f"## {_escaped(table.title)}",
        "",
        _markdown_row(table.header),
        "| --- |" + " ---: |" * (len(table.header) - 1),
        *(_markdown_row(row.cells, bold=row.kind == "reported") for row in table.rows),
        "",
        *(f"- {_escaped(note)}" for note in table.footnotes),
    ]
    return "\n".join(lines) + "\n"


def csv_text(runs: Sequence[Run]) -> str:
    """All scalar metrics, a line for each run and metric (long form, `CSV_COLUMNS`).

    Numbers are exact (`repr`), the reported ones as the paper prints them; what is missing or
    undefined is empty. `run` is the run's folder, `model` its label in the table, `metric` a key of
    `metrics.score`, `marks` are joined by `;`. A run without metrics is one line without a metric.
    After the members of repeats come the lines of their mean (`mean_of` how many, `sd`, the folder
    that they share), and of all folds together.
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in arranged(runs, groups):
        if isinstance(entry, Run):
            writer.writerows(_run_lines(entry, labels[entry.path]))
            continue
        for run in entry.runs:
            writer.writerows(_run_lines(run, labels[run.path]))
        writer.writerows(_repeat_lines(entry, group_label(entry, labels)))
    return text.getvalue()


def _run_lines(run: Run, label: str) -> list[Line]:
    facts = {"run": run.path, "model": label, "marks": ";".join(run.marks), "state": run.state}
    return _lines(run, facts, scores(run))


def _repeat_lines(group: Repeats, label: str) -> list[Line]:
    """The mean of repeats as `_run_lines` of a run, and the scores over all folds."""
    first = group.scored[0]
    marked = {"marks": ";".join(group.marks), "state": group.state}
    marked["run"] = os.path.commonpath([run.path for run in group.runs])
    means = {metric: group.mean(metric) for metric in _metrics(scores(first))}
    lines = []
    for line in _lines(
        first,
        {**marked, "model": f"{label}, {group.title.removesuffix(' (sd)')}"},
        {
            **{metric: mean and mean.value for metric, mean in means.items()},
            "ci95": {metric: mean and mean.interval for metric, mean in means.items()},
        },
    ):
        mean = means[str(line["metric"])]
        lines.append(line | ({"mean_of": mean.n, "sd": mean.sd} if mean else {}))
    for which, scored in group.pooled():
        lines += _lines(first, {**marked, "model": f"{label}, {which}"}, scored)
    return lines


def _lines(run: Run, facts: Line, scored: dict[str, Any]) -> list[Line]:
    """A line for each metric of `scored`, beside what the paper of the run reports."""
    match = paper_row(run)
    reported = {c.metric: match[1].reported.get(c.name) for c in match[0].columns} if match else {}
    intervals = scored.get("ci95") or {}
    lines = []
    for metric in _metrics(scored) or [""]:
        ours, printed = scored.get(metric), reported.get(metric)
        low, high = intervals.get(metric) or (None, None)
        lines.append(
            {
                **facts,
                "dataset": run.dataset,
                "metric": metric,
                "reported": printed,
                "ours": ours,
                "difference": None if ours is None or printed is None else ours - float(printed),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return lines


def _metrics(scored: dict[str, Any]) -> list[str]:
    intervals = scored.get("ci95") or {}
    return [key for key, value in scored.items() if isinstance(value, float) or key in intervals]


def write_tables(runs: Sequence[Run], folder: str | Path) -> tuple[Path, Path]:
    """Write table.md (all tables) and table.csv into `folder`, made if need be; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pages, data = folder / "table.md", folder / "table.csv"
    write_text(pages, "\n".join(markdown(table) for table in tables(runs)))
    write_text(data, csv_text(runs))
    return pages, data


def _grid(table: Table, width: int) -> Grid:
    columns = list(zip(table.header, *(row.cells for row in table.rows), strict=True))
    # Rich shrinks the widest column first; it is to break intervals at their space before labels.
    natural = sum(max(map(len, column)) + 2 for column in columns)
    grid = Grid(
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, collapse_padding=True
    )
    for number, column in enumerate(columns):
        word = max(len(part) for cell in column for part in cell.split())
        if number == 0:
            grid.add_column(column[0], overflow="fold")
        else:
            grid.add_column(
                column[0],
                justify="right",
                min_width=word,
                max_width=word if natural > width else None,
            )
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        # Text, not str: Rich would read [brackets] in an override as markup.
        cells = [Text(cell, style=_STYLES[row.kind]) for cell in (_indented(row), *row.cells[1:])]
        grid.add_row(*cells, end_section=following is not None and following.kind == "reported")
    return grid


def _indented(row: Row) -> str:
    return ("  " if row.kind == "detail" else "") + row.cells[0]


def _markdown_row(cells: Sequence[str], *, bold: bool = False) -> str:
    marked = (f"**{_escaped(cell)}**" if bold else _escaped(cell) for cell in cells)
    return f"| {' | '.join(marked)} |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")
