"""A paper's table as data (a node of conf/paper), and what its own numbers say about each other."""

from dataclasses import dataclass
from typing import Any

from medexp.errors import MedexpError


@dataclass(frozen=True)
class Column:
    """A column: the paper's name of it, the key of `metrics.score`, digits after the point."""

    name: str
    metric: str
    digits: int


@dataclass(frozen=True)
class PaperRow:
    """A row: the paper's label, our models that stand for it, column name -> number as printed."""

    label: str
    models: tuple[str, ...]
    reported: dict[str, str]


@dataclass(frozen=True)
class Paper:
    """One table of a paper; `epochs` is what its numbers were trained for."""

    title: str
    citation: str
    table: str
    dataset: str
    epochs: int | None
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    assumptions: tuple[str, ...]

    def row_of(self, model: str) -> PaperRow | None:
        return next((row for row in self.rows if model in row.models), None)


@dataclass(frozen=True)
class Contradiction:
    """A reported F1 (of column `column`) that its row's precision and recall rule out."""

    column: str
    f1: str
    precision: str
    recall: str
    implied: float


def parse_paper(node: dict[str, Any]) -> Paper:
    """The `paper` node of a config as a `Paper`.

    Raises:
        MedexpError: a key is missing, or a reported number belongs to no column or is no number.
    """
    try:
        paper = Paper(
            title=str(node["title"]),
            citation=str(node["citation"]),
            table=str(node["table"]),
            dataset=str(node["dataset"]),
            epochs=node.get("epochs"),
            columns=tuple(
                Column(str(c["name"]), str(c["metric"]), int(c["digits"])) for c in node["columns"]
            ),
            rows=tuple(
                PaperRow(
                    str(row["label"]),
                    tuple(str(model) for model in row["models"]),
                    {str(name): str(number) for name, number in row["reported"].items()},
                )
                for row in node["rows"]
            ),
            assumptions=tuple(str(text) for text in node.get("assumptions") or ()),
        )
    except KeyError as error:
        raise MedexpError(
            f"paper: the key {error} is missing; conf/paper/pcam.yaml has all of it"
        ) from error
    names = [column.name for column in paper.columns]
    for row in paper.rows:
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


def contradiction(paper: Paper, row: PaperRow) -> Contradiction | None:
    """The row's F1 if it is not the harmonic mean of its precision and recall within rounding.

    Each printed number stands for all within half a unit of its last digit; the F1 contradicts if
    none of those are reached. Only for `_binary` columns: an F1 averaged over classes is not the
    harmonic mean of the averages.
    """
    printed = {c.metric: (c.name, row.reported.get(c.name)) for c in paper.columns}
    name, f1 = printed.get("f1_binary", ("", None))
    _, precision = printed.get("precision_binary", ("", None))
    _, recall = printed.get("recall_binary", ("", None))
    if f1 is None or precision is None or recall is None:
        return None
    (p_low, p_high), (r_low, r_high), (low, high) = map(_rounding, (precision, recall, f1))
    # The harmonic mean grows with both, so its extremes are at the corners.
    if _harmonic(p_low, r_low) <= high and low <= _harmonic(p_high, r_high):
        return None
    implied = _harmonic(float(precision), float(recall))
    return Contradiction(name, f1, precision, recall, implied)


def _rounding(printed: str) -> tuple[float, float]:
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return float(printed) - half, float(printed) + half


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)
