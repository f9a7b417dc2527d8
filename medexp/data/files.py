"""Finding and opening what lies on disk: every way in which a file can be wrong has its message."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import h5py
import numpy as np

from medexp.data.base import Info
from medexp.errors import MedexpError

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**27  # 134 million: beyond any photograph, far below what a crafted file can claim
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB",
         "YCbCr": "RGB", "MPO": "RGB"}  # fmt: skip


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
    follow: bool = False,
) -> list[Path]:
    """All files below root with one of the extensions (any case), sorted by path.

    follow: links are followed wherever they lead; a folder that is reached twice is listed once.
    Else a link that leads out of `within` (None: of root) raises MedexpError, as does in both cases
    a folder that cannot be listed.
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
            elif path.suffix.lower() in extensions and not entry.is_dir():
                files.append(path)
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


# ---------------------------------------------------------------- tables


# ---------------------------------------------------------------- images


def read_image(path: Path, mode: str | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a photograph with Pillow, turned upright as its EXIF says.

    mode: RGB or L; None: what the file has. Returns ((H, W, 3) or (H, W, 1) uint8, {"size":
    [width, height], "mode": the file's}). Raises MedexpError, which names the file, where it is
    missing, unreadable, cut short, larger than MAX_PIXELS, or has 16 bits a channel.
    """
    # Imported here: Pillow slows the start of every command.
    from PIL import Image, ImageOps

    try:
        Image.MAX_IMAGE_PIXELS = None  # the check below, of our own limit, comes before any pixel
        with Image.open(path) as image:
            size = list(image.size)
            if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
                raise MedexpError(f"{path}: {pages} pages. Save the one that is meant on its own")
            if image.width * image.height > MAX_PIXELS:
                raise MedexpError(
                    f"{path}: {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}: a "
                    "decompression bomb or no photograph. Shrink it, or take it out"
                )
            if image.mode not in MODES:
                raise MedexpError(
                    f"{path}: pixels of mode {image.mode} (16 or 32 bits a channel). Save it "
                    "with 8 bits, windowed as you want the network to see it"
                )
            stored_mode = image.mode
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert(mode or MODES[stored_mode]))
    except MedexpError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MedexpError(
            f"{path} cannot be decoded ({reason(error)}): it is damaged, cut short or no image. "
            + AGAIN
        ) from None
    return pixels.reshape(*pixels.shape[:2], -1), {"size": size, "mode": stored_mode}


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
    except (OSError, RuntimeError) as error:
        raise MedexpError(
            f"{path} cannot be read as HDF5, it may be cut short ({reason(error)})\n"
            "Download and unpack it again"
        ) from None


def hdf5_dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    """The dataset of that key; MedexpError says which keys there are instead."""
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise MedexpError(f"{path} has no dataset {key!r} (it has: {', '.join(file) or 'none'})")
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
            return np.asarray(file[key][number * block : (number + 1) * block])

    def row(index: int) -> np.ndarray:
        with lock:
            rows = read(index // block)
        return np.asarray(rows[index % block])

    return row
