"""A table or figure of a paper as data: a node of conf/paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medexp.errors import MedexpError, nearest

BUDGETS = ("smoke", "quick", "full")
BEFORE = "before: "  # of paper.row, where rows start from the run


@dataclass(frozen=True)
class Column:
    """A column of the paper's table.

    name: the paper's. metric: the key of `metrics.score` that is ours, with dots into nested ones
    (`per_class.{class}.recall`, where {class} is the row's class); None: nothing of ours stands
    there. digits: after the point, as the paper prints. scale: ours times this (100 for percent).
    split: of ours, test unless `val`. doubt: why its numbers cannot be held against ours, as
    `REASON: why` (the verdict shows REASON); None if they can. images: that its numbers are of,
    where they are not those of the table.
    """

    name: str
    metric: str | None
    digits: int
    scale: float = 1.0
    split: str | None = None
    doubt: str | None = None
    images: int | None = None


@dataclass(frozen=True)
class PaperRow:
    """A row: the paper's label, and column name -> number as printed.

    run: KEY -> VALUE, what the command line of the run behind it sets. models: networks whose runs
    stand in this row if they name no row of their own. class_name: the class that `{class}` in a
    column's metric means. group: rows of one group stand for one run (a row a class). budgets: as
    the table's, laid over them for this row alone.
    """

    label: str
    models: tuple[str, ...] = ()
    reported: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    class_name: str | None = None
    group: str | None = None
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What `paper.row` of the run behind this row says."""
        return self.group or self.label


@dataclass(frozen=True)
class Paper:
    """One table or figure of a paper.

    epochs: what its numbers were trained for. base: KEY -> VALUE of every row's run. budgets:
    budget -> KEY -> VALUE laid over base and row. before: NAME -> {run, budgets} of the runs that
    rows start from by `init_from: NAME`. figures: what is drawn of the rows; audit: what is checked
    in the reported numbers beside what every table is held against. images: of the test set that
    the numbers are of, which says what chance leaves them; None where the paper does not tell.
    """

    title: str
    citation: str
    table: str
    dataset: str
    epochs: int | None
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    assumptions: tuple[str, ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: tuple[Mapping[str, Any], ...] = ()
    audit: tuple[Mapping[str, Any], ...] = ()
    images: int | None = None

    def row_of(self, model: str) -> PaperRow | None:
        """The row of a run that names none: the first that lists its network."""
        return next((row for row in self.rows if model in row.models), None)

    def rows_of(self, key: str) -> tuple[PaperRow, ...]:
        """The rows that the run with this `paper.row` stands in."""
        return tuple(row for row in self.rows if row.key == key)

    def place(self, key: str | None, model: str, dataset: str) -> tuple[PaperRow, ...] | None:
        """The rows that a run stands in; None if it does not belong to the table.

        key: its `paper.row`; None: the first row that lists its network. A run that rows start from
        (`before: NAME`) belongs to the table and stands in no row.
        """
        rows: tuple[PaperRow, ...]
        if key is None:
            listed = self.row_of(model)
            rows = (listed,) if listed else ()
        elif key.startswith(BEFORE) and key.removeprefix(BEFORE) in self.before:
            return ()
        else:
            rows = self.rows_of(key)
        datasets = {self.dataset, *({**self.base, **row.run}.get("dataset") for row in rows)}
        return rows if rows and dataset in datasets else None


# What a node may hold beside the fields of `Paper`: what the command line chooses.
CHOICES = ("budget", "only", "row")
_KEYS = {"paper": (*Paper.__dataclass_fields__, *CHOICES)}
_KEYS["column"] = tuple(Column.__dataclass_fields__)
_KEYS["row"] = ("label", "models", "reported", "run", "class", "group", "budgets")


def parse_paper(node: Mapping[str, Any]) -> Paper:
    """The `paper` node of a config as a `Paper`.

    Raises:
        MedexpError: a key is missing or unknown, two rows share a label, or a reported number
            belongs to no column or is no number.
    """
    _check_keys("paper", node, _KEYS["paper"])
    try:
        paper = Paper(
            title=str(node["title"]),
            citation=str(node["citation"]).strip(),
            table=str(node["table"]),
            dataset=str(node["dataset"]),
            epochs=node.get("epochs"),
            columns=tuple(map(_column, node.get("columns") or ())),
            rows=tuple(map(_row, node["rows"])),
            assumptions=tuple(str(text).strip() for text in node.get("assumptions") or ()),
            base=node.get("base") or {},
            before=node.get("before") or {},
            budgets=node.get("budgets") or {},
            figures=tuple(node.get("figures") or ()),
            audit=tuple(node.get("audit") or ()),
            images=node.get("images"),
        )
    except KeyError as error:
        raise MedexpError(
            f"paper: the key {error} is missing; conf/paper/pcam_table4.yaml has all of it"
        ) from error
    for name, start in paper.before.items():
        _check_keys(f"paper: before.{name}", start, ("run", "budgets"))
        if "run" not in start:
            raise MedexpError(f"paper: before.{name}: the key 'run' is missing (KEY: VALUE pairs)")
    names = [column.name for column in paper.columns]
    labels = [row.label for row in paper.rows]
    for row in paper.rows:
        if labels.count(row.label) > 1:
            raise MedexpError(f"paper: two rows are labelled {row.label!r}. Give each its own")
        for name, number in row.reported.items():
            if name not in names:
                raise MedexpError(f"paper: row {row.label} reports {name!r}; columns are {names}")
            try:
                float(number)
            except ValueError as error:
                raise MedexpError(
                    f"paper: row {row.label} reports {name} as {number!r}, which is no number"
                ) from error
    return paper


def _column(node: Mapping[str, Any]) -> Column:
    _check_keys("paper: a column", node, _KEYS["column"])
    metric, doubt = node["metric"], node.get("doubt")
    return Column(
        name=str(node["name"]),
        metric=None if metric is None else str(metric),
        digits=int(node["digits"]),
        scale=float(node.get("scale", 1.0)),
        split=node.get("split"),
        doubt=None if doubt is None else str(doubt).strip(),
        images=node.get("images"),
    )


def _row(node: Mapping[str, Any]) -> PaperRow:
    _check_keys("paper: a row", node, _KEYS["row"])
    return PaperRow(
        label=str(node["label"]),
        models=tuple(str(model) for model in node.get("models") or ()),
        reported={str(k): str(v) for k, v in (node.get("reported") or {}).items()},
        run=node.get("run") or {},
        class_name=node.get("class"),
        group=node.get("group"),
        budgets=node.get("budgets") or {},
    )


def _check_keys(where: str, node: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    for key in node:
        if key not in valid:
            raise MedexpError(f"{where}: no such key {key!r}. {nearest(str(key), valid)}")


def rounding(printed: str) -> tuple[float, float]:
    """What a printed number stands for: all within half a unit of its last digit."""
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return float(printed) - half, float(printed) + half


# ---------------------------------------------------------------- F1 against precision and recall


@dataclass(frozen=True)
class Contradiction:
    """A reported F1 (of column `column`) that its row's precision and recall rule out."""

    column: str
    f1: str
    precision: str
    recall: str
    implied: float


def contradiction(paper: Paper, row: PaperRow) -> Contradiction | None:
    """The row's F1 if it is not the harmonic mean of its precision and recall within rounding.

    The F1 contradicts if none of the numbers that the three stand for fit. Only for the columns of
    one class (`_binary`, `per_class.`): an F1 averaged over classes is not the harmonic mean of the
    averages.
    """
    printed = {c.metric: (c.name, row.reported.get(c.name)) for c in paper.columns}
    for pattern in ("{}_binary", "per_class.{{class}}.{}"):
        name, f1 = printed.get(pattern.format("f1"), ("", None))
        _, precision = printed.get(pattern.format("precision"), ("", None))
        _, recall = printed.get(pattern.format("recall"), ("", None))
        if f1 is None or precision is None or recall is None:
            continue
        (p_low, p_high), (r_low, r_high), (low, high) = map(rounding, (precision, recall, f1))
        # The harmonic mean grows with both, so its extremes are at the corners.
        if _harmonic(p_low, r_low) <= high and low <= _harmonic(p_high, r_high):
            return None
        implied = _harmonic(float(precision), float(recall))
        return Contradiction(name, f1, precision, recall, implied)
    return None


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)
