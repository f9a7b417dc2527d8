"""`medexp papers`: the papers' tables that can be made again, and the audit of their numbers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from medexp.cli.terminal import parser, print_rich, rich_table, wrapped
from medexp.config.compose import compose_node
from medexp.config.groups import options
from medexp.config.paper import parse_paper
from medexp.errors import ConfigError, nearest
from medexp.jobs.audit import audit_of
from medexp.jobs.paper import paper_row
from medexp.score.checks import VERDICTS


def papers(arguments: list[str]) -> int:
    """List the papers' tables, or audit what they report."""
    p = parser(
        "papers",
        "The papers: which of their tables and figures can be made again, and how.\n"
        "With audit, what can be checked inside their reported numbers: each finding\n"
        "with its arithmetic. What contradicts comes first. What is 'explained' does so\n"
        "as written, but a reading that is checked beside it fits. A 'reading ruled out'\n"
        "is one that the audit tried, and no fault of the paper.\n"
        "NAME is a table (pcam_table3) or a whole paper (pcam).",
        "  medexp papers\n  medexp papers audit\n  medexp papers audit pcam cervix_table5 --json\n"
        "  medexp papers audit mine --config-dir DIR     DIR/paper/mine.yaml",
    )
    p.add_argument("action", nargs="?", choices=("list", "audit"), default="list")
    p.add_argument("names", nargs="*", metavar="NAME", help="tables or papers; none: all")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(arguments)
    nodes = paper_nodes(arguments)
    show: Callable[[list[dict[str, Any]]], None]
    if args.action == "audit":
        names = chosen(args.names, nodes) if args.names else list(nodes)
        rows, show = audit_of([nodes[name] for name in names], arguments), print_findings
    else:
        rows, show = [paper_row(n, parse_paper(node)) for n, node in nodes.items()], print_papers
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
    return 0


def paper_nodes(arguments: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Option -> its `paper` node, as a run has it in its config.yaml."""
    nodes = {}
    for name in options("paper", arguments):
        nodes[name] = compose_node("paper", name, arguments)
        if not isinstance(nodes[name], dict):
            raise ConfigError(f"paper={name}: composes to no table")
    return nodes


def chosen(names: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The options that names mean: a table, or with the name of a data set all of its paper."""
    tables: list[str] = []
    for name in names:
        papers = {node.get("citation") for node in nodes.values() if node.get("dataset") == name}
        if papers:
            tables += [option for option, node in nodes.items() if node.get("citation") in papers]
        elif name in nodes:
            tables.append(name)
        else:
            raise ConfigError(f"{name}: no such table or paper. {nearest(name, nodes)}")
    return list(dict.fromkeys(tables))


# ---------------------------------------------------------------- on the terminal


def print_papers(rows: Sequence[Mapping[str, Any]]) -> None:
    """By paper, a table of its tables and figures."""
    for citation in dict.fromkeys(row["citation"] for row in rows):
        of_paper = [row for row in rows if row["citation"] == citation]
        print_rich(of_paper[0]["title"])
        print_rich(wrapped(citation, 2))
        table = rich_table("paper=", "is", "rows>", "runs>", "reported numbers")
        for column in table.columns[:-1]:
            column.no_wrap = True
        for row in of_paper:
            size = [str(len(row["rows"])), str(row["runs"])]
            columns = ", ".join(row["columns"]) or "none, a figure"
            same = [other["paper"] for other in of_paper if other["table"] == row["table"]]
            if row["paper"] == row["dataset"] and len(same) > 1:
                columns = f"as {same[1]}; for dataset={row['dataset']}"
            table.add_row(row["paper"], row["table"], *size, columns)
        print_rich(table)
    print_rich(
        wrapped(
            "medexp train -m paper=NAME makes the runs that are missing and the table. "
            "paper.budget=smoke (seconds a run), quick (minutes) or full; source=phantom where "
            "the images are not here. A call of dataset= and model= alone is not the paper's run, "
            "and its table says DEVIATES; recipe=NAME, or the row itself, is. "
            "medexp papers audit NAME: what the reported numbers say of each other."
        )
    )


def print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """By paper, what contradicts first; text of at most 80 columns."""
    for title in dict.fromkeys(finding["paper"] for finding in findings):
        by_verdict = {
            verdict: [f for f in findings if (f["paper"], f["verdict"]) == (title, verdict)]
            for verdict in VERDICTS
        }
        print(title)
        counts = (
            f"{verdict}: {len(ones)}"
            for verdict, ones in by_verdict.items()
            if ones or verdict == "contradicts"
        )
        print(wrapped("; ".join(counts), hanging=2) + "\n")
        for verdict, ones in by_verdict.items():
            for where, claim, texts in grouped(ones):
                print(wrapped(f"{verdict.upper()}: {where}", hanging=2))
                print(wrapped(claim, 4, 2))
                for text in texts:
                    print(wrapped(text, 6, 2))
            if ones:
                print()


def grouped(findings: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Findings of one claim under one head: (table, claim, a line of arithmetic each)."""
    heads: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        where, _, row = finding["where"].partition(", ")
        text = f"{row}: {finding['arithmetic']}" if row else finding["arithmetic"]
        heads.setdefault((where, finding["claim"]), []).append(text)
    return [(where, claim, texts) for (where, claim), texts in heads.items()]
