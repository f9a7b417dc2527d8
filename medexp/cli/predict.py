"""`medexp predict`: what a finished run says of new images."""

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from medexp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from medexp.jobs.predict import Summary

PREDICT_HELP = """\
usage: medexp predict run=DIR images=WHERE [out=FILE] [tta=OPTION]

Show new images to the network of a finished run. They are read as the run read
its own, and no labels are needed. Writes a row an image (path, class, the
probability of each class) to DIR/predict/<time>/predictions.csv, and beside it
a JSON file that says what it rests on.

  medexp predict run=outputs/image_folder-native3/TIME images=new/
  medexp predict run=DIR images=cell.png          a file; a volume or a clip too
  medexp predict run=DIR images='new/*/*.png'     a pattern, in quotes
  medexp predict run=DIR images=list.csv          a table with a column of paths
  medexp predict run=DIR images=new/ out=b.csv    or b.parquet
  medexp predict run=DIR images=new/ tta=flips    mean over 4 views of an image
  medexp predict run=A,B,C images=new/            the mean of several runs

The column `known` says which images are not new to the run: train, val, test,
or before (of the run that it started from). An image that cannot be read keeps
its row, and the reason stands in the column `error`.

  trainer.device=cpu trainer.eval_batch_size=64 trainer.threads=4   the machine
  --config-dir DIR   your own modules, where the run's own folder has moved

In Python: medexp.load("DIR").predict("new/")
"""

OWN = ("run", "images", "out", "tta")
TRAINER = ("device", "eval_batch_size", "threads")  # what may differ from the run's
KNOWN = {
    "train": "trained on",
    "before": "trained on before it began",
    "val": "chose its best epoch by",
    "test": "was tested on",
}


def predict(words: list[str]) -> int:
    """Predict new images; the exit code is 0 where any could be read."""
    if "-h" in words or "--help" in words:
        print(PREDICT_HELP, end="")
        return 0
    from medexp.config.line import folders_of, read_line
    from medexp.jobs.predict import Asked
    from medexp.jobs.predict import predict as work

    texts = {}
    rest = []
    for word in words:  # a pattern such as new/*.png is no value that Hydra could read
        key, equals, value = word.partition("=")
        if equals and key in ("images", "out"):
            texts[key] = value.strip("'\"")
        else:
            rest.append(word)
    line = read_line(rest)
    folders = folders_of(line.text("run"))
    if not folders:
        raise ConfigError("run: missing. Give the run directory: medexp predict run=outputs/...")
    if not texts.get("images"):
        raise ConfigError("images: missing. Give a folder, a file, a pattern or a CSV of paths")
    if line.multirun:
        raise ConfigError("-m: predict has no sweeps. run=A,B,C is the mean of several runs")
    trainer, views = {}, {}
    for one in line.overrides:
        key = one.key_or_group
        group, _, name = key.partition(".")
        if group == "trainer" and name in TRAINER:
            trainer[name] = line.value(key)
        elif group == "tta" and name:
            views[name] = line.value(key)
        elif key not in (*OWN, "debug"):
            raise ConfigError(refusal(key, [f"trainer.{name}" for name in TRAINER]))
    option = line.text("tta")
    if views and option is None:
        raise ConfigError(f"tta.{next(iter(views))}: of which option? Give tta=flips, say")
    target = texts.get("out")
    if target is not None and not target:
        raise ConfigError("out: empty. Name a file that ends in .csv or .parquet")
    summary = work(
        Asked(
            folders,
            texts["images"],
            Path(target).expanduser() if target else None,
            None if option in (None, "none") else option,
            views,
            trainer,
            line.words,
        )
    )
    tell(summary, ", ".join(folders))
    return 0


def completions(word: str) -> list[str]:
    """What the word may become: a key, a run's folder, a file of images, an option of tta."""
    from medexp.config.groups import options
    from medexp.config.saved import complete_folders

    key, equals, value = word.partition("=")
    if not equals:
        keys = (*OWN, *(f"trainer.{name}" for name in TRAINER))
        return [f"{name}=" for name in keys if name.startswith(word)]
    if key == "run":
        return complete_folders(word)
    if key == "tta":
        return [f"tta={name}" for name in options("tta") if name.startswith(value)]
    if key in ("images", "out"):
        found = sorted(glob.glob(glob.escape(value) + "*"))
        return [f"{key}={name}{'/' if os.path.isdir(name) else ''}" for name in found]
    return []


def refusal(key: str, trainer: list[str]) -> str:
    """Why a key is not taken: what the run read and computed decides, or there is no such key."""
    group = key.partition(".")[0]
    if group in ("dataset", "model", "source"):
        return (
            f"{key}: images are read and seen as in the run, else its weights mean nothing. Leave "
            "it out; labelled data of another kind: medexp eval"
        )
    return f"{key}: not a key of predict. {nearest(key, (*OWN, *trainer))}"


def tell(summary: "Summary", runs: str) -> None:
    """The result in words: the images one by one where they are few, counts, what to beware of."""
    from medexp.cli.terminal import print_rich, rich_table, wrapped
    from medexp.jobs.predict import SHOWN

    if summary.images <= SHOWN:
        table = rich_table("image", "class", "p>", "known")
        short = [Path(one.path).name for one in summary.first]  # a whole path would be cut off
        distinct = len({*short}) == len({one.path for one in summary.first})
        for one in summary.first:
            name = Path(one.path).name if distinct else one.path
            name = name if one.row is None else f"{name}, {one.row}"
            if one.probabilities is None:
                table.add_row(name, "cannot be read", "", "")
            else:
                p = f"{one.probabilities.max():.4f}"
                table.add_row(name, str(one.label), p, one.known)
        print_rich(table)
    predicted = summary.images - summary.unreadable
    counts = ", ".join(f"{summary.counts[name]:,} {name}" for name in summary.classes)
    print(wrapped(f"{predicted:,} of {summary.images:,} images predicted: {counts}", hanging=2))
    if summary.unreadable:
        print(wrapped(f"{summary.unreadable:,} cannot be read, such as: {summary.errors[0]}", 0, 2))
    for word, count in summary.known.items():
        said = f"{count:,} {'is' if count == 1 else 'are'} among those that {runs} {KNOWN[word]}"
        if word in ("train", "before"):
            said += ": what it says of them says nothing of new ones"
        print(wrapped(said, hanging=2))
    for mark, reason in summary.marks.items():
        print(wrapped(f"{mark} (the run): {reason}", hanging=2))
    print(summary.table)
