"""What would falsify a result before a GPU-hour is spent: copies, groups across splits, bad files.

`check` looks at every stored pixel once, in blocks; `check_list` at a list of files without pixels.
Both return JSON-ready dicts with `faults` (what would make a test result wrong), `warnings` (what a
person should look at) and the facts behind them.

A check is a function of those facts that returns its findings; a new one is added to CHECKS.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from medexp.data.base import PARTS_IN_WORDS, Dataset, Pool
from medexp.data.copies import find_copies, find_near, find_shared
from medexp.data.describe import (
    Listing,
    counts,
    describe_folds,
    describe_patients,
    distinct_parts,
    facts_summary,
)
from medexp.data.measure import Step, histogram, measure
from medexp.data.suspects import find_names, find_telltales, find_turned
from medexp.data.words import agree, both, percent, plural, share_of, stand

NEAR_FAULT = 0.01  # share of the test images; below it near duplicates are a warning
BLANK_FAULT = 0.01  # share of a split's images; below it blank ones are a warning


@dataclass(frozen=True)
class Facts:
    """What the checks go by.

    splits: part -> its counts; with pixels also how many images are blank or not finite.
    copies, shared_groups, near_duplicates: as medexp/data/copies.py finds them; None: unknown.
    unreadable: id -> reason. equal: how images were compared, in words. turned: like
    near_duplicates, of images mirrored or turned. names: what the names of classes, patients and
    files say (suspects.find_names). telltales: facts of the files that give the class away.
    """

    splits: Mapping[str, Mapping[str, Any]]
    copies: Mapping[str, Any]
    shared_groups: Mapping[str, Any] | None
    equal: str
    near_duplicates: Mapping[str, Any] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    turned: Mapping[str, Any] | None = None
    names: Sequence[str] = ()
    telltales: Sequence[Mapping[str, Any]] = ()


class Finding(NamedTuple):
    """fault: it would make a test result wrong; else a person should look at it."""

    text: str
    fault: bool


def fault(text: str) -> Finding:
    return Finding(text, fault=True)


def warning(text: str) -> Finding:
    return Finding(text, fault=False)


def check(data: Dataset, step: Step = lambda images: None) -> dict[str, Any]:
    """Counts, intensities, digests, copies, near duplicates and shared groups of the splits.

    `step` is called with the number of images done since the last call. Images that are equal
    pixel for pixel are copies, whatever their ids; those of one value everywhere are counted as
    blank and not as copies. Where validation is the test split, it is looked at once.
    """
    numbers: dict[bytes, int] = {}
    splits = data.splits()
    measured = {
        part: measure(splits[part], numbers, step)
        for part in distinct_parts(data.val.ids, data.test.ids)
    }
    contents = np.concatenate([one.contents for one in measured.values()])
    listing = Listing.of_dataset(data, contents)
    facts = Facts(
        splits={
            part: counts(listing, part)
            | {
                "blake2b": one.blake2b,
                "blank": int(one.blank.sum()),
                "not_finite": int(one.broken.sum()),
                "intensity": one.intensity(),
            }
            for part, one in measured.items()
        },
        copies=find_copies(listing),
        shared_groups=find_shared(listing),
        equal="pixel for pixel",
        near_duplicates=find_near(listing, measured),
        unreadable=data.skipped,
        turned=find_turned(listing, measured),
        names=find_names(listing),
        telltales=find_telltales(listing, data.facts),
    )
    found = findings(facts)
    return {
        "dataset": data.name,
        "classes": list(data.classes),
        "image_shape": list(data.image_shape),
        "dtype": str(data.train.images.dtype),
        "splits": facts.splits,
        "histogram": histogram(measured),
        "files": facts_summary(data.facts),
        "unreadable": dict(data.skipped),
        **facts.copies,
        "near_duplicates": facts.near_duplicates,
        "turned_copies": facts.turned,
        "telltales": list(facts.telltales),
        "shared_groups": facts.shared_groups,
        "marks": {mark: why for mark, why in data.marks.items() if mark != "LEAKY"},  # a fault here
        "partial": list(data.partial),
        # What the reader notes of names is a warning here.
        "notes": [
            note
            for note in (*data.notes, *unknown_groups(facts, data.notes))
            if note not in found["warnings"]
        ],
        **found,
    }


def check_list(pool: Pool, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts, byte-identical files and shared groups of a split of files that are only listed.

    pool: ids, labels, and digests, groups and folds where they are known. rows: part -> its rows of
    the pool. `patients` counts each patient's images per class and per split; `folds` describes the
    folds that the data set comes with, whatever the split.
    """
    listing = Listing.of_pool(pool, rows)
    facts = Facts(
        splits={part: counts(listing, part) for part in listing.rows},
        copies=find_copies(listing),
        shared_groups=find_shared(listing),
        equal="byte for byte",
        names=find_names(listing),
    )
    notes = [*pool.notes, *unknown_groups(facts, pool.notes)]
    if pool.digests is None:
        notes.append("no digests are listed, so no copies could be looked for")
    return {
        "dataset": pool.name,
        "classes": list(pool.classes),
        "image_shape": None,
        "dtype": None,
        "splits": facts.splits,
        **facts.copies,
        "shared_groups": facts.shared_groups,
        "folds": describe_folds(pool),
        "patients": describe_patients(listing),
        "marks": {},
        "partial": [],
        "notes": notes,
        **findings(facts),
    }


def findings(facts: Facts) -> dict[str, list[str]]:
    """The texts of all checks' findings."""
    all_findings = [finding for check_facts in CHECKS for finding in check_facts(facts)]
    return {
        "warnings": [finding.text for finding in all_findings if not finding.fault],
        "faults": [finding.text for finding in all_findings if finding.fault],
    }


def unknown_groups(facts: Facts, notes: Sequence[str]) -> list[str]:
    """The note that patients are unknown, where the data set's own notes do not say it."""
    if facts.shared_groups is not None or any(n.startswith("patients unknown") for n in notes):
        return []
    return ["no patient or slide is known, so none could be followed across splits"]


# ---------------------------------------------------------------- the checks


def unreadable_images(facts: Facts) -> list[Finding]:
    if not facts.unreadable:
        return []
    text = (
        f"{plural(len(facts.unreadable), 'image')} cannot be read: dataset.on_error=fail stops a "
        "run there, dataset.on_error=skip leaves them out. The first: "
        f"{next(iter(facts.unreadable.values()))}"
    )
    return [fault(text)]


def broken_pixels(facts: Facts) -> list[Finding]:
    return [
        fault(
            f"{plural(count, 'image')} of the {part} split {agree(count, 'has', 'have')} NaN or "
            "infinite pixels"
        )
        for part, split in facts.splits.items()
        if (count := split.get("not_finite", 0))
    ]


def missing_classes(facts: Facts) -> list[Finding]:
    return [
        fault(f"the {part} split has no image of class {', '.join(missing)}")
        for part, split in facts.splits.items()
        if (missing := [name for name, count in split["per_class"].items() if count == 0])
    ]


def copies_across_splits(facts: Facts) -> list[Finding]:
    return [
        fault(
            f"{stand(numbers['contents'])} in both {both(pair)}, {facts.equal} "
            f"({share_of(pair, numbers)})"
        )
        for pair, numbers in facts.copies["duplicates_across"].items()
    ]


def copies_under_two_labels(facts: Facts) -> list[Finding]:
    count = facts.copies["conflicting_labels"]
    if not count:
        return []
    first = ", ".join(f"{one['id']} ({one['class']})" for one in facts.copies["duplicates"][0][:4])
    text = f"{stand(count)} twice under different labels, {facts.equal}; the first: {first}"
    return [fault(text)]


def groups_across_splits(facts: Facts) -> list[Finding]:
    return [
        fault(
            f"{count:,} {agree(count, 'patient or slide stands', 'patients or slides stand')} in "
            f"both {both(pair)} ({share_of(pair, numbers)})"
        )
        for pair, numbers in (facts.shared_groups or {}).items()
        if (count := numbers["groups"])
    ]


def blank_images(facts: Facts) -> list[Finding]:
    """A few may be the margin of a scan; many are images that were lost on the way."""
    return [
        Finding(
            f"{plural(count, 'image')} of the {part} split ({percent(count / split['images'])}) "
            f"{agree(count, 'is', 'are')} blank: one value everywhere",
            fault=count > BLANK_FAULT * split["images"],
        )
        for part, split in facts.splits.items()
        if (count := split.get("blank", 0))
    ]


def copies_within_splits(facts: Facts) -> list[Finding]:
    return [
        warning(
            f"{plural(count, 'image')} of the {part} split {agree(count, 'repeats', 'repeat')} "
            "another of it"
        )
        for part, count in facts.copies["duplicates_within"].items()
        if count
    ]


def copies_across_groups(facts: Facts) -> list[Finding]:
    pairs = facts.copies["duplicates_across_groups"]
    if not pairs:
        return []
    named = ", ".join(f"{first} and {second} ({count:,})" for first, second, count in pairs[:4])
    more = f", and {plural(len(pairs) - 4, 'more pair')}" if len(pairs) > 4 else ""
    text = (
        "patients or slides of different names have equal images, so they may be one: "
        f"{named}{more}"
    )
    return [warning(text)]


def near_duplicates(facts: Facts) -> list[Finding]:
    """A few alike between training and test may be chance; many are not."""
    near = facts.near_duplicates
    if near is None:
        return []
    across = []
    for pair, numbers in near["across"].items():
        first, second = pair.split("/")
        count, share = numbers[f"images_of_{second}"], numbers[f"share_of_{second}"]
        text = (
            f"{plural(count, f'{PARTS_IN_WORDS[second]} image')} ({percent(share)}) "
            f"{agree(count, 'looks', 'look')} nearly the same as a {PARTS_IN_WORDS[first]} image"
        )
        across.append(Finding(text, fault=pair == "train/test" and share >= NEAR_FAULT))
    texts = []
    if count := sum(near["within"].values()):
        verb = agree(count, "looks", "look")
        texts.append(f"{plural(count, 'pair')} within a split {verb} nearly the same")
    if count := near["under_different_labels"]:
        verb = agree(count, "has", "have")
        texts.append(f"{plural(count, 'pair')} of near duplicates {verb} two labels")
    if not near["complete"]:
        texts.append(
            "so many images look alike that not every pair was compared: there may be more near "
            "duplicates than counted"
        )
    return [*across, *map(warning, texts)]


def turned_copies(facts: Facts) -> list[Finding]:
    """Copies of an image mirrored or turned, as augmentation before the split makes them."""
    found = []
    for pair, numbers in (facts.turned or {}).get("across", {}).items():
        first, second = pair.split("/")
        count, share = numbers[f"images_of_{second}"], numbers[f"share_of_{second}"]
        one = numbers["examples"][0]
        text = (
            f"{plural(count, f'{PARTS_IN_WORDS[second]} image')} ({percent(share)}) "
            f"{agree(count, 'is', 'are')} a {PARTS_IN_WORDS[first]} image mirrored or turned, such "
            f"as {one['second']['id']} of {one['first']['id']}"
        )
        found.append(Finding(text, fault=pair == "train/test" and share >= NEAR_FAULT))
    return found


def names_that_tell(facts: Facts) -> list[Finding]:
    return [warning(text) for text in facts.names]


def facts_that_give_the_class_away(facts: Facts) -> list[Finding]:
    return [
        warning(
            f"the {one['fact']} of the files alone predicts the class with accuracy "
            f"{one['accuracy']:.3f} (the commonest class: {one['commonest']:.3f}), so a network "
            f"may learn that and no disease: {one['words']}"
        )
        for one in facts.telltales
    ]


# Faults and warnings are listed in this order.
CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    unreadable_images,
    broken_pixels,
    missing_classes,
    copies_across_splits,
    copies_under_two_labels,
    groups_across_splits,
    blank_images,
    copies_within_splits,
    copies_across_groups,
    near_duplicates,
    turned_copies,
    names_that_tell,
    facts_that_give_the_class_away,
)
