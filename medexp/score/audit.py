"""What can be checked inside a paper's reported numbers; each finding shows its arithmetic.

A printed number stands for all that round to it, so a claim contradicts only where none of those
fits; where the printed number is the right one with its further digits cut off, that is what the
verdict says. Some checks are made of every table (OF_EVERY_TABLE); the others are entries of its
YAML:

    audit:
      - check: KIND
        claim: TEXT
        where: PLACE        # left out: the paper's table
        tried: true         # the claim is our reading of the paper: it contradicts nobody
        explained: {because: TEXT, check: KIND, ...}    # another reading: is it consistent?
        ...

A kind is one of the functions in CHECKS, and the other keys are its keyword arguments. A claim that
contradicts is "explained" only if the check under `explained` finds nothing but consistent numbers.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from medexp.config.paper import Paper, PaperRow, contradiction
from medexp.errors import MedexpError, nearest
from medexp.score.arithmetic import overlap, shown
from medexp.score.checks import (
    IMPLIED,
    Counter,
    Outcome,
    Verdict,
    blocks,
    confusion,
    grain,
    implied_shares,
    numbers,
    parameters,
    prevalence,
    rates_of,
    recalls,
    unknown,
)
from medexp.score.statements import bold, quoted, split


@dataclass(frozen=True)
class Finding:
    """paper: its title. where: the place in it. claim: what it says or implies."""

    paper: str
    where: str
    verdict: Verdict
    claim: str
    arithmetic: str


def findings(paper: Paper, count: Counter) -> list[Finding]:
    """Everything that can be checked in one table: first what every table is held against.

    Raises:
        MedexpError: an entry of the YAML's `audit` is none.
    """
    asked = [_of(paper, place, entry, count) for place, entry in enumerate(paper.audit)]
    return list(chain(*(check(paper) for check in OF_EVERY_TABLE), *asked))


# ---------------------------------------------------------------- what every table is held against


def f1_scores(paper: Paper) -> list[Finding]:
    """A finding for each row that reports precision, recall and F1 of one class."""
    results = []
    for row in paper.rows:
        rates = rates_of(paper, row)
        if not {"precision", "recall", "f1"} <= set(rates):
            continue
        precision, recall, f1 = (rates[rate] for rate in ("precision", "recall", "f1"))
        p, r = float(precision.text), float(recall.text)
        sides = f"2·{precision.text}·{recall.text}/({precision.text}+{recall.text})"
        results.append(
            Finding(
                paper.title,
                f"{paper.table}, {row.label}",
                "contradicts" if contradiction(paper, row) else "consistent",
                "F1 is the harmonic mean of precision and recall",
                f"{sides} = {shown(2 * p * r / (p + r))}; reported {f1.text}",
            )
        )
    return results


def one_test_set(paper: Paper) -> list[Finding]:
    """Accuracy, precision and recall of two classes imply the share of positive images.

    Rows of one test set imply one share.
    """
    shares = implied_shares(paper)
    if len(shares) < 2 or any(not 0 <= middle <= 1 for _, middle, _ in shares.values()):
        return []
    apart = max(low for low, _, _ in shares.values()) > min(high for *_, high in shares.values())
    each = ", ".join(f"{label} {middle:.1%}" for label, (_, middle, _) in shares.items())
    return [
        Finding(
            paper.title,
            paper.table,
            "contradicts" if apart else "consistent",
            "All rows are of one test set, with one share of positive images (taking precision and"
            " recall as those of the positive class)",
            f"{IMPLIED}: {each}",
        )
    ]


def mirrored(paper: Paper) -> list[Finding]:
    """Of two classes, the specificity of one is the recall of the other."""
    results = []
    for first, second in _pairs(paper):
        for one, other in ((first, second), (second, first)):
            specificity = rates_of(paper, one).get("specificity")
            recall = rates_of(paper, other).get("recall")
            if specificity is None or recall is None:
                continue
            same = overlap(specificity.span, recall.span)
            results.append(
                Finding(
                    paper.title,
                    f"{paper.table}, {one.label}",
                    "consistent" if same else "contradicts",
                    "The specificity of one of two classes is the recall of the other",
                    f"specificity {specificity.text}; recall of {other.label} {recall.text}",
                )
            )
    return results


def _pairs(paper: Paper) -> Iterator[tuple[PaperRow, PaperRow]]:
    """The rows of each group that has a row for each of two classes."""
    for key in dict.fromkeys(row.key for row in paper.rows):
        rows = [row for row in paper.rows_of(key) if row.class_name]
        if len(rows) == 2:
            yield rows[0], rows[1]


OF_EVERY_TABLE: tuple[Callable[[Paper], list[Finding]], ...] = (f1_scores, one_test_set, mirrored)


# ---------------------------------------------------------------- the checks that a YAML asks for


CHECKS: dict[str, Callable[..., list[Outcome]]] = {
    "numbers": numbers,
    "grain": grain,
    "confusion": confusion,
    "recalls": recalls,
    "parameters": parameters,
    "blocks": blocks,
    "prevalence": prevalence,
    "quoted": quoted,
    "bold": bold,
    "split": split,
    "unknown": unknown,
}


def _of(paper: Paper, place: int, entry: Mapping[str, Any], count: Counter) -> Iterator[Finding]:
    """The findings of one entry of the YAML."""
    name = f"paper {paper.title}, {paper.table}: audit[{place}]"
    outcomes = _asked(paper, name, entry, count, ("claim",), ("where", "tried", "explained"))
    where, claim = str(entry.get("where", paper.table)), str(entry["claim"]).strip()
    tried, other = entry.get("tried", False), entry.get("explained")
    if tried and other is not None:
        raise MedexpError(f"{name}.explained: a reading that is tried needs none. Leave one out")
    fits, why = (False, "") if other is None else _explanation(paper, name, other, count)
    for verdict, arithmetic, row in outcomes:
        if verdict == "contradicts":
            verdict = "explained" if fits else "reading ruled out" if tried else verdict
            arithmetic += why
        here = where if row is None else f"{where}, {row}"
        yield Finding(paper.title, here, verdict, claim, arithmetic)


def _explanation(
    paper: Paper, name: str, entry: Mapping[str, Any], count: Counter
) -> tuple[bool, str]:
    """Whether another reading fits, and the words for it."""
    outcomes = _asked(paper, f"{name}.explained", entry, count, ("because",), ())
    fits = all(outcome.verdict == "consistent" for outcome in outcomes)
    because = str(entry["because"]).strip()
    texts = "; ".join(outcome.arithmetic for outcome in outcomes)
    return fits, f". {'Explained' if fits else 'Not explained'}: {because}: {texts}"


def _asked(
    paper: Paper,
    name: str,
    entry: Mapping[str, Any],
    count: Counter,
    needed: Sequence[str],
    allowed: Sequence[str],
) -> list[Outcome]:
    """What the check of an entry finds. needed, allowed: its keys beside those of the check."""
    kind = str(entry.get("check"))
    if kind not in CHECKS:
        raise MedexpError(f"{name}.check={kind}: no such check. {nearest(kind, CHECKS)}")
    check = CHECKS[kind]
    taken = [p for p in inspect.signature(check).parameters.values() if p.kind is p.KEYWORD_ONLY]
    valid = ["check", *needed, *allowed, *(p.name for p in taken)]
    for key in entry:
        if key not in valid:
            raise MedexpError(f"{name}.{key}: not of check={kind}. {nearest(str(key), valid)}")
    for key in (*needed, *(p.name for p in taken if p.default is p.empty)):
        if key not in entry:
            raise MedexpError(f"{name}.{key}: missing, and check={kind} needs it")
    try:
        return check(paper, count, **{p.name: entry[p.name] for p in taken if p.name in entry})
    except MedexpError as error:
        raise MedexpError(f"{name}: {error}") from error
