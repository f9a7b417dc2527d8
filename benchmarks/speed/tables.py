"""What the comparison shows: a table within 80 columns, and Markdown for benchmarks/RESULTS.md."""

from collections.abc import Mapping
from typing import Any

from medexp.cli.terminal import print_rich, rich_table

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WORK = {"bare": "The bare step", "medexp": "medexp's training"}
GB = 1e9
TITLES = [
    "with",
    "in",
    "images/s",
    "min..max",
    "medexp's\nratio",
    "first\nstep",
    "RAM\nGB",
    "GPU\nGB",
]

# The JSON is what all else is made from: `result` below is results.summary()'s.
Result = Mapping[str, Any]


def rows(result: Result) -> list[list[str]]:
    """The table's cells, the titles first; without an accelerator there is no column for it."""
    found = [
        TITLES,
        *(row(name, one, result["ratios"].get(name)) for name, one in result["measured"].items()),
    ]
    if not any(line[-1] for line in found[1:]):
        found = [line[:-1] for line in found]
    return found


def row(name: str, one: Mapping[str, Any], ratio: Mapping[str, Any] | None) -> list[str]:
    speed, first, device = one["images_per_s"], one["first_step"], one["device_memory"]
    return [
        name,
        PRECISIONS.get(one["precision"], one["precision"]),
        grouped(speed["median"]),
        between(speed["low"], speed["high"]),
        "" if ratio is None else spread(ratio),
        "" if first is None else f"{three(first['median'])} s",
        three(one["memory"]["median"] / GB),
        "" if device is None else three(device["median"] / GB),
    ]


def grouped(value: float) -> str:
    """1,234 or, of few, 3.46."""
    return f"{value:,.0f}" if value >= 10 else three(value)


def three(value: float) -> str:
    """About three digits, the zeros at the end kept: 0.95, 12.3, 125."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def spread(values: Mapping[str, Any]) -> str:
    return f"{three(values['median'])} ({three(values['low'])}..{three(values['high'])})"


def short(value: float) -> str:
    """Three digits and a prefix: 2610 -> 2.61k."""
    prefixes = iter(["", "k", "M", "G", "T", "P"])
    prefix = next(prefixes)
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:#.3g}".rstrip(".") + prefix


def between(low: float, high: float) -> str:
    """Both in one unit, that of the larger: 2.34..2.86k."""
    unit = short(high).lstrip("0123456789.")
    scale = 1000.0 ** ["", *"kMGTP"].index(unit)
    return f"{three(low / scale)}..{three(high / scale)}{unit}"


def rate(value: float, unit: str) -> str:
    """2.67e11 FLOP/s -> 267 GFLOP/s."""
    text = short(value)
    digits = text.rstrip("kMGTP")
    return f"{digits} {text[len(digits) :]}{unit}"


def notes(result: Result) -> list[str]:
    """What is said below the table, one sentence or two a line."""
    said = []
    if share := result["share_of_bare"]:
        said.append(
            f"Of the bare step's speed medexp reaches {spread(share['epoch'])} with data, "
            f"augmentation and validation, {spread(share['training'])} in the training alone."
        )
    if ceilings := result["ceilings"]:
        said.append(
            f"Ceilings measured: {rate(ceilings['flops']['median'], 'FLOP/s')} "
            f"({PRECISIONS[ceilings['precision']]} matrix product), "
            f"{rate(ceilings['bytes']['median'], 'B/s')} (copy, read plus written)."
        )
        said += [
            f"{WORK[name]} computes {rate(one['flops'], 'FLOP/s')} "
            f"({one['flops_share']:.1%} of that) and moves at least {rate(one['bytes'], 'B/s')} "
            f"({one['bytes_share']:.1%})."
            for name, one in result["achieved"].items()
        ]
    said += [f"{name}: {reason}" for name, reason in result["left_out"].items()]
    load, cores = result["machine"]["load"], result["machine"]["cores"]
    if load > 0.5 * cores:
        said.append(
            f"The machine was busy at the start (load {load:.1f} on {cores} cores): trust the "
            "ratios only, and these with care."
        )
    return said


def markdown(result: Result) -> str:
    """A section of benchmarks/RESULTS.md: what was run where, the table, what it says."""
    title, *body = rows(result)
    title = [name.replace("\n", " ") for name in title]
    right = ["---", "---"] + ["---:"] * (len(title) - 2)
    lines = [
        f"## {heading(result)}",
        "",
        f"`{result['command']}`",
        "",
        *(f"{line}  " for line in conditions(result)),
        "",
        *("| " + " | ".join(cells) + " |" for cells in (title, right, *body)),
        "",
        *(f"- {line}" for line in notes(result)),
        "",
    ]
    return "\n".join(lines)


def heading(result: Result) -> str:
    work = result["work"]
    return f"{work['model']} on {work['data']}, batch {work['batch_size']}"


def conditions(result: Result) -> list[str]:
    machine, work = result["machine"], result["work"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    commit = f", commit {result['commit'][:12]}" if result["commit"] else ""
    return [
        f"{work['images']['train']:,} training and {work['images']['val']:,} validation images of "
        f"{'x'.join(map(str, work['shape']))}, {work['epochs']} epochs a run of which the first "
        f"is not counted, {work['rounds']} rounds interleaved. RAM is the largest process's peak.",
        f"{machine['name']}, {machine['cores']} cores, {machine['memory'] / GB:.0f} GB; "
        f"{result['time']}{commit}.",
        f"{versions}.",
    ]


def show(result: Mapping[str, Any]) -> None:
    """The table and what it says, within 80 columns."""
    from rich import box

    title, *body = rows(result)
    table = rich_table(*title[:2], *(f"{name}>" for name in title[2:]))
    table.box, table.padding = box.HORIZONTALS, (0, 1 if len(title) < 8 else 0, 0, 0)
    table.title = heading(result)
    for column in table.columns:
        column.no_wrap = True
    for cells in body:
        table.add_row(*cells)
    print_rich(table)
    for line in notes(result):
        print_rich(line)
