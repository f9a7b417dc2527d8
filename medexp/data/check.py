"""What would falsify a result before a GPU-hour is spent: duplicates, and groups across splits."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from medexp.data.base import Dataset


def check(data: Dataset, step: Callable[[int], None] = lambda images: None) -> dict[str, Any]:
    """Counts, digests, exact duplicates and shared groups of the three splits, JSON-ready.

    `step` is called with the number of images done since the last call. `faults` lists, in words,
    what would make a test result wrong; it is empty for sound splits. Images that are equal byte
    for byte count as duplicates, whatever their ids.
    """
    splits: dict[str, Any] = {}
    seen: dict[bytes, list[tuple[str, int, int]]] = defaultdict(list)
    for name, split in data.splits().items():
        counts = np.bincount(split.labels, minlength=len(data.classes))
        splits[name] = {
            "images": len(split),
            "per_class": dict(zip(data.classes, counts.tolist(), strict=True)),
            "groups": None if split.groups is None else len(set(split.groups.tolist())),
            "blake2b": split.fingerprint(),
        }
        for index, image in enumerate(split.images):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            seen[digest].append((name, index, int(split.labels[index])))
            step(1)
    faults, within = [], dict.fromkeys(splits, 0)
    across: dict[str, int] = {}
    conflicts = []
    for copies in seen.values():
        if len(copies) == 1:
            continue
        names = [name for name, _, _ in copies]
        for name in set(names):
            within[name] += names.count(name) - 1
        for first, second in combinations([n for n in splits if n in names], 2):
            across[f"{first}/{second}"] = across.get(f"{first}/{second}", 0) + 1
        if len({label for _, _, label in copies}) > 1:
            conflicts.append([str(data.splits()[n].ids[i]) for n, i, _ in copies])
    for pair, count in across.items():
        faults.append(f"{count:,} images stand in both {pair.replace('/', ' and ')}, byte for byte")
    if conflicts:
        faults.append(
            f"{len(conflicts):,} images stand twice under different labels, the first as "
            + ", ".join(conflicts[0])
        )
    shared: dict[str, Any] = {}
    for first, second in combinations(splits, 2):
        one, two = data.splits()[first].groups, data.splits()[second].groups
        if one is None or two is None:
            continue
        common = set(one.tolist()) & set(two.tolist())
        share = float(np.isin(two, list(common)).mean()) if common else 0.0
        shared[f"{first}/{second}"] = {"groups": len(common), f"share_of_{second}": share}
        if common:
            faults.append(
                f"{len(common):,} patients or slides stand in both {first} and {second} "
                f"({share:.1%} of the {second} images)"
            )
    return {
        "dataset": data.name,
        "image_shape": list(data.image_shape),
        "dtype": str(data.train.images.dtype),
        "splits": splits,
        "duplicates_within": within,
        "duplicates_across": across,
        "conflicting_labels": conflicts,
        "shared_groups": shared or None,
        "partial": list(data.partial),
        "notes": list(data.notes),
        "faults": faults,
    }
