"""Lung nodule patches of LUNA16 as Alghamdi et al. (2021), section 3.2, use them.

One HDF5 file: 6,691 CT slices of 64x64, 2,526 cancerous and 4,165 not. Stated: resized to 120x120
with cv2's resize, divided by 255, one channel; split by label into 65% training, 10% validation and
25% test, random state 42.
"""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2
import h5py
import numpy as np

from medexp.data import files
from medexp.data.base import Info, NewFiles, Pool
from medexp.errors import ConfigError, MedexpError, one_of

FILE = "all_patches.hdf5"
SLICES, LABELS = "ct_slices", "slice_class"
INFO = Info(
    title="Lung nodule malignancy (patches of LUNA16)",
    url="https://www.kaggle.com/datasets/kmader/lungnodemalignancy",
    licence="as LUNA16, i.e. LIDC-IDRI: CC BY 3.0",
    size="about 0.1 GB",
    classes=("non-cancerous", "cancerous"),
    counts={"all": 6691},
    files=(FILE,),
)
SCALES = ("255", "hu", "none")
HU = (-1000, 400)  # air to dense bone, the lung window that the TBT paper's code uses as well
BLOCK = 512  # slices read at once: 8 MB


def load(
    root: str | Path, *, size: int = 120, scale: Literal["255", 255, "hu", "none"] = "255"
) -> Pool:
    """List the slices of `root`/all_patches.hdf5, in the file's order.

    size: slices are resized to (size, size, 1) float32 by cv2.resize (bilinear, its default).
    scale: "255" divides by 255 whatever the values are, as the paper does; "hu" clips to -1000..400
        HU and maps that to 0..1; "none" takes values that are 0..1 as they are. A note says where
        the file's values do not suit the choice.
    Raises MedexpError where the file is missing, damaged or of another layout, and where values
    that are 0..1 would be divided by 255 once more; ConfigError for a size below 1 or a scale that
    does not exist.
    """
    way = str(scale)  # a command line's scale=255 is a number
    one_of("dataset.scale", way, SCALES)
    if size < 1:
        raise ConfigError(f"dataset.size={size}: need 1 or more (the paper: 120)")
    path = Path(root) / FILE
    if not path.is_file():
        raise files.not_found(INFO, Path(root), [FILE])
    labels, low, high = _survey(path)
    if way == "255" and low >= 0 and 0 < high <= 1:
        raise MedexpError(
            f"{path}: the slices' values run from {low:g} to {high:g}: they are 0..1 already, and "
            "dataset.scale=255 would divide them once more. Give dataset.scale=none"
        )
    slices = files.hdf5_rows(path, SLICES, BLOCK)

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        return _prepared(path, row, slices(row), size, way), {}

    return Pool(
        "ldct",
        INFO.classes,
        labels,
        np.array([f"slice_{row:04d}" for row in range(len(labels))]),
        [path] * len(labels),
        (size, size, 1),
        np.float32,
        decode,
        {"size": size, "scale": way},
        public=INFO.counts["all"],
        notes=_range_notes(way, low, high),
    )


def load_new(
    shape: tuple[int, ...], *, size: int = 120, scale: Literal["255", 255, "hu", "none"] = "255"
) -> NewFiles:
    """How slices without labels are read, of HDF5 files that hold ct_slices."""
    way = str(scale)
    one_of("dataset.scale", way, SCALES)
    rows = lru_cache(maxsize=1)(partial(files.hdf5_rows, key=SLICES, block=BLOCK))

    def count(file: Path) -> int:
        with files.hdf5(file) as opened:
            found = _slices(opened, file)
            low, high = float(found[:BLOCK].min()), float(found[:BLOCK].max())
            number = len(found)
        if way == "255" and low >= 0 and 0 < high <= 1:
            raise MedexpError(
                f"{file}: the slices' values run from {low:g} to {high:g}: the run divides by 255 "
                "(dataset.scale=255), and they are 0..1 already"
            )
        return number

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        return _prepared(file, number, rows(file)(number), size, way), {}

    return NewFiles((".hdf5", ".h5"), (size, size, 1), np.float32, read, count)


def _prepared(path: Path, row: int, stored: np.ndarray, size: int, way: str) -> np.ndarray:
    """A slice as (size, size, 1) float32; MedexpError for values that are not finite."""
    with np.errstate(over="ignore"):
        image = stored.astype(np.float32)
    if not np.isfinite(image).all():
        raise MedexpError(
            f"{path}: {SLICES}, row {row} holds values that are not finite (NaN or infinite). "
            "Leave such slices out with dataset.on_error=skip"
        )
    resized = cv2.resize(image, (size, size))
    return _scaled(resized, way)[..., None]


def _slices(file: h5py.File, path: Path) -> h5py.Dataset:
    """The slices of an open file; MedexpError where they are none."""
    slices = files.hdf5_dataset(file, path, SLICES)
    if slices.dtype.kind not in "iuf":
        raise MedexpError(f"{path}: {SLICES} is {slices.dtype}: need integers or floats")
    if slices.ndim != 3 or slices.shape[1] != slices.shape[2]:
        raise MedexpError(
            f"{path}: {SLICES} has shape {slices.shape}: need (N, side, side), in the public "
            "set (6691, 64, 64)"
        )
    return slices


def _survey(path: Path) -> tuple[np.ndarray, float, float]:
    """Check the layout; returns labels (N,) int64 and the least and greatest value of a slice."""
    with files.hdf5(path) as file:
        slices = _slices(file, path)
        classes = files.hdf5_dataset(file, path, LABELS)
        if classes.shape not in ((len(classes),), (len(classes), 1)):
            raise MedexpError(
                f"{path}: {LABELS} has shape {classes.shape}: need (N,) or (N, 1), a label a slice"
            )
        if len(classes) != len(slices):
            raise MedexpError(
                f"{path}: {len(slices):,} {SLICES} but {len(classes):,} {LABELS}. "
                "Download it again: there is one label a slice"
            )
        labels = _checked(path, classes[:].reshape(-1))
        # fmin and fmax pass over NaN, which decode reports with its row.
        blocks = (slices[at : at + BLOCK] for at in range(0, len(slices), BLOCK))
        ends = [(np.fmin.reduce(b, axis=None), np.fmax.reduce(b, axis=None)) for b in blocks]
    return labels, float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _checked(path: Path, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iufb":
        raise MedexpError(f"{path}: {LABELS} is {labels.dtype}: need integers 0 and 1")
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise MedexpError(
            f"{path}: {LABELS} is {labels[wrong[0]]} at row {wrong[0]}: need 0 (non-cancerous) or "
            "1 (cancerous)"
        )
    return labels.astype(np.int64)


def _scaled(image: np.ndarray, scale: str) -> np.ndarray:
    if scale == "none":
        return image
    if scale == "255":
        return image / np.float32(255)
    low, high = map(np.float32, HU)
    windowed: np.ndarray = (np.clip(image, low, high) - low) / (high - low)
    return windowed


def _range_notes(scale: str, low: float, high: float) -> tuple[str, ...]:
    """A note where the values do not look like what the scale takes them for."""
    seen = f"the slices' values run from {low:g} to {high:g}"
    if scale == "255" and (low < 0 or high > 255):
        return (
            f"{seen}, not 0..255: they look like Hounsfield units, and scale=255 divides them by "
            f"255 as the paper states; dataset.scale=hu maps {HU[0]}..{HU[1]} HU to 0..1 instead",
        )
    if scale == "hu" and low >= 0 and high <= 255:
        other = "none takes them as they are" if high <= 1 else "255 divides by 255"
        return (
            f"{seen}: they do not look like Hounsfield units, which scale=hu takes them for; "
            f"dataset.scale={other} instead",
        )
    if scale == "none" and (low < 0 or high > 1):
        return (
            f"{seen}, not 0..1: scale=none takes them as they are, where the paper divides by 255",
        )
    return ()
