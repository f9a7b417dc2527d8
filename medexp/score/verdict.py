"""A reported number beside ours: the difference, and whether chance explains it.

Chance is threefold. The images of our test split, whose interval comes with the score. Those of the
paper's, of which the number of images is known or taken to be ours. The training, which the paper
did once: over our seeds by Student's t for one more draw of the same lottery; for a single run it
is unknown, and taken as SINGLE_RUN or the error of the images, whichever is larger. The three half
widths are added as squares (Zou and Donner 2008), each on the side of the other number, and what a
printed number was rounded by is given away. The cells of a table are held to one error rate by
Holm (1979). benchmarks/verdicts.py measures how often an exact replication is called different.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medexp.config.paper import rounding
from medexp.score.comparisons import holm
from medexp.score.intervals import NORMAL, share_interval

WITHIN = "within"
DIFFERS = "differs"
CANNOT_TELL = "cannot tell"
NOT_COMPARABLE = "not comparable"
NO_INTERVAL = "no interval"
SHORT = {
    WITHIN: WITHIN,
    DIFFERS: DIFFERS,
    CANNOT_TELL: CANNOT_TELL,
    NOT_COMPARABLE: "n/c",
    NO_INTERVAL: "no CI",
}
LEVEL = 0.05  # of false "differs" in a table of exact replications
SINGLE_RUN = 0.016  # standard deviation over seeds that a single run is granted
MARGIN = 0.05  # a difference that matters, in the metric's own unit: 5 points of accuracy
WIDE_MARGIN = 0.1  # of kappa and log loss, which range over more than [0, 1]


@dataclass(frozen=True)
class Ours:
    """What we scored, in the metric's own unit.

    interval: 95%, of the test images alone; of several runs the mean of theirs. images: of the test
    split. runs, sd: how many seeds it is the mean of, and their standard deviation.
    """

    value: float
    interval: tuple[float, float] | None = None
    images: int | None = None
    runs: int = 1
    sd: float | None = None


@dataclass(frozen=True)
class Compared:
    """The exact numbers behind a cell, in the unit that the paper prints.

    reported: as printed; error: the 95% interval that its test images leave it. sd: of a mean.
    difference: ours - reported; spread: what it may be by chance, 95%; p: that chance gives as
    much. interval: our 95% interval. verdict: one of the five above, None where a number is
    missing. reasons: why the two cannot be compared.
    """

    reported: str | None = None
    ours: float | None = None
    sd: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    error: tuple[float, float] | None = None
    spread: float | None = None
    p: float | None = None

    @property
    def words(self) -> str:
        """The verdict, with what forbids the comparison."""
        if self.verdict is None:
            return ""
        return f"{self.verdict} ({', '.join(self.reasons)})" if self.reasons else self.verdict


def compare(
    reported: str | None,
    ours: Ours | None,
    metric: str | None,
    *,
    scale: float = 1.0,
    images: int | None = None,
    reasons: Sequence[str] = (),
    shown: tuple[float, float] | None = None,
) -> Compared:
    """Ours beside what is reported. The verdict holds for this cell alone until it is `settled`.

    metric: a key of `metrics.score`. scale: the paper's unit in the metric's. images: of the
    paper's test set, None where unknown. reasons: marks of the run (PHANTOM, ...) and what else
    forbids a comparison. shown: our interval as the table has it, in the metric's unit.
    """
    error = reported_error(reported, metric, images, scale)
    if reported is None or ours is None:
        value = None if ours is None else scale * ours.value
        sd = None if ours is None or ours.sd is None else scale * ours.sd
        return Compared(reported, value, sd, interval=_scaled(shown, scale), error=error)
    cell = Compared(
        reported,
        scale * ours.value,
        None if ours.sd is None else scale * ours.sd,
        scale * ours.value - float(reported),
        _scaled(shown, scale),
        error=error,
        reasons=tuple(reasons),
    )
    if reasons:
        return replace(cell, verdict=NOT_COMPARABLE)
    if ours.interval is None:
        return replace(cell, verdict=NO_INTERVAL)
    theirs = float(reported) / scale
    low, high = (end / scale for end in rounding(reported))
    apart = max(abs(ours.value - theirs) - (high - low) / 2, 0.0)
    chance = _Chance(ours, theirs, metric or "", images)
    spread = chance.half_width(LEVEL)
    cell = replace(cell, spread=scale * spread, p=chance.p_value(apart))
    return replace(cell, verdict=_verdict(cell.p, spread, metric or ""))


def settled(cells: Sequence[Compared]) -> list[Compared]:
    """The cells of one table, in their order, with Holm's correction over all that were tested.

    What would differ alone and does not among so many is no agreement: `cannot tell`.
    """
    adjusted = holm([cell.p for cell in cells])
    return [
        replace(cell, p=p, verdict=CANNOT_TELL)
        if cell.verdict == DIFFERS and p is not None and p >= LEVEL
        else replace(cell, p=p)
        for cell, p in zip(cells, adjusted, strict=True)
    ]


def _verdict(p: float | None, spread: float, metric: str) -> str:
    if p is not None and p < LEVEL:
        return DIFFERS
    margin = WIDE_MARGIN if metric in ("kappa", "log_loss") else MARGIN
    return WITHIN if spread <= margin else CANNOT_TELL


def reported_error(
    reported: str | None, metric: str | None, images: int | None, scale: float = 1.0
) -> tuple[float, float] | None:
    """The 95% interval of a reported accuracy from its number of test images (Clopper-Pearson).

    None of other metrics: they would need the counts of the classes, which papers seldom give.
    """
    if reported is None or images is None or metric != "accuracy":
        return None
    share = min(max(float(reported) / scale, 0.0), 1.0)
    return _scaled(share_interval(share * images, images), scale)


def _scaled(interval: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
    return None if interval is None else (scale * interval[0], scale * interval[1])


class _Chance:
    """How far ours and a reported number may be apart, by the three chances together."""

    def __init__(self, ours: Ours, theirs: float, metric: str, images: int | None):
        assert ours.interval is not None
        side = 0 if ours.value > theirs else 1  # each interval towards the other number
        own = abs(ours.value - ours.interval[side])
        error = reported_error(repr(theirs), metric, images)
        if error is not None:
            other = abs(error[1 - side] - theirs)
        else:
            ratio = ours.images / images if ours.images and images else 1.0
            other = abs(ours.interval[1 - side] - ours.value) * math.sqrt(ratio)
            other = max(other, own * math.sqrt(ratio))  # near 1 an interval has a short side
        self.images = math.hypot(own, other) / _normal(LEVEL)
        self.runs = ours.runs
        single = max(SINGLE_RUN, own / _normal(LEVEL))
        self.sd = single if ours.runs == 1 or ours.sd is None else ours.sd

    def half_width(self, level: float) -> float:
        times = _normal(level) if self.runs == 1 else _student(level, self.runs - 1)
        training = times * self.sd * math.sqrt(1 + 1 / self.runs)
        return math.hypot(_normal(level) * self.images, training)

    def p_value(self, apart: float) -> float:
        """The level at which the half width is just `apart`."""
        low, high = -40.0, 0.0  # of its logarithm
        if apart <= 0 or self.half_width(1 - 1e-12) >= apart:
            return 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if self.half_width(math.exp(middle)) > apart:
                low = middle
            else:
                high = middle
        return math.exp(high)


def _normal(level: float) -> float:
    return -NORMAL.inv_cdf(level / 2)


def _student(level: float, freedom: int) -> float:
    from scipy.special import stdtrit  # half a second that `medexp --help` does not owe

    return -float(stdtrit(freedom, level / 2))


def indistinguishable(
    rows: Sequence[tuple[str, str]], images: int, scale: float = 1.0
) -> list[tuple[str, str]]:
    """Pairs of reported accuracies that their own test images cannot tell apart.

    rows: (label, number as printed). By Newcombe's (1998) interval of a difference, the two taken
    as independent, with Holm over all pairs; only pairs with different numbers.
    """
    pairs, p = [], []
    for place, (label, number) in enumerate(rows):
        for other, its in rows[place + 1 :]:
            a, b = float(number) / scale, float(its) / scale
            if a == b:
                continue
            first = share_interval(a * images, images)
            second = share_interval(b * images, images)
            side = 0 if a > b else 1
            half = math.hypot(a - first[side], b - second[1 - side])
            z = abs(a - b) / half * _normal(LEVEL)
            pairs.append((label, other))
            p.append(math.erfc(z / math.sqrt(2)))
    adjusted = holm(p)
    return [
        pair for pair, one in zip(pairs, adjusted, strict=True) if one is not None and one >= LEVEL
    ]


def explained(cells: Iterable[Compared]) -> list[str]:
    """The footnote to the verdicts among the cells of a table; none without a verdict."""
    reasons: dict[str, set[str]] = {}
    tested = 0
    for cell in cells:
        if cell.verdict is not None:
            reasons.setdefault(cell.verdict, set()).update(cell.reasons)
            tested += cell.p is not None
    because = ", ".join(sorted(reasons.get(NOT_COMPARABLE, ())))
    meanings = {
        WITHIN: f"chance explains the difference, and is known to be less than {MARGIN:g}"
        f" ({WIDE_MARGIN:g} of kappa and log loss)",
        DIFFERS: "chance does not explain the difference",
        CANNOT_TELL: "chance may explain it, but could be as large as a difference that matters",
        NOT_COMPARABLE: f"not comparable ({because})",
        NO_INTERVAL: "ours has no interval",
    }
    said = [f"{SHORT[verdict]} = {meanings[verdict]}" for verdict in SHORT if verdict in reasons]
    if not said:
        return []
    notes = [f"Verdict: {'; '.join(said)}."]
    if tested:
        notes.append(
            f"Chance: of our test images and the paper's, and of training over our seeds or, of a"
            f" single run, taken as {SINGLE_RUN:g} or the error of the images; {tested} cells at"
            f" {LEVEL:.0%} in all (Holm)."
        )
    return notes
