"""The audit of papers' reported numbers, with the counts of the networks that they are about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from medexp.config.compose import compose, compose_node
from medexp.config.groups import options
from medexp.config.paper import Paper, parse_paper
from medexp.errors import MedexpError, nearest
from medexp.score.audit import Finding, findings
from medexp.score.checks import Count


def audit_of_table(node: Mapping[str, Any], arguments: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The findings in a table and in its paper as a whole: the option named like the data set."""
    nodes = [node]
    if (name := str(node["dataset"])) in options("paper", arguments):
        whole = compose_node("paper", name, arguments)
        nodes += [whole] if whole.get("citation") == node["citation"] else []
    return audit_of(nodes, arguments)


def audit_of(
    nodes: Iterable[Mapping[str, Any]], arguments: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The findings in `paper` nodes, as JSON: paper, where, verdict, claim, arithmetic.

    A finding that several nodes share (paper=pcam and paper=pcam_table4) is told once. arguments:
    the command line, for its --config-dir. Raises MedexpError for a node, or an entry of its
    `audit`, that is none.
    """

    @cache
    def count(model: str, overrides: tuple[str, ...]) -> list[Count]:
        return parameters_of(model, overrides, arguments)

    found: list[Finding] = []
    seen: list[Paper] = []
    for paper in map(parse_paper, nodes):
        if paper not in seen:
            seen.append(paper)
            found += findings(paper, lambda model, overrides: count(model, tuple(overrides)))
    return [asdict(finding) for finding in dict.fromkeys(found)]


def parameters_of(
    model: str, overrides: Sequence[str], arguments: Sequence[str] = ()
) -> list[Count]:
    """The parameters of a network built at its paper's input, beside what `about` says of them."""
    if model not in (known := options("model", arguments)):
        raise MedexpError(f"model={model}: no such option. {nearest(model, known)}")
    from medexp.models.counts import model_layers, model_row  # torch

    node = compose([f"model={model}", *overrides], arguments).model
    row, about = model_row(model, node, model_layers(node)), node.get("about") or {}
    if about.get("reported_includes_adam"):
        what = f"= 3·{row['trainable']:,} + 3"
    else:
        what = "trainable" if row["counted"] == row["trainable"] else "in all"
    counts = [Count(what, row["counted"], row["reported"])]
    if about.get("reported_total") not in (None, row["reported"]):
        counts.append(Count("in all", row["total"], about["reported_total"]))
    return counts
