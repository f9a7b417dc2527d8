"""What would falsify a result before a GPU-hour is spent: copies, groups across splits, bad files.

`check` looks at every stored pixel once, in blocks; `check_list` at a list of files without pixels.
Both return JSON-ready dicts with `faults` (what would make a test result wrong), `warnings` (what a
person should look at) and the counts behind them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from medexp.data import near
from medexp.data.base import PARTS, Dataset, Pool, Split
from medexp.data.measure import Measured, Step, histogram, measure
from medexp.data.split import shared_groups

EXAMPLES = 12  # named of each kind of finding
NEAR_FAULT = 0.01  # share of the test images; below it near duplicates are a warning
NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Listing:
    """The images of all splits, one split after the other.

    rows: part -> its rows here; val has those of test where validation is the test split.
    contents: (n,) int64, equal where two images are equal; -1 where there is nothing to compare.
    """

    classes: tuple[str, ...]
    rows: dict[str, np.ndarray]
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    contents: np.ndarray

    @property
    def parts(self) -> list[str]:
        """The parts that are images of their own."""
        same = np.array_equal(self.rows["val"], self.rows["test"])
        return [part for part in PARTS if not (part == "val" and same)]

    def part_of(self, row: int) -> str:
        return next(part for part in self.parts if row in _span(self.rows[part]))

    def named(self, row: int) -> dict[str, str]:
        """An image as findings name it."""
        label = self.classes[self.labels[row]]
        return {"split": self.part_of(row), "id": str(self.ids[row]), "class": label}


def _span(rows: np.ndarray) -> range:
    return range(int(rows[0]), int(rows[-1]) + 1) if len(rows) else range(0)


# ---------------------------------------------------------------- a data set with pixels


def check(data: Dataset, step: Step = lambda images: None) -> dict[str, Any]:
    """Counts, intensities, digests, copies, near duplicates and shared groups of the splits.

    `step` is called with the number of images done since the last call. Images that are equal
    pixel for pixel are copies, whatever their ids; those of one value everywhere are counted as
    blank and not as copies. Where validation is the test split, it is looked at once.
    """
    parts = data.splits()
    if np.array_equal(data.val.ids, data.test.ids):
        del parts["val"]
    contents: dict[bytes, int] = {}
    seen = {part: measure(split, contents, step) for part, split in parts.items()}
    listing = listed(data, parts, np.concatenate([one.contents for one in seen.values()]))
    copies = find_copies(listing)
    alike = find_near(listing, seen)
    shared = find_shared(listing)
    blank = {part: int(one.blank.sum()) for part, one in seen.items()}
    broken = {part: int(one.broken.sum()) for part, one in seen.items()}
    splits = {
        part: counts(listing, part)
        | {
            "blake2b": one.blake2b,
            "blank": blank[part],
            "not_finite": broken[part],
            "intensity": one.intensity(),
        }
        for part, one in seen.items()
    }
    faults = [
        *unreadable_faults(data.skipped),
        *broken_faults(broken),
        *class_faults(splits),
        *copy_faults(copies, "pixel for pixel"),
        *group_faults(shared),
    ]
    near_fault, near_warnings = near_findings(alike)
    return {
        "dataset": data.name,
        "classes": list(data.classes),
        "image_shape": list(data.image_shape),
        "dtype": str(data.train.images.dtype),
        "splits": splits,
        "histogram": histogram(seen),
        "files": facts_summary(data.facts),
        "unreadable": dict(data.skipped),
        **copies,
        "near_duplicates": alike,
        "shared_groups": shared,
        "marks": {mark: why for mark, why in data.marks.items() if mark != "LEAKY"},  # a fault here
        "partial": list(data.partial),
        "notes": [*data.notes, *unknown_groups(shared, data.notes)],
        "warnings": [*blank_warnings(blank), *copy_warnings(copies), *near_warnings],
        "faults": faults + near_fault,
    }


def listed(data: Dataset, parts: Mapping[str, Split], contents: np.ndarray) -> Listing:
    splits = list(parts.values())
    ends = np.cumsum([len(split) for split in splits])
    rows = {
        part: np.arange(end - len(split), end)
        for (part, split), end in zip(parts.items(), ends.tolist(), strict=True)
    }
    groups = [split.groups for split in splits if split.groups is not None]
    return Listing(
        data.classes,
        {"val": rows["test"], **rows},
        np.concatenate([split.labels for split in splits]),
        np.concatenate([split.ids for split in splits]),
        np.concatenate(groups) if len(groups) == len(splits) else None,
        contents,
    )


# ---------------------------------------------------------------- a list of files


def check_list(pool: Pool, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts, byte-identical files and shared groups of a split of files that are only listed.

    pool: ids, labels, and digests, groups and folds where they are known. rows: part -> its rows of
    the pool. `patients` counts each patient's images per class and per split; `folds` describes the
    folds that the data set comes with, whatever the split.
    """
    same = np.array_equal(rows["val"], rows["test"])
    parts = [part for part in PARTS if not (part == "val" and same)]
    listing = listing_of(pool, {part: rows[part] for part in parts})
    copies = find_copies(listing)
    shared = find_shared(listing)
    splits = {part: counts(listing, part) for part in parts}
    notes = [*pool.notes, *unknown_groups(shared, pool.notes)]
    if pool.digests is None:
        notes.append("no digests are listed, so no copies could be looked for")
    return {
        "dataset": pool.name,
        "classes": list(pool.classes),
        "image_shape": None,
        "dtype": None,
        "splits": splits,
        **copies,
        "shared_groups": shared,
        "folds": describe_folds(pool),
        "patients": describe_patients(listing),
        "marks": {},
        "partial": [],
        "notes": notes,
        "warnings": copy_warnings(copies),
        "faults": [
            *class_faults(splits),
            *copy_faults(copies, "byte for byte"),
            *group_faults(shared),
        ],
    }


def listing_of(pool: Pool, rows: Mapping[str, np.ndarray]) -> Listing:
    """The rows of a pool part by part; files of equal digest have equal contents."""
    order = np.concatenate(list(rows.values()))
    ends = np.cumsum([len(part) for part in rows.values()]).tolist()
    placed = {
        part: np.arange(end - len(own), end)
        for (part, own), end in zip(rows.items(), ends, strict=True)
    }
    if pool.digests is None:
        contents = np.full(len(order), -1, np.int64)
    else:
        contents = np.unique(pool.digests[order], return_inverse=True)[1]
    return Listing(
        pool.classes,
        {"val": placed["test"], **placed},
        pool.labels[order],
        pool.ids[order],
        None if pool.groups is None else pool.groups[order],
        contents,
    )


def describe_folds(pool: Pool) -> dict[str, Any] | None:
    """Each of the data set's own folds, and the patients and copies that stand in two of them."""
    if pool.folds is None:
        return None
    numbers = [int(fold) for fold in np.unique(pool.folds) if fold >= 0]
    own = {fold: np.flatnonzero(pool.folds == fold) for fold in numbers}
    found: dict[str, Any] = {
        "folds": {
            str(fold): {
                "images": len(rows),
                "per_class": per_class(pool.classes, pool.labels[rows]),
                "groups": None if pool.groups is None else len(np.unique(pool.groups[rows])),
            }
            for fold, rows in own.items()
        }
    }
    for name, column in (("shared_groups", pool.groups), ("shared_copies", pool.digests)):
        found[name] = None if column is None else {
            f"{a}/{b}": len(np.intersect1d(column[own[a]], column[own[b]]))
            for a, b in combinations(numbers, 2)
        }  # fmt: skip
    return found


def describe_patients(listing: Listing) -> dict[str, Any] | None:
    """Patient -> images, per class, per split."""
    if listing.groups is None:
        return None
    names, inverse = np.unique(listing.groups, return_inverse=True)
    by_class = np.zeros((len(names), len(listing.classes)), int)
    np.add.at(by_class, (inverse, listing.labels), 1)
    by_part = {
        part: np.bincount(inverse[listing.rows[part]], minlength=len(names))
        for part in listing.parts
    }
    return {
        str(name): {
            "images": int(by_class[row].sum()),
            "per_class": dict(zip(listing.classes, by_class[row].tolist(), strict=True)),
            **{part: int(column[row]) for part, column in by_part.items()},
        }
        for row, name in enumerate(names)
    }


# ---------------------------------------------------------------- counts


def counts(listing: Listing, part: str) -> dict[str, Any]:
    """Images, classes and groups of one part."""
    rows = listing.rows[part]
    classes = per_class(listing.classes, listing.labels[rows])
    found: dict[str, Any] = {
        "images": len(rows),
        "per_class": classes,
        "share_of_class": {name: n / max(len(rows), 1) for name, n in classes.items()},
        "groups": None,
        "images_per_group": None,
    }
    if listing.groups is not None:
        times = np.unique(listing.groups[rows], return_counts=True)[1]
        found["groups"] = len(times)
        found["images_per_group"] = {
            "min": int(times.min()),
            "median": float(np.median(times)),
            "max": int(times.max()),
        }
    return found


def per_class(classes: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


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
    found: dict[str, Any] = {
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
            found[key] = ends[0] if scalar else ends
    return found


def _plain(value: Any) -> int | float | str:
    """A number that is one, or text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and np.isfinite(value) else str(value)


# ---------------------------------------------------------------- copies, near duplicates, groups


def find_copies(listing: Listing) -> dict[str, Any]:
    """Images of equal content: within and across splits, and under different labels.

    `duplicates_within` counts the copies beyond the first; `duplicates_across` the contents in
    both splits, and the images of the second split that are of them; `duplicates_across_groups`
    those that two patients or slides have in common, who may then be one.
    """
    comparable = listing.contents >= 0
    own = {part: rows[comparable[rows]] for part, rows in listing.rows.items()}
    held = {part: listing.contents[own[part]] for part in listing.parts}
    across: dict[str, dict[str, Any]] = {}
    shared: list[np.ndarray] = []
    for first, second in combinations(listing.parts, 2):
        common = np.intersect1d(held[first], held[second])
        shared.insert(0 if (first, second) == ("train", "test") else len(shared), common)
        if len(common):
            images = int(np.isin(held[second], common).sum())
            across[f"{first}/{second}"] = {
                "contents": len(common),
                f"images_of_{second}": images,
                f"share_of_{second}": images / len(listing.rows[second]),
            }
    rows = np.concatenate([own[part] for part in listing.parts])
    contents, labels = listing.contents[rows], listing.labels[rows]
    pairs = np.unique(np.stack([contents, labels]), axis=1)[0]
    conflicting = np.unique(pairs[1:][pairs[1:] == pairs[:-1]])
    values, times = np.unique(contents, return_counts=True)
    # The worst come first among those that are named.
    repeated = values[times > 1]
    worst = np.concatenate([conflicting, *shared, repeated])
    named = list(dict.fromkeys(worst.tolist()))[:EXAMPLES]
    return {
        "duplicates_within": {
            part: len(codes) - len(np.unique(codes)) for part, codes in held.items()
        },
        "duplicates_across": across,
        "duplicate_groups": len(repeated),
        "conflicting_labels": len(conflicting),
        "duplicates_across_groups": common_to_groups(listing, rows[np.isin(contents, repeated)]),
        "duplicates": [
            [listing.named(row) for row in rows[contents == code][:EXAMPLES]] for code in named
        ],
    }


def common_to_groups(listing: Listing, rows: np.ndarray) -> list[list[Any]] | None:
    """[group, group, contents in both] of these rows, the most first; None without groups."""
    if listing.groups is None:
        return None
    owners: dict[int, set[str]] = {}
    for row in rows.tolist():
        owners.setdefault(int(listing.contents[row]), set()).add(str(listing.groups[row]))
    pairs = Counter(
        pair for groups in owners.values() for pair in combinations(sorted(groups)[:EXAMPLES], 2)
    )
    return [[first, second, count] for (first, second), count in pairs.most_common()]


def find_near(listing: Listing, seen: Mapping[str, Measured]) -> dict[str, Any]:
    """Pairs that look nearly the same, as near.py says; of copies in a split, one is compared."""
    part_number = np.concatenate(
        [np.full(len(one.contents), number) for number, one in enumerate(seen.values())]
    )
    keys = np.stack([part_number, listing.contents])
    rows = np.unique(keys, axis=1, return_index=True)[1]
    rows = np.sort(rows[listing.contents[rows] >= 0])
    hashes = np.concatenate([one.hashes for one in seen.values()])[rows]
    thumbs = np.concatenate([one.thumbs for one in seen.values()])[rows]
    pairs = near.near_pairs(hashes, thumbs, listing.contents[rows])
    first, second = rows[pairs.first], rows[pairs.second]
    one, two = part_number[first], part_number[second]
    parts = list(seen)
    across = {}
    for a, b in combinations(range(len(parts)), 2):
        chosen = (one == a) & (two == b)
        if chosen.any():
            images = len(np.unique(second[chosen]))
            across[f"{parts[a]}/{parts[b]}"] = {
                "pairs": int(chosen.sum()),
                f"images_of_{parts[b]}": images,
                f"share_of_{parts[b]}": images / len(listing.rows[parts[b]]),
            }
    other_label = listing.labels[first] != listing.labels[second]
    # Training against test first, then different labels, then the most alike.
    order = np.lexsort((np.arange(len(first)), ~other_label, one == two, -(two - one)))
    return {
        "pairs": len(first),
        "within": {
            part: int(((one == number) & (two == number)).sum())
            for number, part in enumerate(parts)
        },
        "across": across,
        "under_different_labels": int(other_label.sum()),
        "compared": len(rows) - int(near.is_flat(thumbs).sum()),
        "complete": pairs.complete,
        "bits": near.DISTANCE,
        "correlation": near.MIN_CORRELATION,
        "examples": [
            {
                "first": listing.named(first[i]),
                "second": listing.named(second[i]),
                "bits": int(pairs.distance[i]),
                "correlation": round(float(pairs.correlation[i]), 4),
            }
            for i in order[:EXAMPLES]
        ],
    }


def find_shared(listing: Listing) -> dict[str, Any] | None:
    """Patients or slides in two splits; None where groups are unknown."""
    if listing.groups is None:
        return None
    shared = shared_groups(listing.groups, listing.rows)
    return {
        f"{first}/{second}": {"groups": groups, f"share_of_{second}": share}
        for (first, second), (groups, share) in shared.items()
        if first in listing.parts and second in listing.parts
    }


# ---------------------------------------------------------------- findings in words


def both(pair: str) -> str:
    return pair.replace("/", " and ")


def unreadable_faults(skipped: Mapping[str, str]) -> list[str]:
    if not skipped:
        return []
    return [
        f"{plural(len(skipped), 'image')} cannot be read: dataset.on_error=fail stops a run there, "
        f"dataset.on_error=skip leaves them out. The first: {next(iter(skipped.values()))}"
    ]


def broken_faults(broken: Mapping[str, int]) -> list[str]:
    return [
        f"{plural(count, 'image')} of the {part} split {have(count)} NaN or infinite pixels"
        for part, count in broken.items()
        if count
    ]


def class_faults(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for part, split in splits.items():
        missing = [name for name, count in split["per_class"].items() if count == 0]
        if missing:
            found.append(f"the {part} split has no image of class {', '.join(missing)}")
    return found


def copy_faults(copies: Mapping[str, Any], how: str) -> list[str]:
    found = []
    for pair, numbers in copies["duplicates_across"].items():
        second = pair.split("/")[1]
        count, share = numbers["contents"], numbers[f"share_of_{second}"]
        verb = "stands" if count == 1 else "stand"
        found.append(
            f"{plural(count, 'image')} {verb} in both {both(pair)}, {how} ({percent(share)} of the "
            f"{second} images)"
        )
    if count := copies["conflicting_labels"]:
        verb = "stands" if count == 1 else "stand"
        first = ", ".join(f"{one['id']} ({one['class']})" for one in copies["duplicates"][0][:4])
        found.append(
            f"{plural(count, 'image')} {verb} twice under different labels, {how}; the first: "
            f"{first}"
        )
    return found


def group_faults(shared: Mapping[str, Any] | None) -> list[str]:
    found = []
    for pair, numbers in (shared or {}).items():
        second, count = pair.split("/")[1], numbers["groups"]
        if count:
            noun = "patient or slide stands" if count == 1 else "patients or slides stand"
            share = percent(numbers[f"share_of_{second}"])
            found.append(f"{count:,} {noun} in both {both(pair)} ({share} of the {second} images)")
    return found


def near_findings(alike: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(faults, warnings). A few alike between training and test may be chance; many are not."""
    faults: list[str] = []
    warnings: list[str] = []
    for pair, numbers in alike["across"].items():
        first, second = pair.split("/")
        images, share = numbers[f"images_of_{second}"], numbers[f"share_of_{second}"]
        verb = "looks" if images == 1 else "look"
        text = (
            f"{plural(images, f'{NAMES[second]} image')} ({percent(share)}) {verb} nearly the same "
            f"as a {NAMES[first]} image"
        )
        (faults if pair == "train/test" and share >= NEAR_FAULT else warnings).append(text)
    if within := sum(alike["within"].values()):
        verb = "looks" if within == 1 else "look"
        warnings.append(f"{plural(within, 'pair')} within a split {verb} nearly the same")
    if count := alike["under_different_labels"]:
        warnings.append(f"{plural(count, 'pair')} of near duplicates {have(count)} two labels")
    if not alike["complete"]:
        warnings.append(
            "so many images look alike that not every pair was compared: there may be more near "
            "duplicates than counted"
        )
    return faults, warnings


def unknown_groups(shared: object, notes: Sequence[str]) -> list[str]:
    """The note that patients are unknown, where the data set's own notes do not say it."""
    if shared is not None or any(note.startswith("patients unknown") for note in notes):
        return []
    return ["no patient or slide is known, so none could be followed across splits"]


def blank_warnings(blank: Mapping[str, int]) -> list[str]:
    return [
        f"{plural(count, 'image')} of the {part} split {'is' if count == 1 else 'are'} blank: one "
        "value everywhere"
        for part, count in blank.items()
        if count
    ]


def copy_warnings(copies: Mapping[str, Any]) -> list[str]:
    found = [
        f"{plural(count, 'image')} of the {part} split {'repeats' if count == 1 else 'repeat'} "
        "another of it"
        for part, count in copies["duplicates_within"].items()
        if count
    ]
    if pairs := copies["duplicates_across_groups"]:
        named = ", ".join(f"{first} and {second} ({count:,})" for first, second, count in pairs[:4])
        more = f", and {len(pairs) - 4:,} more pairs" if len(pairs) > 4 else ""
        found.append(
            f"patients or slides of different names have equal images, so they may be one: {named}"
            f"{more}"
        )
    return found


def percent(share: float) -> str:
    """None and all are said of nothing else."""
    if 0 < share < 0.001:
        return "under 0.1%"
    return "over 99.9%" if 0.999 < share < 1 else f"{share:.1%}"


def have(count: int) -> str:
    return "has" if count == 1 else "have"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
