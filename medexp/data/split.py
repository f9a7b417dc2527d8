"""Which images go where: pure functions from labels, groups and a plan to sorted rows."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from sklearn.model_selection import (
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from medexp.config.settings import Plan
from medexp.data.base import PARTS, Pool
from medexp.data.files import csv_rows
from medexp.errors import ConfigError, MedexpError, one_of

DRAWN = ("stratified", "patients", "random", "per_class")
KINDS = ("auto", "given", *DRAWN, "file")


@dataclass(frozen=True)
class Planned:
    """kind of split; train, val, test -> sorted rows; what the tables must say of them."""

    kind: str
    rows: dict[str, np.ndarray]
    notes: tuple[str, ...]
    marks: dict[str, str]
    partial: tuple[str, ...] = ()


def plan_rows(pool: Pool, plan: Plan) -> Planned:
    """Put the images of a pool into train, val and test as the plan says.

    The kinds of split: `given`, the one that the data set comes with (its parts, or its own folds
    with `fold` as the test part); `stratified`, scikit-learn's train_test_split by label;
    `patients`, whole groups, the labels in proportion as nearly as that allows; `random`, without
    regard to labels, validation being the tail of the shuffled training part as Keras'
    validation_split takes it; `per_class`, each class sorted by file name, shuffled by Python's
    random and cut (Mir and Nissa 2019, Figure 9); `file`, the list in split_file; `auto`, given
    where there is one, else patients where they are known, else stratified.

    Where a pool has images of a part and others that are still to be split, the former stay where
    they are. Raises ConfigError or MedexpError where the plan cannot be met, and where groups
    stand on both sides without allow_leak.
    """
    one_of("dataset.split", plan.split, KINDS)
    kind = "file" if plan.split_file else resolve(pool, plan)
    check_plan(pool, plan, kind)
    notes: list[str] = []
    if kind == "file":
        rows = listed(pool, plan, notes)
    elif kind == "given":
        rows = given(pool, plan, notes)
    elif plan.folds is not None:
        rows = fold_rows(pool, plan, kind)
    else:
        rows = drawn(pool, plan, kind)
    partial = limit_train(pool, plan, rows)
    rows = {part: np.sort(rows[part]) for part in PARTS}
    notes.append(described(pool, plan, kind))
    if pool.groups is None and kind not in ("given", "file"):
        notes.append(
            "patients unknown: images of one patient may be in training and in the test split"
        )
    marks = {}
    if np.array_equal(rows["val"], rows["test"]):
        marks["SELECTED ON TEST"] = (
            "validation is the test split, so the best epoch was picked by what it is scored on"
        )
    marks |= leak_marks(pool.name, pool.groups, rows, plan.allow_leak)
    return Planned(kind, rows, tuple(notes), marks, partial)


def resolve(pool: Pool, plan: Plan) -> str:
    """The kind of split that `auto` stands for; any other stands for itself."""
    if plan.split != "auto":
        return plan.split
    own = pool.parts is not None or (pool.folds is not None and plan.fold is not None)
    if own and plan.folds is None:
        return "given"
    return "stratified" if pool.groups is None else "patients"


def check_plan(pool: Pool, plan: Plan, kind: str) -> None:
    """Raise ConfigError for values that no pool can satisfy, or that exclude one another."""
    for key in ("test_share", "val_share"):
        if not 0 <= getattr(plan, key) < 1:
            raise ConfigError(f"dataset.{key}={getattr(plan, key)}: need 0 or more, and below 1")
    if plan.test_share + plan.val_share >= 1:
        raise ConfigError(
            f"dataset.test_share={plan.test_share} and dataset.val_share={plan.val_share} leave "
            "nothing to train on"
        )
    if plan.split_seed < 0:
        raise ConfigError(f"dataset.split_seed={plan.split_seed}: need 0 or more")
    if kind == "patients" and pool.groups is None:
        raise ConfigError(
            f"dataset.split=patients: {pool.name} does not say which patient an image is of. Take "
            "dataset.split=stratified"
        )
    if kind == "file" and not plan.split_file:
        raise ConfigError("dataset.split=file: name the list with dataset.split_file=PATH.csv")
    if plan.folds is None:
        if plan.fold is not None and kind != "given":
            raise ConfigError(f"dataset.fold={plan.fold}: of how many? Give dataset.folds=5, say")
        return
    if kind in ("given", "file", "per_class"):
        raise ConfigError(
            f"dataset.folds={plan.folds}: dataset.split={kind} has no folds to draw. Take "
            "stratified, patients or random"
        )
    if plan.folds < 2 or plan.fold is None or not 0 <= plan.fold < plan.folds:
        raise ConfigError(
            f"dataset.folds={plan.folds} dataset.fold={plan.fold}: need 2 folds or more, and the "
            f"test fold from 0 to {plan.folds - 1}"
        )


# ---------------------------------------------------------------- the kinds


def drawn(pool: Pool, plan: Plan, kind: str) -> dict[str, np.ndarray]:
    """A split drawn at random by `kind`; images with a part of their own keep it."""
    fixed = {part: np.empty(0, np.intp) for part in PARTS}
    rest = np.arange(len(pool))
    if pool.parts is not None and (pool.parts == "").any():
        fixed = {part: np.flatnonzero(pool.parts == part) for part in PARTS}
        rest = np.flatnonzero(pool.parts == "")
    # A part that is given is not drawn as well.
    test_share = 0.0 if len(fixed["test"]) else plan.test_share
    val_share = 0.0 if len(fixed["val"]) else plan.val_share
    if kind == "per_class":
        rest, val, test = per_class(pool, rest, test_share, val_share, plan.split_seed)
    else:
        total, test = len(rest), np.empty(0, np.intp)
        if not len(fixed["test"]):
            rest, test = divide(pool, rest, share_count(test_share, total), kind, plan)
        elif kind == "random":  # validation is the tail of a shuffled order
            rest = np.random.default_rng(plan.split_seed).permutation(rest)
        rest, val = divide_val(pool, rest, share_count(val_share, total), kind, plan)
    test = np.concatenate([test, fixed["test"]])
    val = np.concatenate([val, fixed["val"]])
    train = np.concatenate([rest, fixed["train"]])
    return {"train": train, "val": val if len(val) else test, "test": test}


def share_count(share: float, total: int) -> int:
    """scikit-learn's count of a share: rounded up, but not by the last bit of a product."""
    return math.ceil(round(share * total, 6))


def divide(
    pool: Pool, rows: np.ndarray, count: int, kind: str, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Take about `count` of the rows away: (the others, those taken), in the order drawn."""
    labels = pool.labels[rows]
    if kind == "patients":
        assert pool.groups is not None
        first, second = grouped_split(labels, pool.groups[rows], count / len(rows), plan.split_seed)
        return rows[first], rows[second]
    if kind == "random":
        if not 0 < count < len(rows):
            raise MedexpError(too_few(labels, count / len(rows)))
        first, second = train_test_split(rows, test_size=count, random_state=plan.split_seed)
        return first, second
    return stratified_split(rows, labels, count, plan.split_seed)


def divide_val(
    pool: Pool, rows: np.ndarray, count: int, kind: str, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """`divide` for the validation part; no count, no part: the test part serves."""
    if count == 0:
        return rows, np.empty(0, np.intp)
    if kind == "random":
        return rows[:-count], rows[-count:]
    return divide(pool, rows, count, kind, plan)


def stratified_split(
    rows: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's train_test_split of the rows by label: (others, count of them).

    Raises MedexpError where a class has too few images to be on both sides.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or not len(classes) <= count <= len(rows) - len(classes):
        raise MedexpError(too_few(labels, count / len(rows)))
    first, second = train_test_split(rows, test_size=count, stratify=labels, random_state=seed)
    return first, second


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split group by group (patient, slide): none has images on both sides.

    labels, groups: (n,). fraction: the share of the second part, met as nearly as whole groups
    allow, with the classes in the same proportion as nearly as possible.
    Returns (first, second): sorted indices, disjoint, together all of 0..n-1.
    Raises MedexpError for fewer than two groups, or where one side would lack a class.
    """
    count = len(np.unique(groups))
    if count < 2:
        raise MedexpError(f"{count} group (patient, slide): a split by group needs at least 2")
    # Of 1/fraction folds of whole groups, one is the second part.
    folds = min(round(1 / fraction), count)
    smallest = np.unique(labels, return_counts=True)[1].min()
    if smallest < folds:
        raise MedexpError(too_few(labels, fraction))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    first, second = next(splitter.split(np.zeros(len(labels)), labels, groups))
    classes = np.unique(labels)
    if any(len(np.unique(labels[part])) < len(classes) for part in (first, second)):
        raise MedexpError(too_few(labels, fraction))
    return np.sort(first), np.sort(second)


def per_class(
    pool: Pool, rows: np.ndarray, test_share: float, val_share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class sorted by file name, shuffled and cut: (train, val, test) rows.

    Python's `random` with the same seed for every class, and int() of the training share, as in
    the listing of Figure 9 of Mir and Nissa 2019.
    """
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(len(pool.classes)):
        own = sorted(rows[pool.labels[rows] == label].tolist(), key=lambda r: pool.files[r].name)
        random.Random(seed).shuffle(own)
        second = int((1 - test_share) * len(own))
        first = int((1 - test_share - val_share) * len(own)) if val_share else second
        for part, cut in zip(parts, (own[:first], own[first:second], own[second:]), strict=True):
            part += cut
    train, val, test = (np.array(part, np.intp) for part in parts)
    return train, val, test


def fold_rows(pool: Pool, plan: Plan, kind: str) -> dict[str, np.ndarray]:
    """Cross-validation: fold `fold` of `folds` is the test part; validation is of the rest."""
    assert plan.folds is not None and plan.fold is not None
    classes, counts = np.unique(pool.labels, return_counts=True)
    units = counts.min() if kind != "patients" else len(np.unique(pool.groups))  # type: ignore[arg-type]
    if kind != "random" and min(units, counts.min()) < plan.folds:
        raise ConfigError(
            f"dataset.folds={plan.folds}: {pool.name} has too few images or patients for so many "
            f"({spelled(pool.labels)})"
        )
    makers = {"stratified": StratifiedKFold, "patients": StratifiedGroupKFold, "random": KFold}
    splitter = makers[kind](plan.folds, shuffle=True, random_state=plan.split_seed)
    groups = pool.groups if kind == "patients" else None
    parts = list(splitter.split(np.zeros(len(pool)), pool.labels, groups))
    rest, test = parts[plan.fold]
    if len(np.unique(pool.labels[test])) < len(classes):
        raise ConfigError(
            f"dataset.fold={plan.fold}: a class has no image in this fold of whole patients. Take "
            "fewer folds or another dataset.split_seed"
        )
    if kind == "random":  # in a shuffled order, as the tail of it becomes the validation part
        rest = np.random.default_rng(plan.split_seed).permutation(rest)
    rest, val = divide_val(pool, rest, share_count(plan.val_share, len(pool)), kind, plan)
    return {"train": rest, "val": val if len(val) else test, "test": test}


def given(pool: Pool, plan: Plan, notes: list[str]) -> dict[str, np.ndarray]:
    """The parts that the data set comes with; what it lacks is drawn from its training part."""
    inner = "stratified" if pool.groups is None else "patients"
    if plan.fold is not None and pool.folds is not None:
        known = np.unique(pool.folds).tolist()
        if plan.fold not in known:
            raise ConfigError(f"dataset.fold={plan.fold}: {pool.name} has the folds {known}")
        test = np.flatnonzero(pool.folds == plan.fold)
        rest = np.flatnonzero((pool.folds != plan.fold) & (pool.folds >= 0))
        val = np.empty(0, np.intp)
    elif pool.parts is not None:
        rest = np.flatnonzero((pool.parts == "train") | (pool.parts == ""))
        val, test = (np.flatnonzero(pool.parts == part) for part in ("val", "test"))
        if not len(test):
            notes.append("no test part was given: the validation part serves as test split")
            val, test = np.empty(0, np.intp), val
        if not len(test):
            return drawn(pool, plan, inner)
    else:
        offered = " Its folds: give dataset.fold=0, say." if pool.folds is not None else ""
        raise ConfigError(
            f"dataset.split=given: {pool.name} comes without a split.{offered} Or take "
            "dataset.split=stratified or patients"
        )
    if not len(val):
        rest, val = divide_val(pool, rest, share_count(plan.val_share, len(rest)), inner, plan)
        if len(val):
            notes.append(f"validation is drawn from the given training part ({inner})")
    return {"train": rest, "val": val if len(val) else test, "test": test}


def listed(pool: Pool, plan: Plan, notes: list[str]) -> dict[str, np.ndarray]:
    """The split of a CSV of id,split; an image that it does not name is left out."""
    path = Path(str(plan.split_file))
    place = {str(key): row for row, key in enumerate(pool.ids)}
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    seen: dict[str, set[str]] = {}
    for line, cells in csv_rows(path, ("id", "split")):
        key, part = cells["id"], cells["split"]
        where = f"{path}, line {line}"
        if part not in PARTS:
            raise MedexpError(f"{where}: split {part!r}: need train, val or test")
        if key not in place:
            raise MedexpError(
                f"{where}: {pool.name} has no image {key!r}. Its ids are like {str(pool.ids[0])!r}"
            )
        earlier = seen.setdefault(key, set())
        # A run whose validation split is its test split lists those images under both.
        if earlier and {*earlier, part} != {"val", "test"}:
            raise MedexpError(f"{where}: id {key} is in {', '.join(sorted(earlier))} already")
        earlier.add(part)
        rows[part].append(place[key])
    for part in ("train", "test"):
        if not rows[part]:
            raise MedexpError(f"{path}: no image for the {part} split")
    if len(seen) < len(pool):
        notes.append(f"{len(pool) - len(seen):,} of {len(pool):,} images are not in the list")
    return {part: np.array(rows[part] or rows["test"], np.intp) for part in PARTS}


def limit_train(pool: Pool, plan: Plan, rows: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Keep max_train of the training rows (in place); says of how many."""
    if plan.max_train is None:
        return ()
    train = np.sort(rows["train"])
    chosen = stratified_subset(
        pool.labels[train], plan.max_train, plan.split_seed, name="dataset.max_train"
    )
    rows["train"] = train[chosen]
    whole = len(chosen) == len(train)
    return () if whole else (f"{len(chosen):,} of {len(train):,} training images",)


def stratified_subset(
    labels: np.ndarray, size: int, seed: int, *, name: str = "size"
) -> np.ndarray:
    """Choose `size` images, the classes in the same proportion as in all.

    Nested: with the same seed, a smaller subset lies within a larger one.
    Returns (size,) sorted indices. Raises ConfigError, which calls the size `name`, where it is
    smaller than the number of classes or larger than the number of images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= size <= len(labels):
        raise ConfigError(
            f"{name}={size:,}: need {len(classes)} (one image a class) to {len(labels):,} (all)"
        )
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label, count in zip(classes, counts, strict=True):
        # Classes advance through their own shuffled order at the same relative speed.
        place[labels == label] = rng.permutation(count) / count
    return np.sort(np.argsort(place, kind="stable")[:size])


# ---------------------------------------------------------------- what the tables must say


def described(pool: Pool, plan: Plan, kind: str) -> str:
    """The split in words, for the notes of every table."""
    if kind == "file":
        return f"split: fixed list {plan.split_file}"
    if kind == "given":
        own = (
            f"fold {plan.fold} of the data set's own" if plan.fold is not None else "its own parts"
        )
        return f"split: as {pool.name} comes, {own}"
    names = {
        "stratified": "stratified by label",
        "patients": "whole patients or slides",
        "random": "at random",
        "per_class": "per class, sorted, shuffled and cut",
    }
    how = f"split: {names[kind]}, seed {plan.split_seed}"
    if plan.folds is not None:
        return f"{how}, fold {plan.fold} of {plan.folds} is the test split"
    return f"{how}, {plan.test_share:.0%} test and {plan.val_share:.0%} validation"


def shared_groups(
    groups: np.ndarray | None, rows: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], tuple[int, float]]:
    """(part, part) -> groups in both, and the share of the second part's images that are of them.

    Parts that are the very same images are not compared; empty where groups are unknown.
    """
    shared = {}
    for first, second in combinations(PARTS, 2):
        if groups is None or np.array_equal(rows[first], rows[second]):
            continue
        common = np.intersect1d(groups[rows[first]], groups[rows[second]])
        share = float(np.isin(groups[rows[second]], common).mean())
        shared[first, second] = (len(common), share)
    return shared


def leak_marks(
    name: str, groups: np.ndarray | None, rows: Mapping[str, np.ndarray], allow_leak: bool
) -> dict[str, str]:
    """LEAKY and its reason where groups cross the split; refused without allow_leak."""
    shared = {pair: s for pair, s in shared_groups(groups, rows).items() if s[0]}
    if not shared:
        return {}
    spelled_out = "; ".join(
        f"{share:.1%} of the {second} images are of {count:,} patients or slides that are in "
        f"{first} too"
        for (first, second), (count, share) in shared.items()
    )
    if not allow_leak:
        raise MedexpError(
            f"{name}: patients or slides stand on both sides of the split: {spelled_out}.\n"
            "Split by patient with dataset.split=patients, or take it as it is with "
            "dataset.allow_leak=true, which marks every table LEAKY"
        )
    return {"LEAKY": spelled_out}


def too_few(labels: np.ndarray, fraction: float) -> str:
    return (
        f"too few images or groups to put every class on both sides of a "
        f"{1 - fraction:.0%}:{fraction:.0%} split ({spelled(labels)})"
    )


def spelled(labels: np.ndarray) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"class {c}: {n}" for c, n in zip(classes, counts, strict=True))
