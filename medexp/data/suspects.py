"""What makes a split suspect: names shared across it, facts that give a class away, turned copies.

All of it is JSON-ready, for fingerprint.json and the page of `medexp data check`.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from medexp.data import names as by_name
from medexp.data import near
from medexp.data.describe import Listing
from medexp.data.measure import Measured
from medexp.data.photographs import PARTS_OF
from medexp.data.words import percent

MIN_FILES = 30  # of which a fact must be known before it says anything
GAIN = 0.3  # of what the commonest class leaves wrong, what a fact must set right
EXAMPLES = 12
FEW_VALUES = 4  # of a fact, shown with their classes


# ---------------------------------------------------------------- names


def find_names(listing: Listing) -> list[str]:
    """What the names of classes, patients and files give reason to look at."""
    found = by_name.doubtful_classes(listing.classes)
    ids = [str(key) for key in listing.ids]
    if listing.groups is not None:
        found += by_name.doubtful_patients(map(str, listing.groups))
    else:
        found += shared_names(listing, ids)
    if masks := by_name.masks(ids):
        first, image = next(iter(masks.items()))
        found.append(
            f"{len(masks):,} of {len(ids):,} images are named as masks of others, such as {first} "
            f"of {image}. Leave them out (dataset=image_folder does with dataset.masks=skip)"
        )
    return found


def shared_names(listing: Listing, ids: list[str]) -> list[str]:
    """Sub-folders and beginnings of file names that training and test images have in common."""
    found = []
    for source in by_name.sources([below(key, listing.classes) for key in ids]):
        keys = np.array(source.keys)
        train, test = (keys[listing.rows[part]] for part in ("train", "test"))
        common = np.isin(test, train)
        if not common.any():
            continue
        found.append(
            f"{int(common.sum()):,} of {len(test):,} test images ({percent(float(common.mean()))}) "
            f"share their {source.one} with training images, such as {str(test[common][0])!r}: if "
            "that is a patient, or one picture and its augmented copies, they must not cross the "
            f"split; of class folders and tables, {by_name.setting(source)} keeps them on one side"
        )
    return found


def below(key: str, classes: tuple[str, ...]) -> str:
    """An id without the folders of its part and its class in front."""
    pieces = list(PurePosixPath(key).parts)
    while len(pieces) > 1 and (pieces[0] in classes or pieces[0].lower() in PARTS_OF):
        pieces.pop(0)
    return "/".join(pieces)


# ---------------------------------------------------------------- facts of the files


def find_telltales(
    listing: Listing, facts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Facts (size, mode, suffix, ...) by which the class is guessed well, the best first.

    The guess for an image is the commonest class among the others of the same value, so that a
    value which stands once says nothing.
    """
    known: dict[str, dict[int, str]] = defaultdict(dict)
    for row, key in enumerate(listing.ids.tolist()):
        known["suffix"][row] = PurePosixPath(str(key)).suffix.lower()
        for fact, value in facts.get(str(key), {}).items():
            known[fact][row] = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    found = []
    for fact, values in known.items():
        rows = np.array(list(values))
        one = telltale(list(values.values()), listing.labels[rows], listing.classes)
        if one is not None:
            found.append({"fact": fact, **one})
    return sorted(found, key=lambda one: -one["accuracy"])


def telltale(
    values: list[str], labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Any] | None:
    """How well a fact predicts the class: accuracy, that of the commonest class, words; or None."""
    if len(values) < MIN_FILES or len(set(values)) < 2:
        return None
    kinds, codes = np.unique(values, return_inverse=True)
    table = np.zeros((len(kinds), len(classes)), int)
    np.add.at(table, (codes, labels), 1)
    commonest = table.sum(axis=0).max() / len(values)
    right = 0
    for counts in table:
        # Left out of its own count, an image of the class in front must still be in front.
        order = np.sort(counts)[::-1]
        right += int(order[0]) if order[0] - 1 >= max(order[1], 1) else 0
    accuracy = right / len(values)
    if accuracy - commonest < GAIN * (1 - commonest) or commonest == 1:
        return None
    shown = np.argsort(-table.sum(axis=1), kind="stable")[:FEW_VALUES]
    words = "; ".join(
        f"{kinds[kind]} in "
        + ", ".join(
            f"{n:,} of {c}" for c, n in zip(classes, table[kind].tolist(), strict=True) if n
        )
        for kind in shown
    )
    return {"accuracy": accuracy, "commonest": float(commonest), "words": words}


# ---------------------------------------------------------------- mirrored and turned copies


def find_turned(listing: Listing, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Images of one part that are an image of another mirrored or turned, as near.py says."""
    parts = list(measured)
    across: dict[str, Any] = {}
    complete = True
    for number, second in enumerate(parts):
        for first in parts[:number]:
            pairs = near.turned_pairs(measured[first].thumbs, measured[second].thumbs)
            complete &= pairs.complete
            if not len(pairs.first):
                continue
            one, two = listing.rows[first][pairs.first], listing.rows[second][pairs.second]
            images = len(np.unique(two))
            across[f"{first}/{second}"] = {
                "pairs": len(one),
                f"images_of_{second}": images,
                f"share_of_{second}": images / len(listing.rows[second]),
                "examples": [
                    {"first": listing.named(a), "second": listing.named(b)}
                    for a, b in list(zip(one, two, strict=True))[:EXAMPLES]
                ],
            }
    return {"across": across, "complete": complete, "correlation": near.TURNED_CORRELATION}
