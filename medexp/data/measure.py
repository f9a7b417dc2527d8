"""One pass over the pixels of a split: digests, intensities, perceptual hashes."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from medexp.data import near
from medexp.data.base import Split, fingerprint_of, image_digest
from medexp.data.progress import threads

BLOCK_BYTES = 2**25  # held at a time: 32 MB
BINS = 64  # of the histogram of intensities
HALF_MAX = float(np.finfo(np.float16).max)

Step = Callable[[int], None]


@dataclass(frozen=True)
class Measured:
    """What one pass over a split's pixels leaves of them; arrays are of one entry an image.

    values: how often each intensity occurs, by its uint8 or its bits as float16 (2**16 of them).
    sums: of all finite images, their number of values, sum and sum of squares.
    """

    contents: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    blake2b: str

    @property
    def broken(self) -> np.ndarray:
        """NaN or infinity somewhere."""
        return np.asarray(np.isnan(self.low))

    @property
    def blank(self) -> np.ndarray:
        return np.asarray(self.low == self.high)

    def intensity(self) -> dict[str, float] | None:
        """Of the stored numbers; None where no image has finite pixels."""
        if self.broken.all():
            return None
        n, total, squares = self.sums.tolist()
        mean = total / n
        return {
            "min": float(np.nanmin(self.low)),
            "max": float(np.nanmax(self.high)),
            "mean": mean,
            "std": max(squares / n - mean * mean, 0.0) ** 0.5,
        }


class Piece:
    """What was found in some of a split's images: in one thread's share of a block, or in all."""

    def __init__(self, dtype: Any):
        self.digests: list[bytes] = []
        self.hashes: list[int] = []
        self.thumbs: list[np.ndarray] = []
        self.ranges: list[tuple[float, float]] = []
        self.values = np.zeros(256 if dtype == np.uint8 else 2**16, np.int64)
        self.sums = np.zeros(3)

    def add(self, other: "Piece") -> None:
        self.digests += other.digests
        self.hashes += other.hashes
        self.thumbs += other.thumbs
        self.ranges += other.ranges
        self.values += other.values
        self.sums += other.sums


def measure(split: Split, contents: dict[bytes, int], step: Step) -> Measured:
    """Read a split block by block; `contents` numbers the distinct images seen so far.

    Its digest is that of Split.fingerprint(), taken on the way: the pixels are read once.
    """
    whole = Piece(split.images.dtype)
    with ThreadPoolExecutor(threads()) as pool:
        for block in blocks(split):
            shares = [part for part in np.array_split(block, threads()) if len(part)]
            waiting = [pool.submit(measure_piece, share) for share in shares]
            for future in waiting:
                whole.add(future.result())
            step(len(block))
    low, high = np.array(whole.ranges).T
    codes = np.array([contents.setdefault(d, len(contents)) for d in whole.digests], np.int64)
    return Measured(
        contents=np.where(low < high, codes, -1),  # neither blank nor NaN
        hashes=np.array(whole.hashes, np.uint64),
        thumbs=np.stack(whole.thumbs),
        low=low,
        high=high,
        values=whole.values,
        sums=whole.sums,
        blake2b=fingerprint_of(split, np.array(whole.digests)),
    )


def blocks(split: Split) -> Iterator[np.ndarray]:
    size = max(1, BLOCK_BYTES * len(split) // max(split.images.nbytes, 1))
    for start in range(0, len(split), size):
        yield np.ascontiguousarray(split.images[start : start + size])


def measure_piece(images: np.ndarray) -> Piece:
    piece = Piece(images.dtype)
    nothing = np.zeros(near.THUMB**2, np.uint8)
    for image in images:
        low, high = float(image.min()), float(image.max())
        finite = np.isfinite(low) and np.isfinite(high)
        piece.digests.append(image_digest(image))
        piece.ranges.append((low, high) if finite else (np.nan, np.nan))
        number, thumb = near.signature(image) if finite and low < high else (0, nothing)
        piece.hashes.append(number)
        piece.thumbs.append(thumb)
        if finite:
            piece.values += np.bincount(binned(image), minlength=len(piece.values))
            exact = image.astype(np.float64).ravel()
            piece.sums += (image.size, exact.sum(), exact @ exact)
    return piece


def binned(image: np.ndarray) -> np.ndarray:
    """Each intensity as a small whole number: a histogram that needs no range known ahead.

    float16 keeps three digits of every number, and has 2**16 values.
    """
    if image.dtype == np.uint8:
        return image.ravel()
    half = np.clip(image, -HALF_MAX, HALF_MAX).astype(np.float16)
    return np.asarray(half.ravel().view(np.uint16))


def histogram(seen: Mapping[str, Measured]) -> dict[str, Any] | None:
    """Edges (BINS + 1) and counts per split, over the range of all splits; and a range to show.

    `shown` leaves out the lowest and highest 0.5 %: a few hot pixels must not darken every picture.
    """
    ranges = [one.intensity() for one in seen.values()]
    known = [r for r in ranges if r is not None]
    if not known:
        return None
    low, high = min(r["min"] for r in known), max(r["max"] for r in known)
    kinds = len(next(iter(seen.values())).values)
    if kinds == 256:
        numbers, shown = np.arange(256, dtype=float), (0.0, 255.0)
    else:
        numbers = np.arange(kinds, dtype=np.uint16).view(np.float16).astype(float)
        shown = percentiles(numbers, np.sum([one.values for one in seen.values()], axis=0))
    real = np.isfinite(numbers)
    edges = np.linspace(low, max(high, np.nextafter(low, np.inf)), BINS + 1)
    return {
        "edges": edges.tolist(),
        "counts": {
            part: np.histogram(
                np.clip(numbers[real], edges[0], edges[-1]), edges, weights=one.values[real]
            )[0]
            .astype(int)
            .tolist()
            for part, one in seen.items()
        },
        "shown": list(shown),
    }


def percentiles(numbers: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """The 0.5 % and 99.5 % points of numbers that occur so many times."""
    order = np.argsort(numbers)  # NaN last, and it occurs never
    grown = np.cumsum(times[order])
    at = np.searchsorted(grown, np.array([0.005, 0.995]) * grown[-1])
    low, high = numbers[order][at].tolist()
    return low, high
