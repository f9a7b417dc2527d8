"""PatchCamelyon (PCam): 96x96 H&E patches of lymph nodes, tumour in the centre 32x32 or not.

B. S. Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018
(arXiv:1806.03962). Read from the public HDF5 files or from Kaggle's TIFF copy, nothing renamed.
"""

import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from medexp.data.base import Info, NewFiles, Pool
from medexp.data.files import IMAGES, hdf5, hdf5_dataset, hdf5_rows, not_found, read_image
from medexp.errors import MedexpError, one_of
from medexp.runs.files import csv_rows

FILES = {"train": "train", "valid": "val", "test": "test"}  # PCam's word -> ours
STEM = "camelyonpatch_level_2_split_"
INFO = Info(
    title="PatchCamelyon (PCam)",
    url="https://github.com/basveeling/pcam (files: https://zenodo.org/record/2546921)",
    licence="CC0",
    size="7.7 GB to download, 9.1 GB unpacked",
    classes=("normal", "tumor"),
    counts={"train": 262_144, "val": 32_768, "test": 32_768},
    files=tuple(f"{STEM}{part}_{kind}.h5" for part in FILES for kind in "xy"),
)
KAGGLE_URL = "https://www.kaggle.com/c/histopathologic-cancer-detection"
KAGGLE_COUNT = 220_025  # labelled images; the competition's test images have no public labels
SHAPE = (96, 96, 3)
HDF5 = (".h5", ".hdf5")


def load(root: str | Path, *, layout: Literal["auto", "hdf5", "kaggle"] = "auto") -> Pool:
    """PCam's patches, (96, 96, 3) uint8, labels 1 = tumour in the centre.

    root: folder of the HDF5 files, or of Kaggle's `train/` and `train_labels.csv`. The groups are
    the slides, where all three `_meta.csv` are there; the parts are PCam's own three files, which
    Kaggle's copy does not have. Raises MedexpError for files that are missing,
    damaged or not PCam's, ConfigError for a layout that does not exist.
    """
    one_of("dataset.layout", layout, ("auto", "hdf5", "kaggle"))
    root = Path(root)
    if layout == "auto":
        bare = not any(root.glob(f"{STEM}*"))
        layout = "kaggle" if bare and (root / "train_labels.csv").exists() else "hdf5"
    return load_kaggle(root) if layout == "kaggle" else load_hdf5(root)


def load_hdf5(root: Path) -> Pool:
    """PCam's own three pairs of HDF5 files, in the order train, valid, test."""
    check_present(root)
    labels = [read_labels(root, part) for part in FILES]
    counts = [len(part) for part in labels]
    readers = [hdf5_rows(root / f"{STEM}{part}_x.h5", "x") for part in FILES]
    first = np.cumsum([0, *counts])
    slides = [
        read_slides(root / f"{STEM}{part}_meta.csv", n)
        for part, n in zip(FILES, counts, strict=True)
    ]
    known = [part for part in slides if part is not None]

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        part = int(np.searchsorted(first, row, side="right")) - 1
        return readers[part](row - int(first[part])), {}

    return Pool(
        name="pcam",
        classes=INFO.classes,
        labels=np.concatenate(labels),
        ids=np.array(
            [f"{part}/{i:06d}" for part, n in zip(FILES, counts, strict=True) for i in range(n)]
        ),
        groups=np.concatenate(known) if len(known) == len(FILES) else None,
        parts=np.repeat(list(FILES.values()), counts),
        files=[
            root / f"{STEM}{part}_x.h5"
            for part, n in zip(FILES, counts, strict=True)
            for _ in range(n)
        ],
        shape=SHAPE,
        dtype=np.uint8,
        decode=decode,
        settings={},
        public=INFO.counts,
    )


def load_kaggle(root: Path) -> Pool:
    """Kaggle's copy: `train/<id>.tif` and `train_labels.csv`."""
    table, folder = root / "train_labels.csv", root / "train"
    if not table.exists() or not folder.is_dir():
        raise MedexpError(
            f"PCam (Kaggle's copy) not found in {root.absolute()}: needs train_labels.csv and the "
            f"folder train/ of .tif files\nDownload and unpack it from {KAGGLE_URL} (6.3 GB), then "
            "name the folder with dataset.root=, or try without it: source=phantom"
        )
    present = {entry.name for entry in os.scandir(folder)}
    labels: dict[str, int] = {}
    for line, row in csv_rows(table, ("id", "label")):
        name, label = row["id"], row["label"]
        where = f"{table}, line {line}"
        # Joined to a path below: an id must not lead out of the folder.
        if not name or ".." in name or any(c in name for c in "/\\\0"):
            raise MedexpError(f"{where}: id {name!r} is not a plain file name")
        if label not in ("0", "1"):
            raise MedexpError(f"{where}: label {label!r} of {name}: need 0 or 1")
        if name in labels:
            raise MedexpError(f"{where}: id {name} appears twice")
        if f"{name}.tif" not in present:
            raise MedexpError(
                f"{where}: {folder / name}.tif does not exist; unpack the whole download"
            )
        labels[name] = int(label)
    if not labels:
        raise MedexpError(f"{table} names no images")
    files = [folder / f"{name}.tif" for name in labels]

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        return read_patch(files[row])

    return Pool(
        name="pcam",
        classes=INFO.classes,
        labels=np.array(list(labels.values()), np.int64),
        ids=np.array(list(labels)),
        files=files,
        shape=SHAPE,
        dtype=np.uint8,
        decode=decode,
        settings={},
        public=KAGGLE_COUNT,
    )


def load_new(shape: tuple[int, ...]) -> NewFiles:
    """How patches without labels are read: image files of 96x96, and HDF5 files that hold x."""
    rows = lru_cache(maxsize=1)(partial(hdf5_rows, key="x"))

    def count(file: Path) -> int:
        if file.suffix.lower() not in HDF5:
            return 1
        with hdf5(file) as opened:
            return len(checked(opened, file, "x", SHAPE))

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        if file.suffix.lower() in HDF5:
            return rows(file)(number), {}
        return read_patch(file)

    return NewFiles((*IMAGES, *HDF5), SHAPE, np.uint8, read, count)


def read_patch(file: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """A patch in an image file; MedexpError where it is not as PCam's are."""
    image, facts = read_image(file)
    if image.shape != SHAPE or facts["mode"] != "RGB":
        width, height = facts["size"]
        raise MedexpError(
            f"{file} is a {facts['mode']} image of {width}x{height}: need RGB of 96x96"
        )
    return image, facts


def check_present(root: Path) -> None:
    missing = [name for name in INFO.files if not (root / name).exists()]
    for name in missing:
        if (root / f"{name}.gz").exists():
            packed = root / f"{name}.gz"
            raise MedexpError(f"{packed} is still packed: run  gunzip -k {packed}")
    if missing:
        raise not_found(INFO, root, missing)


def read_labels(root: Path, part: str) -> np.ndarray:
    """(N,) int64 labels of one of PCam's files, held against the images beside it."""
    x_path, y_path = root / f"{STEM}{part}_x.h5", root / f"{STEM}{part}_y.h5"
    with hdf5(y_path) as file:
        labels: np.ndarray = checked(file, y_path, "y", (1, 1, 1))[:, 0, 0, 0].astype(np.int64)
    with hdf5(x_path) as file:
        count = len(checked(file, x_path, "x", SHAPE))
    if count != len(labels):
        raise MedexpError(
            f"{x_path} holds {count:,} patches, {y_path.name} {len(labels):,} labels: "
            "they must be the pair of one download"
        )
    wrong = np.flatnonzero(labels > 1)
    if len(wrong):
        raise MedexpError(f"{y_path}: label {labels[wrong[0]]} at row {wrong[0]}: need 0 or 1")
    return labels


def checked(file: h5py.File, path: Path, key: str, shape: tuple[int, ...]) -> Any:
    data = hdf5_dataset(file, path, key)
    if data.shape[1:] != shape:
        need = f"need (N, {', '.join(map(str, shape))})"
        raise MedexpError(f"{path}: {key} has shape {data.shape}: {need}")
    if data.dtype != np.uint8:
        raise MedexpError(f"{path}: {key} is {data.dtype}: need uint8")
    return data


def read_slides(meta: Path, count: int) -> np.ndarray | None:
    """(N,) str, the slide of each patch; None without the file."""
    if not meta.exists():
        return None
    slides = [row["wsi"] for _, row in csv_rows(meta, ("wsi",))]
    if len(slides) != count:
        raise MedexpError(
            f"{meta} has {len(slides):,} rows for {count:,} patches: need one row a patch"
        )
    return np.array(slides)
