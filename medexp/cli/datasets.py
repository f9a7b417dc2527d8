"""`medexp datasets`: the data sets, and whether they are here."""

import json

from medexp.cli.terminal import parser, wrapped
from medexp.data.catalogue import dataset_rows

FOUND = {True: "found in", False: "not found in", None: ""}


def datasets(arguments: list[str]) -> int:
    """Print each data set's source, licence and size, and where it is looked for."""
    p = parser(
        "datasets",
        "The data sets: source, licence, size, and whether they are here.",
        "  medexp datasets\n  MEDEXP_DATA=/data medexp datasets --json",
    )
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(arguments)
    rows = dataset_rows(arguments)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        place = f"{FOUND[row['found']]} {row['root'] or ''}".strip()
        print(wrapped(f"{row['dataset']}: {row['title']}", hanging=4))
        print(wrapped("; ".join(filter(None, (row["licence"], row["size"], place))), 4))
        if row["url"]:
            print(wrapped(row["url"], 4))
    return 0
