"""All scalar metrics of runs in long form: what table.csv holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from medexp.config.paper import Column, PaperRow
from medexp.report.table.entries import (
    Entry,
    Place,
    beside,
    blocks_of,
    by_paper,
    compared,
    entries_of,
    metric_of,
    paper_rows,
    place_of,
    row_key,
    rows_without,
    run_labels,
)
from medexp.report.table.load import Run
from medexp.report.table.repeats import arranged, find_repeats
from medexp.score.verdict import Compared

Line = dict[str, Any]

COLUMNS = (
    "run", "model", "dataset", "split", "metric", "row", "column", "reported", "scale", "ours",
    "difference", "ci_low", "ci_high", "verdict", "p", "marks", "state", "mean_of", "sd",
)  # fmt: skip


def lines(runs: Sequence[Run]) -> list[Line]:
    """A line for each run and metric under keys of `COLUMNS`; what is missing is left out or None.

    run: the run's folder; model: its label in the table; metric: a key of `metrics.value_at`; row,
    column, reported: the paper's, the number as it prints it (row: the key of its rows where a
    metric has no column). ours, ci_low, ci_high and sd are in the metric's own unit; difference:
    ours * scale - reported; p: that chance gives as much, corrected for the
    cells of the table. marks are joined by `;`. A run without scores is one line without a
    metric, as is a row that no run makes (`not run`). After the members of repeats come the lines
    of their mean (mean_of: how many; run: the folder that they share), and of all folds together.
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    entries = [entry for item in arranged(runs, groups) for entry in entries_of(item, labels)]
    cells: dict[Place, Compared] = {}
    for paper, members in by_paper(runs):
        cells |= compared(paper, paper.columns, blocks_of(paper, members, groups, labels))
    return [
        *(line for entry in entries for line in _of_entry(entry, cells)),
        *(
            {"dataset": paper.dataset, "row": row.label, "state": "not run"}
            for paper, members in by_paper(runs)
            for row in rows_without(paper, members)[0]
        ),
    ]


def _of_entry(entry: Entry, cells: Mapping[Place, Compared]) -> Iterator[Line]:
    """First the columns of the paper, then the metrics that it has no column of."""
    place = paper_rows(entry.run)
    rows = place[1] if place else ()
    facts: Line = {
        "run": str(entry.folder),
        "model": entry.label + entry.of,
        "dataset": entry.run.dataset,
        "row": row_key(entry.run) or (rows[0].key if rows else None),
        "marks": ";".join(entry.marks),
        "state": entry.state,
    }
    if not entry.keys:
        yield facts
    seen = set()
    for row, column, cell in _cells(entry, cells) if entry.keys else ():
        metric = metric_of(column, row)
        seen.add((metric, column.split or entry.run.split))
        yield {
            **facts,
            **_numbers(entry, metric, column.split),
            "row": row.label,
            "column": column.name,
            "reported": cell.reported,
            "scale": column.scale,
            "difference": cell.difference,
            "verdict": cell.words,
            "p": cell.p,
        }
    for metric in entry.keys:
        if (metric, entry.run.split) not in seen:
            yield facts | _numbers(entry, metric, None)


def _cells(
    entry: Entry, cells: Mapping[Place, Compared]
) -> list[tuple[PaperRow, Column, Compared]]:
    """The cells of the paper's table that an entry stands beside; a member's have no verdict."""
    place = paper_rows(entry.run)
    if place is None:
        return []
    paper, rows = place
    return [
        (
            row,
            column,
            replace(beside(entry, paper, row, column), verdict=None, p=None)
            if entry.kind == "member"
            else cells[place_of(entry, row, column)],
        )
        for row in rows
        for column in paper.columns
    ]


def _numbers(entry: Entry, metric: str | None, split: str | None) -> Line:
    found = entry.read(metric, split)
    low, high = found.interval or (None, None)
    line: Line = {"split": split or entry.run.split, "metric": metric, "ours": found.value}
    line |= {"ci_low": low, "ci_high": high}
    return line if found.sd is None else line | {"mean_of": entry.mean_of, "sd": found.sd}
