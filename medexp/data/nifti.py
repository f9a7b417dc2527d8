"""Volumes in NIfTI files: every way in which one can be wrong has its message."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from medexp.data.files import AGAIN, reason
from medexp.errors import MedexpError

nib: Any = nibabel  # most of what is used of it carries no types

UPRIGHT = ("S", "P", "L")  # where slices, rows and columns lead: head, back, the patient's left
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
MAX_VOXELS = 2**29  # 1024x1024x512: beyond any chest CT, far below what a crafted header can claim


def read_volume(path: Path) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """A volume in HU, (I, J, K) float32 in the file's own axes, its header, and the facts.

    Facts: size [I, J, K], spacing in mm along them (None and a warning where the header has none
    that can be), orientation (where I, J, K lead, such as LPS), range of HU. Raises MedexpError
    for what `read_stored` refuses, for voxels that are NaN or infinite, and for an affine that
    leaves open where an axis leads.
    """
    raw, image, spacing = read_stored(path)
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
            f"{path}: {bad:,} of {volume.size:,} voxels are NaN or infinite. " + AGAIN
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


def read_stored(path: Path) -> tuple[np.ndarray, Any, list[float]]:
    """The numbers of a NIfTI file as stored, read-only (I, J, K), its header, its spacing in mm.

    Raises MedexpError for a file that is no NIfTI, damaged, cut short, of less than three axes or
    more than one volume, without voxels, beyond MAX_VOXELS (before any memory is asked for), or
    with colours or complex numbers for voxels.
    """
    try:
        check_packing(path)
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ImageFileError
        shape = shape_of(path, image)
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
    except Exception as error:  # whatever nibabel trips over is that file's fault
        why = "no NIfTI header" if isinstance(error, ImageFileError) else reason(error)
        raise MedexpError(
            f"{path} cannot be read as NIfTI ({why}): it is damaged or cut short. " + AGAIN
        ) from None
    if len(data) < wanted:
        raise MedexpError(
            f"{path}: cut short: {len(data):,} of the {wanted:,} bytes of voxels that its header "
            f"promises. {AGAIN}"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F"), image, spacing


def check_packing(path: Path) -> None:
    """Raise MedexpError where a file is gzipped and its name does not say so, or the reverse."""
    with open(path, "rb") as file:
        start = file.read(4)
    named = path.name.lower().endswith(".gz")
    gzipped = start[:2] == b"\x1f\x8b"
    # A NIfTI-1 begins with 348, a NIfTI-2 with 540, in either order of bytes.
    plain = any(int.from_bytes(start, order) in (348, 540) for order in ORDERS)
    if named and plain:
        raise MedexpError(
            f"{path}: no gzip file: it is named .gz, but is a plain NIfTI. Rename it to "
            f"{path.name[:-3]}, in its table of labels too"
        )
    if gzipped and not named:
        raise MedexpError(
            f"{path}: a gzip file whose name does not say so. Rename it to {path.name}.gz, in its "
            "table of labels too"
        )


def shape_of(path: Path, image: Any) -> tuple[int, int, int]:
    shape = [int(n) for n in image.shape]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3:
        raise MedexpError(
            f"{path}: {times(shape)} voxels, {len(shape)} axes: need one volume of three axes"
        )
    if min(shape) < 1:
        raise MedexpError(f"{path}: no voxels ({times(shape)})")
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise MedexpError(
            f"{path}: {times(shape)} voxels by its header, more than {MAX_VOXELS:,}: damaged, or "
            "no chest CT. Shrink it, or take it out"
        )
    return shape[0], shape[1], shape[2]


def times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


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


def windowed(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """HU to 0..1, low and below to 0, high and above to 1; in place, float32."""
    np.clip(volume, low, high, out=volume)
    volume -= np.float32(low)
    volume /= np.float32(high - low)
    return volume


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
