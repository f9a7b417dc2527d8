"""`medexp data check | explore | cache`: look at a data set before a GPU-hour is spent on it.

What is heavy is imported inside the commands, so that their help is quick.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from medexp import __version__
from medexp.cli.terminal import parser, print_rich, rich_table
from medexp.config.compose import compose
from medexp.config.settings import Settings
from medexp.errors import ConfigError, MedexpError, nearest

OVERVIEW = """\
usage: medexp data ACTION [options]

  medexp data check dataset=pcam      what would falsify a result: copies,
                                      patients across splits, bad files
  medexp data explore dataset=cervix  PCA, t-SNE, classes, samples as figures
  medexp data cache                   what the cache holds; --clear empties it

  medexp data ACTION --help           options and examples of an action
"""


def data(arguments: list[str]) -> int:
    """Dispatch `medexp data ACTION`."""
    words = [word for word in arguments if word[:1] != "-" and "=" not in word]
    action = next((word for word in words if word in ACTIONS), None)
    if action is None:
        if "-h" in arguments or "--help" in arguments:
            print(OVERVIEW, end="")
            return 0
        if not words:
            raise ConfigError(f"data: do what? Give an action: medexp data {', '.join(ACTIONS)}")
        raise ConfigError(f"data {words[0]}: no such action. {nearest(words[0], ACTIONS)}")
    rest = list(arguments)
    rest.remove(action)
    return ACTIONS[action](rest)


def overrides_parser(command: str, text: str, examples: str) -> argparse.ArgumentParser:
    made = parser(command, text, examples)
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as in medexp train")
    made.add_argument("--out", metavar="DIR", type=Path, help="instead of outputs/data/...")
    return made


def target(out: Path | None, settings: Settings) -> Path:
    """The folder to write to; none that holds something is ever written over."""
    if out is None:
        name, now = settings.names.dataset, time.time()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
        return Path("outputs") / "data" / name / f"{stamp}-{int(now % 1 * 1e6):06d}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"--out {out}: holds something already, and medexp never writes over it. Choose "
            "another folder"
        )
    return out


def make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedexpError(
            f"{folder}: cannot be made ({error.strerror}). Choose another folder with --out"
        ) from None
    return folder


# ---------------------------------------------------------------- check


def check(arguments: list[str]) -> int:
    p = overrides_parser(
        "data check",
        "Check a data set as a run would read it: sizes, intensities, classes, copies,\n"
        "near duplicates, patients or slides across splits, unreadable files. Writes\n"
        "fingerprint.json and index.html (one file, for any browser).\n"
        "Exit code 1 where something would falsify a result.",
        "  medexp data check dataset=pcam\n"
        "  medexp data check dataset=pcam dataset.split=random\n"
        "  medexp data check dataset=all dataset.file_list=cnmc2019_filelist.csv\n"
        "  medexp data check source=phantom --json\n",
    )
    p.add_argument("--json", action="store_true", help="machine-readable, to standard output")
    args = p.parse_intermixed_args(arguments)
    settings = compose(args.overrides, arguments)
    folder = target(args.out, settings)

    from medexp.jobs.datacheck import examine, write_report

    report, data = examine(settings)
    report["made"] = {
        "by": f"medexp {__version__}",
        "command": os.environ.get("MEDEXP_COMMAND", "medexp data check"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    page = write_report(make(folder), report, data)
    if args.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_check(report)
    # A path is never wrapped; in JSON's standard output it would be in the way.
    print(page, file=sys.stderr if args.json else sys.stdout)
    return 1 if report["faults"] else 0


def print_check(report: Mapping[str, Any]) -> None:
    """The findings within 80 columns."""
    shape = report["image_shape"]
    what = f"{'x'.join(map(str, shape))} {report['dtype']}" if shape else "a list of files"
    print_rich(f"{report['dataset']}: {what}")
    for mark, reason in report["marks"].items():
        print_rich(f"{mark}: {reason}")
    if report["partial"]:
        print_rich(f"PARTIAL: {'; '.join(report['partial'])}")
    print_rich(splits_table(report))
    if report.get("histogram"):
        print_rich(intensity_table(report))
    if report.get("files"):
        print_rich(files_table(report["files"]))
    if report.get("folds"):
        print_folds(report)
    print_rich(across_table(report))
    for reason in list((report.get("unreadable") or {}).values())[1:5]:  # a fault names the first
        print_rich(f"unreadable: {reason}")
    for note in report["notes"]:
        print_rich(f"note: {note}")
    for warning in report["warnings"]:
        print_rich(f"warning: {warning}")
    for fault in report["faults"]:
        print_rich(f"FAULT: {fault}")
    if not report["faults"]:
        print_rich("Nothing found that would falsify a result.")


def splits_table(report: Mapping[str, Any]) -> Any:
    """Counts, copies and near duplicates within each split, and its digest."""
    near = (report.get("near_duplicates") or {}).get("within")
    rows = []
    for part, split in report["splits"].items():
        each = split["images_per_group"]
        rows.append(
            {
                "split": part,
                "images>": f"{split['images']:,}",
                "per class": "\n".join(
                    f"{name} {count:,} ({split['share_of_class'][name]:.0%})"
                    for name, count in split["per_class"].items()
                ),
                "patients>": each and f"{split['groups']:,}\n{each['min']:,}..{each['max']:,} each",
                "copies>": f"{report['duplicates_within'][part]:,}",
                "near pairs>": near and f"{near[part]:,}",
                "blake2b": split.get("blake2b", "")[:8],
            }
        )
    return filled(rows)


def filled(rows: list[dict[str, Any]]) -> Any:
    """A table of rows: column -> cell, without the columns that are empty in all of them."""
    kept = [column for column in rows[0] if any(row[column] for row in rows)]
    table = rich_table(*kept)
    for row in rows:
        table.add_row(*(row[column] for column in kept))
    return table


def intensity_table(report: Mapping[str, Any]) -> Any:
    table = rich_table("intensities", "least>", "greatest>", "mean>", "std>", "blank images>")
    for part, split in report["splits"].items():
        numbers = split["intensity"] or {}
        cells = [f"{numbers[key]:.4g}" if numbers else "" for key in ("min", "max", "mean", "std")]
        table.add_row(part, *cells, f"{split['blank']:,}")
    return table


def files_table(files: Mapping[str, Any]) -> Any:
    table = rich_table("the files say", "distinct>", "range", "commonest")
    for key, one in files.items():
        span = f"{spell(one['min'])} to {spell(one['max'])}" if "min" in one else ""
        common = ", ".join(f"{spell(value)} ({count:,})" for value, count in one["commonest"][:3])
        table.add_row(key, f"{one['distinct']:,}", span, common)
    return table


def spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "x".join(map(spell, value)) if isinstance(value, list) else str(value)


def across_table(report: Mapping[str, Any]) -> Any:
    """What two splits have in common."""
    near = report.get("near_duplicates")
    rows = []
    for first, second in combinations(report["splits"], 2):
        pair = f"{first}/{second}"
        copies = report["duplicates_across"].get(pair, {})
        shared = (report["shared_groups"] or {}).get(pair)
        rows.append(
            {
                "across": f"{first} and {second}",
                "equal images>": f"{copies.get('contents', 0):,}",
                "near pairs>": near and f"{near['across'].get(pair, {}).get('pairs', 0):,}",
                "patients in both>": "unknown" if shared is None else f"{shared['groups']:,}",
                "of the second>": shared and f"{shared[f'share_of_{second}']:.1%}",
            }
        )
    return filled(rows)


def print_folds(report: Mapping[str, Any]) -> None:
    """The folds that a data set comes with: their counts, and what two of them share."""
    folds = report["folds"]
    table = rich_table("fold", "images>", "per class", "patients>")
    for fold, one in folds["folds"].items():
        classes = ", ".join(f"{name} {count:,}" for name, count in one["per_class"].items())
        groups = "" if one["groups"] is None else f"{one['groups']:,}"
        table.add_row(fold, f"{one['images']:,}", classes, groups)
    print_rich(table)
    for key, what in (("shared_groups", "patients"), ("shared_copies", "equal files")):
        if folds[key] is not None:
            pairs = ", ".join(f"{pair}: {count:,}" for pair, count in folds[key].items())
            print_rich(f"{what} in two folds: {pairs}")


# ---------------------------------------------------------------- explore


def explore(arguments: list[str]) -> int:
    p = overrides_parser(
        "data explore",
        "Figures of a data set (PNG): PCA and t-SNE by class, classes per split, samples\n"
        "and, where the data set can be segmented, the steps of a segmentation.\n"
        "PCA is of 32x32 pixels and t-SNE of its first 50 components. With --side 0 PCA\n"
        "is of all stored pixels, at 4 bytes a number: 0.5 GB for the cervix.\n"
        'Figures 3 and 4 of the cervix paper are of "the raw images values" and of the\n'
        "first 3 (its section 4) or 4 (its Figure 4) components: the second example.",
        "  medexp data explore dataset=cervix\n"
        "  medexp data explore dataset=cervix --side 0 --components 4\n"
        "  medexp data explore dataset=cervix --images 500 --perplexity 15\n"
        "  medexp data explore source=phantom --out figures\n",
    )
    p.add_argument("--images", type=int, default=2000, help="projected at most (default 2000)")
    p.add_argument("--seed", type=int, default=0, help="of that choice, PCA and t-SNE (default 0)")
    p.add_argument("--perplexity", type=float, default=30.0, help="of t-SNE (default 30)")
    p.add_argument("--samples", type=int, default=8, help="of each class (default 8)")
    p.add_argument("--side", type=int, default=32, help="pixels; 0: all (default 32)")
    p.add_argument("--components", type=int, default=50, help="of t-SNE (default 50)")
    args = p.parse_intermixed_args(arguments)

    from medexp.data.load import load_data
    from medexp.jobs.explore import Exploration, explore_data

    options = Exploration(
        images=args.images,
        seed=args.seed,
        perplexity=args.perplexity,
        samples=args.samples,
        side=args.side,
        components=args.components,
    )
    settings = compose(args.overrides, arguments)
    folder = target(args.out, settings)
    data = load_data(settings, examine=True)
    for path in explore_data(settings, data, options, make(folder)):
        print(path)
    return 0


# ---------------------------------------------------------------- cache


def cache(arguments: list[str]) -> int:
    p = parser(
        "data cache",
        "What the cache holds: decoded images and phantoms, each made once. It lies in\n"
        "$MEDEXP_CACHE, else $XDG_CACHE_HOME/medexp, else ~/.cache/medexp.\n"
        "All of it can be made again: --clear loses time only.",
        "  medexp data cache\n"
        "  medexp data cache --clear\n"
        "  MEDEXP_CACHE=/scratch/medexp medexp data cache --json\n",
    )
    p.add_argument("--clear", action="store_true", help="remove everything that is not in use")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(arguments)

    from medexp.data.cache import cache_dir, clear, entries

    held = entries()
    if not args.json:
        if held:
            print_rich(cache_table(held))
        total = size_of(sum(entry["bytes"] for entry in held))
        print(f"{cache_dir()}: {count_entries(len(held))}, {total}")  # a path is never wrapped
    freed, busy = clear() if args.clear else (0, [])
    if args.json:
        removed = {"freed_bytes": freed, "in_use": busy} if args.clear else {}
        print(json.dumps({"path": str(cache_dir()), "entries": held, **removed}, indent=2))
    elif args.clear:
        print_rich(f"Removed {count_entries(len(held) - len(busy))}, {size_of(freed)}.")
        for name in busy:
            print_rich(f"Kept {name}: another process is building it.")
    return 0


def cache_table(held: list[dict[str, Any]]) -> Any:
    table = rich_table("data set", "what", "images>", "size>", "age>", "entry")
    for entry in held:
        name = str(entry.get("dataset") or entry["name"].rpartition(".write")[0].split(".")[-1])
        table.add_row(
            name or entry["name"],
            {"arrays": "images", "building": "unfinished"}.get(entry["kind"], entry["kind"]),
            f"{entry['images']:,}" if "images" in entry else "",
            size_of(entry["bytes"]),
            age_of(time.time() - entry["created"]),
            entry["name"],
        )
    return table


def count_entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def size_of(count: int) -> str:
    """Three digits and a unit: 9061797888 -> 9.06 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def age_of(seconds: float) -> str:
    """The largest whole unit: 7300 -> 2 h."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"


ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "check": check,
    "explore": explore,
    "cache": cache,
}
