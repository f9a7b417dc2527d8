"""`medexp papers`: the papers' tables that can be made again, and the audit of their numbers."""

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.cli.listing import parser, print_rich, rich_table
from medexp.config.compose import compose_node
from medexp.config.groups import options
from medexp.config.paper import BUDGETS, Paper, parse_paper
from medexp.errors import ConfigError, nearest
from medexp.jobs.audit import audit_of
from medexp.jobs.paper import plan

VERDICTS = ("contradicts", "cannot be checked", "consistent")
WIDTH = 80


def papers(arguments: list[str]) -> int:
    p = parser(
        "papers",
        "The papers: which of their tables and figures can be made again, and how.\n"
        "With audit, what can be checked inside their reported numbers: each finding\n"
        "with its arithmetic. NAME is a table (pcam_table3) or a whole paper (pcam).",
        "  medexp papers\n  medexp papers audit\n  medexp papers audit pcam cervix_table5 --json\n"
        "  medexp papers audit mine --config-dir DIR     DIR/paper/mine.yaml",
    )
    p.add_argument("action", nargs="?", choices=("list", "audit"), default="list")
    p.add_argument("names", nargs="*", metavar="NAME", help="tables or papers; none: all")
    p.add_argument("--json", action="store_true", help="machine-readable")
    given = p.parse_intermixed_args(arguments)
    nodes = paper_nodes(arguments)
    show: Callable[[list[dict[str, Any]]], None]
    if given.action == "audit":
        names = chosen(given.names, nodes) if given.names else list(nodes)
        rows, show = audit_of([nodes[name] for name in names], arguments), print_findings
    else:
        rows, show = [paper_line(n, parse_paper(node)) for n, node in nodes.items()], print_papers
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
    return 0


def paper_nodes(arguments: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Option -> its `paper` node, as a run has it in its config.yaml."""
    found = {}
    for name in options("paper", arguments):
        found[name] = compose_node("paper", name, arguments)
        if not isinstance(found[name], dict):
            raise ConfigError(f"paper={name}: composes to no table")
    return found


def chosen(names: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The options that names mean: a table, or with the name of a data set all of its paper."""
    found: list[str] = []
    for name in names:
        papers = {node.get("citation") for node in nodes.values() if node.get("dataset") == name}
        if papers:
            found += [option for option, node in nodes.items() if node.get("citation") in papers]
        elif name in nodes:
            found.append(name)
        else:
            raise ConfigError(f"{name}: no such table or paper. {nearest(name, nodes)}")
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- the list


def paper_line(name: str, paper: Paper) -> dict[str, Any]:
    """What `medexp papers --json` says of one table or figure.

    columns: those with reported numbers. runs: how many make it in full, with those that rows start
    from. command: makes them.
    """
    reported = {column for row in paper.rows for column in row.reported}
    runs = any(row.run for row in paper.rows)
    return {
        "paper": name,
        "title": paper.title,
        "citation": paper.citation,
        "table": paper.table,
        "dataset": paper.dataset,
        "rows": [row.label for row in paper.rows],
        "columns": [column.name for column in paper.columns if column.name in reported],
        "runs": len(plan(paper, {}, root=Path(), budget="full")) if runs else 0,
        "budgets": [budget for budget in BUDGETS if budget in paper.budgets],
        "figures": [str(figure.get("title") or figure["draw"]) for figure in paper.figures],
        "command": f"medexp train -m paper={name}",
    }


def print_papers(rows: Sequence[Mapping[str, Any]]) -> None:
    for citation in dict.fromkeys(row["citation"] for row in rows):
        own = [row for row in rows if row["citation"] == citation]
        print_rich(own[0]["title"])
        print_rich(textwrap.fill(citation, WIDTH, initial_indent="  ", subsequent_indent="  "))
        table = rich_table("paper=", "is", "rows>", "runs>", "reported numbers")
        for column in table.columns[:-1]:
            column.no_wrap = True
        for row in own:
            size = [str(len(row["rows"])), str(row["runs"])]
            columns = ", ".join(row["columns"]) or "none, a figure"
            same = [other["paper"] for other in own if other["table"] == row["table"]]
            if row["paper"] == row["dataset"] and len(same) > 1:
                columns = f"as {same[1]}; for dataset={row['dataset']}"
            table.add_row(row["paper"], row["table"], *size, columns)
        print_rich(table)
    print_rich(
        textwrap.fill(
            "medexp train -m paper=NAME makes the runs that are missing and the table. "
            "paper.budget=smoke (seconds a run), quick (minutes) or full; source=phantom where "
            "the images are not here. medexp papers audit NAME: what the reported numbers say of "
            "each other.",
            WIDTH,
        )
    )


def print_findings(found: Sequence[Mapping[str, Any]]) -> None:
    """By paper, what contradicts first; text of at most 80 columns."""
    for title in dict.fromkeys(one["paper"] for one in found):
        own = [one for one in found if one["paper"] == title]
        counts = [f"{v}: {sum(o['verdict'] == v for o in own)}" for v in VERDICTS]
        print(f"{title}\n{', '.join(counts)}\n")
        for verdict in VERDICTS:
            heads = grouped([one for one in own if one["verdict"] == verdict])
            for where, claim, texts in heads:
                print(fill(f"{verdict.upper()}: {where}", 0))
                print(fill(claim, 4))
                for text in texts:
                    print(fill(text, 6))
            if heads:
                print()


def grouped(
    found: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str, list[str]]]:
    """Findings of one claim under one head: (table, claim, a line of arithmetic each)."""
    heads: dict[tuple[str, str], list[str]] = {}
    for one in found:
        where, _, row = one["where"].partition(", ")
        text = f"{row}: {one['arithmetic']}" if row else one["arithmetic"]
        heads.setdefault((where, one["claim"]), []).append(text)
    return [(where, claim, texts) for (where, claim), texts in heads.items()]


def fill(text: str, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(
        text, WIDTH, initial_indent=space, subsequent_indent=space + "  ", break_long_words=False
    )
