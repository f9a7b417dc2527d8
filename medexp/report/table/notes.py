"""The footnotes of a table: what its numbers rest on, and what forbids to take them as they are."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medexp.config.paper import BEFORE, Column, Paper, PaperRow, contradiction
from medexp.report.table.entries import class_of, metric_of, paper_rows, row_key
from medexp.report.table.load import Run
from medexp.report.table.repeats import Repeats, fold_of, scores
from medexp.report.table.repeats import notes as notes_of_repeats
from medexp.runs.images import read_images
from medexp.runs.record import digest_of_ids
from medexp.score.verdict import indistinguishable

_MEAN_F1 = "† holds for the F1 of one class; a mean of F1 over the classes need not be that."
PAIRS = 6  # of the paper's rows that a note names
ERROR = "by its images"  # the interval that its number of test images leaves a reported number


def doubts(paper: Paper, rows: Sequence[PaperRow], columns: Sequence[Column]) -> list[str]:
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


def alike(paper: Paper, columns: Sequence[Column]) -> list[str]:
    """Which of the paper's own rows its test images cannot tell apart, by their accuracies."""
    notes = []
    for column in columns:
        images = column.images or paper.images
        if column.metric != "accuracy" or images is None:
            continue
        rows = [(r.label, r.reported[column.name]) for r in paper.rows if column.name in r.reported]
        pairs = indistinguishable(rows, images, column.scale)
        if pairs:
            named = "; ".join(f"{a} and {b}" for a, b in pairs[:PAIRS])
            more = f"; and {len(pairs) - PAIRS} more pairs" if len(pairs) > PAIRS else ""
            notes.append(
                f"{ERROR}: the 95% interval that {images:,} test images leave a reported number."
                f" They cannot tell these reported rows apart ({column.name}): {named}{more}."
            )
        elif rows:
            notes.append(f"{ERROR}: the 95% interval that {images:,} test images leave it.")
    return notes


def title_marks(runs: Sequence[Run]) -> tuple[str, ...]:
    count = Counter(mark for run in runs for mark in run.marks)
    return tuple(mark if n == len(runs) else f"{mark} (some rows)" for mark, n in count.items())


def mark_notes(runs: Sequence[Run], names: dict[Path, str], *, compared: bool) -> list[str]:
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


def applied_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
    """What was done to the images, naming the runs unless all agree."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        content = run.metrics or {}
        kept = content.get("members") or [content]  # an ensemble's networks may differ in it
        said = dict.fromkeys(
            f"augmentation {one['applied']['augment']}; network input {one['applied']['input']}"
            for one in kept
            if "applied" in one
        )
        if said:
            alike.setdefault("; or ".join(said), []).append(run)
    scored = sum(run.metrics is not None for run in runs)
    notes = []
    for words, members in alike.items():
        who = f" ({', '.join(names[run.path] for run in members)})" * (len(members) < scored)
        notes.append(f"Images{who}: {words}.")
    return notes


def before_note(run: Run) -> str:
    """A run that rows start from and that stands in none."""
    name = (row_key(run) or "").removeprefix(BEFORE)
    words = " ".join([run.model, "on", run.dataset, *run.marks])
    where = "" if run.state == "done" else f" ({run.path})"
    return f"Rows start from {name}: {words}, {run.state}{because(run)}{where}"


def class_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
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


def image_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
    """Where lines of one table are of different test images; folds say so themselves."""
    notes = []
    for kind in dict.fromkeys((run.dataset, run.split) for run in runs):
        alike: dict[str, list[Run]] = {}
        for run in runs:
            if (run.dataset, run.split) == kind and fold_of(run) is None and scores(run):
                alike.setdefault(scored_images(run), []).append(run)
        if len(alike) > 1:
            groups = (
                f"{', '.join(names[run.path] for run in members)} ({scores(members[0])['n']:,})"
                for members in alike.values()
            )
            notes.append(
                f"DIFFERENT IMAGES: these lines are not of the same {kind[1]} images of {kind[0]},"
                f" and must not be held against one another: {'; '.join(groups)}."
            )
    return notes


def scored_images(run: Run) -> str:
    """A digest of the images that a run is scored on; of an older version by its split.csv."""
    digest = ((run.metrics or {}).get("scored") or {}).get(run.split)
    if digest is None and (images := read_images(run.path)) and run.split in images.parts:
        digest = digest_of_ids(images.parts[run.split].ids)
    return str(digest)


def row_notes(not_run: Sequence[PaperRow], left_out: Sequence[PaperRow]) -> list[str]:
    def listed(rows: Sequence[PaperRow]) -> str:
        return ", ".join(row.label for row in rows)

    return [
        *([f"Not run: {listed(not_run)} (no run of theirs is among these)."] if not_run else []),
        *([f"Rows left out: {listed(left_out)} (paper.only)."] if left_out else []),
    ]


def state_notes(runs: Sequence[Run], names: dict[Path, str]) -> list[str]:
    """A line for each state and reason of the runs that are not done."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        if run.state != "done":
            alike.setdefault(f"{run.state}{because(run)}", []).append(run)
    return [
        f"{', '.join(names[run.path] for run in members)} {said} "
        f"({os.path.commonpath([run.path for run in members])})"
        for said, members in alike.items()
    ]


def because(run: Run) -> str:
    return f": {' '.join(run.reason.split())}" if run.reason else ""


def repeat_notes(items: Sequence[Run | Repeats], names: dict[Path, str]) -> list[str]:
    return notes_of_repeats([item for item in items if isinstance(item, Repeats)], names)


def common_notes(items: Sequence[Run | Repeats], assumptions: Iterable[str]) -> list[str]:
    """How the intervals of single scores were made, then what is assumed."""
    methods: set[str] = set()
    noted: list[str] = []
    for item in items:
        if isinstance(item, Repeats):
            shown = [scored for _, scored in item.pooled()]
            # What the folds' notes differ in stands in their labels.
            said = (note for run in item.runs for note in notes_of(run))
            noted += [re.sub(r"\bfold \d+ of\b", "one fold of", note) for note in said]
        else:
            shown = [scores(item)]
            noted += notes_of(item)
        methods |= {str(scored["ci_method"]) for scored in shown if "ci_method" in scored}
    return [
        *(f"95% interval: {method}." for method in sorted(methods - {"none"})),
        *dict.fromkeys([*assumptions, *noted]),
    ]


def notes_of(run: Run) -> list[str]:
    return list((run.metrics or {}).get("notes") or ())
