"""Checks of what a paper says in words, in bold print and in its listings."""

from collections.abc import Mapping, Sequence
from itertools import product

from medexp.config.paper import Paper
from medexp.errors import MedexpError
from medexp.score.arithmetic import cell_of, column_of
from medexp.score.checks import Counter, Outcome


def quoted(paper: Paper, count: Counter, *, says: Mapping[str, Mapping[str, str]]) -> list[Outcome]:
    """Whether places of the paper name one thing alike.

    says: place -> {text: its words, names: the part of them that should be the same everywhere}.
    """
    for place, one in says.items():
        if set(one) != {"text", "names"}:
            raise MedexpError(
                f"says.{place}: need text and names, found {', '.join(one) or 'none'}"
            )
        if str(one["names"]) not in str(one["text"]):
            raise MedexpError(f"says.{place}.names={one['names']}: not in its text {one['text']!r}")
    if len(says) < 2:
        raise MedexpError("says: need two places or more")
    named = {str(one["names"]).casefold() for one in says.values()}
    texts = [f'{place}: "{one["text"]}"' for place, one in says.items()]
    return [Outcome("consistent" if len(named) == 1 else "contradicts", ". ".join(texts))]


def bold(paper: Paper, count: Counter, *, rows: Mapping[str, Sequence[str]]) -> list[Outcome]:
    """Whether the numbers that a table prints in bold are the highest of their columns.

    rows: column -> the rows whose number is bold there.
    """
    outcomes = []
    for column, labels in rows.items():
        name = column_of(paper, column).name
        printed = [row.reported[name] for row in paper.rows if name in row.reported]
        chosen = [cell_of(paper, label, column) for label in labels]
        highest = max(printed, key=float)
        right = all(float(text) == float(highest) for text in chosen)
        each = " and ".join(f"{text} ({row})" for text, row in zip(chosen, labels, strict=True))
        text = f"in bold {each}; the highest is {highest}"
        outcomes.append(Outcome("consistent" if right else "contradicts", text, column))
    return outcomes


def split(
    paper: Paper,
    count: Counter,
    *,
    images: int,
    share: float,
    tested: Mapping[str, int],
    trained: int,
) -> list[Outcome]:
    """Whether int(share * n) training images of each class can leave these for the test.

    images: of all classes. tested: class -> how many of it are tested. trained: of all classes. The
    classes' sizes n need not be known: all are tried.
    """
    sizes = [
        [n for n in range(rest, images + 1) if n - int(share * n) == rest]
        for rest in tested.values()
    ]
    fits = [
        each
        for each in product(*sizes)
        if sum(each) == images and sum(int(share * n) for n in each) == trained
    ]
    rests = " + ".join(f"{n:,}" for n in tested.values()) + f" = {sum(tested.values()):,}"
    if not fits:
        text = f"no classes of {images:,} images in all leave {rests} and have {trained:,} to train"
        return [Outcome("contradicts", text)]
    terms = " + ".join(f"int({share}·{n:,})" for n in fits[0])
    parts = " + ".join(f"{int(share * n):,}" for n in fits[0])
    others = f" ({len(fits) - 1} other divisions into classes fit too)" if len(fits) > 1 else ""
    text = f"{terms} = {parts} = {trained:,} to train, which leaves {rests} of {images:,}{others}"
    return [Outcome("consistent", text)]
