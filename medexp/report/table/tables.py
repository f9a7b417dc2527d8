"""Arrange runs as tables: a paper's own table with ours beside it, or a plain one.

A run stands in the rows of its paper that its config names, or in the one that lists its model, if
the paper's data set is the run's; all other runs share one plain table. Nothing is left out: runs
that failed, still run or have no scores are lines with their state, rows without a run say so, and
the reason is a footnote. Repeats of one experiment (`repeats`) are a line each, then their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medexp.config.paper import Column, Paper, PaperRow, contradiction
from medexp.report.table.entries import (
    Entry,
    Place,
    beside,
    blocks_of,
    by_paper,
    compared,
    entries_of,
    first_of,
    paper_rows,
    place_of,
    rows_without,
    run_labels,
    run_names,
)
from medexp.report.table.load import Run
from medexp.report.table.notes import (
    ERROR,
    alike,
    applied_notes,
    before_note,
    class_notes,
    common_notes,
    doubts,
    image_notes,
    mark_notes,
    repeat_notes,
    row_notes,
    state_notes,
    title_marks,
)
from medexp.report.table.repeats import Repeats, arranged, find_repeats
from medexp.score.metrics import headline
from medexp.score.verdict import SHORT, Compared, explained, reported_error

MISSING = "—"
NOT_RUN = "not run"
DIFFERENCE, INTERVAL, VERDICT = "difference", "95% interval", "verdict"  # labels of details
_NAMES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}


@dataclass(frozen=True)
class Row:
    """A line: its label and the cells, as printed.

    `reported` opens a row of the paper, `ours` is of a run or a mean; `detail` belongs to the
    `ours` above, `member` to the mean below. values: the numbers behind the cells, none of a
    `detail`. marks, state: of the run or runs, of `ours` and `member` alone.
    """

    kind: Literal["reported", "ours", "member", "detail"]
    cells: tuple[str, ...]
    values: tuple[Compared, ...] = ()
    marks: tuple[str, ...] = ()
    state: str | None = None


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered.

    groups: lines that belong together: a row of the paper with ours, or a run, or repeats. marks:
    of the runs, as the title says them. state: how many rows of the paper, or runs, are done.
    """

    name: str
    marks: tuple[str, ...]
    state: str
    header: tuple[str, ...]
    groups: tuple[tuple[Row, ...], ...]
    footnotes: tuple[str, ...]

    @property
    def title(self) -> str:
        return " · ".join([self.name, *self.marks])

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group)


def tables(runs: Sequence[Run]) -> list[Table]:
    """One table for each paper among the runs, then one for the runs that belong to none.

    Raises:
        MedexpError: a run's `paper` node is not one (see `parse_paper`).
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    found = [_paper_table(paper, members, groups, labels) for paper, members in by_paper(runs)]
    plain = [run for run in runs if paper_rows(run) is None]
    return found + ([_plain_table(plain, groups, labels)] if plain else [])


def _paper_table(
    paper: Paper, members: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]
) -> Table:
    places = {run.path: place[1] for run in members if (place := paper_rows(run))}
    runs = [run for run in members if places[run.path]]
    items = arranged(runs, groups)
    columns = paper.columns or _columns(runs)
    not_run, left_out = rows_without(paper, members)
    shown = [
        (row, e) for row, e in blocks_of(paper, members, groups, labels) if row not in left_out
    ]
    cells = compared(paper, columns, shown)
    blocks = [_block(paper, row, columns, entries, cells) for row, entries in shown]
    names = run_names(members, labels)
    budget = f", {paper.epochs:,} epochs" if paper.epochs else ""
    return Table(
        name=f"{paper.title}: {paper.table}",
        marks=title_marks(runs),
        state=_done([any(row.state == "done" for row in block) for block in blocks], "rows"),
        header=("Model", *(column.name + "‡" * bool(column.doubt) for column in columns)),
        groups=tuple(blocks),
        footnotes=(
            *doubts(paper, [row for row in paper.rows if row not in left_out], columns),
            *explained(value for block in blocks for row in block for value in row.values),
            *alike(paper, columns),
            *mark_notes(runs, names, compared=True),
            *image_notes(runs, names),
            *applied_notes(runs, names),
            *state_notes(runs, names),
            *(before_note(run) for run in members if not places[run.path]),
            *class_notes(runs, names),
            *repeat_notes(items, names),
            *row_notes(not_run, left_out),
            f"Reported: {paper.table} of {paper.citation}{budget}. Difference: ours - reported.",
            *common_notes(items, paper.assumptions),
        ),
    )


def _plain_table(runs: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]) -> Table:
    items = arranged(runs, groups)
    blocks = []
    for item in items:
        columns = _columns([first_of(item)])
        lines: list[Row] = []
        for entry in entries_of(item, labels):
            found = [entry.read(column.metric, None) for column in columns]
            values = [Compared(ours=f.value, sd=f.sd, interval=f.interval) for f in found]
            title = f"{entry.label} on {entry.run.dataset}{entry.of}"
            lines += _lines(title, entry, columns, values)
        blocks.append(tuple(lines))
    splits = " and ".join(dict.fromkeys(run.split for run in runs))
    return Table(
        name=f"Results on the {splits} split",
        marks=title_marks(runs),
        state=_done([run.state == "done" for run in runs], "runs"),
        header=("Model", *_NAMES.values()),
        groups=tuple(blocks),
        footnotes=(
            *mark_notes(runs, labels, compared=False),
            *image_notes(runs, labels),
            *applied_notes(runs, labels),
            *state_notes(runs, labels),
            *repeat_notes(items, labels),
            "AUC, F1, precision and recall: of the second class where there are two, else the mean"
            " over the classes (AUC one-vs-rest).",
            *common_notes(items, ()),
        ),
    )


def _columns(runs: Sequence[Run]) -> list[Column]:
    """The headline metrics, for the classes of the first run that has any."""
    classes = next((run.metrics["classes"] for run in runs if run.metrics), ())
    return [Column(_NAMES[short], key, 4) for short, key in headline(classes).items()]


def _done(done: Sequence[bool], what: str) -> str:
    return "done" if all(done) else f"{sum(done)} of {len(done)} {what} done"


# ---------------------------------------------------------------- lines


def _block(
    paper: Paper,
    row: PaperRow,
    columns: Sequence[Column],
    entries: Sequence[Entry],
    compared_cells: Mapping[Place, Compared],
) -> tuple[Row, ...]:
    """A row of the paper, and what of ours stands beside it."""
    doubt = contradiction(paper, row)
    numbers = [row.reported.get(column.name) for column in columns]
    cells = (
        (number or MISSING) + "†" * bool(doubt and doubt.column == column.name)
        for number, column in zip(numbers, columns, strict=True)
    )
    errors = [
        reported_error(number, column.metric, column.images or paper.images, column.scale)
        for number, column in zip(numbers, columns, strict=True)
    ]
    values = tuple(
        Compared(number, error=error) for number, error in zip(numbers, errors, strict=True)
    )
    lines = [Row("reported", (f"{row.label} reported", *cells), values)]
    if any(errors):
        digits = (column.digits for column in columns)
        lines.append(Row("detail", (ERROR, *map(_ends, errors, digits))))
    for entry in entries:
        # The members of a mean are not compared one by one.
        found = [
            beside(entry, paper, replace(row, reported={}), column)
            if entry.kind == "member"
            else compared_cells[place_of(entry, row, column)]
            for column in columns
        ]
        lines += _lines(f"ours: {entry.label}{entry.of}", entry, columns, found)
    if not entries:
        missing = (f"ours: {NOT_RUN}", *[MISSING] * len(columns))
        lines.append(Row("ours", missing, values, state=NOT_RUN))
    return tuple(lines)


def _lines(
    title: str, entry: Entry, columns: Sequence[Column], values: Sequence[Compared]
) -> list[Row]:
    """The line of an entry, and below it the difference, the interval and the verdict."""
    words = [title + " (sd)" * (entry.kind == "mean"), *entry.marks]
    if entry.kind in ("run", "member") and entry.state != "done":
        words.append(entry.state)
    digits = [column.digits for column in columns]
    line = Row(
        "member" if entry.kind == "member" else "ours",
        (" ".join(words), *map(_number, values, digits)),
        tuple(values),
        tuple(entry.marks),
        entry.state,
    )
    if entry.kind == "member" or not entry.keys:
        return [line]
    details = []
    if any(value.difference is not None for value in values):
        details.append((DIFFERENCE, *map(_difference, values, digits)))
    if any(value.interval for value in values):
        details.append((INTERVAL, *map(_interval, values, digits)))
    if any(value.verdict for value in values):
        details.append((VERDICT, *(SHORT.get(v.verdict or "", MISSING) for v in values)))
    return [line, *(Row("detail", cells) for cells in details)]


def _number(value: Compared, digits: int) -> str:
    if value.ours is None:
        return MISSING
    sd = "" if value.sd is None else f" ({value.sd:.{digits}f})"
    return f"{value.ours:.{digits}f}{sd}"


def _difference(value: Compared, digits: int) -> str:
    if value.difference is None:
        return MISSING
    # Adding 0.0 turns -0.0 into 0.0: a difference that rounds to nothing has no sign.
    return f"{round(value.difference, digits) + 0.0:+.{digits}f}"


def _interval(value: Compared, digits: int) -> str:
    return _ends(value.interval, digits)


def _ends(interval: tuple[float, float] | None, digits: int) -> str:
    if interval is None:
        return MISSING
    low, high = interval
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
