"""Arrays in NumPy's .npz and .npy files: which there are, and their rows as they are asked for.

Pickled objects are never loaded.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np

from medexp.data.files import inside, reason
from medexp.errors import MedexpError

BLOCK = 2**23  # bytes read at once


@dataclass(frozen=True)
class Stored:
    """An array in a file, not read yet. member: of an .npz; None: an .npy file."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    by_rows: bool  # in C's order, so that a row is found in one place

    @property
    def name(self) -> str:
        return f"{self.path}, {self.member.removesuffix('.npy')}" if self.member else str(self.path)

    def whole(self) -> np.ndarray:
        """The array; MedexpError where it is damaged or holds pickled objects."""
        if self.dtype.hasobject:
            raise MedexpError(
                f"{self.name}: Python objects, which are not loaded: they can run any code. Save "
                "numbers or text of a plain dtype"
            )
        with readable(self.name):
            if self.member is None:
                return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
            with np.load(self.path, allow_pickle=False) as file:
                return np.asarray(file[self.member.removesuffix(".npy")])

    def rows(self) -> Callable[[int], np.ndarray]:
        """row -> that row. An .npz is read in blocks, so that it need not fit in memory."""
        if self.member is None or not self.by_rows or self.dtype.hasobject:
            array = self.whole()
            return lambda row: np.asarray(array[row])
        return Blocks(self).row


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the file of that name."""
    try:
        yield
    except MedexpError:
        raise
    except Exception as error:
        raise MedexpError(
            f"{name} cannot be read as a NumPy array ({reason(error)}): it is damaged or cut "
            "short. Save it again"
        ) from None


class Blocks:
    """The rows of an .npz's array for threads that ask nearly in order; a few blocks are held."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.lock = stored, Lock()
        self.row_bytes = int(np.prod(stored.shape[1:], dtype=np.int64)) * stored.dtype.itemsize
        self.many = max(1, BLOCK // max(1, self.row_bytes))
        self.block = lru_cache(maxsize=4)(self.read)

    def row(self, row: int) -> np.ndarray:
        with self.lock:
            block = self.block(row // self.many)
        return np.asarray(block[row % self.many])

    def read(self, number: int) -> np.ndarray:
        stored, start = self.stored, number * self.many
        count = min(self.many, stored.shape[0] - start)
        with readable(stored.name), zipfile.ZipFile(stored.path) as file:
            with file.open(str(stored.member)) as member:
                header_of(member)
                member.seek(start * self.row_bytes, 1)
                data = member.read(count * self.row_bytes)
            return np.frombuffer(data, stored.dtype).reshape(count, *stored.shape[1:])


def header_of(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype of an .npy; the file is left at its numbers."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    return read[version](file)


def find_arrays(root: Path, file: str | None) -> dict[str, Stored]:
    """name -> array, of the .npz named or found, or of the .npy files of root."""
    if file is not None:
        path = inside(root, file)
    else:
        packed = sorted(root.glob("*.npz"))
        if len(packed) > 1:
            raise MedexpError(
                f"{root} holds {', '.join(p.name for p in packed)}. Name one with dataset.file="
            )
        if not packed:
            return {p.stem: stored_in(p) for p in sorted(root.glob("*.npy"))}
        (path,) = packed
    if not path.is_file():
        raise MedexpError(f"{path}: no such file. Name an .npz below {root} with dataset.file=")
    with readable(str(path)), zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): stored_in(path, name, archive) for name in members}


def stored_in(
    path: Path, member: str | None = None, archive: zipfile.ZipFile | None = None
) -> Stored:
    name = f"{path}, {member}" if member else str(path)
    with readable(name), archive.open(str(member)) if archive else open(path, "rb") as file:
        shape, fortran, dtype = header_of(file)
    return Stored(path, member, shape, dtype, by_rows=not fortran)
