"""The plain commands `medexp models` and `medexp datasets`, and what the others share with them.

Torch and the libraries behind it are imported inside the commands, so that their help is quick.
"""

import argparse
import importlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexp.config.compose import compose_node
from medexp.config.groups import header, options
from medexp.config.settings import ModelNode
from medexp.errors import one_of

if TYPE_CHECKING:
    pass


def parser(
    command: str, text: str, examples: str, program: str = "medexp"
) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"{program} {command}".strip(),
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-dir", metavar="DIR", help="groups and modules of your own")
    return made


def models(arguments: list[str]) -> int:
    p = parser(
        "models",
        "The networks: paper, input, parameters, cost, does the paper's count agree?\n"
        "With a name, the layers of that network as Keras' summary prints them.",
        "  medexp models\n  medexp models native3\n  medexp models --json",
    )
    p.add_argument("name", nargs="?", help="print this network's layers")
    p.add_argument("--json", action="store_true", help="machine-readable")
    given = p.parse_intermixed_args(arguments)
    names = options("model", arguments)
    if given.name:
        one_of("model", given.name, names)
    nodes = {
        name: ModelNode(compose_node("model", name, arguments))
        for name in ([given.name] if given.name else names)
    }
    if given.name:
        return print_layers(given.name, nodes[given.name], as_json=given.json)
    from medexp.models.counts import model_layers, model_row  # torch

    rows = [model_row(name, node, model_layers(node)) for name, node in nodes.items()]
    if given.json:
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


def datasets(arguments: list[str]) -> int:
    p = parser(
        "datasets",
        "The data sets: source, licence, size, and whether they are here.",
        "  medexp datasets\n  MEDEXP_DATA=/data medexp datasets --json",
    )
    p.add_argument("--json", action="store_true", help="machine-readable")
    given = p.parse_intermixed_args(arguments)

    rows = dataset_rows(arguments)
    if given.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        found = {True: "found in", False: "not found in", None: ""}[row["found"]]
        facts = [row["licence"], row["size"], f"{found} {row['root'] or ''}".strip()]
        lines = ["; ".join(fact for fact in facts if fact), *filter(None, [row["url"]])]
        print(textwrap.fill(f"{row['dataset']}: {row['title']}", 80, subsequent_indent="    "))
        for line in lines:
            print(textwrap.indent(textwrap.fill(line, 76, break_long_words=False), "    "))
    return 0


def rich_table(*columns: str) -> Any:
    """A table whose columns named with a final `>` are set flush right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column[-1] == ">" else "left")
    return table


def print_rich(content: Any) -> None:
    from rich.console import Console

    Console().print(content, markup=False, highlight=False)


def dataset_rows(arguments: list[str]) -> list[dict[str, Any]]:
    """One row a data set option: its public facts, where it is looked for, whether it is there."""
    rows = []
    for name in options("dataset", arguments):
        node = compose_node("dataset", name, arguments)
        module = importlib.import_module(str(node["_target_"]).rpartition(".")[0])
        info = getattr(module, "INFO", None)
        root = Path(node["root"]) if "root" in node else None
        rows.append(
            {
                "dataset": name,
                "title": info.title if info else header("dataset", name, arguments),
                "classes": list(info.classes) if info else None,
                "counts": info.counts if info else None,
                "licence": info.licence if info else None,
                "size": info.size if info else None,
                "url": info.url if info else None,
                "root": str(root) if root else None,
                "found": root.is_dir() if root else None,
                "phantom": bool(node.get("phantom")),
            }
        )
    return rows
