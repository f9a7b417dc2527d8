"""Which whole groups (patients, slides) make a part of a split: the search behind grouped_split.

To meet a share exactly is a subset-sum problem. Up to EXACT groups every choice is looked at. Of
more, a drawn start is improved window by window: all choices over a few groups, the others as they
stand, and the best is kept. Windows are so many that the share is met to the image wherever groups
are many.
"""

from collections.abc import Iterator

import numpy as np

EXACT = 15  # groups of which all 2**15 choices are looked at
WINDOW = 12  # groups that are chosen anew at a time
SWEEPS = 6  # over all groups, at most


def nearest_groups(
    counts: np.ndarray, share: float, rng: np.random.Generator, keep: int = 1
) -> np.ndarray | None:
    """(groups,) bool: those of the second part; None where no choice has each class on both sides.

    counts: (groups, classes) images. share: of all images, in (0, 1). keep: groups of each class
    that stay in the first part; one at least is in the second.

    The best choice is, in this order, one with every class on both sides, nearest to the share, and
    with the classes in proportion. Between equal ones the drawing decides.
    """
    order = rng.permutation(len(counts))
    shuffled = counts[order]
    if len(counts) <= EXACT:
        chosen = best_of(shuffled, share, keep, np.zeros(len(counts), bool), np.arange(len(counts)))
    else:
        chosen = improved(shuffled, share, keep, start(shuffled, share), rng)
    if lacking(shuffled, chosen, keep):
        return None
    found = np.zeros(len(counts), bool)
    found[order] = chosen
    return found


def start(counts: np.ndarray, share: float) -> np.ndarray:
    """Group by group as they come: into the second part where that is nearer the share.

    Not the large ones first, or the second part would consist of them.
    """
    totals = counts.sum(axis=0)
    wanted = share * totals
    chosen = np.zeros(len(counts), bool)
    held = np.zeros(counts.shape[1])
    for group in range(len(counts)):
        before, after = ((held + more - wanted) ** 2 / totals for more in (0, counts[group]))
        if after.sum() < before.sum():
            chosen[group] = True
            held = held + counts[group]
    return chosen


def improved(
    counts: np.ndarray, share: float, keep: int, chosen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The choice after windows over all groups, until it is exact or SWEEPS are done."""
    for _ in range(SWEEPS):
        for window in windows(chosen, rng):
            if exact(counts, share, chosen) and not lacking(counts, chosen, keep):
                return chosen
            chosen = best_of(counts, share, keep, chosen, window)
    return chosen


def exact(counts: np.ndarray, share: float, chosen: np.ndarray) -> bool:
    """Whether the share is met to the image, and no class is an image away from its own."""
    held, totals = counts[chosen].sum(axis=0), counts.sum(axis=0)
    even = held.sum() * totals / totals.sum()
    return bool(abs(held.sum() - share * totals.sum()) <= 0.5 and (np.abs(held - even) < 1).all())


def windows(chosen: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Windows over all groups, half of each from the second part as it was, so that they can swap.

    The smaller part comes round again until the larger is through.
    """
    sides = [rng.permutation(np.flatnonzero(chosen == side)) for side in (False, True)]
    half = WINDOW // 2
    for number in range(max(-(-len(side) // half) for side in sides)):
        yield np.concatenate(
            [
                np.unique(side.take(range(number * half, number * half + half), mode="wrap"))
                for side in sides
                if len(side)
            ]
        )


def best_of(
    counts: np.ndarray, share: float, keep: int, chosen: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """The best choice over the groups of a window, the others as they are; `chosen` where equal."""
    masks = choices(len(window))
    # The present choice comes first, and the first of the best is taken.
    masks = np.concatenate([chosen[window][None].astype(masks.dtype), masks])
    fixed = chosen.copy()
    fixed[window] = False
    held = counts[fixed].sum(axis=0) + masks @ counts[window]
    owners = counts > 0
    theirs = owners[fixed].sum(axis=0) + masks @ owners[window].astype(masks.dtype)
    rest = owners.sum(axis=0) - theirs
    lacks = np.maximum(1 - theirs, 0).sum(axis=1) + np.maximum(keep - rest, 0).sum(axis=1)
    totals = counts.sum(axis=0)
    size = held.sum(axis=1)
    # To six decimals, as a share of a whole number may miss it by the last bit.
    off = np.abs(size - share * totals.sum()).round(6)
    even = size[:, None] * (totals / totals.sum())
    skewed = ((held - even) ** 2 / totals).sum(axis=1).round(9)
    rank = np.lexsort((np.arange(len(masks)), skewed, off, lacks))
    found = fixed
    found[window] = masks[rank[0]].astype(bool)
    return found


def choices(groups: int) -> np.ndarray:
    """(2**groups, groups) float: every choice of so many groups."""
    numbers = np.arange(2**groups)[:, None]
    chosen: np.ndarray = ((numbers >> np.arange(groups)) & 1).astype(float)
    return chosen


def lacking(counts: np.ndarray, chosen: np.ndarray, keep: int) -> bool:
    """Whether a class is in no group of the second part, or in fewer than `keep` of the first."""
    second, first = (counts[side] > 0 for side in (chosen, ~chosen))
    return bool((second.sum(axis=0) < 1).any() or (first.sum(axis=0) < keep).any())
