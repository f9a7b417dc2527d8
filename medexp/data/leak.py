"""Patients and slides on both sides of a split, which make a test result look better than it is."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from medexp.errors import MedexpError


def shared_groups(
    groups: np.ndarray | None, rows: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], tuple[int, float]]:
    """(part, part) -> groups in both, and the share of the second part's images that are of them.

    Parts that are the very same images are not compared; empty where groups are unknown.
    """
    shared = {}
    for first, second in combinations(rows, 2):
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
    reason = "; ".join(
        f"{share:.1%} of the {second} images are of {count:,} patients or slides that are in "
        f"{first} too"
        for (first, second), (count, share) in shared.items()
    )
    if not allow_leak:
        raise MedexpError(
            f"{name}: patients or slides stand on both sides of the split: {reason}.\n"
            "Split by patient with dataset.split=patients, or take it as it is with "
            "dataset.allow_leak=true, which marks every table LEAKY"
        )
    return {"LEAKY": reason}
