"""The plain commands: `medexp models`, `datasets`, `data check` and `report`.

Torch and the libraries behind it are imported inside the commands, so that their help is quick.
"""

import argparse
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.compose import compose, instantiate, options


def parser(command: str, text: str, examples: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"medexp {command}",
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-dir", metavar="DIR", help="groups and modules of your own")
    return made


def models(arguments: list[str]) -> int:
    p = parser(
        "models",
        "The networks: paper, input, parameters, and whether the paper's count agrees.",
        "  medexp models\n  medexp models --json",
    )
    p.add_argument("--json", action="store_true", help="machine-readable")
    given = p.parse_intermixed_args(arguments)

    rows = model_rows(arguments)
    if given.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = rich_table("model", "where", "input", "trainable>", "reported>", "verdict")
    for row in rows:
        reported = "" if row["reported"] is None else f"{row['reported']:,}"
        size = "x".join(map(str, row["input"]))
        table.add_row(
            row["model"], row["where"], size, f"{row['trainable']:,}", reported, row["verdict"]
        )
    print_rich(table)
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):
        names = ", ".join(row["model"] for row in rows if row["note"] == note)
        print_rich(f"{names}: {note}")
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
    table = rich_table("dataset", "title", "licence", "size", "looked for in", "found")
    for row in rows:
        found = {True: "yes", False: "no", None: ""}[row["found"]]
        table.add_row(row["dataset"], row["title"], row["licence"], row["size"], row["root"], found)
    print_rich(table)
    for row in rows:
        if row["url"]:
            print_rich(f"{row['dataset']}: {row['url']}")
    return 0


def data(arguments: list[str]) -> int:
    p = parser(
        "data",
        "Check a data set as a run would read it: counts per split and class, digests,\n"
        "byte-identical images and patients or slides across splits.\n"
        "Exit code 1 where something would falsify a result.",
        "  medexp data check dataset=pcam\n"
        "  medexp data check dataset=pcam dataset.split=random\n"
        "  medexp data check source=phantom --json",
    )
    p.add_argument("action", choices=["check"])
    p.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    p.add_argument("--json", action="store_true", help="machine-readable")
    given = p.parse_intermixed_args(arguments)
    settings = compose(given.overrides, arguments)

    from rich.console import Console
    from rich.progress import Progress

    from medexp.data.check import check
    from medexp.experiment import load_data

    loaded = load_data(settings)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("checking", total=sum(map(len, loaded.splits().values())))
        found = check(loaded, step=lambda images: progress.advance(bar, images))
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print_check(found)
    return 1 if found["faults"] else 0


def print_check(found: dict[str, Any]) -> None:
    shape = "x".join(map(str, found["image_shape"]))
    table = rich_table("split", "images>", "per class", "groups>", "copies>", "blake2b")
    table.title = f"{found['dataset']}: {shape} {found['dtype']}"
    for name, split in found["splits"].items():
        classes = ", ".join(f"{key} {count:,}" for key, count in split["per_class"].items())
        groups = "" if split["groups"] is None else f"{split['groups']:,}"
        copies = str(found["duplicates_within"][name])
        table.add_row(name, f"{split['images']:,}", classes, groups, copies, split["blake2b"][:12])
    print_rich(table)
    for note in [*found["partial"], *found["notes"]]:
        print_rich(f"note: {note}")
    if found["shared_groups"] is None:
        print_rich("note: no patient or slide is known, so none could be followed across splits")
    for fault in found["faults"]:
        print_rich(f"FAULT: {fault}")
    if not found["faults"]:
        print_rich("Nothing found that would falsify a result.")


def report(arguments: list[str]) -> int:
    p = parser(
        "report",
        "The table of run or sweep directories, beside the paper's where there is one.",
        "  medexp report outputs/pcam-native3/*\n  medexp report outputs/sweeps/TIME",
    )
    p.add_argument("folders", nargs="+", metavar="DIR", type=Path)
    show(p.parse_intermixed_args(arguments).folders)
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


def show(folders: Sequence[Path]) -> None:
    """Print the table of run or sweep directories, and where they are."""
    from medexp.report import load, render, tables

    if not folders:
        return
    render.show(tables.tables(load.find_runs(folders)))
    for folder in folders:
        print(folder)


def model_rows(arguments: list[str]) -> list[dict[str, Any]]:
    """One row a model option: what its paper reports beside what it counts, and the verdict."""
    return [
        model_row(name, compose([f"model={name}"], arguments)["model"])
        for name in options("model", arguments)
    ]


def model_row(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Build the network on the meta device, at its paper's input, and count."""
    import torch

    from medexp.experiment import parameter_counts

    about = node.get("about") or {}
    channels, *size = about.get("input", [3, 96, 96])
    classes = about.get("classes", 2)
    with torch.device("meta"):
        network = instantiate(
            "model", node, num_classes=classes, in_channels=channels, image_size=tuple(size)
        )
    count, reported = parameter_counts(network), about.get("reported_parameters")
    return {
        "model": name,
        "paper": about.get("paper"),
        "where": about.get("where"),
        "input": [channels, *size],
        **count,
        "reported": reported,
        "verdict": verdict(count["trainable"], reported),
        "note": about.get("note"),
    }


def verdict(counted: int, reported: int | None) -> str:
    """`agrees`, `differs` (by how much: ours less the paper's) or `not reported`."""
    if reported is None:
        return "not reported"
    return "agrees" if counted == reported else f"differs ({counted - reported:+,})"


def dataset_rows(arguments: list[str]) -> list[dict[str, Any]]:
    """One row a data set option: its public facts, where it is looked for, whether it is there."""
    rows = []
    for name in options("dataset", arguments):
        node = compose([f"dataset={name}"], arguments)["dataset"]
        module = importlib.import_module(str(node["_target_"]).rpartition(".")[0])
        info = getattr(module, "INFO", None)
        root = Path(node["root"]) if "root" in node else None
        rows.append(
            {
                "dataset": name,
                "title": info.title if info else None,
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
