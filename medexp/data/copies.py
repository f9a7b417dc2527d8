"""Images that stand twice: equal ones, near duplicates, and patients in two splits.

All of it is JSON-ready, for fingerprint.json and the page of `medexp data check`.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from medexp.data import near
from medexp.data.describe import Listing
from medexp.data.leak import shared_groups
from medexp.data.measure import Measured

EXAMPLES = 12  # named of each kind of finding


def find_copies(listing: Listing) -> dict[str, Any]:
    """Images of equal content: within and across splits, and under different labels.

    `duplicates_within` counts the copies beyond the first; `duplicates_across` the contents in
    both splits, and the images of the second split that are of them; `duplicates_across_groups`
    those that two patients or slides have in common, who may then be one.
    """
    comparable = listing.contents >= 0
    rows_of = {part: rows[comparable[rows]] for part, rows in listing.rows.items()}
    contents_of = {part: listing.contents[rows_of[part]] for part in listing.rows}
    across: dict[str, dict[str, Any]] = {}
    shared: list[np.ndarray] = []
    for first, second in combinations(listing.rows, 2):
        common = np.intersect1d(contents_of[first], contents_of[second])
        shared.insert(0 if (first, second) == ("train", "test") else len(shared), common)
        if len(common):
            images = int(np.isin(contents_of[second], common).sum())
            across[f"{first}/{second}"] = {
                "contents": len(common),
                f"images_of_{second}": images,
                f"share_of_{second}": images / len(listing.rows[second]),
            }
    rows = np.concatenate(list(rows_of.values()))
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
            part: len(codes) - len(np.unique(codes)) for part, codes in contents_of.items()
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


def find_near(listing: Listing, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Pairs that look nearly the same, as near.py says; of copies in a split, one is compared."""
    part_number = np.concatenate(
        [np.full(len(one.contents), number) for number, one in enumerate(measured.values())]
    )
    keys = np.stack([part_number, listing.contents])
    rows = np.unique(keys, axis=1, return_index=True)[1]
    rows = np.sort(rows[listing.contents[rows] >= 0])
    hashes = np.concatenate([one.hashes for one in measured.values()])[rows]
    thumbs = np.concatenate([one.thumbs for one in measured.values()])[rows]
    pairs = near.near_pairs(hashes, thumbs, listing.contents[rows])
    first, second = rows[pairs.first], rows[pairs.second]
    one, two = part_number[first], part_number[second]
    parts = list(measured)
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
    }
