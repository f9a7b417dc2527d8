"""Tuberculosis type from chest CT: ImageCLEF 2021 TBT, as in Zunair et al. 2021 (ViPTT-Net).

Layout: NIfTI volumes (`TRN_0001.nii.gz`, ...) in any folders below the root; the challenge's CSV
`..._TrainSet_metaData.csv` with the columns FileName and TypeOfTB (1..5); lung masks, if wanted, in
a folder with "mask" in its name, as `TRN_0001.nii.gz`, `TRN_0001_mask.nii.gz` or
`TRN_0001_regsegm_py.nii.gz`. Volumes without a label (`TST_...`) are left out.

Stated (section 2.2, 3.1): 917 volumes in HU, one a patient, resized to 70x224x224 by
spline-interpolated zoom over all three axes. From the authors' code: HU clipped to [-1000, 400] and
scaled to [0, 1] before the zoom, whose order is 1; the slices' rows and columns are the file's,
turned by 90 degrees; slices first; 916 volumes.

Chosen: whatever way a file stores its axes, the array is (slices from feet to head, rows from front
to back, columns from the patient's right to left), so that slice after slice stands upright as
radiologists see it. For a file stored LAS that is the authors' turn by 90 degrees; `frame=stored`
is their turn for any file. The zoom takes scipy's `mirror` border, not the default of the authors'
code: the two agree inside, but with the default scipy.ndimage rounds the last row, column or slice
out of the volume and leaves it black for some sizes, 512 -> 224 among them. No padding value is
looked for: the clipping takes it.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medexp.data.base import Info, NewFiles, Pool
from medexp.data.files import find, inside, not_found
from medexp.data.nifti import (
    orientation,
    read_stored,
    read_volume,
    times,
    turn,
    windowed,
    zoomed,
)
from medexp.errors import ConfigError, MedexpError, one_of
from medexp.runs.files import csv_rows

INFO = Info(
    title="ImageCLEF 2021 tuberculosis type (TBT)",
    url="https://www.aicrowd.com/challenges/imageclef-2021-tuberculosis-tbt-classification",
    licence="the challenge's own terms (registration)",
    size="917 volumes of 512x512 pixels and 50 to 400 slices",
    classes=("infiltrative", "focal", "tuberculoma", "miliary", "fibro_cavernous"),
    counts={"all": 917},
    files=("TRN_0001.nii.gz and the others", "a CSV with the columns FileName, TypeOfTB"),
)
# Names of columns, without case, spaces and underscores.
FILE_COLUMNS = ("filename", "file", "id", "name")
TYPE_COLUMNS = ("typeoftb", "tbtype", "type", "label", "class")
MASK_SUFFIXES = ("", "_mask", "_regsegm_py")


def load(
    root: str | Path,
    *,
    size: Sequence[int] = (70, 224, 224),
    order: int = 1,
    window: Sequence[float] = (-1000, 400),
    frame: Literal["upright", "stored"] = "upright",
    masks: bool = False,
    mask_folder: str | None = None,
    dtype: str = "float32",
    labels: str | None = None,
    file_column: str | None = None,
    type_column: str | None = None,
    patient_column: str | None = None,
) -> Pool:
    """List the labelled volumes below root; images are (D, H, W, 1) in 0..1.

    Args:
        size: D, H, W of the images.
        order: of the zoom's spline, 0..5; 1 (linear) as in the authors' code, 3 is cubic. Above 1
            the result is clipped to 0..1 again.
        window: HU that become 0 and 1.
        frame: upright, or stored: the authors' quarter turn of the file's own axes.
        masks: set voxels outside the lung mask to the window's low end.
        mask_folder: relative to root; needed where there is more than one.
        dtype: float32, or float16, which halves cache and memory.
        labels, file_column, type_column: the CSV, relative to root, and its columns, where they
            are not found by their names.
        patient_column: of the CSV, for the groups; None: one volume a patient, as the paper states.

    Raises:
        ConfigError: an argument that cannot be. MedexpError: no folder, no volume or no CSV; a CSV
            that lacks a column, names a volume twice, one that is not there or outside root, or a
            type other than 1..5. Of the decoder: see `read_volume` and `read_mask`.
    """
    prepare = Preparation(list(size), order, list(window), frame, dtype)
    root = Path(root)
    if not root.is_dir():
        raise not_found(INFO, root, INFO.files)
    scans = [path for path in find(root, (".nii", ".gz")) if _stem(path.name) != path.name]
    lungs = [path for path in scans if _is_mask(root, path)]
    volumes = [path for path in scans if not _is_mask(root, path)]
    if not volumes:
        raise not_found(INFO, root, INFO.files[:1])
    table = find_table(root, labels, file_column, type_column)
    rows = read_rows(root, volumes, replace(table, patient=patient_column))
    paths = [row.path for row in rows]
    mask_of = find_masks(root, lungs, mask_folder, paths) if masks else {}

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        path = paths[row]
        return prepared(path, prepare, (mask_of.get(path),) if masks else None)

    unlabelled = len(volumes) - len(rows)
    notes = []
    if patient_column is None:
        notes.append("one volume a patient, as the paper states (section 3.1); not checked")
    if unlabelled:
        notes.append(f"unlabelled volumes left out: {unlabelled:,}")
    return Pool(
        name="tbt",
        classes=INFO.classes,
        labels=np.array([row.label for row in rows], dtype=np.int64),
        ids=np.array([row.id for row in rows]),
        groups=np.array([row.patient for row in rows]),
        files=paths,
        shape=(*size, 1),
        dtype=np.dtype(dtype),
        decode=decode,
        # A mask changes the pixels as much as the volume does, but only the volumes are digested.
        settings=asdict(prepare) | {"masks": _digest(mask_of) if masks else None},
        public=INFO.counts["all"],
        notes=tuple(notes),
    )


def load_new(
    shape: tuple[int, ...],
    *,
    size: Sequence[int] = (70, 224, 224),
    order: int = 1,
    window: Sequence[float] = (-1000, 400),
    frame: Literal["upright", "stored"] = "upright",
    masks: bool = False,
    mask_folder: str | None = None,
    dtype: str = "float32",
) -> NewFiles:
    """How volumes without labels are read; the arguments are those of `load`.

    With masks, a volume's is looked for in a folder with "mask" in its name beside the volume, or
    in mask_folder there.
    """
    prepare = Preparation(list(size), order, list(window), frame, dtype)

    @lru_cache(maxsize=8)
    def listed(folder: Path) -> list[Path]:
        scans = find(folder, (".nii", ".gz"))
        return [path for path in scans if _is_mask(folder, path)]

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        if not masks:
            return prepared(file, prepare, None)
        found = find_masks(file.parent, listed(file.parent), mask_folder, [file])
        return prepared(file, prepare, (found.get(file),))

    return NewFiles((".nii", ".nii.gz"), (*size, 1), np.dtype(dtype), read)


# ---------------------------------------------------------------- what lies where


@dataclass(frozen=True)
class Table:
    """The CSV of labels and its columns; patient: None where each volume is a patient's."""

    path: Path
    file: str
    type: str
    patient: str | None = None


@dataclass(frozen=True)
class Row:
    """A line of the CSV and the file that it names."""

    id: str
    path: Path
    label: int
    patient: str
    line: int


def read_rows(root: Path, volumes: Sequence[Path], table: Table) -> list[Row]:
    """The labelled volumes, by id; MedexpError, with the line, for one that cannot be used."""
    paths_of: dict[str, list[Path]] = defaultdict(list)
    for path in volumes:
        below = path.relative_to(root).as_posix()
        for name in {path.name, _stem(path.name), below, _stem(below)}:
            paths_of[name].append(path)
    rows: dict[Path, Row] = {}
    missing = []
    columns = [table.file, table.type, *([table.patient] if table.patient else [])]
    for line, cells in csv_rows(table.path, columns):
        where = f"{table.path}, line {line}"
        name, kind = cells[table.file].strip(), cells[table.type].strip()
        if kind not in ("1", "2", "3", "4", "5"):
            raise MedexpError(f"{where}: {table.type} is {kind!r}: must be 1, 2, 3, 4 or 5")
        inside(root, name, where)
        if name not in paths_of:
            missing.append(f"{name} (line {line})")
            continue
        path, *others = paths_of[name]
        if others:
            raise MedexpError(
                f"{where}: {name} is {path} and {others[0]}. Keep one of them, or write the "
                "path below the root in the CSV"
            )
        if path in rows:
            raise MedexpError(
                f"{where}: {name} stands in line {rows[path].line} already. Keep one line"
            )
        patient = cells[table.patient].strip() if table.patient else _stem(name)
        if not patient:
            raise MedexpError(f"{where}: {table.patient} is empty. Fill it in, or leave it out")
        rows[path] = Row(_stem(name), path, int(kind) - 1, patient, line)
    if missing:
        raise MedexpError(
            f"{table.path} names {len(missing):,} volumes that are not below {root}, the first "
            f"{missing[0]}\nDownload and unpack them, or take their lines out of the CSV"
        )
    return sorted(rows.values(), key=lambda row: row.id)


def find_table(
    root: Path, labels: str | None, file_column: str | None, type_column: str | None
) -> Table:
    """The CSV of labels and its columns for the file and the type, found by their names."""
    paths = [inside(root, labels)] if labels else find(root, (".csv",))
    tables, headers = [], []
    for path in paths:
        _, cells = next(csv_rows(path), (0, {}))
        header = [column for column in cells if column is not None]
        file = _column(header, file_column, FILE_COLUMNS)
        kind = _column(header, type_column, TYPE_COLUMNS)
        headers.append(f"{path}: {', '.join(header) or 'no rows'}")
        if file and kind:
            tables.append(Table(path, file, kind))
    if not paths:
        raise MedexpError(
            f"{root}: no CSV of labels below it. Put the challenge's TrainSet_metaData.csv there "
            "(columns FileName, TypeOfTB), or name yours with dataset.labels="
        )
    if not tables:
        raise MedexpError(
            f"no CSV with a column of file names and one of types ({'; '.join(headers)})\n"
            "Name the columns with dataset.file_column= and dataset.type_column="
        )
    if len(tables) > 1:
        raise MedexpError(
            f"{' and '.join(str(table.path) for table in tables)} could both hold the labels. Name "
            "one with dataset.labels="
        )
    return tables[0]


def _column(header: Sequence[str], name: str | None, known: Sequence[str]) -> str | None:
    """The column of that name, or without one, the first of the known names that is there."""
    if name is not None:
        return name if name in header else None
    plain = {re.sub(r"[\W_]", "", column).lower(): column for column in header}
    return next((plain[word] for word in known if word in plain), None)


def _stem(name: str) -> str:
    """The name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


# ---------------------------------------------------------------- lung masks


def _is_mask(root: Path, path: Path) -> bool:
    return any("mask" in part.lower() for part in path.relative_to(root).parts[:-1])


def find_masks(
    root: Path, lungs: Sequence[Path], name: str | None, volumes: Sequence[Path]
) -> dict[Path, Path]:
    """Volume -> its mask, of the volumes that have one in the folder of masks."""
    if name is not None:
        lungs = find(inside(root, name), (".nii", ".gz"))
    folders = sorted({path.parent for path in lungs})
    if not folders:
        raise MedexpError(
            f"dataset.masks=true: no lung masks in {root / (name or '*mask*')}. Unpack them there, "
            "or set dataset.masks=false"
        )
    if len(folders) > 1:
        raise MedexpError(
            f"dataset.masks=true: masks in {' and '.join(map(str, folders))}. Name one with "
            "dataset.mask_folder="
        )
    mask_named = {_stem(path.name): path for path in lungs}
    masks = {}
    for volume in volumes:
        names = [_stem(volume.name) + suffix for suffix in MASK_SUFFIXES]
        if mask := next((mask_named[name] for name in names if name in mask_named), None):
            masks[volume] = mask
    return masks


def _digest(mask_of: dict[Path, Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for volume, mask in sorted(mask_of.items()):
        digest.update(f"{volume.name}\0{mask.name}\0{mask.stat().st_size}\0".encode())
        digest.update(mask.read_bytes())
    return digest.hexdigest()


def read_mask(path: Path, image: Any, mask: Path | None) -> np.ndarray:
    """The lungs of a volume, (I, J, K) bool in the volume's own axes.

    Raises MedexpError for a mask that is missing, unreadable, of another shape or orientation than
    the volume, or empty.
    """
    if mask is None:
        raise MedexpError(
            f"{path}: no lung mask of that name. Set dataset.masks=false, or leave such files out "
            "with dataset.on_error=skip"
        )
    raw, header, _ = read_stored(mask)
    shape = tuple(image.shape[:3])
    if raw.shape != shape:
        raise MedexpError(
            f"{mask}: {times(raw.shape)} voxels, but {path.name} has {times(shape)}. A mask has "
            "its volume's shape"
        )
    # Masks are made on the volume's voxels: a header that says otherwise leaves open which holds.
    codes = orientation(mask, header), orientation(path, image)
    if codes[0] != codes[1]:
        raise MedexpError(
            f"{mask}: stored {codes[0]}, but {path.name} is stored {codes[1]}. Store both alike"
        )
    lungs: np.ndarray = raw != 0
    if not lungs.any():
        raise MedexpError(f"{mask}: empty, nothing would be left of {path.name}")
    return lungs


# ---------------------------------------------------------------- pixels


def prepared(
    path: Path, prepare: "Preparation", mask: tuple[Path | None] | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """A volume as (D, H, W, 1), and what its file says of itself.

    mask: None, or its mask, which is None in its turn where there is none of its name.
    """
    volume, image, facts = read_volume(path)
    if mask is not None:
        outside = ~read_mask(path, image, mask[0])
        facts["mask_share"] = round(float(1 - outside.mean()), 4)
        volume[outside] = prepare.window[0]
        del outside
    return prepare(volume, image.affine), facts


@dataclass(frozen=True)
class Preparation:
    """What becomes of a volume in HU; its fields are arguments of `load` and key the cache."""

    size: Sequence[int]
    order: int
    window: Sequence[float]
    frame: str
    dtype: str

    def __post_init__(self) -> None:
        one_of("dataset.frame", self.frame, ("upright", "stored"))
        one_of("dataset.dtype", self.dtype, ("float32", "float16"))
        if len(self.size) != 3 or min(self.size) < 1:
            raise ConfigError(f"dataset.size={self.size}: must be [D, H, W], each 1 or more")
        if not 0 <= self.order <= 5:
            raise ConfigError(f"dataset.order={self.order}: must be 0..5 (1: linear, 3: cubic)")
        if len(self.window) != 2 or not self.window[0] < self.window[1]:
            raise ConfigError(
                f"dataset.window={self.window}: must be [low, high] in HU, low < high"
            )

    def __call__(self, volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """(I, J, K) float32 in HU, which is overwritten, to (D, H, W, 1) in 0..1."""
        scaled = windowed(volume, float(self.window[0]), float(self.window[1]))
        turned = turn(scaled, affine, self.frame)
        return zoomed(turned, self.size, self.order).astype(self.dtype)[..., None]
