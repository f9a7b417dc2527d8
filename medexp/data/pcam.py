"""PatchCamelyon (PCam): 96x96 H&E patches of lymph nodes, tumour in the centre 32x32 or not.

B. S. Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018
(arXiv:1806.03962). Read from the public HDF5 files or from Kaggle's TIFF copy, nothing renamed.
"""

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from rich.console import Console
from rich.progress import Progress

from medexp.data.base import Dataset, Info, Split
from medexp.data.splits import grouped_split, stratified_split, stratified_subset
from medexp.errors import ConfigError, MedexpError

PARTS = ("train", "valid", "test")
STEM = "camelyonpatch_level_2_split_"
INFO = Info(
    title="PatchCamelyon (PCam)",
    url="https://github.com/basveeling/pcam (files: https://zenodo.org/record/2546921)",
    licence="CC0",
    size="7.7 GB to download, 9.1 GB unpacked",
    classes=("normal", "tumor"),
    counts={"train": 262_144, "val": 32_768, "test": 32_768},
    files=tuple(f"{STEM}{part}_{kind}.h5" for part in PARTS for kind in "xy"),
)
KAGGLE_URL = "https://www.kaggle.com/c/histopathologic-cancer-detection"
KAGGLE_COUNT = 220_025  # labelled images; the competition's test images have no public labels
SHAPE = (96, 96, 3)
TEST_SHARE = 0.2  # Johny et al.: 80:20
VAL_SHARE = 0.1  # of the training part; the paper names no validation set
BLOCK = 2048  # patches read at once: 57 MB
LONG_READ = 200e6  # bytes from which a progress bar is shown


@dataclass(frozen=True)
class Source:
    """Patches on disk: labels, ids and groups known, pixels read on demand.

    read(rows, out) fills out, (len(rows), 96, 96, 3) uint8, with the patches of these sorted rows.
    """

    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    read: Callable[[np.ndarray, np.ndarray], None]


def load(
    root: str | Path,
    *,
    split: Literal["auto", "official", "random", "slides"] = "auto",
    max_patches: int | None = None,
    split_seed: int = 0,
    layout: Literal["auto", "hdf5", "kaggle"] = "auto",
) -> Dataset:
    """Read PCam into memory: (n, 96, 96, 3) uint8 per split, labels 1 = tumour in the centre.

    root: folder of the HDF5 files, or of Kaggle's `train/` and `train_labels.csv`.
    split: `official` takes PCam's own files (HDF5 only); `random` pools all images and splits them
        80:20 by label as Johny et al. state, with 10% of the training part for validation;
        `slides` is the same by whole slides; `auto` is official, or random for Kaggle's copy.
    max_patches: size of a stratified subset of the training split; nested for one seed.
    Raises MedexpError for files that are missing, damaged or not PCam's, ConfigError for options
    that do not exist.
    """
    _check_choice("dataset.split", split, ("auto", "official", "random", "slides"))
    _check_choice("dataset.layout", layout, ("auto", "hdf5", "kaggle"))
    root = Path(root)
    if layout == "auto":
        layout = "kaggle" if _looks_like_kaggle(root) else "hdf5"
    if layout == "kaggle":
        return _load_kaggle(root, split, max_patches, split_seed)
    return _load_hdf5(root, split, max_patches, split_seed)


def _load_hdf5(root: Path, split: str, max_patches: int | None, seed: int) -> Dataset:
    _check_present(root)
    sources = [_hdf5_source(root, part) for part in PARTS]
    if split in ("auto", "official"):
        rows = [np.arange(len(source.labels)) for source in sources]
        rows[0], _ = _limit(sources[0].labels, rows[0], max_patches, seed)
        names = ("training", "validation", "test")
        partial = tuple(
            f"{len(r):,} of {public:,} {name} patches"
            for r, public, name in zip(rows, INFO.counts.values(), names, strict=True)
            if len(r) < public
        )
        return _build(sources, rows, partial, ())
    if split == "slides":
        lacking = [
            f"{STEM}{part}_meta.csv"
            for part, source in zip(PARTS, sources, strict=True)
            if source.groups is None
        ]
        if lacking:
            raise MedexpError(
                f"{root}: dataset.split=slides needs column wsi of {', '.join(lacking)}\n"
                f"Download it ({INFO.url}), or take dataset.split=official"
            )
    return _load_pool(_pool(sources), split, max_patches, seed, sum(INFO.counts.values()), "")


def _load_kaggle(root: Path, split: str, max_patches: int | None, seed: int) -> Dataset:
    if split == "official":
        raise MedexpError(
            f"{root}: dataset.split=official is PCam's three files, which Kaggle's copy merges and "
            "deduplicates; its own test images have no labels. Take dataset.split=random"
        )
    if split == "slides":
        raise MedexpError(
            f"{root}: Kaggle's copy does not say which slide a patch is from; dataset.split=slides "
            f"needs the HDF5 files with {STEM}*_meta.csv. Take dataset.split=random"
        )
    taken = "split=auto took random, as Kaggle's copy has no labelled test set: "
    note = taken if split == "auto" else ""
    return _load_pool(_kaggle_source(root), "random", max_patches, seed, KAGGLE_COUNT, note)


def _load_pool(
    pool: Source, split: str, max_patches: int | None, seed: int, public: int, note: str
) -> Dataset:
    """Split images of one pool 80:20, then 90:10, by image or by slide."""

    def divide(rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        labels = pool.labels[rows]
        if split == "slides" and pool.groups is not None:
            first, second = grouped_split(labels, pool.groups[rows], share, seed)
        else:
            first, second = stratified_split(labels, share, seed)
        return rows[first], rows[second]

    rest, test = divide(np.arange(len(pool.labels)), TEST_SHARE)
    train, val = divide(rest, VAL_SHARE)
    train, partial = _limit(pool.labels, train, max_patches, seed)
    if len(pool.labels) < public:
        partial = (f"{len(pool.labels):,} of {public:,} patches", *partial)
    unit = "whole slides" if split == "slides" else "images, stratified by label"
    notes = [
        f"{note}80:20 split of all patches by {unit} (seed {seed}); validation is 10% of the "
        "training part (assumption: the paper names no validation set)"
    ]
    if pool.groups is None:
        notes.append("slides unknown: patches of one slide may be in both training and test")
    return _build([pool] * 3, [train, val, test], partial, tuple(notes))


def _limit(
    labels: np.ndarray, rows: np.ndarray, max_patches: int | None, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    if max_patches is None:
        return rows, ()
    chosen = stratified_subset(labels[rows], max_patches, seed, name="dataset.max_patches")
    if len(chosen) == len(rows):
        return rows, ()
    return rows[chosen], (f"{len(chosen):,} of {len(rows):,} training patches",)


def _build(
    sources: list[Source], rows: list[np.ndarray], partial: tuple[str, ...], notes: tuple[str, ...]
) -> Dataset:
    train, val, test = (_split(source, r) for source, r in zip(sources, rows, strict=True))
    if train.groups is not None and test.groups is not None:
        shared = np.isin(test.groups, train.groups).mean()
        if shared > 0:
            notes += (
                f"slides cross the split: {shared:.0%} of test images come from a slide that is "
                "also in training",
            )
    return Dataset("pcam", INFO.classes, train, val, test, partial=partial, notes=notes)


def _split(source: Source, rows: np.ndarray) -> Split:
    images = np.empty((len(rows), *SHAPE), np.uint8)
    source.read(rows, images)
    groups = None if source.groups is None else source.groups[rows]
    return Split(images, source.labels[rows], source.ids[rows], groups)


def _hdf5_source(root: Path, part: str) -> Source:
    """One of PCam's three pairs of HDF5 files, with its slides where the meta CSV is there."""
    x_path, y_path = root / f"{STEM}{part}_x.h5", root / f"{STEM}{part}_y.h5"
    meta = root / f"{STEM}{part}_meta.csv"
    with _hdf5(y_path) as file:
        labels = _dataset(file, y_path, "y", (1, 1, 1))[:, 0, 0, 0].astype(np.int64)
    with _hdf5(x_path) as file:
        count = len(_dataset(file, x_path, "x", SHAPE))
    if count != len(labels):
        raise MedexpError(
            f"{x_path} holds {count:,} patches, {y_path.name} {len(labels):,} labels: "
            "they must be the pair of one download"
        )
    wrong = np.flatnonzero(labels > 1)
    if len(wrong):
        raise MedexpError(f"{y_path}: label {labels[wrong[0]]} at row {wrong[0]}: need 0 or 1")

    def read(rows: np.ndarray, out: np.ndarray) -> None:
        # Runs of neighbouring rows, each read straight into its place: no second copy.
        runs = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        with _hdf5(x_path) as file, _progress(x_path.name, out) as advance:
            for begin, end in pairwise(runs):
                for start in range(begin, end, BLOCK):
                    stop = min(start + BLOCK, end)
                    first = int(rows[start])
                    file["x"].read_direct(out[start:stop], np.s_[first : first + stop - start])
                    advance(stop - start)

    ids = np.array([f"{part}/{i:06d}" for i in range(count)])
    return Source(labels, ids, _slides(meta, count) if meta.exists() else None, read)


def _pool(sources: list[Source]) -> Source:
    """Several sources as one, row after row."""

    def read(rows: np.ndarray, out: np.ndarray) -> None:
        first = 0
        for source in sources:
            start, stop = np.searchsorted(rows, [first, first + len(source.labels)])
            if start < stop:
                source.read(rows[start:stop] - first, out[start:stop])
            first += len(source.labels)

    groups = [source.groups for source in sources if source.groups is not None]
    return Source(
        np.concatenate([source.labels for source in sources]),
        np.concatenate([source.ids for source in sources]),
        np.concatenate(groups) if len(groups) == len(sources) else None,
        read,
    )


def _kaggle_source(root: Path) -> Source:
    """Kaggle's copy: `train/<id>.tif` and `train_labels.csv`."""
    table, folder = root / "train_labels.csv", root / "train"
    if not table.exists() or not folder.is_dir():
        raise MedexpError(
            f"PCam (Kaggle's copy) not found in {root.absolute()}: needs train_labels.csv and the "
            f"folder train/ of .tif files\nDownload and unpack it from {KAGGLE_URL} (6.3 GB), then "
            "name the folder with dataset.root=, or try without it: source=phantom"
        )
    ids, labels = [], []
    present = {entry.name for entry in os.scandir(folder)}
    seen: set[str] = set()
    for line, row in _csv_rows(table, ("id", "label")):
        name, label = row["id"], row["label"]
        where = f"{table}, line {line}"
        # Joined to a path below: an id must not lead out of the folder.
        if not name or ".." in name or any(c in name for c in "/\\\0"):
            raise MedexpError(f"{where}: id {name!r} is not a plain file name")
        if label not in ("0", "1"):
            raise MedexpError(f"{where}: label {label!r} of {name}: need 0 or 1")
        if name in seen:
            raise MedexpError(f"{where}: id {name} appears twice")
        if f"{name}.tif" not in present:
            raise MedexpError(
                f"{where}: {folder / name}.tif does not exist; unpack the whole download"
            )
        seen.add(name)
        ids.append(name)
        labels.append(int(label))
    if not ids:
        raise MedexpError(f"{table} names no images")

    def read(rows: np.ndarray, out: np.ndarray) -> None:
        with ThreadPoolExecutor() as threads, _progress(folder.name, out) as advance:
            # Block by block, so that a damaged file stops the reading soon.
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                paths = (folder / f"{ids[row]}.tif" for row in block)
                for _ in threads.map(_decode, paths, out[start : start + BLOCK]):
                    advance(1)

    return Source(np.array(labels, np.int64), np.array(ids), None, read)


def _decode(path: Path, out: np.ndarray) -> None:
    # Only Kaggle's layout needs Pillow, and importing it slows the start of every command.
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode != "RGB" or image.size != SHAPE[:2]:
                raise MedexpError(
                    f"{path} is a {image.mode} image of {image.width}x{image.height}: "
                    "need RGB of 96x96"
                )
            out[:] = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MedexpError(
            f"{path} cannot be decoded ({error}): unpack the download again"
        ) from None


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value}: choose one of {', '.join(choices)}")


def _looks_like_kaggle(root: Path) -> bool:
    return not any(root.glob(f"{STEM}*")) and (root / "train_labels.csv").exists()


def _check_present(root: Path) -> None:
    missing = [name for name in INFO.files if not (root / name).exists()]
    for name in missing:
        if (root / f"{name}.gz").exists():
            packed = root / f"{name}.gz"
            raise MedexpError(f"{packed} is still packed: run  gunzip -k {packed}")
    if missing:
        raise MedexpError(
            f"PCam not found in {root.absolute()}: missing {', '.join(missing)}\n"
            f"The public set: {INFO.url}; {INFO.size}; licence {INFO.licence}\n"
            "Put its folder pcam/ below MEDEXP_DATA=, name the folder with dataset.root=, or try "
            "without it: source=phantom"
        )


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        # The cache holds whole chunks of any sensible size, so that none is unpacked twice.
        with h5py.File(path, "r", rdcc_nbytes=64 * 2**20) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise MedexpError(
            f"{path} cannot be read as HDF5, it may be cut short ({error})\n"
            "Download and unpack it again"
        ) from None


def _dataset(file: h5py.File, path: Path, key: str, shape: tuple[int, ...]) -> h5py.Dataset:
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise MedexpError(f"{path} has no dataset {key!r} (it has: {', '.join(file) or 'none'})")
    need = f"need (N, {', '.join(map(str, shape))})"
    if data.shape[1:] != shape or len(data.shape) != len(shape) + 1:
        raise MedexpError(f"{path}: {key} has shape {data.shape}: {need}")
    if data.dtype != np.uint8:
        raise MedexpError(f"{path}: {key} is {data.dtype}: need uint8")
    if len(data) == 0:
        raise MedexpError(f"{path}: {key} is empty, shape {data.shape}: {need} with N > 0")
    return data


def _slides(meta: Path, count: int) -> np.ndarray:
    slides = [row["wsi"] for _, row in _csv_rows(meta, ("wsi",))]
    if len(slides) != count:
        raise MedexpError(
            f"{meta} has {len(slides):,} rows for {count:,} patches: need one row a patch"
        )
    return np.array(slides)


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row; every column asked for is there and not cut off."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            lacking = [column for column in columns if column not in header]
            if lacking:
                raise MedexpError(
                    f"{path} has no column {', '.join(lacking)} in its header "
                    f"({', '.join(header) or 'empty file'})"
                )
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise MedexpError(
                        f"{path}, line {reader.line_num}: too few cells: need {', '.join(columns)}"
                    )
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise MedexpError(f"{path} is not UTF-8 text ({where})") from None


@contextmanager
def _progress(name: str, out: np.ndarray) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    show = out.nbytes > LONG_READ and console.is_terminal
    with Progress(console=console, disable=not show) as progress:
        task = progress.add_task(f"reading {name}", total=len(out))
        yield lambda patches: progress.advance(task, patches)
