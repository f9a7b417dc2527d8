"""What every data set hands to the loop and the tables: three checked splits."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from medexp.errors import MedexpError


@dataclass(frozen=True)
class Info:
    """Facts about a public data set, shown by `medexp datasets` and in error messages.

    `counts` are the images per split of the whole public set, `files` what lies below the root.
    """

    title: str
    url: str
    licence: str
    size: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    images: (N, H, W, C) or (N, D, H, W, C), uint8 (0..255) or float32, in memory or memory-mapped.
    labels: (N,) int64, 0..classes-1.
    ids: (N,) str, unique, so that a prediction can be traced to its image.
    groups: (N,) str, the patient or slide of each image; None where the data set does not say.
    """

    images: np.ndarray
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
        if self.images.dtype not in (np.uint8, np.float32):
            raise MedexpError(f"images are {self.images.dtype}: need uint8 or float32")
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise MedexpError(f"labels are {self.labels.dtype}: need integers 0..classes-1")

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """A blake2b digest of every image and label in order: equal data, equal digest."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(str((self.images.shape, self.images.dtype)).encode())
        for start in range(0, len(self), 1024):
            digest.update(np.ascontiguousarray(self.images[start : start + 1024]).data)
        digest.update(np.ascontiguousarray(self.labels.astype("<i8")).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Three splits with their class names.

    partial: why this is less than the public data set ("72 of 262,144 training patches"); marks
        every table PARTIAL.
    notes: assumptions and warnings that every table made from these splits must carry.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    partial: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, split in self.splits().items():
            if len(split) == 0:
                raise MedexpError(f"{self.name}: the {name} split is empty; change the split")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise MedexpError(
                    f"{self.name}: labels of the {name} split run from {low} to {high}, "
                    f"but there are {len(self.classes)} classes (0..{len(self.classes) - 1})"
                )
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise MedexpError(
                    f"{self.name}: {name} images have shape {split.images.shape[1:]}, "
                    f"training images {self.train.images.shape[1:]}"
                )

    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) or (D, H, W, C)."""
        return tuple(self.train.images.shape[1:])
