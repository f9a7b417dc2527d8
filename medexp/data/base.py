"""What a reader hands over (a Pool), and what the loop and the tables get (a Dataset)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medexp.errors import MedexpError

PARTS_IN_WORDS = {"train": "training", "val": "validation", "test": "test"}
PARTS = tuple(PARTS_IN_WORDS)
WHOLE = "all"  # the one part of a data set that is not divided
DTYPES = (np.uint8, np.float16, np.float32)


@dataclass(frozen=True)
class Info:
    """Facts about a public data set, shown by `medexp datasets` and in error messages.

    `counts` are the images per split of the whole public set (one entry "all" where it comes
    without a split), `files` what lies below the root.
    """

    title: str
    url: str
    licence: str
    size: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """All images of a data set as a reader finds them: listed, not decoded, not split.

    decode: row -> (image of `shape` and `dtype`, facts). The facts are what the file says of itself
        (JSON-ready: {"size": [450, 450]}, a spacing, ...). Called from several threads at once, and
        once an image only: what it returns is kept in the cache. Raises MedexpError, which names
        the file, for an image that cannot be used. None where only a list of files is known.
    labels: (N,) int64, 0..classes-1. ids: (N,) str, unique.
    groups: (N,) str, the patient or slide of each image; None where the data set does not say.
    files: (N,) the file that holds each image; one file may hold many.
    settings: what decides the pixels besides the files, JSON-ready; part of the cache's key.
    parts: (N,) str, train | val | test: the split that the data set comes with, if it does; "" for
        an image that is still to be split.
    folds: (N,) int64: the folds that it comes with, if it does.
    digests: (N,) str, known digests of the files' bytes; None: they are taken when needed.
    public: images in the whole public set, in all or per part; None where there is no such thing.
    array: (N, *shape) pixels that lie ready, e.g. mapped from a file; then nothing is decoded.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    ids: np.ndarray
    files: Sequence[Path]
    shape: tuple[int, ...]
    dtype: Any
    decode: Callable[[int], tuple[np.ndarray, dict[str, Any]]] | None
    settings: Mapping[str, Any]
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None
    folds: np.ndarray | None = None
    digests: np.ndarray | None = None
    public: int | dict[str, int] | None = None
    array: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        for name in ("ids", "files", "groups", "parts", "folds", "digests", "array"):
            part = getattr(self, name)
            if part is not None and len(part) != n:
                raise MedexpError(f"{self.name}: {n:,} labels but {len(part):,} {name}")
        if len(self.shape) not in (3, 4) or np.dtype(self.dtype) not in DTYPES:
            raise MedexpError(
                f"{self.name}: images of shape {self.shape}, {np.dtype(self.dtype)}: need "
                "(H, W, C) or (D, H, W, C), uint8, float16 or float32"
            )
        check_labels(self.name, self.labels, self.classes)
        counts = np.bincount(self.labels, minlength=len(self.classes))
        if not counts.all():
            empty = [c for c, n in zip(self.classes, counts, strict=True) if n == 0]
            raise MedexpError(
                f"{self.name}: no image of class {', '.join(empty)}. Give each class an image, or "
                "leave the class out of the data set's classes"
            )
        unique, first, times = np.unique(self.ids, return_index=True, return_counts=True)
        if len(unique) != n:
            twice = self.ids[first[times > 1][0]]
            raise MedexpError(f"{self.name}: id {twice} stands {times.max()} times; ids are unique")
        if self.parts is not None and (odd := set(self.parts.tolist()) - {*PARTS, ""}):
            raise MedexpError(f"{self.name}: part {sorted(odd)[0]!r}: need train, val or test")

    @classmethod
    def of_array(
        cls,
        name: str,
        classes: Sequence[str],
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> "Pool":
        """A pool of images (N, H, W, C) or (N, D, H, W, C) that lie in memory or are mapped."""
        return cls(
            name=name,
            classes=tuple(classes),
            labels=labels,
            ids=ids,
            groups=groups,
            files=[Path(str(key)) for key in ids],
            shape=tuple(images.shape[1:]),
            dtype=images.dtype,
            decode=None,
            settings={},
            array=images,
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class NewFiles:
    """How a reader reads files that no label came with: a function `load_new` beside its `load`.

    suffixes: of such files, in lower case. shape, dtype: of an image, as of a Pool; dtype None: as
    the file has it. read: (file, number of the image in it) -> (image, facts), as a Pool's decode;
    called from several threads at once, the numbers of a file nearly in order. count: file -> its
    images; None: each is one.
    """

    suffixes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[Path, int], tuple[np.ndarray, dict[str, Any]]]
    count: Callable[[Path], int] | None = None


class Rows:
    """array[rows] without its memory: what an index asks for is copied, the rest stays mapped."""

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self.array, self.rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype
        self.ndim = array.ndim
        self.nbytes = int(np.prod(self.shape)) * array.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice, an integer or an array of integers along the first axis."""
        return np.asarray(self.array[self.rows[index]])

    def part(self, rows: slice) -> "Rows":
        """The same of a slice of the rows."""
        return Rows(self.array, self.rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype)


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    images: (N, H, W, C) or (N, D, H, W, C), uint8 (0..255) or float, in memory or memory-mapped.
    labels: (N,) int64, 0..classes-1.
    ids: (N,) str, unique, so that a prediction can be traced to its image.
    groups: (N,) str, the patient or slide of each image; None where the data set does not say.
    """

    images: np.ndarray | Rows
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        for name in ("labels", "ids", "groups"):
            part = getattr(self, name)
            if part is not None and len(part) != n:
                raise MedexpError(f"{n} images but {len(part)} {name}: give one of each per image")
        if self.images.ndim not in (4, 5):
            raise MedexpError(
                f"images have shape {self.images.shape}: need (N, H, W, C) or (N, D, H, W, C)"
            )
        if self.images.dtype not in DTYPES:
            raise MedexpError(f"images are {self.images.dtype}: need uint8, float16 or float32")
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise MedexpError(f"labels are {self.labels.dtype}: need integers 0..classes-1")

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, end: int) -> "Split":
        """The images from `start` to the one before `end`; none is read."""
        rows, images = slice(start, end), self.images
        groups = None if self.groups is None else self.groups[rows]
        images = images.part(rows) if isinstance(images, Rows) else images[rows]
        return Split(images, self.labels[rows], self.ids[rows], groups)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(N,) bytes: a digest of each image, by which it is known again under any name."""
        step = max(1, 2**25 * len(self) // max(self.images.nbytes, 1))  # 32 MB at a time
        return np.array(
            [
                image_digest(image)
                for start in range(0, len(self), step)
                for image in np.ascontiguousarray(self.images[start : start + step])
            ]
        )

    def fingerprint(self) -> str:
        """A digest of every image and label in order: equal data, equal digest."""
        return fingerprint_of(self, self.pixels)


def image_digest(image: np.ndarray) -> bytes:
    """A blake2b digest of one image's pixels, as 16 hexadecimal digits."""
    return hashlib.blake2b(image.data, digest_size=8).hexdigest().encode()


def fingerprint_of(split: Split, pixels: np.ndarray) -> str:
    """The fingerprint of a split whose images have these digests."""
    digest = hashlib.blake2b(str((split.images.shape, split.images.dtype)).encode(), digest_size=16)
    digest.update(b"".join(pixels.tolist()))
    digest.update(np.ascontiguousarray(split.labels.astype("<i8")).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Three splits with their class names, or all images undivided.

    partial: why this is less than the public data set ("72 of 262,144 training patches"); marks
        every table PARTIAL.
    notes: assumptions and warnings that every table made from these splits must carry.
    marks: mark -> reason, for what forbids a comparison (LEAKY: patients on both sides).
    skipped: id -> reason, the images left out because they cannot be read.
    facts: id -> what the file says of itself (size, spacing, ...), where the reader tells.
    undivided: train, val and test are one and the same split of all images, to be scored whole.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    partial: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    marks: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    undivided: bool = False

    def __post_init__(self) -> None:
        for name, split in self.splits().items():
            if len(split) == 0:
                raise MedexpError(f"{self.name}: the {name} split is empty; change the split")
            check_labels(f"{self.name}, {name} split", split.labels, self.classes)
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise MedexpError(
                    f"{self.name}: {name} images have shape {split.images.shape[1:]}, "
                    f"training images {self.train.images.shape[1:]}"
                )

    def splits(self) -> dict[str, Split]:
        """Its parts by their names; of undivided images the one part `all`."""
        if self.undivided:
            return {WHOLE: self.test}
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) or (D, H, W, C)."""
        return tuple(self.train.images.shape[1:])


def check_labels(name: str, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise MedexpError for a label that is not 0..classes-1, or where there is none at all."""
    if len(labels) == 0:
        raise MedexpError(f"{name}: no images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise MedexpError(
            f"{name}: labels run from {low} to {high}, but there are {len(classes)} classes "
            f"(0..{len(classes) - 1})"
        )


def consecutive_rows(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Part -> its rows, where the images of the parts stand one part after the other."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return {
        part: np.arange(end - size, end)
        for (part, size), end in zip(sizes.items(), ends, strict=True)
    }
