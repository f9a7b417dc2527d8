"""Images that look nearly the same: a perceptual hash finds them, a correlation confirms them.

A perceptual hash (Zauner 2010; the library ImageHash) is the sign pattern of an image's lowest 8x8
cosine frequencies. It survives compression, resizing and a change of brightness, but it also gives
one pattern to different patients' CT slices, which are all built alike. So a pair within DISTANCE
bits is only a candidate; its 16x16 grey thumbnails must correlate too. On 600 real CT slices of
64x64 the hash alone calls 66 pairs alike; the 24 of them above MIN_CORRELATION are, to the eye,
slices of one scan, while pairs of different patients begin at 0.93.

Copies that are mirrored or turned by quarters are looked for between two parts, by the thumbnails
alone: their own cosine patterns under the seven symmetries, and a stricter correlation.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

DISTANCE = 4  # bits of 64
BANDS = (13, 13, 13, 13, 12)  # bits; of 5 bands, 4 differing bits leave one untouched
MIN_CORRELATION = 0.95
THUMB = 16  # side of the thumbnails
TURNED_CORRELATION = 0.98
FLAT = 2.0  # grey levels of 255: a thumbnail that varies less shows nothing to compare
WINDOW = 1000  # hashes that one is compared with in each band
MAX_PAIRS = 1_000_000  # candidates kept
BLOCK = 2**16  # pairs correlated at a time

_ONES = np.unpackbits(np.arange(2**16, dtype="<u2").view(np.uint8).reshape(-1, 2), axis=1).sum(1)


class Near(NamedTuple):
    """Pairs (first[i], second[i]) of rows, first < second, the most alike first.

    distance: bits in which the hashes differ; correlation: of the thumbnails. complete: False where
    so many hashes were alike that not all pairs were looked at.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    correlation: np.ndarray
    complete: bool


def signature(image: np.ndarray) -> tuple[int, np.ndarray]:
    """The 64-bit hash of a stored image or volume, and its thumbnail (256,) uint8."""
    import imagehash
    from PIL import Image

    grey = Image.fromarray(grey_picture(image))
    bits = imagehash.phash(grey).hash
    thumb = grey.resize((THUMB, THUMB), Image.Resampling.BOX)
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), np.asarray(thumb).ravel()


def grey_picture(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H, W) uint8; of (D, H, W, C) three slices side by side, (H, 3 W).

    The slices at a quarter, half and three quarters of the depth: one alone says too little of a
    volume. Float images are spread from their smallest to their largest value.
    """
    if image.ndim == 4:
        image = np.concatenate([image[i] for i in slices(len(image))], axis=1)
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return np.asarray((image @ np.array([0.299, 0.587, 0.114], np.float32)).round(), np.uint8)
    grey = image.astype(np.float32).mean(axis=-1)
    return grey.round().astype(np.uint8) if image.dtype == np.uint8 else to_bytes(grey)


def slices(depth: int) -> list[int]:
    """Three places in a volume: at a quarter, half and three quarters of its depth."""
    return [int(depth * share) for share in (0.25, 0.5, 0.75)]


def to_bytes(
    picture: np.ndarray, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Numbers from low to high (default: their own range) as uint8 from 0 to 255."""
    values = picture.astype(np.float32)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = np.clip((values - low) / (high - low), 0, 1) * 255
    return np.asarray(scaled.round(), np.uint8)


def near_pairs(hashes: np.ndarray, thumbs: np.ndarray, contents: np.ndarray) -> Near:
    """All pairs within DISTANCE bits whose thumbnails correlate, but none of equal content.

    hashes: (n,) uint64; thumbs: (n, 256) uint8; contents: (n,) int, equal where images are equal.
    Time and memory grow with n log n and the pairs in common bands, at most WINDOW for an image.
    """
    rows = np.flatnonzero(~is_flat(thumbs))
    first, second, distance, complete = candidates(hashes[rows])
    first, second = rows[first], rows[second]
    other = contents[first] != contents[second]
    first, second, distance = first[other], second[other], distance[other]
    alike = correlations(thumbs, first, second)
    kept = np.flatnonzero(alike >= MIN_CORRELATION)
    kept = kept[np.lexsort((second[kept], first[kept], distance[kept], -alike[kept].round(3)))]
    low, high = np.minimum(first, second)[kept], np.maximum(first, second)[kept]
    return Near(low, high, distance[kept], alike[kept], complete)


def turned_pairs(first: np.ndarray, second: np.ndarray) -> Near:
    """Pairs (row of first, row of second) of which one is the other mirrored or turned.

    first, second: (n, 256) and (m, 256) uint8 thumbnails. Pairs that look nearly the same as they
    stand are left out: near_pairs finds those. distance: of the hashes of the thumbnails.
    """
    rows, others = np.flatnonzero(~is_flat(first)), np.flatnonzero(~is_flat(second))
    hashes = thumb_hashes(first[rows])
    lots: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    complete = True
    for turned in symmetries(second[others]):
        one, two, distance, all_of_them = across_candidates(hashes, thumb_hashes(turned))
        complete &= all_of_them
        alike = paired(first[rows[one]], turned[two])
        as_they_stand = paired(first[rows[one]], second[others[two]])
        kept = (alike >= TURNED_CORRELATION) & (as_they_stand < MIN_CORRELATION)
        lots.append((rows[one[kept]], others[two[kept]], distance[kept], alike[kept]))
    one, two, distance, alike = (np.concatenate(column) for column in zip(*lots, strict=True))
    order = np.lexsort((two, one, -alike))
    unique = np.sort(np.unique(np.stack([one, two])[:, order], axis=1, return_index=True)[1])
    order = order[unique]
    return Near(one[order], two[order], distance[order], alike[order], complete)


def symmetries(thumbs: np.ndarray) -> Iterator[np.ndarray]:
    """The thumbnails mirrored and turned, in the seven ways that a square has besides itself."""
    square = thumbs.reshape(-1, THUMB, THUMB)
    for flipped in (False, True):
        for quarters in range(4):
            if flipped or quarters:
                turned = np.rot90(square, quarters, axes=(1, 2))
                yield (turned[:, :, ::-1] if flipped else turned).reshape(-1, THUMB**2)


def thumb_hashes(thumbs: np.ndarray) -> np.ndarray:
    """(n,) uint64: the sign pattern of the thumbnails' lowest 8x8 cosine frequencies."""
    from scipy.fft import dctn

    hashes = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), BLOCK):
        part = thumbs[start : start + BLOCK].reshape(-1, THUMB, THUMB).astype(np.float32)
        low = dctn(part, axes=(1, 2))[:, :8, :8].reshape(-1, 64)
        bits = low > np.median(low, axis=1, keepdims=True)
        packed = np.packbits(bits, axis=1)
        hashes[start : start + BLOCK] = packed.view(">u8").ravel()
    return hashes


def across_candidates(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Pairs of a hash of first and one of second within DISTANCE bits: as `candidates` does."""
    lots: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    masks = band_masks()
    complete = True
    for band, (mask, _) in enumerate(masks):
        key = first & mask
        order = np.argsort(key, kind="stable")
        low, high = (
            np.searchsorted(key[order], second & mask, side=side) for side in ("left", "right")
        )
        complete &= bool((high - low <= WINDOW).all())
        for offset in range(WINDOW):
            two = np.flatnonzero(low + offset < high)
            if not len(two):
                break
            one = order[low[two] + offset]
            differing = first[one] ^ second[two]
            distance = ones(differing)
            close = distance <= DISTANCE
            for earlier, _ in masks[:band]:  # a pair counts in the first band that it shares
                close &= (differing & earlier) != 0
            lots.append((one[close], two[close], distance[close]))
    return *joined(lots), complete


def is_flat(thumbs: np.ndarray) -> np.ndarray:
    """(n,) bool: thumbnails that vary by less than FLAT grey levels (standard deviation)."""
    if not len(thumbs):
        return np.zeros(0, bool)
    parts = np.array_split(thumbs, max(1, len(thumbs) // BLOCK))
    return np.concatenate([part.std(axis=1, dtype=np.float32) < FLAT for part in parts])


def candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Pairs of hashes within DISTANCE bits: (first, second, distance, whether these are all).

    In each band the hashes are sorted with that band in front, so that those which share it stand
    together; each is compared with the next, the one after it, and so on while the band is shared.
    """
    lots: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    masks = band_masks()
    complete, kept = True, 0
    for band, (mask, shift) in enumerate(masks):
        order = np.argsort(rotated(hashes, shift), kind="stable")
        ordered = hashes[order]
        key = ordered & mask
        left = np.arange(len(hashes))
        for offset in range(1, WINDOW + 1):
            left = left[left < len(hashes) - offset]
            left = left[key[left] == key[left + offset]]
            if not len(left):
                break
            differing = ordered[left] ^ ordered[left + offset]
            distance = ones(differing)
            close = distance <= DISTANCE
            for earlier, _ in masks[:band]:  # a pair counts in the first band that it shares
                close &= (differing & earlier) != 0
            lots.append((order[left[close]], order[left[close] + offset], distance[close]))
            kept += int(close.sum())
            if kept > MAX_PAIRS:
                return *joined(lots), False
        else:
            complete = False
    return *joined(lots), complete


def joined(
    lots: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not lots:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.intp)
    first, second, distance = (np.concatenate(column) for column in zip(*lots, strict=True))
    return first, second, distance


def band_masks() -> list[tuple[np.uint64, int]]:
    """(mask of the band's bits, how far to turn a hash left for the band to stand in front)."""
    masks, start = [], 0
    for width in BANDS:
        masks.append((np.uint64(((1 << width) - 1) << (64 - start - width)), start))
        start += width
    return masks


def rotated(hashes: np.ndarray, shift: int) -> np.ndarray:
    if shift == 0:
        return hashes
    turned: np.ndarray = (hashes << np.uint64(shift)) | (hashes >> np.uint64(64 - shift))
    return turned


def ones(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 -> how many of the 64 bits are set (NumPy 1.26 cannot count them)."""
    counted: np.ndarray = _ONES[np.ascontiguousarray(values).view("<u2").reshape(-1, 4)].sum(axis=1)
    return counted


def correlations(thumbs: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m,) Pearson's correlation of the thumbnails of each pair."""
    values = np.empty(len(first))
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        values[part] = paired(thumbs[first[part]], thumbs[second[part]])
    return values


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m,) Pearson's correlation of each row of first with that of second."""
    alike: np.ndarray = (unit(first) * unit(second)).sum(axis=1)
    return alike


def unit(thumbs: np.ndarray) -> np.ndarray:
    centred = thumbs.astype(np.float32) - thumbs.mean(axis=1, dtype=np.float32, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled: np.ndarray = centred / np.maximum(norm, 1e-6)
    return scaled
