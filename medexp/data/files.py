"""Finding and opening what lies on disk: every way in which a file can be wrong has its message."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from medexp.data.base import Info
from medexp.data.hdf5_links import refuse_links, refuse_other_files
from medexp.data.headers import Header, read_header
from medexp.data.pixels import BACKGROUNDS, Scale, laid_over, scaled, with_channels
from medexp.data.samples import read_samples, unread
from medexp.errors import MedexpError

IMAGES = (
    ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MAX_PIXELS = 2**27  # 134 million: beyond any photograph, far below what a crafted file can claim
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB",
         "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # fmt: skip


AGAIN = "Download it again, or leave such files out with dataset.on_error=skip"


# ---------------------------------------------------------------- folders


def not_found(info: Info, root: Path, missing: Sequence[str]) -> MedexpError:
    """What a user needs to know where a data set is not: files, source, size, licence, remedies."""
    return MedexpError(
        f"{info.title} not found in {root.absolute()}: missing {', '.join(missing)}\n"
        f"The public set: {info.url}; {info.size}; licence {info.licence}\n"
        f"Unpack it below MEDEXP_DATA=, name the folder with dataset.root=, or try without it: "
        "source=phantom"
    )


def folder(path: Path, what: str) -> Path:
    """The path, where it is a folder that can be listed; else MedexpError."""
    if not path.is_dir():
        raise MedexpError(
            f"{path.absolute()}: no such folder; {what}. Name it with dataset.root=, or put it "
            "below MEDEXP_DATA="
        )
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise MedexpError(f"{path}: cannot be listed ({error.strerror})") from None
    return path


def subfolders(root: Path, *, follow: bool = False) -> list[Path]:
    """The folders directly below root, by name; hidden ones and macOS' leftovers are none.

    Raises MedexpError where root cannot be read and, unless they are to be followed, for a symbolic
    link that leads out of root.
    """
    try:
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not _ignored(e.name))
    except OSError as error:
        raise MedexpError(f"{root}: cannot be listed ({error.strerror})") from None
    return [root / name if follow else inside(root, name) for name in names]


def find(
    root: Path,
    extensions: Sequence[str] = IMAGES,
    *,
    within: Path | None = None,
    others: Counter[str] | None = None,
    follow: bool = False,
) -> list[Path]:
    """All files below root with one of the extensions (any case), sorted by path.

    others: counts the files that have none of them, by their own. follow: links are followed
    wherever they lead; a folder that is reached twice is listed once. Else a link that leads out of
    `within` (None: of root) raises MedexpError, as does in both cases a folder that cannot be
    listed.
    """
    within = within or root
    files: list[Path] = []
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        at = waiting.pop()
        if follow:
            real = os.path.realpath(at)
            if real in seen:
                continue
            seen.add(real)
        try:
            entries = [entry for entry in os.scandir(at) if not _ignored(entry.name)]
        except OSError as error:
            raise MedexpError(
                f"{at}: cannot be listed ({error.strerror}). Make it readable: chmod u+rx"
            ) from None
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink() and not follow:
                inside(within, path.relative_to(within).as_posix())
            # A linked folder that stays inside is reached where it really lies.
            if entry.is_dir(follow_symlinks=follow):
                waiting.append(path)
            elif entry.is_dir():
                continue
            elif path.suffix.lower() in extensions:
                files.append(path)
            elif others is not None:
                others[path.suffix.lower() or "no suffix"] += 1
    return sorted(files)


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def inside(root: Path, name: str, where: str = "", *, follow: bool = False) -> Path:
    """root / name, where that stays below root.

    where: what gives the name, such as a line of a table, for the message. follow: a link may lead
    out. Raises MedexpError for
    an absolute name, for one with `..`, and for a link that leads out.
    """
    lead = f"{where}: " if where else ""
    if (
        not name
        or "\0" in name
        or Path(name).is_absolute()
        or ".." in Path(name).parts
        or "\\" in name
    ):
        raise MedexpError(
            f"{lead}{name!r}: not a plain path below {root}. Give paths relative to it"
        )
    path = root / name
    if follow:
        return path
    try:
        outside = not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        raise MedexpError(
            f"{lead}{path}: a symbolic link that leads to itself. Remove it"
        ) from None
    if outside:
        raise MedexpError(
            f"{lead}{path}: a symbolic link that leads out of {root}, to {path.resolve()}. Copy "
            "the file, make dataset.root the folder that holds it, or give "
            "dataset.follow_links=true where the data set's reader takes it"
        )
    return path


# ---------------------------------------------------------------- images


class How(NamedTuple):
    """The arguments of `read_image` that say what becomes of the stored values."""

    mode: str | None
    scale: Scale | None
    background: str


def read_image(
    path: Path,
    mode: str | None = None,
    *,
    scale: Scale | None = None,
    background: str = "black",
) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a photograph, turned upright as its file says.

    mode: RGB or L; None: what the file has. scale: see `pixels.scaled`; None takes 8 bits a sample
    as they are and refuses others. background: black or white, which transparent pixels show.

    Returns (image, facts): (H, W, 3) or (H, W, 1), uint8, or with a scale float32 in 0..1. Facts:
    {"size": [width, height], "mode": the file's}; of a file that is not 8 bits its "least value"
    and "greatest value", and of one with transparent pixels "transparent", what stands for them.

    Raises MedexpError, which names the file and its kind, where it is missing, unreadable, cut
    short, larger than MAX_PIXELS, has several frames, or samples that the scale does not take.
    """
    how = How(mode, scale, background)
    try:
        with open(path, "rb") as file:
            header = read_header(file)
            if header is not None:
                refuse_frames(path, header.frames)
                refuse_bomb(path, *header.size)
                if header.extra > 1:
                    raise unread(path, header)
                # Other than 8 bits as they are, a scale is of the values that are stored.
                stored = header.inverted and header.bits == 8 and scale is not None
                if header.changed or stored:
                    file.seek(0)
                    return changed_image(path, file.read(), header, how)
            file.seek(0)
            return plain_image(path, file, header, how)
    except MedexpError:
        raise
    except Exception as error:  # whatever a decoder trips over is that file's fault
        raise MedexpError(
            f"{path} cannot be decoded ({reason(error)}): it is damaged, cut short, or no image of "
            f"a kind that is read. {AGAIN}"
        ) from None


def is_grey(mode: str) -> bool:
    """Whether the mode among the facts of an image is one without colours."""
    return MODES.get(mode.split(",")[0]) == "L"


def refuse_frames(path: Path, frames: int) -> None:
    if frames > 1:
        raise MedexpError(
            f"{path}: {frames} pages or frames. Save the one that is meant on its own"
        )


def refuse_bomb(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MedexpError(
            f"{path}: {width}x{height} pixels, more than {MAX_PIXELS:,}: a decompression bomb or "
            "no photograph. Shrink it, or take it out"
        )


def plain_image(
    path: Path, file: BinaryIO, header: Header | None, how: How
) -> tuple[np.ndarray, dict[str, Any]]:
    """An image of 8 bits a sample or less, by Pillow."""
    # Imported here: Pillow slows the start of every command.
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit is looked at before any pixel
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if header is not None and header.kind == "TIFF":
            file.seek(0)
            return changed_image(path, file.read(), header, how)
        file.seek(0)
        held = "no image of " + ", ".join(FORMATS) if file.read(1) else "an empty file"
        raise ValueError(held) from None
    with image:
        facts: dict[str, Any] = {"size": list(image.size), "mode": image.mode}
        # The second picture of a camera's MPO is a preview of the first, by its standard.
        if image.format not in ("MPO", "TIFF"):
            refuse_frames(path, getattr(image, "n_frames", 1))
        refuse_bomb(path, *image.size)
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            form, bits = ("float", 32) if image.mode == "F" else ("unsigned", 16)
            found = Header(str(image.format), image.size, bits, "grey", 1, form)
            return composed(path, np.asarray(image)[..., None], found, how)
        if image.mode not in MODES:
            kind = header or Header(str(image.format), image.size, 8, f"mode-{image.mode}", 3)
            raise unread(path, kind)
        upright = ImageOps.exif_transpose(image)
        wanted = how.mode or MODES[image.mode]
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            if upright.getchannel("A").getextrema() != (255, 255):
                below = Image.new("RGBA", upright.size, how.background)
                upright = Image.alpha_composite(below, upright)
                facts["transparent"] = f"laid over {how.background}"
            upright = upright.convert("RGB")
        pixels = np.asarray(upright.convert(wanted))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if how.scale is None else scaled(pixels, how.scale, (0, 255)), facts


def changed_image(
    path: Path, data: bytes, header: Header, how: How
) -> tuple[np.ndarray, dict[str, Any]]:
    """An image whose samples Pillow would change."""
    if header.deep and how.scale is None:
        raise too_deep(path, header)
    samples = read_samples(path, data, header)
    return composed(path, samples, header, how)


def too_deep(path: Path, header: Header) -> MedexpError:
    return MedexpError(
        f"{path}: {header.words}: which values are black and white? Save it with 8 bits, windowed "
        "as you want the network to see it. For images of your own dataset.scale= can say it: "
        "full, percentile, or [low, high]"
    )


def composed(
    path: Path, samples: np.ndarray, header: Header, how: How
) -> tuple[np.ndarray, dict[str, Any]]:
    """Stored samples (H, W, C) as an image: scaled, laid over the background, of that mode."""
    if how.scale is None and header.deep:
        raise too_deep(path, header)
    depth = header.samples - header.extra
    values, alpha = samples[..., :depth], samples[..., depth : depth + bool(header.alpha)]
    letters = ("L" if depth == 1 else "RGB") + ("A" if header.alpha else "")
    form = "" if header.form == "unsigned" else f" {header.form}"
    facts: dict[str, Any] = {
        "size": list(header.size),
        "mode": f"{letters}, {header.bits} bits{form}" if header.deep else letters,
    }
    if header.deep:
        facts |= {"least value": values.min().item(), "greatest value": values.max().item()}
    ends = None if header.form == "float" else (float(header.bottom), float(header.top))
    opacity = np.clip(alpha / (1 if header.form == "float" else header.top), 0, 1)
    multiplied = header.alpha == "associated"
    if multiplied and how.scale not in (None, "full"):  # other scales are of the colours themselves
        values = values.astype(np.float64)
        values = np.divide(values, opacity, out=np.zeros(values.shape), where=opacity > 0)
        multiplied = False
    try:
        image = scaled(values, how.scale or "full", ends)
    except MedexpError as error:
        raise MedexpError(f"{path}: {header.words}: {error}") from None
    if header.inverted:  # the scale is of what is stored, and 0 is white
        image = 1 - image
    if header.alpha and opacity.min() < 1:
        image = laid_over(image, opacity, BACKGROUNDS[how.background], multiplied)
        facts["transparent"] = f"laid over {how.background}"
    image = with_channels(image, how.mode)
    return image if how.scale is not None else np.round(image * 255).astype(np.uint8), facts


def counted(others: Counter[str]) -> str:
    """The commonest suffixes with their counts, in words."""
    return ", ".join(f"{count:,} of {suffix}" for suffix, count in others.most_common(5))


def reason(error: Exception) -> str:
    """What an exception says, without the path that the message around it names already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# ---------------------------------------------------------------- HDF5


@contextmanager
def hdf5(path: Path) -> Iterator[h5py.File]:
    """An open HDF5 file; MedexpError where it is damaged, at whatever point that shows."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
        if "required filter" in str(error) or "plugin" in str(error):
            raise MedexpError(
                f"{path}: compressed by a filter that h5py lacks ({reason(error)}). Write it again "
                "with gzip: h5repack -f GZIP=4 OLD NEW"
            ) from None
        raise MedexpError(
            f"{path} cannot be read as HDF5, it may be cut short ({reason(error)})\n"
            "Download and unpack it again"
        ) from None


def hdf5_dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    """The dataset of that key; MedexpError says which keys there are instead."""
    refuse_links(file, path, key)
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise MedexpError(f"{path} has no dataset {key!r} (it has: {', '.join(file) or 'none'})")
    refuse_other_files(data, path, key)
    if data.size == 0:
        raise MedexpError(f"{path}: {key} is empty, shape {data.shape}")
    return data


def hdf5_rows(path: Path, key: str, block: int = 512) -> Callable[[int], np.ndarray]:
    """row -> that row of an HDF5 dataset, read block by block: for rows asked for nearly in order.

    Safe to call from several threads; at most four blocks are held.
    """
    lock = Lock()

    @lru_cache(maxsize=4)
    def read(number: int) -> np.ndarray:
        with hdf5(path) as file:
            rows = hdf5_dataset(file, path, key)
            return np.asarray(rows[number * block : (number + 1) * block])

    def row(index: int) -> np.ndarray:
        with lock:
            rows = read(index // block)
        return np.asarray(rows[index % block])

    return row
