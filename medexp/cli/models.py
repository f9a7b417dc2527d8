"""`medexp models`: the networks, and whether their parameters are those that the papers report.

Torch and the libraries behind it are imported inside the command, so that its help is quick.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medexp.cli.terminal import parser, print_rich, rich_table
from medexp.config.compose import compose_node
from medexp.config.groups import options
from medexp.config.settings import ModelNode
from medexp.errors import one_of


def models(arguments: list[str]) -> int:
    """Print the networks' counts and verdicts, or the layers of one."""
    p = parser(
        "models",
        "The networks: paper, input, parameters, cost, does the paper's count agree?\n"
        "With a name, the layers of that network as Keras' summary prints them.",
        "  medexp models\n  medexp models native3\n  medexp models --json",
    )
    p.add_argument("name", nargs="?", help="print this network's layers")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(arguments)
    names = options("model", arguments)
    if args.name:
        one_of("model", args.name, names)
    nodes = {
        name: ModelNode(compose_node("model", name, arguments))
        for name in ([args.name] if args.name else names)
    }
    if args.name:
        return print_layers(args.name, nodes[args.name], as_json=args.json)
    from medexp.models.counts import model_layers, model_row  # torch

    rows = [model_row(name, node, model_layers(node)) for name, node in nodes.items()]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for paper in dict.fromkeys(row["paper"] for row in rows):
        print_models(paper, [row for row in rows if row["paper"] == paper])
    print_rich(
        "Parameters as Keras counts them: total has the statistics of BatchNorm. MACs: multiply-"
        "adds of a forward pass of one image; memory: its layers' outputs in float32."
    )
    return 0


def print_models(paper: str | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """One paper's networks: a table within 80 columns, and the notes that explain its verdicts."""
    from rich import box

    table = rich_table("network", "input", "trainable>", "total>", "MACs>", "memory>", "verdict")
    table.title = paper or "Without a paper"
    table.box, table.padding = box.HORIZONTALS, (0, 1, 0, 0)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in rows:
        table.add_row(
            row["model"],
            "x".join(map(str, row["input"])),
            f"{row['trainable']:,}",
            f"{row['total']:,}",
            short(row["multiply_adds"]),
            short(row["activation_bytes"]) + "B",
            row["verdict"],
        )
    print_rich(table)
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):
        names = "; ".join(f"{r['model']} ({r['where']})" for r in rows if r["note"] == note)
        print_rich(f"{names}: {note}")
    print_rich("")


def short(number: int) -> str:
    """Three digits and a decimal prefix: 15470264320 -> 15.5G."""
    value, prefixes = float(number), iter(" kMGT")
    prefix = next(prefixes)
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g}{prefix}".strip()


def print_layers(name: str, node: Mapping[str, Any], *, as_json: bool) -> int:
    """The layer table of one network at its paper's input."""
    from medexp.models import summary
    from medexp.models.counts import model_layers, model_row

    layers = model_layers(node)
    row = model_row(name, node, layers)
    if as_json:
        print(json.dumps(row | {"layers": [asdict(layer) for layer in layers]}, indent=2))
        return 0
    print_rich(f"{name}: {row['paper']}, {row['where']}; input {row['input']}")
    print_rich(summary.layer_table(layers))
    reported = "" if row["reported"] is None else f" of {row['reported']:,} reported"
    print_rich(f"Verdict: {row['verdict']}{reported}. {row['note'] or ''}")
    return 0
