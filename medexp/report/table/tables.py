"""Arrange runs as tables: a paper's own table with ours beside it, or a plain one.

A run stands in the rows of its paper that its config names, or in the one that lists its model, if
the paper's data set is the run's; all other runs share one plain table. Nothing is left out: runs
that failed, still run or have no scores are lines with their state, rows without a run say so, and
the reason is a footnote. Repeats of one experiment (`repeats`) are a line each, then their mean.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medexp.config.paper import BEFORE, Column, Paper, PaperRow, contradiction
from medexp.report.table.entries import (
    Entry,
    beside,
    by_paper,
    class_of,
    entries_of,
    metric_of,
    paper_rows,
    row_key,
    rows_without,
    run_labels,
    run_names,
)
from medexp.report.table.load import Run
from medexp.report.table.repeats import Repeats, arranged, find_repeats, scores
from medexp.report.table.repeats import notes as repeat_notes
from medexp.score.metrics import headline
from medexp.score.verdict import SHORT, Compared, explained

MISSING = "—"
NOT_RUN = "not run"
DIFFERENCE, INTERVAL, VERDICT = "difference", "95% interval", "verdict"  # labels of details
_MEAN_F1 = "† holds for the F1 of one class; a mean of F1 over the classes need not be that."
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
    blocks = []
    for row in paper.rows:
        if row not in left_out:
            here = [i for i in items if row.label in {r.label for r in places[_first(i).path]}]
            entries = [entry for item in here for entry in entries_of(item, labels)]
            blocks.append(_block(paper, row, columns, entries))
    names = run_names(members, labels)
    budget = f", {paper.epochs:,} epochs" if paper.epochs else ""
    return Table(
        name=f"{paper.title}: {paper.table}",
        marks=_title_marks(runs),
        state=_done([any(row.state == "done" for row in block) for block in blocks], "rows"),
        header=("Model", *(column.name + "‡" * bool(column.doubt) for column in columns)),
        groups=tuple(blocks),
        footnotes=(
            *_doubts(paper, [row for row in paper.rows if row not in left_out], columns),
            *explained(value for block in blocks for row in block for value in row.values),
            *_mark_notes(runs, names, compared=True),
            *_state_notes(runs, names),
            *(_before_note(run) for run in members if not places[run.path]),
            *_class_notes(runs, names),
            *_repeat_notes(items, names),
            *_row_notes(not_run, left_out),
            f"Reported: {paper.table} of {paper.citation}{budget}. Difference: ours - reported.",
            *_common_notes(items, paper.assumptions),
        ),
    )


def _plain_table(runs: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]) -> Table:
    items = arranged(runs, groups)
    blocks = []
    for item in items:
        columns = _columns([_first(item)])
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
        marks=_title_marks(runs),
        state=_done([run.state == "done" for run in runs], "runs"),
        header=("Model", *_NAMES.values()),
        groups=tuple(blocks),
        footnotes=(
            *_mark_notes(runs, labels, compared=False),
            *_state_notes(runs, labels),
            *_repeat_notes(items, labels),
            "AUC, F1, precision and recall: of the second class where there are two, else the mean"
            " over the classes (AUC one-vs-rest).",
            *_common_notes(items, ()),
        ),
    )


def _columns(runs: Sequence[Run]) -> list[Column]:
    """The headline metrics, for the classes of the first run that has any."""
    classes = next((run.metrics["classes"] for run in runs if run.metrics), ())
    return [Column(_NAMES[short], key, 4) for short, key in headline(classes).items()]


def _first(item: Run | Repeats) -> Run:
    return item.scored[0] if isinstance(item, Repeats) else item


def _done(done: Sequence[bool], what: str) -> str:
    return "done" if all(done) else f"{sum(done)} of {len(done)} {what} done"


# ---------------------------------------------------------------- lines


def _block(
    paper: Paper, row: PaperRow, columns: Sequence[Column], entries: Sequence[Entry]
) -> tuple[Row, ...]:
    """A row of the paper, and what of ours stands beside it."""
    doubt = contradiction(paper, row)
    numbers = [row.reported.get(column.name) for column in columns]
    cells = (
        (number or MISSING) + "†" * bool(doubt and doubt.column == column.name)
        for number, column in zip(numbers, columns, strict=True)
    )
    values = tuple(map(Compared, numbers))
    lines = [Row("reported", (f"{row.label} reported", *cells), values)]
    for entry in entries:
        # The members of a mean are not compared one by one.
        beside_it = replace(row, reported={}) if entry.kind == "member" else row
        found = [beside(entry, paper, beside_it, column) for column in columns]
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
    if value.interval is None:
        return MISSING
    low, high = value.interval
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


# ---------------------------------------------------------------- footnotes


def _doubts(paper: Paper, rows: Sequence[PaperRow], columns: Sequence[Column]) -> list[str]:
    """What in the reported numbers is contradicted or unclear."""
    found = []
    for row in rows:
        if doubt := contradiction(paper, row):
            found.append(
                f"† {row.label}: the reported {doubt.column} {doubt.f1} contradicts its row:"
                f" 2·P·R/(P+R) = 2·{doubt.precision}·{doubt.recall}/({doubt.precision}"
                f"+{doubt.recall}) = {doubt.implied:.4f}."
            )
    unclear = [f"‡ {column.name}: {column.doubt}" for column in columns if column.doubt]
    return [*found, *([_MEAN_F1] if found else []), *unclear]


def _title_marks(runs: Sequence[Run]) -> tuple[str, ...]:
    count = Counter(mark for run in runs for mark in run.marks)
    return tuple(mark if n == len(runs) else f"{mark} (some rows)" for mark, n in count.items())


def _mark_notes(runs: Sequence[Run], names: dict[Path, str], *, compared: bool) -> list[str]:
    """A line for each mark and reason, naming the runs unless all have it."""
    marked: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for item in run.marks.items():
            marked.setdefault(item, []).append(run)
    notes = []
    for (mark, reason), members in marked.items():
        every = len(members) == len(runs)
        who = "" if every else f" ({', '.join(names[run.path] for run in members)})"
        notes.append(f"{mark}{who}: {reason}")
    if notes and compared:
        notes.append(
            "The difference in a marked row must not be read as a comparison with the paper."
        )
    return notes


def _before_note(run: Run) -> str:
    """A run that rows start from and that stands in none."""
    name = (row_key(run) or "").removeprefix(BEFORE)
    words = " ".join([run.model, "on", run.dataset, *run.marks])
    where = "" if run.state == "done" else f" ({run.path})"
    return f"Rows start from {name}: {words}, {run.state}{_because(run)}{where}"


def _class_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
    """Where the paper's table is of classes that a run does not know."""
    notes = []
    for run in runs:
        if run.metrics is not None and (place := paper_rows(run)):
            paper, rows = place
            keys = [metric_of(column, row) for row in rows for column in paper.columns]
            classes = run.metrics["classes"]
            wanted = dict.fromkeys(name for name in map(class_of, keys) if name is not None)
            if unknown := [name for name in wanted if name not in classes]:
                notes.append(
                    f"{names[run.path]}: no class {', '.join(unknown)}; its classes are"
                    f" {', '.join(classes)}."
                )
    return notes


def _row_notes(not_run: Sequence[PaperRow], left_out: Sequence[PaperRow]) -> list[str]:
    def listed(rows: Sequence[PaperRow]) -> str:
        return ", ".join(row.label for row in rows)

    return [
        *([f"Not run: {listed(not_run)} (no run of theirs is among these)."] if not_run else []),
        *([f"Rows left out: {listed(left_out)} (paper.only)."] if left_out else []),
    ]


def _state_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
    """A line for each state and reason of the runs that are not done."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        if run.state != "done":
            alike.setdefault(f"{run.state}{_because(run)}", []).append(run)
    return [
        f"{', '.join(names[run.path] for run in members)} {said} "
        f"({os.path.commonpath([run.path for run in members])})"
        for said, members in alike.items()
    ]


def _because(run: Run) -> str:
    return f": {' '.join(run.reason.split())}" if run.reason else ""


def _repeat_notes(items: Sequence[Run | Repeats], names: dict[Path, str]) -> list[str]:
    return repeat_notes([item for item in items if isinstance(item, Repeats)], names)


def _common_notes(items: Sequence[Run | Repeats], assumptions: Iterable[str]) -> list[str]:
    """How the intervals of single scores were made, then what is assumed."""
    methods: set[str] = set()
    noted: list[str] = []
    for item in items:
        if isinstance(item, Repeats):
            shown = [scored for _, scored in item.pooled()]
            # What the folds' notes differ in stands in their labels.
            said = (note for run in item.runs for note in _said(run))
            noted += [re.sub(r"\bfold \d+ of\b", "one fold of", note) for note in said]
        else:
            shown = [scores(item)]
            noted += _said(item)
        methods |= {str(scored["ci_method"]) for scored in shown if "ci_method" in scored}
    return [
        *(f"95% interval: {method}." for method in sorted(methods - {"none"})),
        *dict.fromkeys([*assumptions, *noted]),
    ]


def _said(run: Run) -> list[str]:
    return list((run.metrics or {}).get("notes") or ())
