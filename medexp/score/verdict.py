"""A reported number beside ours: the difference, and whether the two agree.

A printed number stands for all that round to it. They agree if one of those lies in our 95%
interval: of repeats where there are any (`repeats`), else of the bootstrap over images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medexp.config.paper import rounding

WITHIN = "within interval"
DIFFERS = "differs"
NOT_COMPARABLE = "not comparable"
NO_INTERVAL = "no interval"
SHORT = {WITHIN: "within", DIFFERS: "differs", NOT_COMPARABLE: "n/c", NO_INTERVAL: "no CI"}


@dataclass(frozen=True)
class Compared:
    """The exact numbers behind a cell, in the unit that the paper prints.

    reported: as printed. sd: of a mean. difference: ours - reported. interval: our 95% interval.
    verdict: one of the four above, None where a number is missing. reasons: why the two cannot be
    compared.
    """

    reported: str | None = None
    ours: float | None = None
    sd: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The verdict, with what forbids the comparison."""
        if self.verdict is None:
            return ""
        return f"{self.verdict} ({', '.join(self.reasons)})" if self.reasons else self.verdict


def compare(
    reported: str | None,
    ours: float | None,
    interval: tuple[float, float] | None,
    *,
    sd: float | None = None,
    reasons: Sequence[str] = (),
) -> Compared:
    """Ours beside what is reported, all in one unit.

    reasons: marks of the run (PHANTOM, ...) and what else forbids a comparison.
    """
    if reported is None or ours is None:
        return Compared(reported, ours, sd, interval=interval)
    difference = ours - float(reported)
    if reasons:
        verdict = NOT_COMPARABLE
    elif interval is None:
        verdict = NO_INTERVAL
    else:
        low, high = rounding(reported)
        verdict = WITHIN if low <= interval[1] and interval[0] <= high else DIFFERS
    return Compared(reported, ours, sd, difference, interval, verdict, tuple(reasons))


def explained(cells: Iterable[Compared]) -> list[str]:
    """The footnote to the verdicts among the cells of a table; none without a verdict."""
    reasons: dict[str, set[str]] = {}
    for cell in cells:
        if cell.verdict is not None:
            reasons.setdefault(cell.verdict, set()).update(cell.reasons)
    because = ", ".join(sorted(reasons.get(NOT_COMPARABLE, ())))
    meanings = {
        WITHIN: "our 95% interval holds a number that is printed like the reported one",
        DIFFERS: "it holds no such number",
        NOT_COMPARABLE: f"not comparable ({because})",
        NO_INTERVAL: "ours has no interval",
    }
    said = [f"{SHORT[verdict]} = {meanings[verdict]}" for verdict in SHORT if verdict in reasons]
    return [f"Verdict: {'; '.join(said)}."] if said else []
