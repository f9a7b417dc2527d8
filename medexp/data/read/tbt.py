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

import gzip
import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from medexp.data.base import Info, Pool
from medexp.data.files import csv_rows, find, inside, not_found, reason
from medexp.errors import ConfigError, MedexpError, one_of

nib: Any = nibabel  # most of what is used of it carries no types

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
UPRIGHT = ("S", "P", "L")  # where slices, rows and columns lead: head, back, the patient's left
MAX_VOXELS = 2**29  # 1024x1024x512: beyond any chest CT, far below what a crafted header can claim


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
    settings = _settings(size, order, window, frame, dtype)
    folder = Path(root)
    if not folder.is_dir():
        raise not_found(INFO, folder, INFO.files)
    scans = [path for path in find(folder, (".nii", ".gz")) if _stem(path.name) != path.name]
    lungs = [path for path in scans if _is_mask(folder, path)]
    volumes = [path for path in scans if not _is_mask(folder, path)]
    if not volumes:
        raise not_found(INFO, folder, INFO.files[:1])
    rows = _rows(folder, volumes, labels, file_column, type_column, patient_column)
    paths = [row.path for row in rows]
    mask_of = _masks(folder, lungs, mask_folder, paths) if masks else {}
    # A mask changes the pixels as much as the volume does, but only the volumes are digested.
    settings["masks"] = _digest(mask_of) if masks else None

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        path = paths[row]
        volume, image, facts = read_volume(path)
        if masks:
            outside = ~read_mask(path, image, mask_of.get(path))
            facts["mask_share"] = round(float(1 - outside.mean()), 4)
            volume[outside] = window[0]
            del outside
        scaled = windowed(volume, float(window[0]), float(window[1]))
        turned = turn(scaled, image.affine, frame)
        return zoomed(turned, size, order).astype(dtype)[..., None], facts

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
        settings=settings,
        public=INFO.counts["all"],
        notes=tuple(notes),
    )


def _settings(
    size: Sequence[int], order: int, window: Sequence[float], frame: str, dtype: str
) -> dict[str, Any]:
    """What decides the pixels, checked."""
    one_of("dataset.frame", frame, ("upright", "stored"))
    one_of("dataset.dtype", dtype, ("float32", "float16"))
    if len(size) != 3 or min(size) < 1:
        raise ConfigError(f"dataset.size={list(size)}: must be [D, H, W], each 1 or more")
    if not 0 <= order <= 5:
        raise ConfigError(f"dataset.order={order}: must be 0..5 (1: linear, 3: cubic)")
    if len(window) != 2 or not window[0] < window[1]:
        raise ConfigError(f"dataset.window={list(window)}: must be [low, high] in HU, low < high")
    return {
        "size": list(size),
        "order": order,
        "window": list(window),
        "frame": frame,
        "dtype": dtype,
    }


# ---------------------------------------------------------------- what lies where


@dataclass(frozen=True)
class Row:
    """A line of the CSV and the file that it names."""

    id: str
    path: Path
    label: int
    patient: str
    line: int


def _rows(
    root: Path,
    volumes: Sequence[Path],
    labels: str | None,
    file_column: str | None,
    type_column: str | None,
    patient_column: str | None,
) -> list[Row]:
    table, name_of, type_of = _table(root, labels, file_column, type_column)
    index: dict[str, list[Path]] = defaultdict(list)
    for path in volumes:
        below = path.relative_to(root).as_posix()
        for name in {path.name, _stem(path.name), below, _stem(below)}:
            index[name].append(path)
    rows: dict[Path, Row] = {}
    missing = []
    columns = [name_of, type_of, *([patient_column] if patient_column else [])]
    for line, cells in csv_rows(table, columns):
        where, name, kind = f"{table}, line {line}", cells[name_of].strip(), cells[type_of].strip()
        if kind not in ("1", "2", "3", "4", "5"):
            raise MedexpError(f"{where}: {type_of} is {kind!r}: must be 1, 2, 3, 4 or 5")
        inside(root, name, where)
        found = index.get(name, [])
        if not found:
            missing.append(f"{name} (line {line})")
            continue
        if len(found) > 1:
            raise MedexpError(
                f"{where}: {name} is {found[0]} and {found[1]}. Keep one of them, or write the "
                "path below the root in the CSV"
            )
        if found[0] in rows:
            raise MedexpError(
                f"{where}: {name} stands in line {rows[found[0]].line} already. Keep one line"
            )
        patient = cells[patient_column].strip() if patient_column else _stem(name)
        if not patient:
            raise MedexpError(f"{where}: {patient_column} is empty. Fill it in, or leave it out")
        rows[found[0]] = Row(_stem(name), found[0], int(kind) - 1, patient, line)
    if missing:
        raise MedexpError(
            f"{table} names {len(missing):,} volumes that are not below {root}, the first "
            f"{missing[0]}\nDownload and unpack them, or take their lines out of the CSV"
        )
    return sorted(rows.values(), key=lambda row: row.id)


def _table(
    root: Path, labels: str | None, file_column: str | None, type_column: str | None
) -> tuple[Path, str, str]:
    """The CSV of labels and its columns for the file and the type, found by their names."""
    tables = [inside(root, labels)] if labels else find(root, (".csv",))
    fit, headers = [], []
    for table in tables:
        _, cells = next(csv_rows(table), (0, {}))
        header = [column for column in cells if column is not None]
        name_of = _column(header, file_column, FILE_COLUMNS)
        type_of = _column(header, type_column, TYPE_COLUMNS)
        headers.append(f"{table}: {', '.join(header) or 'no rows'}")
        if name_of and type_of:
            fit.append((table, name_of, type_of))
    if not tables:
        raise MedexpError(
            f"{root}: no CSV of labels below it. Put the challenge's TrainSet_metaData.csv there "
            "(columns FileName, TypeOfTB), or name yours with dataset.labels="
        )
    if not fit:
        raise MedexpError(
            f"no CSV with a column of file names and one of types ({'; '.join(headers)})\n"
            "Name the columns with dataset.file_column= and dataset.type_column="
        )
    if len(fit) > 1:
        raise MedexpError(
            f"{' and '.join(str(table) for table, _, _ in fit)} could both hold the labels. Name "
            "one with dataset.labels="
        )
    return fit[0]


def _column(header: Sequence[str], given: str | None, known: Sequence[str]) -> str | None:
    if given is not None:
        return given if given in header else None
    plain = {re.sub(r"[\W_]", "", column).lower(): column for column in header}
    return next((plain[name] for name in known if name in plain), None)


def _stem(name: str) -> str:
    """The name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


def _is_mask(root: Path, path: Path) -> bool:
    return any("mask" in part.lower() for part in path.relative_to(root).parts[:-1])


def _masks(
    root: Path, lungs: Sequence[Path], name: str | None, volumes: Sequence[Path]
) -> dict[Path, Path]:
    """Volume -> its mask, of the volumes that have one in the folder of masks."""
    if name is not None:
        folder = inside(root, name)
        lungs = find(folder, (".nii", ".gz"))
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
    by_stem = {_stem(path.name): path for path in lungs}
    found = {}
    for volume in volumes:
        for suffix in MASK_SUFFIXES:
            if mask := by_stem.get(_stem(volume.name) + suffix):
                found[volume] = mask
                break
    return found


def _digest(mask_of: dict[Path, Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for volume, mask in sorted(mask_of.items()):
        digest.update(f"{volume.name}\0{mask.name}\0{mask.stat().st_size}\0".encode())
        digest.update(mask.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- files


def read_volume(path: Path) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """A volume in HU, (I, J, K) float32 in the file's own axes, its header, and the facts.

    Facts: size [I, J, K], spacing in mm along them (None and a warning where the header has none
    that can be), orientation (where I, J, K lead, such as LPS), range of HU. Raises MedexpError
    for what `_stored` refuses, for voxels that are NaN or infinite, and for an affine that leaves
    open where an axis leads.
    """
    raw, image, spacing = _stored(path)
    with np.errstate(over="ignore", invalid="ignore"):
        volume = raw.astype(np.float32)
        if image.dataobj.slope != 1:
            volume *= np.float32(image.dataobj.slope)
        if image.dataobj.inter != 0:
            volume += np.float32(image.dataobj.inter)
    del raw
    low, high = float(volume.min()), float(volume.max())
    if not np.isfinite([low, high]).all():
        bad = volume.size - np.count_nonzero(np.isfinite(volume))
        raise MedexpError(
            f"{path}: {bad:,} of {volume.size:,} voxels are NaN or infinite. Download it again, or "
            "leave such files out with dataset.on_error=skip"
        )
    facts: dict[str, Any] = {
        "size": list(volume.shape),
        "spacing": spacing,
        "orientation": orientation(path, image),
        "range": [low, high],
    }
    warnings = []
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        warnings.append(f"spacing of {', '.join(map(str, spacing))} mm in the header")
        facts["spacing"] = None
    if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
        warnings.append("no orientation in the header; LAS is assumed")
    if warnings:
        facts["warnings"] = warnings
    return volume, image, facts


def orientation(path: Path, image: Any) -> str:
    """Where the file's axes lead, such as LPS; MedexpError where its affine does not say."""
    affine = image.affine
    codes = nib.aff2axcodes(affine) if np.isfinite(affine).all() else (None,)
    if None in codes:
        raise MedexpError(
            f"{path}: its header does not say which way the patient lies (affine "
            f"{np.round(affine[:3, :3], 3).tolist()}). Repair it, or leave such files out with "
            "dataset.on_error=skip"
        )
    return "".join(str(code) for code in codes)


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
    raw, own, _ = _stored(mask)
    shape = tuple(image.shape[:3])
    if raw.shape != shape:
        raise MedexpError(
            f"{mask}: {_times(raw.shape)} voxels, but {path.name} has {_times(shape)}. A mask has "
            "its volume's shape"
        )
    # Masks are made on the volume's voxels: a header that says otherwise leaves open which holds.
    codes = orientation(mask, own), orientation(path, image)
    if codes[0] != codes[1]:
        raise MedexpError(
            f"{mask}: stored {codes[0]}, but {path.name} is stored {codes[1]}. Store both alike"
        )
    lungs: np.ndarray = raw != 0
    if not lungs.any():
        raise MedexpError(f"{mask}: empty, nothing would be left of {path.name}")
    return lungs


def _stored(path: Path) -> tuple[np.ndarray, Any, list[float]]:
    """The numbers of a NIfTI file as stored, read-only (I, J, K), its header, its spacing in mm.

    Raises MedexpError for a file that is no NIfTI, damaged, cut short, of less than three axes or
    more than one volume, without voxels, beyond MAX_VOXELS (before any memory is asked for), or
    with colours or complex numbers for voxels.
    """
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ImageFileError
        shape = _shape(path, image)
        dtype, offset = image.dataobj.dtype, int(image.dataobj.offset)
        if dtype.kind not in "iuf":
            raise MedexpError(f"{path}: voxels of type {dtype}: need integers or real numbers")
        wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            # Unchecked: nibabel makes 1 mm of a spacing of 0.
            header = type(image.header).from_fileobj(file, check=False)
            spacing = [round(abs(float(mm)), 6) for mm in header["pixdim"][1:4]]
            file.seek(offset)
            data = file.read(wanted)
            while file.read(2**20):  # to the end, where gzip finds a damaged stream out
                pass
    except MedexpError:
        raise
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        why = "no NIfTI header" if isinstance(error, ImageFileError) else reason(error)
        raise MedexpError(
            f"{path} cannot be read as NIfTI ({why}): it is damaged or cut short. "
            "Download it again, or leave such files out with dataset.on_error=skip"
        ) from None
    if len(data) < wanted:
        raise MedexpError(
            f"{path}: cut short: {len(data):,} of the {wanted:,} bytes of voxels that its header "
            "promises. Download it again, or leave such files out with dataset.on_error=skip"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F"), image, spacing


def _shape(path: Path, image: Any) -> tuple[int, int, int]:
    shape = [int(n) for n in image.shape]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3:
        raise MedexpError(
            f"{path}: {_times(shape)} voxels, {len(shape)} axes: need one volume of three axes"
        )
    if min(shape) < 1:
        raise MedexpError(f"{path}: no voxels ({_times(shape)})")
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise MedexpError(
            f"{path}: {_times(shape)} voxels by its header, more than {MAX_VOXELS:,}: damaged, or "
            "no chest CT. Shrink it, or take it out"
        )
    return shape[0], shape[1], shape[2]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


# ---------------------------------------------------------------- pixels


def windowed(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """HU to 0..1, low and below to 0, high and above to 1; in place, float32."""
    np.clip(volume, low, high, out=volume)
    volume -= np.float32(low)
    volume /= np.float32(high - low)
    return volume


def turn(volume: np.ndarray, affine: np.ndarray, frame: str = "upright") -> np.ndarray:
    """(I, J, K) in the file's axes to (D, H, W): a view.

    upright: slices from feet to head, rows from front to back, columns from the patient's right to
    left, oblique volumes by their nearest axes. stored: K first, then I and J turned by 90 degrees.
    """
    if frame == "stored":
        return np.moveaxis(np.rot90(volume), 2, 0)
    wanted = nib.orientations.axcodes2ornt(UPRIGHT)
    steps = nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    turned: np.ndarray = nib.apply_orientation(volume, steps)
    return turned


def zoomed(volume: np.ndarray, size: Sequence[int], order: int = 1) -> np.ndarray:
    """Spline-interpolated zoom (SIZ) to `size`: float32 in 0..1.

    scipy.ndimage.zoom, but for the splines' coefficients, which are float32 here, where scipy's
    float64 would take twice the volume's memory again.
    """
    if order > 1:
        volume = ndimage.spline_filter(volume, order, output=np.float32, mode="mirror")
    factors = [new / old for new, old in zip(size, volume.shape, strict=True)]
    made: np.ndarray = ndimage.zoom(volume, factors, order=order, mode="mirror", prefilter=False)
    return np.clip(made, 0, 1, out=made) if order > 1 else made
