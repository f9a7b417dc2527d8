"""`medexp data check | explore | cache`: look at a data set before a GPU-hour is spent on it.

What is heavy is imported inside the commands, so that their help is quick.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexp import __version__
from medexp.cli.listing import parser, print_rich, rich_table
from medexp.config.compose import compose
from medexp.config.settings import DatasetNode, Settings
from medexp.errors import ConfigError, MedexpError, nearest

if TYPE_CHECKING:
    import numpy as np

    from medexp.data import Dataset
    from medexp.report.page.datapage import Picture

SAMPLES = 8  # of each class on the page
NAMES = {"train": "training", "val": "validation", "test": "test"}

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
    given = p.parse_intermixed_args(arguments)
    settings = compose(given.overrides, arguments)
    folder = target(given.out, settings)

    found, data = examine(settings)
    found["made"] = {
        "by": f"medexp {__version__}",
        "command": os.environ.get("MEDEXP_COMMAND", "medexp data check"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if settings.source.kind == "phantom":
        size, seed = settings.source.size, settings.source.seed
        how = f"seed {seed}" if size is None else f"size {size}, seed {seed}"
        found["partial"] = []
        found["marks"] = {"PHANTOM": f"synthetic images, not patients ({how})", **found["marks"]}
    write_findings(make(folder), found, data)
    if given.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        print_check(found)
    # A path is never wrapped; in JSON's standard output it would be in the way.
    print(folder / "index.html", file=sys.stderr if given.json else sys.stdout)
    return 1 if found["faults"] else 0


def examine(settings: Settings) -> tuple[dict[str, Any], "Dataset | None"]:
    """What check() finds, and the data set it is of; None where only a list of files is known."""
    from dataclasses import replace

    from medexp.data import Dataset, Pool
    from medexp.data import load as sources
    from medexp.data.check import check, check_list
    from medexp.data.split import plan_rows
    from medexp.data.store import bar

    loaded = sources.load_pool(settings)
    plan = replace(settings.dataset.split, allow_leak=True, on_error="skip")
    if isinstance(loaded, Pool) and loaded.decode is None and loaded.array is None:
        planned = plan_rows(loaded, plan)
        found = check_list(loaded, planned.rows)
        found["notes"] += planned.notes
        found["marks"] |= {mark: why for mark, why in planned.marks.items() if mark != "LEAKY"}
        return found, None
    data = (
        sources.given_dataset(loaded, plan)
        if isinstance(loaded, Dataset)
        else sources.split_pool(loaded, plan)
    )
    with bar(f"checking {data.name}", sum(map(len, data.splits().values()))) as advance:
        return check(data, advance), data


def write_findings(folder: Path, found: Mapping[str, Any], data: "Dataset | None") -> None:
    from medexp.report.page.datapage import write_page
    from medexp.runs.files import write_json

    write_json(folder / "fingerprint.json", found)
    samples: dict[str, list[Picture]] = {}
    copies: list[list[Picture]] = []
    alike: list[list[Picture]] = []
    if data is not None:
        draw = artist(data, (found.get("histogram") or {}).get("shown", (0.0, 1.0)))
        samples = samples_of(data, draw)
        copies = [[draw(one) for one in group] for group in found["duplicates"]]
        alike = [
            [draw(one["first"]), draw(one["second"])]
            for one in found["near_duplicates"]["examples"]
        ]
    write_page(folder / "index.html", found, samples, copies, alike)


def artist(data: "Dataset", shown: tuple[float, float]) -> Callable[[Mapping[str, str]], "Picture"]:
    """Makes the picture of an image that a finding names by split, id and class."""
    import numpy as np

    from medexp.report.page.datapage import Picture, displayed

    def draw(one: Mapping[str, str]) -> Picture:
        split = data.splits()[one["split"]]
        row = int(np.flatnonzero(split.ids == one["id"])[0])
        text = f"{NAMES[one['split']]}, {one['class']}"
        return Picture(displayed(split.images[row], *shown), one["id"], text)

    return draw


def samples_of(
    data: "Dataset", draw: Callable[[Mapping[str, str]], "Picture"], count: int = SAMPLES
) -> dict[str, list["Picture"]]:
    """Class -> pictures of training images, evenly through their order."""
    split = data.train
    return {
        name: [
            draw({"split": "train", "id": str(split.ids[row]), "class": name})._replace(text="")
            for row in spread(split.labels, label, count)
        ]
        for label, name in enumerate(data.classes)
    }


def spread(labels: "np.ndarray", label: int, count: int) -> list[int]:
    """Rows of a class, evenly from the first to the last of them."""
    import numpy as np

    own = np.flatnonzero(labels == label)
    at = np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int)
    rows: list[int] = own[at].tolist()
    return rows


def print_check(found: Mapping[str, Any]) -> None:
    """The findings within 80 columns."""
    shape = found["image_shape"]
    what = f"{'x'.join(map(str, shape))} {found['dtype']}" if shape else "a list of files"
    print_rich(f"{found['dataset']}: {what}")
    for mark, reason in found["marks"].items():
        print_rich(f"{mark}: {reason}")
    if found["partial"]:
        print_rich(f"PARTIAL: {'; '.join(found['partial'])}")
    print_rich(splits_table(found))
    if found.get("histogram"):
        print_rich(intensity_table(found))
    if found.get("files"):
        print_rich(files_table(found["files"]))
    if found.get("folds"):
        print_folds(found)
    print_rich(across_table(found))
    for reason in list((found.get("unreadable") or {}).values())[1:5]:  # a fault names the first
        print_rich(f"unreadable: {reason}")
    for note in found["notes"]:
        print_rich(f"note: {note}")
    for warning in found["warnings"]:
        print_rich(f"warning: {warning}")
    for fault in found["faults"]:
        print_rich(f"FAULT: {fault}")
    if not found["faults"]:
        print_rich("Nothing found that would falsify a result.")


def splits_table(found: Mapping[str, Any]) -> Any:
    """Counts, copies and near duplicates within each split, and its digest."""
    near = (found.get("near_duplicates") or {}).get("within")
    rows = []
    for part, split in found["splits"].items():
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
                "copies>": f"{found['duplicates_within'][part]:,}",
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


def intensity_table(found: Mapping[str, Any]) -> Any:
    table = rich_table("intensities", "least>", "greatest>", "mean>", "std>", "blank images>")
    for part, split in found["splits"].items():
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


def across_table(found: Mapping[str, Any]) -> Any:
    """What two splits have in common."""
    parts = list(found["splits"])
    near = found.get("near_duplicates")
    rows = []
    for first, second in combinations(parts, 2):
        pair = f"{first}/{second}"
        shared = (found["shared_groups"] or {}).get(pair)
        rows.append(
            {
                "across": f"{first} and {second}",
                "equal images>": f"{found['duplicates_across'].get(pair, {}).get('contents', 0):,}",
                "near pairs>": near and f"{near['across'].get(pair, {}).get('pairs', 0):,}",
                "patients in both>": "unknown" if shared is None else f"{shared['groups']:,}",
                "of the second>": shared and f"{shared[f'share_of_{second}']:.1%}",
            }
        )
    return filled(rows)


def print_folds(found: Mapping[str, Any]) -> None:
    """The folds that a data set comes with: their counts, and what two of them share."""
    folds = found["folds"]
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
        "and, where the data set can be segmented, the steps of a segmentation.",
        "  medexp data explore dataset=cervix\n"
        "  medexp data explore dataset=cervix --images 500 --perplexity 15\n"
        "  medexp data explore source=phantom --out figures\n",
    )
    p.add_argument("--images", type=int, default=2000, help="projected at most (default 2000)")
    p.add_argument("--seed", type=int, default=0, help="of that choice, PCA and t-SNE (default 0)")
    p.add_argument("--perplexity", type=float, default=30.0, help="of t-SNE (default 30)")
    p.add_argument("--samples", type=int, default=8, help="of each class (default 8)")
    given = p.parse_intermixed_args(arguments)
    for key, least in (("images", 4), ("seed", 0), ("perplexity", 1), ("samples", 1)):
        if not getattr(given, key) >= least:  # nan, too, is not
            raise ConfigError(f"--{key} {getattr(given, key)}: must be {least} or more")
    settings = compose(given.overrides, arguments)
    folder = target(given.out, settings)

    from medexp.data.load import load_data

    data = load_data(settings, examine=True)
    marks = ("PHANTOM",) if settings.source.kind == "phantom" else ()
    written = draw_figures(data, make(folder), marks, given)
    if drawn := draw_segmentation(settings, data, folder, marks):
        written.append(drawn)
    for path in written:
        print(path)
    return 0


def draw_figures(
    data: "Dataset", folder: Path, marks: tuple[str, ...], given: argparse.Namespace
) -> list[Path]:
    """The figures' paths. Where validation is the test split, it is shown once."""
    import numpy as np
    from rich.console import Console

    from medexp.data.check import per_class
    from medexp.report.figure import explore

    parts = data.splits()
    if np.array_equal(data.val.ids, data.test.ids):
        del parts["val"]
    counts = {part: per_class(data.classes, split.labels) for part, split in parts.items()}
    chosen, labels = chosen_images(data, list(parts), given.images, given.seed)
    shown = display_range(data)
    rows = projected_rows(data, chosen, shown)
    samples = samples_of(data, artist(data, shown), given.samples)
    what = f"{len(labels):,} of {sum(map(len, parts.values())):,} images"
    written = [
        explore.save(
            explore.classes_figure(counts, f"{data.name}: classes per split", marks),
            folder / "classes.png",
        ),
        explore.save(
            explore.samples_figure(
                {name: [one.pixels for one in row] for name, row in samples.items()},
                f"{data.name}: training images",
                marks,
            ),
            folder / "samples.png",
        ),
    ]
    pca = explore.principal_components(rows, given.seed)
    first, second = pca.shares[:2]
    names = (f"component 1 ({first:.1%} of the variance)", f"component 2 ({second:.1%})")
    title = f"{data.name}: PCA of {what}"
    figure = explore.scatter_figure(pca.points, labels, data.classes, title, names, marks)
    written.append(explore.save(figure, folder / "pca.png"))
    with Console(stderr=True).status(f"t-SNE of {len(labels):,} images"):
        points = explore.neighbours(pca.kept, given.perplexity, given.seed)
    title = f"{data.name}: t-SNE of {what}"
    names = ("t-SNE 1", "t-SNE 2")
    figure = explore.scatter_figure(points, labels, data.classes, title, names, marks)
    written.append(explore.save(figure, folder / "tsne.png"))
    return written


def draw_segmentation(
    settings: Settings, data: "Dataset", folder: Path, marks: tuple[str, ...]
) -> Path | None:
    """The steps of dataset.segment=slic_knn for two training images of each class.

    None where the reader has no such option, or lacks the colours that it goes by.
    """
    import numpy as np

    from medexp.data import Pool
    from medexp.data.load import load_pool
    from medexp.data.segment import panels
    from medexp.report.figure.segmentation import four_panels

    node = settings.dataset
    if "segment" not in node:
        return None
    try:
        cut, plain = (
            load_pool(replace(settings, dataset=DatasetNode({**node, "segment": kind})))
            for kind in ("slic_knn", "none")
        )
    except ConfigError:
        return None
    if not isinstance(cut, Pool) or not isinstance(plain, Pool) or plain.decode is None:
        return None
    how = {key: value for key, value in cut.settings["segment"].items() if key != "kind"}
    colours = how.pop("colours")
    steps, titles = [], []
    for label, name in enumerate(data.classes):
        for row in spread(data.train.labels, label, 2):
            key = str(data.train.ids[row])
            image, _ = plain.decode(int(np.flatnonzero(plain.ids == key)[0]))
            steps.append(panels(image, colours, **how))
            titles.append(f"{name}: {key}")
    heading = f"{data.name}: segmentation by superpixels and colour"
    return four_panels(steps, titles, folder / "segmentation.png", marks, heading=heading)


def chosen_images(
    data: "Dataset", parts: list[str], count: int, seed: int
) -> tuple[list[tuple[str, int]], "np.ndarray"]:
    """(split, row) of images of all splits, a subset stratified by class, and their labels."""
    import numpy as np

    from medexp.data.split import stratified_subset

    places = [(part, row) for part in parts for row in range(len(data.splits()[part]))]
    labels = np.concatenate([data.splits()[part].labels for part in parts])
    count = min(count, len(labels))
    chosen = stratified_subset(labels, count, seed, name="--images")
    return [places[i] for i in chosen.tolist()], labels[chosen]


def display_range(data: "Dataset") -> tuple[float, float]:
    """What is shown black and white: of float images, the middle 99 % of some training images."""
    import numpy as np

    if data.train.images.dtype == np.uint8:
        return 0.0, 255.0
    some = np.linspace(0, len(data.train) - 1, min(64, len(data.train))).astype(int)
    values = [data.train.images[row].ravel()[::7].astype(np.float32) for row in some.tolist()]
    low, high = np.percentile(np.concatenate(values), [0.5, 99.5]).tolist()
    return low, high


def projected_rows(
    data: "Dataset", chosen: list[tuple[str, int]], shown: tuple[float, float]
) -> "np.ndarray":
    """(n, features) float32 of the chosen images, read one by one."""
    import numpy as np

    from medexp.data.store import bar
    from medexp.report.figure import explore

    rows = []
    with bar(f"reading {data.name}", len(chosen)) as advance:
        for part, row in chosen:
            rows.append(explore.features(data.splits()[part].images[row], *shown))
            advance(1)
    return np.stack(rows)


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
    given = p.parse_intermixed_args(arguments)

    from medexp.data import store as arrays
    from medexp.data.cache import cache_dir

    held = arrays.entries()
    if not given.json:
        if held:
            print_rich(cache_table(held))
        total = size_of(sum(entry["bytes"] for entry in held))
        print(f"{cache_dir()}: {entries(len(held))}, {total}")  # a path is never wrapped
    freed, busy = arrays.clear() if given.clear else (0, [])
    if given.json:
        removed = {"freed_bytes": freed, "in_use": busy} if given.clear else {}
        print(json.dumps({"path": str(cache_dir()), "entries": held, **removed}, indent=2))
    elif given.clear:
        print_rich(f"Removed {entries(len(held) - len(busy))}, {size_of(freed)}.")
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


def entries(count: int) -> str:
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
