"""Which images go where: from labels, groups and the settings of a split to sorted rows."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medexp.config.settings import SplitSettings
from medexp.data.base import PARTS, Dataset, Pool
from medexp.data.draw import Draw, per_class, share_count, stratified_subset
from medexp.data.leak import leak_marks
from medexp.errors import ConfigError, MedexpError
from medexp.runs.files import csv_rows

# Each kind that is drawn at random, in words for the notes of the tables.
DRAWN = {
    "stratified": "stratified by label",
    "patients": "whole patients or slides",
    "random": "at random",
    "per_class": "per class, sorted, shuffled and cut",
}

Rows = dict[str, np.ndarray]
NONE = np.empty(0, np.intp)


@dataclass(frozen=True)
class SplitRows:
    """kind of split; train, val, test -> sorted rows; what the tables must say of them."""

    kind: str
    rows: Rows
    notes: tuple[str, ...]
    marks: dict[str, str]
    partial: tuple[str, ...] = ()


def split_rows(pool: Pool, settings: SplitSettings) -> SplitRows:
    """Put the images of a pool into train, val and test.

    The kinds of split: `given`, the one that the data set comes with (its parts, or its own folds
    with `fold` as the test part); `stratified`, scikit-learn's train_test_split by label;
    `patients`, whole groups, the labels in proportion as nearly as that allows; `random`, without
    regard to labels, validation being the tail of the shuffled training part as Keras'
    validation_split takes it; `per_class`, each class sorted by file name, shuffled by Python's
    random and cut (Mir and Nissa 2019, Figure 9); `file`, the list in split_file; `auto`, given
    where there is one, else patients where they are known, else stratified.

    Where a pool has images of a part and others that are still to be split, the former stay where
    they are. Raises ConfigError or MedexpError where the settings cannot be met, and where groups
    stand on both sides without allow_leak.
    """
    kind = "file" if settings.split_file else resolve(pool, settings)
    check(pool, settings, kind)
    notes: list[str] = []
    if kind == "file":
        rows = listed(pool, settings, notes)
    elif kind == "given":
        rows = given(pool, settings, notes)
    elif settings.folds is not None:
        rows = fold_rows(pool, settings, kind)
    else:
        rows = drawn(pool, settings, kind)
    rows["val"] = rows["val"] if len(rows["val"]) else rows["test"]
    notes.append(described(pool, settings, kind, rows))
    partial = limit_train(pool, settings, rows)
    rows = {part: np.sort(rows[part]) for part in PARTS}
    if kind not in ("given", "file"):
        notes += _unknown_patients(pool)
    return SplitRows(kind, rows, tuple(notes), _marks(pool, settings, rows), partial)


def _unknown_patients(pool: Pool) -> list[str]:
    if pool.groups is not None:
        return []
    return ["patients unknown: images of one patient may be in training and in the test split"]


def _marks(pool: Pool, settings: SplitSettings, rows: Rows) -> dict[str, str]:
    marks = {}
    if np.array_equal(rows["val"], rows["test"]):
        marks["SELECTED ON TEST"] = (
            "validation is the test split, so the best epoch was picked by what it is scored on"
        )
    return marks | leak_marks(pool.name, pool.groups, rows, settings.allow_leak)


def replayed_rows(
    pool: Pool,
    settings: SplitSettings,
    known: Mapping[str, Sequence[str]],
    needed: Collection[str] = PARTS,
    unreadable: Collection[int] = (),
) -> SplitRows:
    """The split that a run was made with, found again by the ids of its images.

    It is drawn as the settings say; where that gives other images, since some were added or taken
    away, those of the run are taken by their ids, and a note says so. known: split -> ids. needed:
    the splits that must be whole. unreadable: rows that cannot be, and were not in the run either.

    Raises MedexpError where an image of a needed split is gone.
    """
    with suppress(MedexpError):  # what cannot be drawn any more can still be looked up
        drawn_again = split_rows(pool, settings)
        readable = {
            part: pool.ids[rows[~np.isin(rows, list(unreadable))]]
            for part, rows in drawn_again.rows.items()
        }
        if all(set(readable[part].tolist()) == set(known.get(part, ())) for part in PARTS):
            return drawn_again
    row_of = {str(key): row for row, key in enumerate(pool.ids)}
    rows, gone = {}, {}
    for part in PARTS:
        ids = known.get(part, ())
        rows[part] = np.sort(np.array([row_of[key] for key in ids if key in row_of], np.intp))
        gone[part] = [key for key in ids if key not in row_of]
        if gone[part] and part in needed:
            raise MedexpError(
                f"{pool.name}: {len(gone[part]):,} of the {len(ids):,} {part} images of the run "
                f"are not there any more, such as {gone[part][0]}. Put them back; "
                "medexp eval takes another split where dataset.split_seed or split_file names one"
            )
    new = len(pool) - len(set(np.concatenate(list(rows.values())).tolist()))
    kind = "file" if settings.split_file else resolve(pool, settings)
    notes = [described(pool, settings, kind, rows)]
    if new:
        notes.append(f"{new:,} images that are new there since the run began are left out")
    if lost := sum(map(len, gone.values())):
        notes.append(f"{lost:,} images of the run's other splits are not there any more")
    few = settings.max_train is not None
    return SplitRows(
        "file",
        rows,
        (*notes, *_unknown_patients(pool)),
        _marks(pool, settings, rows),
        (f"{len(rows['train']):,} training images (dataset.max_train)",) if few else (),
    )


def resolve(pool: Pool, settings: SplitSettings) -> str:
    """The kind of split that `auto` stands for; any other stands for itself."""
    if settings.split != "auto":
        return settings.split
    comes_split = pool.parts is not None or (pool.folds is not None and settings.fold is not None)
    if comes_split and settings.folds is None:
        return "given"
    return drawn_by_default(pool)


def drawn_by_default(pool: Pool) -> str:
    return "stratified" if pool.groups is None else "patients"


def check(pool: Pool, settings: SplitSettings, kind: str) -> None:
    """Raise ConfigError where the kind of split lacks what it needs, or excludes what is set."""
    folds, fold = settings.folds, settings.fold
    if settings.test_share + settings.val_share >= 1:
        raise ConfigError(
            f"dataset.test_share={settings.test_share} and dataset.val_share={settings.val_share} "
            "leave nothing to train on"
        )
    if kind == "patients" and pool.groups is None:
        raise ConfigError(
            f"dataset.split=patients: {pool.name} does not say which patient an image is of. Take "
            "dataset.split=stratified"
        )
    if kind == "file" and not settings.split_file:
        raise ConfigError("dataset.split=file: name the list with dataset.split_file=PATH.csv")
    if folds is None:
        if fold is not None and kind != "given":
            raise ConfigError(f"dataset.fold={fold}: of how many? Give dataset.folds=5, say")
        return
    if kind in ("given", "file", "per_class"):
        raise ConfigError(
            f"dataset.folds={folds}: dataset.split={kind} has no folds to draw. Take "
            "stratified, patients or random"
        )
    if fold is None or fold >= folds:
        raise ConfigError(
            f"dataset.folds={folds} dataset.fold={fold}: need the test fold, from 0 to {folds - 1}"
        )


# ---------------------------------------------------------------- the kinds
#
# Each returns the rows of train, val and test; val is empty where the test part serves as it.


def drawn(pool: Pool, settings: SplitSettings, kind: str) -> Rows:
    """A split drawn at random by `kind`; images with a part of their own keep it."""
    fixed = dict.fromkeys(PARTS, NONE)
    rest = np.arange(len(pool))
    if pool.parts is not None and (pool.parts == "").any():
        fixed = {part: np.flatnonzero(pool.parts == part) for part in PARTS}
        rest = np.flatnonzero(pool.parts == "")
    # A part that is given is not drawn as well.
    test_share = 0.0 if len(fixed["test"]) else settings.test_share
    val_share = 0.0 if len(fixed["val"]) else settings.val_share
    if kind == "per_class":
        rest, val, test = per_class(pool, rest, test_share, val_share, settings.split_seed)
    else:
        draw, total, test = Draw(pool, kind, settings.split_seed), len(rest), NONE
        if len(fixed["test"]):
            rest = draw.shuffled(rest)
        else:
            keep = 2 if val_share else 1
            rest, test = draw.take(rest, share_count(test_share, total), keep)
        rest, val = draw.take_val(rest, share_count(val_share, total))
    rows = {"train": rest, "val": val, "test": test}
    return {part: np.concatenate([rows[part], fixed[part]]) for part in PARTS}


def fold_rows(pool: Pool, settings: SplitSettings, kind: str) -> Rows:
    """Cross-validation: fold `fold` of `folds` is the test part; validation is of the rest."""
    assert settings.folds is not None and settings.fold is not None
    draw = Draw(pool, kind, settings.split_seed)
    rest, test = draw.fold(settings.folds, settings.fold)
    rest, val = draw.take_val(draw.shuffled(rest), share_count(settings.val_share, len(pool)))
    return {"train": rest, "val": val, "test": test}


def given(pool: Pool, settings: SplitSettings, notes: list[str]) -> Rows:
    """The parts that the data set comes with; what it lacks is drawn from its training part."""
    kind = drawn_by_default(pool)
    if settings.fold is not None and pool.folds is not None:
        known = np.unique(pool.folds).tolist()
        if settings.fold not in known:
            raise ConfigError(f"dataset.fold={settings.fold}: {pool.name} has the folds {known}")
        test = np.flatnonzero(pool.folds == settings.fold)
        rest = np.flatnonzero((pool.folds != settings.fold) & (pool.folds >= 0))
        val = NONE
    elif pool.parts is not None:
        rest = np.flatnonzero((pool.parts == "train") | (pool.parts == ""))
        val, test = (np.flatnonzero(pool.parts == part) for part in ("val", "test"))
        if not len(test):
            notes.append("no test part was given: the validation part serves as test split")
            val, test = NONE, val
        if not len(test):
            return drawn(pool, settings, kind)
    else:
        offered = " Its folds: give dataset.fold=0, say." if pool.folds is not None else ""
        raise ConfigError(
            f"dataset.split=given: {pool.name} comes without a split.{offered} Or take "
            "dataset.split=stratified or patients"
        )
    if not len(val):
        draw = Draw(pool, kind, settings.split_seed)
        rest, val = draw.take_val(rest, share_count(settings.val_share, len(rest)))
        if len(val):
            notes.append(f"validation is drawn from the given training part ({kind})")
    return {"train": rest, "val": val, "test": test}


def listed(pool: Pool, settings: SplitSettings, notes: list[str]) -> Rows:
    """The split of a CSV of id,split; an image that it does not name is left out."""
    path = Path(str(settings.split_file))
    row_of = {str(key): row for row, key in enumerate(pool.ids)}
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    parts_of: dict[str, set[str]] = {}
    for line, cells in csv_rows(path, ("id", "split")):
        key, part = cells["id"], cells["split"]
        where = f"{path}, line {line}"
        if part not in PARTS:
            raise MedexpError(f"{where}: split {part!r}: need train, val or test")
        if key not in row_of:
            raise MedexpError(
                f"{where}: {pool.name} has no image {key!r}. Its ids are like {str(pool.ids[0])!r}"
            )
        earlier = parts_of.setdefault(key, set())
        # A run whose validation split is its test split lists those images under both.
        if earlier and {*earlier, part} != {"val", "test"}:
            raise MedexpError(f"{where}: id {key} is in {', '.join(sorted(earlier))} already")
        earlier.add(part)
        rows[part].append(row_of[key])
    for part in ("train", "test"):
        if not rows[part]:
            raise MedexpError(f"{path}: no image for the {part} split")
    if len(parts_of) < len(pool):
        missing = len(pool) - len(parts_of)
        notes.append(f"{missing:,} of {len(pool):,} images are not in the list")
    return {part: np.array(rows[part], np.intp) for part in PARTS}


# ---------------------------------------------------------------- classes that a part lacks


def refuse_missing_classes(data: Dataset, *, synthetic: bool, monitor: str) -> None:
    """Raise MedexpError where a split lacks a class: its scores would be undefined, or worthless.

    Known before the first step, so it is said then. synthetic: few phantoms of many classes may
    lack one, as long as the monitor (val_loss, val_accuracy, ...) is defined without it.
    """
    for part, split in data.splits().items():
        counts = np.bincount(split.labels, minlength=len(data.classes))
        lacking = [name for name, count in zip(data.classes, counts, strict=True) if count == 0]
        undefined = part == "val" and monitor not in ("val_loss", "val_accuracy", "val_precision")
        if not lacking or (synthetic and not undefined):
            continue
        held = ", ".join(f"{n:,} of {c}" for c, n in zip(data.classes, counts, strict=True) if n)
        remedy = (
            "Take more of them: source.size="
            if synthetic
            else "Draw a split that has every class on each side, with dataset.split=stratified, "
            "or patients where they are known; or leave the class out with dataset.classes="
        )
        raise MedexpError(
            f"{data.name}: the {part} split has no image of class {', '.join(lacking)} (it has "
            f"{held}), so that scores on it are undefined. {remedy}"
        )


# ---------------------------------------------------------------- limits, and words for the tables


def limit_train(pool: Pool, settings: SplitSettings, rows: Rows) -> tuple[str, ...]:
    """Keep max_train of the training rows (in place); says of how many."""
    if settings.max_train is None:
        return ()
    train = np.sort(rows["train"])
    chosen = stratified_subset(
        pool.labels[train], settings.max_train, settings.split_seed, name="dataset.max_train"
    )
    rows["train"] = train[chosen]
    whole = len(chosen) == len(train)
    return () if whole else (f"{len(chosen):,} of {len(train):,} training images",)


def described(pool: Pool, settings: SplitSettings, kind: str, rows: Rows) -> str:
    """The split in words, for the notes of every table; of patients, the shares that came out.

    rows: before training images are left out by max_train.
    """
    if kind == "file":
        return f"split: fixed list {settings.split_file}"
    if kind == "given":
        fold = settings.fold
        what = "its own parts" if fold is None else f"fold {fold} of the data set's own"
        return f"split: as {pool.name} comes, {what}"
    how = f"split: {DRAWN[kind]}, seed {settings.split_seed}"
    if settings.folds is not None:
        return f"{how}, fold {settings.fold} of {settings.folds} is the test split"
    asked = shares(settings.test_share, settings.val_share)
    if kind != "patients":
        return f"{how}, {asked}"
    serves_as_both = np.array_equal(np.sort(rows["val"]), np.sort(rows["test"]))
    validation = 0 if serves_as_both else len(rows["val"])
    total = len(rows["train"]) + validation + len(rows["test"])
    got = shares(len(rows["test"]) / total, validation / total)
    return f"{how}, {got}" + ("" if got == asked else f" (asked for: {asked})")


def shares(test: float, val: float) -> str:
    """Shares in words, to a tenth of a percent where they are no whole ones."""
    return f"{round(100 * test, 1):g}% test and {round(100 * val, 1):g}% validation"
