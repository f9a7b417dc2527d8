"""What a line of a table is of: a run, the mean of repeats, or all folds scored together."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import commonpath
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medexp.config.paper import Column, Paper, PaperRow, contradiction, parse_paper
from medexp.report.table.load import Run
from medexp.report.table.repeats import Repeats, arranged, fold_of, group_label, scores
from medexp.score.metrics import value_at
from medexp.score.verdict import Compared, Ours, compare, settled


class Found(NamedTuple):
    """A value, the standard deviation of a mean, a 95% interval; None: there is none.

    of_images: the interval of the test images alone, which of a single run is the same. images: of
    the split. runs: how many it is the mean of.
    """

    value: float | None = None
    sd: float | None = None
    interval: tuple[float, float] | None = None
    of_images: tuple[float, float] | None = None
    images: int | None = None
    runs: int = 1


@dataclass(frozen=True)
class Entry:
    """One line of scores.

    kind: of a run; of a member of repeats; of their mean; of all their folds together. label: of
    the run, or what the labels of repeats share; of: what is made of these. run: it, or the first
    scored one of repeats. folder: its own, or the one that all lie in. marks: mark -> reason, of
    all runs. keys: of what is scored. mean_of: how many. read(key, split): what it scored; a split
    of None is the run's own.
    """

    kind: Literal["run", "member", "mean", "pooled"]
    label: str
    of: str
    run: Run
    folder: Path
    marks: Mapping[str, str]
    state: str
    keys: tuple[str, ...]
    read: Callable[[str | None, str | None], Found]
    mean_of: int | None = None


def entries_of(item: Run | Repeats, labels: dict[Path, str]) -> list[Entry]:
    """The line of a run; of repeats each run's, their mean's and those of all folds together."""
    if isinstance(item, Run):
        return [_of_run("run", item, labels)]
    first = item.scored[0]
    shared: dict[str, Any] = {
        "label": group_label(item, labels),
        "run": first,
        "folder": Path(commonpath([run.path for run in item.runs])),
        "marks": item.marks,
        "state": item.state,
        "keys": _keys(scores(first)),
    }
    mean = Entry(
        kind="mean",
        of=f", {item.title.removesuffix(' (sd)')}",
        read=partial(_mean, item),
        mean_of=len(item.units),
        **shared,
    )
    pooled = [
        Entry(
            kind="pooled",
            of=f", {title}",
            read=partial(_read, {first.split: scored}, first.split),
            **shared,
        )
        for title, scored in item.pooled()
    ]
    return [*(_of_run("member", run, labels) for run in item.runs), mean, *pooled]


def _of_run(kind: Literal["run", "member"], run: Run, labels: dict[Path, str]) -> Entry:
    read = partial(_read, run.metrics or {}, run.split)
    keys = _keys(scores(run))
    return Entry(kind, labels[run.path], "", run, run.path, run.marks, run.state, keys, read)


def _read(parts: Mapping[str, Any], own: str, key: str | None, split: str | None) -> Found:
    """parts: split -> `metrics.score`; own: the split that None stands for."""
    if key is None:
        return Found()
    scored = parts.get(split or own) or {}
    interval = _interval(scored, key)
    return Found(value_at(scored, key), None, interval, interval, scored.get("n"))


def _interval(scored: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    interval = (scored.get("ci95") or {}).get(key)
    return interval and (interval[0], interval[1])


def _mean(group: Repeats, key: str | None, split: str | None) -> Found:
    mean = None if key is None else group.mean(key, split)
    if mean is None or key is None:
        return Found()
    every = [scores(run, split) for run in group.scored]
    # The images leave the mean as far to go as, on average, each run's own score.
    gaps = [
        (value - interval[0], interval[1] - value)
        for scored in every
        if (interval := _interval(scored, key)) and (value := value_at(scored, key)) is not None
    ]
    of_images = None
    if len(gaps) == len(every):
        below, above = (sum(sides) / len(gaps) for sides in zip(*gaps, strict=True))
        of_images = (mean.value - below, mean.value + above)
    images = every[0].get("n")
    return Found(mean.value, mean.sd, mean.interval, of_images, images, mean.n)


def _keys(scored: Mapping[str, Any]) -> tuple[str, ...]:
    """The scalar metrics, those of the classes after the others."""
    intervals = scored.get("ci95") or {}
    top = [key for key, value in scored.items() if isinstance(value, float) or key in intervals]
    nested = [
        f"per_class.{name}.{rate}"
        for name, rates in (scored.get("per_class") or {}).items()
        for rate in rates
        if rate != "support"
    ]
    return (*top, *nested)


def beside(entry: Entry, paper: Paper, row: PaperRow, column: Column) -> Compared:
    """A cell of the paper's table: what it reports, and what the entry scored."""
    metric = metric_of(column, row)
    found = entry.read(metric, column.split)
    doubt = contradiction(paper, row)
    reasons = [*entry.marks]
    if fold_of(entry.run) is not None:
        reasons.append("cross-validation")
    if column.doubt:
        reasons.append(_short(column.doubt))
    if doubt and doubt.column == column.name:
        reasons.append("contradicts its row")
    ours = None
    if found.value is not None:
        ours = Ours(found.value, found.of_images, found.images, found.runs, found.sd)
    return compare(
        row.reported.get(column.name),
        ours,
        metric,
        scale=column.scale,
        images=column.images or paper.images,
        reasons=reasons,
        shown=found.interval,
    )


Place = tuple[Path, str, str, str]  # an entry's first run, what it is of, a row, a column


def place_of(entry: Entry, row: PaperRow, column: Column) -> Place:
    # Not the folder: two groups of repeats of one sweep lie in the same.
    return entry.run.path, entry.kind + entry.of, row.label, column.name


def compared(
    paper: Paper, columns: Sequence[Column], blocks: Iterable[tuple[PaperRow, Sequence[Entry]]]
) -> dict[Place, Compared]:
    """All cells of a table of a paper, with verdicts that hold for all of them together.

    The members of a mean are not compared one by one.
    """
    cells = {
        place_of(entry, row, column): beside(entry, paper, row, column)
        for row, entries in blocks
        for entry in entries
        if entry.kind != "member"
        for column in columns
    }
    return dict(zip(cells, settled(list(cells.values())), strict=True))


def blocks_of(
    paper: Paper, members: Sequence[Run], groups: Sequence[Repeats], labels: dict[Path, str]
) -> list[tuple[PaperRow, list[Entry]]]:
    """The rows of a table, each with the lines of what stands in it."""
    places = {run.path: place[1] for run in members if (place := paper_rows(run))}
    items = arranged([run for run in members if places[run.path]], groups)
    return [
        (
            row,
            [
                entry
                for item in items
                if row.label in {one.label for one in places[first_of(item).path]}
                for entry in entries_of(item, labels)
            ],
        )
        for row in paper.rows
    ]


def first_of(item: Run | Repeats) -> Run:
    return item.scored[0] if isinstance(item, Repeats) else item


def _short(doubt: str) -> str:
    """`other split` of `other split: the paper has ...`."""
    reason, colon, _ = doubt.partition(":")
    return reason if colon else "unclear column"


# ---------------------------------------------------------------- its place and its name


def paper_rows(run: Run) -> tuple[Paper, tuple[PaperRow, ...]] | None:
    """The paper and its rows that a run stands in; None if it belongs to none.

    Raises:
        MedexpError: the run's `paper` node is none (see `parse_paper`).
    """
    if not run.config.get("paper"):
        return None
    paper = parse_paper(run.config["paper"])
    rows = paper.place(row_key(run), run.model, run.dataset)
    return None if rows is None else (paper, rows)


def by_paper(runs: Sequence[Run]) -> list[tuple[Paper, list[Run]]]:
    """The papers' tables among the runs, each with the runs that belong to it."""
    found: dict[tuple[str, ...], tuple[Paper, list[Run]]] = {}
    for run in runs:
        if place := paper_rows(run):
            paper = place[0]
            key = (paper.title, paper.table, *(row.label for row in paper.rows))
            found.setdefault(key, (paper, []))[1].append(run)
    return list(found.values())


def rows_without(paper: Paper, runs: Sequence[Run]) -> tuple[list[PaperRow], list[PaperRow]]:
    """The rows that none of the runs stands in: not run, and left out by all (`paper.only`)."""
    made = {row.label for run in runs for row in (paper_rows(run) or (paper, ()))[1]}
    chosen = [set((run.config["paper"] or {}).get("only") or ()) for run in runs]
    wanted = set.union(*chosen) if chosen and all(chosen) else None
    missing = [row for row in paper.rows if row.label not in made]
    not_run = [row for row in missing if wanted is None or wanted & {row.label, row.key}]
    return not_run, [row for row in missing if row not in not_run]


def metric_of(column: Column, row: PaperRow) -> str | None:
    """The key of `metrics.value_at` behind a cell of the paper's table."""
    return column.metric and column.metric.replace("{class}", row.class_name or "")


def class_of(metric: str | None) -> str | None:
    """CLASS of the key `per_class.CLASS.RATE`; None of any other key."""
    first, _, rest = (metric or "").partition(".")
    return rest.rpartition(".")[0] if first == "per_class" else None


def row_key(run: Run) -> str | None:
    """What the run's config says of its row."""
    key = (run.config.get("paper") or {}).get("row")
    return None if key is None else str(key)


def table_of(run: Run) -> str:
    """The table that the run's config names: of a paper, or empty."""
    return str((run.config.get("paper") or {}).get("table", ""))


def run_labels(runs: Sequence[Run], groups: Sequence[Repeats]) -> dict[Path, str]:
    """Run path -> its model and what tells it from the others of that model and data set, and row.

    That is the command-line overrides that not all of them share, seed and fold of repeats, and the
    folder if that is not enough. (The members of an ensemble are in its mark.)
    """
    repeated = {run.path: repeats.words(run) for repeats in groups for run in repeats.runs}
    labels = {}
    alike: dict[Hashable, list[Run]] = {}
    for run in runs:
        table = table_of(run) if row_key(run) is not None else None
        alike.setdefault((run.dataset, run.model, table, row_key(run)), []).append(run)
    for group in alike.values():
        common = set.intersection(*(set(run.overrides) for run in group))
        own = {}
        for run in group:
            words = repeated.get(run.path, [])
            said = tuple(word.partition("=")[0] + "=" for word in words)
            if run.config.get("ensemble"):
                said += ("run=", "ensemble=")
            if row_key(run) is not None:  # follows from the row and the seed
                said += ("init_from=",)
            overrides = [o for o in run.overrides if not o.lstrip("+").startswith(said)]
            own[run.path] = " ".join(
                [run.model, *(o for o in overrides if o not in common), *words]
            )
        count = Counter(own.values())
        for path, label in own.items():
            labels[path] = label if count[label] == 1 else f"{label} {'/'.join(path.parts[-2:])}"
    return labels


def run_names(runs: Sequence[Run], labels: dict[Path, str]) -> dict[Path, str]:
    """Run path -> its label after the row that it makes: unmistakable away from that row.

    Of runs of several tables the row's table stands before it.
    """
    of_rows = {run.path: run for run in runs if row_key(run) is not None}
    several = len({table_of(run) for run in of_rows.values()}) > 1
    names = dict(labels)
    for path, run in of_rows.items():
        table = f"{table_of(run)}, " if several else ""
        names[path] = f"{table}{row_key(run)}: {labels[path]}"
    return names
