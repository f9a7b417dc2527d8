"""What an entry under `audit` of a paper asks: each kind of check, and its outcome."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

from medexp.config.paper import Paper, PaperRow, rounding
from medexp.errors import MedexpError, nearest
from medexp.score.arithmetic import Span, column_of, expression, overlap, shown, span_of

# From what weighs most to what weighs nothing: the order in which findings are told.
# explained: it contradicts as written, but a reading that is checked beside it fits. reading ruled
# out: what does not fit is a reading that the audit tried, not what the paper says.
Verdict = Literal[
    "contradicts",
    "explained",
    "truncated, not rounded",
    "reading ruled out",
    "cannot be checked",
    "consistent",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
CUT: Verdict = "truncated, not rounded"


class Outcome(NamedTuple):
    """What a check found; `row`: of which row, None if it is of the place as a whole."""

    verdict: Verdict
    arithmetic: str
    row: str | None = None


class Count(NamedTuple):
    """Parameters of a network: `what` they are, how many there are, how many its paper reports."""

    what: str
    counted: int
    reported: int | None


class Rate(NamedTuple):
    """A reported rate as printed, `scale` times the share that it is."""

    text: str
    scale: float

    @property
    def value(self) -> float:
        return float(self.text) / self.scale

    @property
    def span(self) -> Span:
        low, high = rounding(self.text)
        return low / self.scale, high / self.scale


# The parameters of a network by its name and overrides (KEY=VALUE of `medexp train`).
Counter = Callable[[str, Sequence[str]], Sequence[Count]]


def rates_of(paper: Paper, row: PaperRow) -> dict[str, Rate]:
    """accuracy, precision, ... of one class -> the reported rate; an average keeps its suffix."""
    rates = {}
    for column in paper.columns:
        metric = (column.metric or "").removesuffix("_binary").removeprefix("per_class.{class}.")
        if column.name in row.reported:
            rates[metric] = Rate(row.reported[column.name], column.scale)
    return rates


def numbers(paper: Paper, count: Counter, *, reported: Any, counted: Any) -> list[Outcome]:
    """Two expressions that should be one number: what the paper says, what follows from it.

    Either may be a mapping of what is compared (a row, say) to its own expression.
    """
    several = reported if isinstance(reported, Mapping) else counted
    if not isinstance(several, Mapping):
        return [_compared(paper, reported, counted)]
    says = reported if isinstance(reported, Mapping) else dict.fromkeys(several, reported)
    follows = counted if isinstance(counted, Mapping) else dict.fromkeys(several, counted)
    if list(says) != list(follows):
        raise MedexpError(f"counted: its keys are {list(follows)}, those of reported {list(says)}")
    return [_compared(paper, says[key], follows[key], row=str(key)) for key in several]


def _compared(paper: Paper, reported: Any, counted: Any, row: str | None = None) -> Outcome:
    says, follows = expression(paper, reported), expression(paper, counted)
    agree = overlap(says.value.span, follows.value.span)
    cut = not agree and says.plain and _is_cut(says.text, follows.value.middle)
    verdict: Verdict = "consistent" if agree else CUT if cut else "contradicts"
    texts = [
        one.text if one.plain else f"{one.text} = {shown(one.value.middle)}"
        for one in (follows, says)
    ]
    text = ("; reported " if says.plain else "; ").join(texts)
    return Outcome(verdict, text, row)


def _is_cut(printed: str, value: float) -> bool:
    """Whether a printed number is the value with its further digits cut off."""
    unit = 10 ** len(printed.partition(".")[2])
    # 100 * 0.29 is a bit less than 29 in floats, and is not to be cut to 28.
    return "." in printed and math.isclose(math.floor(value * unit + 1e-9) / unit, float(printed))


def grain(paper: Paper, count: Counter, *, column: str, images: Sequence[int]) -> list[Outcome]:
    """Whether each share in a column is that of a whole number of images, or such a one cut off.

    images: how many they may have been. Brown and Heathers 2017 call it the GRIM test.
    """
    outcomes = []
    chosen = column_of(paper, column)
    for row in paper.rows:
        if column not in row.reported:
            continue
        printed = row.reported[column]
        low, high = (end / chosen.scale for end in rounding(printed))
        unit = len(printed.partition(".")[2])
        fits, cut, nearest_ones = [], [], []
        for n in images:
            for whole in range(math.ceil(low * n - 1e-9), math.floor(high * n + 1e-9) + 1):
                fits.append(f"{whole:,}/{n:,} = {chosen.scale * whole / n:.{unit}f}")
            below = math.floor(low * n)
            for k in (below, below + 1):
                value = chosen.scale * k / n
                nearest_ones.append(f"{k:,}/{n:,} = {value:.{unit + 1}f}")
                cut += nearest_ones[-1:] if _is_cut(printed, value) else []
        verdict: Verdict = "consistent" if fits else CUT if cut else "contradicts"
        text = (fits or cut or [", ".join(nearest_ones)])[0]
        outcomes.append(Outcome(verdict, f"{text}; reported {printed}", row.label))
    return outcomes


def prevalence(paper: Paper, count: Counter, *, share: str) -> list[Outcome]:
    """Whether each row's accuracy, precision and recall imply this share of positive images."""
    outcomes = []
    for label, (low, middle, high) in implied_shares(paper).items():
        if not (math.isfinite(low) and math.isfinite(high)):
            text = "with precision and recall of 1, any share would do"
            outcomes.append(Outcome("cannot be checked", text, label))
            continue
        verdict: Verdict = "consistent" if overlap((low, high), span_of(share)) else "contradicts"
        text = f"{IMPLIED} = {middle:.1%} ({low:.1%} to {high:.1%}); {share}"
        outcomes.append(Outcome(verdict, text, label))
    return outcomes


# The share of positive images: of those that are wrong, 1 - A of all, (1 - R) of the positive ones
# are missed, and R (1 - P) / P times as many as those are wrongly found.
IMPLIED = "(1-A)/((1-R) + R·(1-P)/P)"


def implied_shares(paper: Paper) -> dict[str, tuple[float, float, float]]:
    """Row -> the share of positive images that its rates imply: lowest, as printed, highest.

    Of rows of two classes that report accuracy, and precision and recall of the positive one.
    """
    shares = {}
    for row in paper.rows:
        rates = rates_of(paper, row)
        if row.class_name or not {"accuracy", "precision", "recall"} <= set(rates):
            continue
        three = [rates[rate] for rate in ("accuracy", "precision", "recall")]
        corners = [_share(*corner) for corner in product(*(rate.span for rate in three))]
        if not all(map(math.isfinite, corners)):
            corners = [math.nan]
        shares[row.label] = (min(corners), _share(*(rate.value for rate in three)), max(corners))
    return shares


def _share(accuracy: float, precision: float, recall: float) -> float:
    wrong = (1 - recall) + recall * (1 - precision) / precision
    return (1 - accuracy) / wrong if wrong > 0 else math.nan


def confusion(
    paper: Paper,
    count: Counter,
    *,
    matrix: Sequence[Sequence[int]],
    classes: Sequence[str],
    reported: Mapping[str, str],
) -> list[Outcome]:
    """Accuracy, precision, recall, F1 from a confusion matrix (rows actual, columns predicted).

    A rate may be that of any class, or their mean, plain or weighted: one must fit.
    """
    size = len(classes)
    if len(matrix) != size or any(len(line) != size for line in matrix):
        raise MedexpError(f"matrix: need {size} rows of {size} numbers, one of each of the classes")
    total = sum(map(sum, matrix))
    texts, agree = [], True
    for rate, printed in reported.items():
        readings = _of_matrix(rate, matrix, classes, total)
        fitting = [text for text, value in readings if overlap(span_of(printed), (value, value))]
        agree = agree and bool(fitting)
        likely = fitting[:1] or [text for text, _ in readings]
        texts.append(f"{', '.join(likely)}; reported {rate} {printed}")
    return [Outcome("consistent" if agree else "contradicts", ". ".join(texts))]


def _of_matrix(
    rate: str, matrix: Sequence[Sequence[int]], classes: Sequence[str], total: int
) -> list[tuple[str, float]]:
    """What the name of a rate may mean: its arithmetic, and its value."""
    right = [matrix[c][c] for c in range(len(classes))]
    actual = [sum(line) for line in matrix]
    predicted = [sum(line[c] for line in matrix) for c in range(len(classes))]
    if rate == "accuracy":
        value = sum(right) / total
        return [(f"accuracy ({' + '.join(map(str, right))})/{total:,} = {value:.2%}", value)]
    parts = {
        "precision": (right, predicted),
        "recall": (right, actual),
        "f1": ([2 * n for n in right], [a + p for a, p in zip(actual, predicted, strict=True)]),
    }
    if rate not in parts:
        raise MedexpError(f"reported.{rate}: no such rate. {nearest(rate, ['accuracy', *parts])}")
    of_class = [n / of for n, of in zip(*parts[rate], strict=True)]
    rates = [
        (f"{rate} of {name} {n}/{of} = {n / of:.4f}", n / of)
        for name, n, of in zip(classes, *parts[rate], strict=True)
    ]
    rates.reverse()  # of two classes the second is usually the positive one
    mean = sum(of_class) / len(classes)
    weighted = sum(v * n for v, n in zip(of_class, actual, strict=True)) / total
    return [
        *rates,
        (f"mean {rate} of the classes {mean:.4f}", mean),
        (f"weighted mean {rate} {weighted:.4f}", weighted),
    ]


def recalls(
    paper: Paper, count: Counter, *, images: Mapping[str, int], accuracy: Mapping[str, str]
) -> list[Outcome]:
    """Accuracy from the recall of each class; of two classes their precision too.

    images: class -> how many images of it were tested. accuracy: the `group` of a class's rows ->
    the accuracy that is reported elsewhere.
    """
    total = sum(images.values())
    outcomes = []
    for group, printed in accuracy.items():
        rates = {str(row.class_name): rates_of(paper, row) for row in paper.rows_of(group)}
        if set(rates) != set(images) or any(
            "recall" not in of_class for of_class in rates.values()
        ):
            raise MedexpError(
                f"accuracy.{group}: needs a row of that group, with its recall, for each class of "
                f"`images` ({', '.join(images)}); found {', '.join(rates) or 'none'}"
            )
        recall = {name: rates[name]["recall"] for name in images}
        low, high = (sum(recall[c].span[end] * n for c, n in images.items()) for end in (0, 1))
        agree = [overlap((low / total, high / total), span_of(printed))]
        terms = " + ".join(f"{recall[c].text}·{n:,}" for c, n in images.items())
        middle = sum(recall[c].value * n for c, n in images.items()) / total
        texts = [
            f"({terms})/{total:,} = {middle:.1%} ({low / total:.1%} to {high / total:.1%}); "
            f"reported {printed}"
        ]
        for name, span in _precisions(recall, images).items():
            if (said := rates[name].get("precision")) is not None:
                agree.append(overlap(span, said.span))
                texts.append(f"precision of {name} {span[0]:.3f} to {span[1]:.3f}; {said.text}")
        verdict: Verdict = "consistent" if all(agree) else "contradicts"
        outcomes.append(Outcome(verdict, ". ".join(texts), group))
    return outcomes


def _precisions(recall: Mapping[str, Rate], images: Mapping[str, int]) -> dict[str, Span]:
    """Of two classes: right ones among those found, R n / (R n + (1 - R') n')."""
    if len(images) != 2:
        return {}
    spans = {}
    for name, other in (tuple(images), tuple(images)[::-1]):
        corners = []
        for right_share, others in product(recall[name].span, recall[other].span):
            right, wrong = right_share * images[name], (1 - others) * images[other]
            corners.append(right / (right + wrong))
        spans[name] = (min(corners), max(corners))
    return spans


def parameters(
    paper: Paper, count: Counter, *, models: Sequence[str], overrides: Sequence[str] = ()
) -> list[Outcome]:
    """The reported parameters of networks beside those of the layers that are built.

    overrides: of the networks, KEY=VALUE.
    """
    outcomes = []
    for model in models:
        for what, counted, reported in count(model, overrides):
            if reported is None:
                text = f"{counted:,} {what}; the paper reports none"
                outcomes.append(Outcome("cannot be checked", text, model))
                continue
            difference = "" if counted == reported else f" ({counted - reported:+,})"
            verdict: Verdict = "consistent" if counted == reported else "contradicts"
            text = f"{counted:,} {what}{difference}; reported {reported:,}"
            outcomes.append(Outcome(verdict, text, model))
    return outcomes


def blocks(
    paper: Paper,
    count: Counter,
    *,
    stated: int,
    filters: Sequence[int],
    parameters: int,
    statistics: int,
    kernel: int = 3,
    channels: int = 3,
) -> list[Outcome]:
    """How many convolutions blocks of these filters hold, by the parameters they have in all.

    Each convolution has a bias and a BatchNorm of four numbers a filter, two of which, its moving
    statistics, are not trained. All divisions with one convolution a block or more are tried.
    """
    divisions = list(_divisions(tuple(filters), parameters, statistics, kernel, channels))
    if not divisions:
        text = f"no number of convolutions in these blocks has {parameters:,} parameters"
        return [Outcome("contradicts", text)]
    sums = [f"{' + '.join(map(str, division))} = {sum(division)}" for division in divisions]
    text = (
        f"{parameters:,} parameters, {statistics:,} of them moving statistics, are those of "
        f"{' or '.join(sums)} convolutions, and of no other division; stated {stated}"
    )
    verdict: Verdict = "consistent" if stated in map(sum, divisions) else "contradicts"
    return [Outcome(verdict, text)]


def _divisions(
    filters: tuple[int, ...], parameters: int, statistics: int, kernel: int, channels: int
) -> Iterator[tuple[int, ...]]:
    if not filters:
        if parameters == statistics == 0:
            yield ()
        return
    held, width = 0, channels
    while True:
        parameters -= kernel * kernel * width * filters[0] + 5 * filters[0]
        statistics -= 2 * filters[0]
        held, width = held + 1, filters[0]
        if parameters < 0 or statistics < 0:
            return
        for rest in _divisions(filters[1:], parameters, statistics, kernel, width):
            yield (held, *rest)


def unknown(paper: Paper, count: Counter, *, reason: str) -> list[Outcome]:
    """What the paper leaves open, said as such."""
    return [Outcome("cannot be checked", str(reason).strip())]
