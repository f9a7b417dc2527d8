"""What the images of all splits are: counts, classes, patients, folds, and what files say.

All of it is JSON-ready, for fingerprint.json and the page of `medexp data check`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from medexp.data.base import PARTS, Dataset, Pool, consecutive_rows


@dataclass(frozen=True)
class Listing:
    """The images of all splits: a row of the arrays each.

    rows: part -> its rows, without val where validation is the test split.
    contents: (n,) int64, equal where two images are equal; -1 where there is nothing to compare.
    """

    classes: tuple[str, ...]
    rows: dict[str, np.ndarray]
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    contents: np.ndarray

    @classmethod
    def of_dataset(cls, data: Dataset, contents: np.ndarray) -> "Listing":
        """Part after part, as `contents` are."""
        splits = {part: data.splits()[part] for part in distinct_parts(data.val.ids, data.test.ids)}
        groups = [split.groups for split in splits.values() if split.groups is not None]
        return cls(
            data.classes,
            consecutive_rows({part: len(split) for part, split in splits.items()}),
            np.concatenate([split.labels for split in splits.values()]),
            np.concatenate([split.ids for split in splits.values()]),
            np.concatenate(groups) if len(groups) == len(splits) else None,
            contents,
        )

    @classmethod
    def of_pool(cls, pool: Pool, rows: Mapping[str, np.ndarray]) -> "Listing":
        """Files of equal digest have equal contents."""
        if pool.digests is None:
            contents = np.full(len(pool), -1, np.int64)
        else:
            contents = np.unique(pool.digests, return_inverse=True)[1]
        parts = {part: rows[part] for part in distinct_parts(rows["val"], rows["test"])}
        return cls(pool.classes, parts, pool.labels, pool.ids, pool.groups, contents)

    def named(self, row: int) -> dict[str, str]:
        """An image as findings name it."""
        part = next(part for part, rows in self.rows.items() if row in rows)
        return {
            "split": part,
            "id": str(self.ids[row]),
            "class": self.classes[self.labels[row]],
        }


def distinct_parts(val: np.ndarray, test: np.ndarray) -> list[str]:
    """train, val, test; without val where its rows or ids are those of test."""
    return [part for part in PARTS if not (part == "val" and np.array_equal(val, test))]


# ---------------------------------------------------------------- counts


def counts(listing: Listing, part: str) -> dict[str, Any]:
    """Images, classes and groups of one part."""
    rows = listing.rows[part]
    classes = per_class(listing.classes, listing.labels[rows])
    described: dict[str, Any] = {
        "images": len(rows),
        "per_class": classes,
        "share_of_class": {name: n / max(len(rows), 1) for name, n in classes.items()},
        "groups": None,
        "images_per_group": None,
    }
    if listing.groups is not None:
        times = np.unique(listing.groups[rows], return_counts=True)[1]
        described["groups"] = len(times)
        described["images_per_group"] = {
            "min": int(times.min()),
            "median": float(np.median(times)),
            "max": int(times.max()),
        }
    return described


def per_class(classes: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def describe_folds(pool: Pool) -> dict[str, Any] | None:
    """Each of the data set's own folds, and the patients and copies that stand in two of them."""
    if pool.folds is None:
        return None
    numbers = [int(fold) for fold in np.unique(pool.folds) if fold >= 0]
    rows_of = {fold: np.flatnonzero(pool.folds == fold) for fold in numbers}
    described: dict[str, Any] = {
        "folds": {
            str(fold): {
                "images": len(rows),
                "per_class": per_class(pool.classes, pool.labels[rows]),
                "groups": None if pool.groups is None else len(np.unique(pool.groups[rows])),
            }
            for fold, rows in rows_of.items()
        }
    }
    for name, column in (("shared_groups", pool.groups), ("shared_copies", pool.digests)):
        described[name] = None if column is None else {
            f"{a}/{b}": len(np.intersect1d(column[rows_of[a]], column[rows_of[b]]))
            for a, b in combinations(numbers, 2)
        }  # fmt: skip
    return described


def describe_patients(listing: Listing) -> dict[str, Any] | None:
    """Patient -> images, per class, per split."""
    if listing.groups is None:
        return None
    rows = np.concatenate(list(listing.rows.values()))
    names = np.unique(listing.groups[rows])
    place = np.searchsorted(names, listing.groups)
    by_class = np.zeros((len(names), len(listing.classes)), int)
    np.add.at(by_class, (place[rows], listing.labels[rows]), 1)
    by_part = {
        part: np.bincount(place[rows], minlength=len(names)) for part, rows in listing.rows.items()
    }
    return {
        str(name): {
            "images": int(by_class[row].sum()),
            "per_class": dict(zip(listing.classes, by_class[row].tolist(), strict=True)),
            **{part: int(column[row]) for part, column in by_part.items()},
        }
        for row, name in enumerate(names)
    }


# ---------------------------------------------------------------- what the files say


def facts_summary(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the files say of themselves: size, mode, spacing, ...

    key -> known (files that say it), distinct, commonest (the first ten with their counts), and the
    least and greatest number, or of lists the least and greatest at each place.
    """
    keys = dict.fromkeys(key for one in facts.values() for key in one)
    return {key: _summary([one[key] for one in facts.values() if key in one]) for key in keys}


def _summary(values: Sequence[Any]) -> dict[str, Any]:
    scalar = not any(isinstance(value, (list, tuple)) for value in values)
    columns = [
        tuple(map(_plain, value if isinstance(value, (list, tuple)) else [value]))
        for value in values
    ]
    times = Counter(columns)
    summary: dict[str, Any] = {
        "known": len(values),
        "distinct": len(times),
        "commonest": [
            [value[0] if scalar else list(value), count] for value, count in times.most_common(10)
        ],
    }
    numeric = all(isinstance(number, (int, float)) for column in columns for number in column)
    if numeric and len({len(column) for column in columns}) == 1:
        for key, function in (("min", min), ("max", max)):
            ends = [function(place) for place in zip(*columns, strict=True)]
            summary[key] = ends[0] if scalar else ends
    return summary


def _plain(value: Any) -> int | float | str:
    """A number that is one, or text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and np.isfinite(value) else str(value)
