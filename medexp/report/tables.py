"""Arrange runs as tables: a paper's own table with ours beside it, or a plain one.

A run stands in its paper's table if its config names a paper, the paper's data set is the run's and
one of the paper's rows lists the run's model; all other runs share one plain table. No run is left
out: failed, running and unfinished ones are rows with their state, and the reason is a footnote.
Repeats of one experiment (`repeats`) are a line each, and then their mean.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medexp.metrics import headline
from medexp.report.load import Run
from medexp.report.paper import Column, Paper, PaperRow, contradiction, parse_paper
from medexp.report.repeats import Mean, Repeats, arranged, find_repeats, group_label, scores
from medexp.report.repeats import notes as repeat_notes

MISSING = "—"
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
    """`reported` opens a row of the paper, `ours` a run or a mean; `detail` belongs to the `ours`
    above, `member` to the mean below."""

    kind: Literal["reported", "ours", "member", "detail"]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Text ready to be rendered: the first cell of a row is its label, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]


def tables(runs: Sequence[Run]) -> list[Table]:
    """One table for each paper among the runs, then one for the runs that match none.

    Raises:
        MedexpError: a run's `paper` node is not one (see `parse_paper`).
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    by_paper: dict[tuple[str, str], tuple[Paper, list[Run]]] = {}
    plain = []
    for run in runs:
        match = paper_row(run)
        if match is None:
            plain.append(run)
        else:
            paper = match[0]
            by_paper.setdefault((paper.title, paper.table), (paper, []))[1].append(run)
    found = [_paper_table(paper, members, groups, labels) for paper, members in by_paper.values()]
    return found + ([_plain_table(plain, groups, labels)] if plain else [])


def paper_row(run: Run) -> tuple[Paper, PaperRow] | None:
    """The paper and its row that a run can stand beside; None if there is none."""
    if not run.config.get("paper"):
        return None
    paper = parse_paper(run.config["paper"])
    row = paper.row_of(run.model)
    return None if row is None or paper.dataset != run.dataset else (paper, row)


def run_labels(runs: Sequence[Run], groups: Sequence[Repeats]) -> dict[Path, str]:
    """Run path -> its model and what tells it from the other runs of that model and data set.

    That is the command-line overrides that not all of them share, seed and fold of repeats, and the
    folder if that is not enough. (The members of an ensemble are in its mark.)
    """
    repeated = {run.path: repeats.words(run) for repeats in groups for run in repeats.runs}
    labels = {}
    for key in {(run.dataset, run.model) for run in runs}:
        group = [run for run in runs if (run.dataset, run.model) == key]
        common = set.intersection(*(set(run.overrides) for run in group))
        own = {}
        for run in group:
            words = repeated.get(run.path, [])
            said = tuple(word.partition("=")[0] + "=" for word in words)
            if run.config.get("ensemble"):
                said += ("run=", "ensemble=")
            overrides = [o for o in run.overrides if not o.lstrip("+").startswith(said)]
            own[run.path] = " ".join(
                [run.model, *(o for o in overrides if o not in common), *words]
            )
        count = Counter(own.values())
        for path, label in own.items():
            labels[path] = label if count[label] == 1 else f"{label} {'/'.join(path.parts[-2:])}"
    return labels


def _paper_table(
    paper: Paper, runs: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]
) -> Table:
    entries = arranged(runs, groups)
    rows: list[Row] = []
    doubts = []
    for row in paper.rows:
        doubt = contradiction(paper, row)
        if doubt:
            doubts.append(
                f"† {row.label}: the reported {doubt.column} {doubt.f1} contradicts its row:"
                f" 2·P·R/(P+R) = 2·{doubt.precision}·{doubt.recall}/({doubt.precision}"
                f"+{doubt.recall}) = {doubt.implied:.4f}."
            )
        reported = [
            row.reported.get(column.name, MISSING)
            + ("†" if doubt and doubt.column == column.name else "")
            for column in paper.columns
        ]
        rows.append(Row("reported", (f"{row.label} reported", *reported)))
        for entry in entries:
            if _first(entry).model in row.models:
                rows += _rows(entry, labels, paper.columns, row.reported)
    absent = [row.label for row in paper.rows if not {*row.models} & {run.model for run in runs}]
    budget = f", {paper.epochs:,} epochs" if paper.epochs else ""
    return Table(
        title=" · ".join([f"{paper.title}: {paper.table}", *_title_marks(runs)]),
        header=("Model", *(column.name for column in paper.columns)),
        rows=tuple(rows),
        footnotes=(
            *doubts,
            *([_MEAN_F1] if doubts else []),
            *_mark_notes(runs, labels, compared=True),
            *_state_notes(runs, labels),
            *_repeat_notes(entries, labels),
            *([f"No run here of {', '.join(absent)}."] if absent else []),
            f"Reported: {paper.table} of {paper.citation}{budget}. Difference: ours - reported.",
            *_common_notes(entries, paper.assumptions),
        ),
    )


def _plain_table(runs: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]) -> Table:
    entries = arranged(runs, groups)
    rows: list[Row] = []
    splits = " and ".join(dict.fromkeys(run.split for run in runs))
    for entry in entries:
        names = headline((_first(entry).metrics or {}).get("classes", ()))
        columns = [Column(_NAMES[short], key, 4) for short, key in names.items()]
        rows += _rows(entry, labels, columns, {})
    return Table(
        title=" · ".join([f"Results on the {splits} split", *_title_marks(runs)]),
        header=("Model", *_NAMES.values()),
        rows=tuple(rows),
        footnotes=(
            *_mark_notes(runs, labels, compared=False),
            *_state_notes(runs, labels),
            *_repeat_notes(entries, labels),
            "AUC, F1, precision and recall: of the second class where there are two, else the mean"
            " over the classes (AUC one-vs-rest).",
            *_common_notes(entries, ()),
        ),
    )


def _first(entry: Run | Repeats) -> Run:
    return entry.scored[0] if isinstance(entry, Repeats) else entry


def _rows(
    entry: Run | Repeats,
    labels: dict[Path, str],
    columns: Sequence[Column],
    reported: dict[str, str],
) -> list[Row]:
    """The lines of a run, or of repeats: a line each, their mean, and the score of all folds."""

    def title(label: str) -> str:
        return f"ours: {label}" if reported else f"{label} on {_first(entry).dataset}"

    if isinstance(entry, Run):
        return _run_rows(entry, title(labels[entry.path]), columns, reported)
    rows = []
    for run in entry.runs:
        line, *_ = _run_rows(run, title(labels[run.path]), columns, {})
        rows.append(Row("member", line.cells))
    name = title(group_label(entry, labels))
    means = [entry.mean(column.metric) for column in columns]
    cells = map(_mean, means, (column.digits for column in columns))
    rows.append(Row("ours", (" ".join([f"{name}, {entry.title}", *entry.marks]), *cells)))
    rows += _details(
        [mean and mean.value for mean in means],
        [mean and mean.interval for mean in means],
        columns,
        reported,
    )
    for which, scored in entry.pooled():
        pooled = " ".join([f"{name}, {which}", *entry.marks])
        rows += _scored_rows(pooled, scored, columns, reported)
    return rows


def _run_rows(
    run: Run, title: str, columns: Sequence[Column], reported: dict[str, str]
) -> list[Row]:
    """The lines of one run: its values, the difference if anything is reported, the interval."""
    state = [] if run.state == "done" else [run.state]
    title = " ".join([title, *run.marks, *state])
    if run.metrics is None:
        return [Row("ours", (title, *[MISSING] * len(columns)))]
    return _scored_rows(title, scores(run), columns, reported)


def _scored_rows(
    title: str, scored: dict[str, Any], columns: Sequence[Column], reported: dict[str, str]
) -> list[Row]:
    values = [scored.get(column.metric) for column in columns]
    intervals = [(scored.get("ci95") or {}).get(column.metric) for column in columns]
    cells = map(_number, values, (column.digits for column in columns))
    return [Row("ours", (title, *cells)), *_details(values, intervals, columns, reported)]


def _details(
    values: Sequence[float | None],
    intervals: Sequence[Sequence[float] | None],
    columns: Sequence[Column],
    reported: dict[str, str],
) -> list[Row]:
    lines = []
    if reported:
        cells = (
            _difference(value, reported.get(column.name), column.digits)
            for value, column in zip(values, columns, strict=True)
        )
        lines.append(Row("detail", ("difference", *cells)))
    if any(intervals):
        cells = (_interval(i, c.digits) for i, c in zip(intervals, columns, strict=True))
        lines.append(Row("detail", ("95% interval", *cells)))
    return lines


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _mean(mean: Mean | None, digits: int) -> str:
    return MISSING if mean is None else f"{mean.value:.{digits}f} ({mean.sd:.{digits}f})"


def _difference(value: float | None, reported: str | None, digits: int) -> str:
    if value is None or reported is None:
        return MISSING
    # Adding 0.0 turns -0.0 into 0.0: a difference that rounds to nothing has no sign.
    return f"{round(value - float(reported), digits) + 0.0:+.{digits}f}"


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else MISSING


def _title_marks(runs: Sequence[Run]) -> list[str]:
    count = Counter(mark for run in runs for mark in run.marks)
    return [mark if n == len(runs) else f"{mark} (some rows)" for mark, n in count.items()]


def _mark_notes(runs: Sequence[Run], labels: dict[Path, str], *, compared: bool) -> list[str]:
    """A line for each mark and reason, naming the runs unless all have it."""
    marked: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for item in run.marks.items():
            marked.setdefault(item, []).append(run)
    notes = []
    for (mark, reason), members in marked.items():
        every = len(members) == len(runs)
        who = "" if every else f" ({', '.join(labels[run.path] for run in members)})"
        notes.append(f"{mark}{who}: {reason}")
    if notes and compared:
        notes.append(
            "The difference in a marked row must not be read as a comparison with the paper."
        )
    return notes


def _state_notes(runs: Sequence[Run], labels: dict[Path, str]) -> list[str]:
    return [
        f"{labels[run.path]} {run.state}{_because(run)} ({run.path})"
        for run in runs
        if run.state != "done"
    ]


def _because(run: Run) -> str:
    return f": {' '.join(run.reason.split())}" if run.reason else ""


def _repeat_notes(entries: Sequence[Run | Repeats], labels: dict[Path, str]) -> list[str]:
    return repeat_notes([entry for entry in entries if isinstance(entry, Repeats)], labels)


def _common_notes(entries: Sequence[Run | Repeats], assumptions: Iterable[str]) -> list[str]:
    """How the intervals of single scores were made, then what is assumed."""
    methods: set[str] = set()
    noted: list[str] = []
    for entry in entries:
        if isinstance(entry, Repeats):
            shown = [scored for _, scored in entry.pooled()]
            # What the folds' notes differ in stands in their labels.
            said = (note for run in entry.runs for note in _said(run))
            noted += [re.sub(r"\bfold \d+ of\b", "one fold of", note) for note in said]
        else:
            shown = [scores(entry)]
            noted += _said(entry)
        methods |= {str(scored["ci_method"]) for scored in shown if "ci_method" in scored}
    return [
        *(f"95% interval: {method}." for method in sorted(methods - {"none"})),
        *dict.fromkeys([*assumptions, *noted]),
    ]


def _said(run: Run) -> list[str]:
    return list((run.metrics or {}).get("notes") or ())
