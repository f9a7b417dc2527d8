"""The build of a cache entry: every image of a pool decoded in parallel into one array on disk.

An image that cannot be read costs its own row alone. What is finished is written down every few
seconds, so that a killed build goes on where it stopped.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medexp.data.base import Pool
from medexp.data.progress import bar, in_order, threads
from medexp.errors import MedexpError

log = logging.getLogger(__name__)

Line = dict[
    str, Any
]  # row, and what its file says of itself (facts) or why it has no image (error)
BLOCK_BYTES = 2**20  # of decoded images that a thread gets at once
TINY_BYTES = 2**15  # of one decoded image
FLUSH_SECONDS = 5.0  # work that a killed build may lose
PROBES = 4  # images tried first: where all of them fail, so will the others


def build(pool: Pool, folder: Path) -> None:
    """Decode what `folder` lacks of the pool, in parallel and in order.

    Raises MedexpError where the disk is too small, and where no image can be read at all.
    """
    began = time.monotonic()
    array = left_by_killed_build(pool, folder / "images.npy")
    done = finished_rows(folder / "rows.jsonl") if array is not None else {}
    if array is None:
        array = allocate(pool, folder / "images.npy")
    todo = [row for row in range(len(pool)) if row not in done]
    log.info("Decoding %s images of %s, once", f"{len(todo):,}", pool.name)
    told = [line for line in done.values() if says_something(line)]
    told += decode_rows(pool, array, todo, folder / "rows.jsonl")
    # Every run reads this file: only rows of which there is something to say stay in it.
    (folder / "rows.jsonl").write_text(as_text(told), encoding="utf-8")
    entry = {
        "dataset": pool.name,
        "images": len(pool),
        "shape": list(pool.shape),
        "dtype": str(np.dtype(pool.dtype)),
        "settings": dict(pool.settings),
        "failed": sum("error" in line for line in told),
        "seconds": round(time.monotonic() - began, 1),
    }
    (folder / "entry.json").write_text(json.dumps(entry, indent=2, default=str), encoding="utf-8")


# ---------------------------------------------------------------- the array


def allocate(pool: Pool, file: Path) -> np.memmap:
    """A new array on disk; MedexpError where it does not fit, and where no image can be read."""
    need, free = bytes_of(pool), shutil.disk_usage(file.parent).free
    if need > free:
        raise MedexpError(
            f"{pool.name}: its {len(pool):,} decoded images take {need / 1e9:,.1f} GB, and "
            f"{file.parent.parent} has {free / 1e9:,.1f} GB left. Put the cache on a larger disk "
            "with MEDEXP_CACHE=, free some with medexp data cache --clear, or store less: a "
            "smaller dataset.size"
        )
    probe(pool)
    array = np.lib.format.open_memmap(file, "w+", pool.dtype, (len(pool), *pool.shape))
    reserve(file, pool)
    return array


def left_by_killed_build(pool: Pool, file: Path) -> np.memmap | None:
    try:
        array: np.memmap = np.load(file, mmap_mode="r+")
    except (OSError, ValueError):
        file.unlink(missing_ok=True)
        return None
    fits = array.shape == (len(pool), *pool.shape) and array.dtype == pool.dtype
    return array if fits else None


def probe(pool: Pool) -> None:
    """Decode a few images: a setting that fits none must not cost a decoding of all."""
    reasons = []
    for row in np.unique(np.linspace(0, len(pool) - 1, PROBES).astype(int)).tolist():
        try:
            decoded(pool, row)
            return
        except MedexpError as error:
            reasons.append(str(error))
    raise MedexpError(f"{pool.name}: none of {len(reasons)} images tried can be read: {reasons[0]}")


def reserve(file: Path, pool: Pool) -> None:
    """Take the disk space now: a full disk would kill the process at a write into the mapping."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(file, "r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            raise MedexpError(
                f"{file}: no room for {bytes_of(pool) / 1e9:,.1f} GB ({error.strerror}). Put the "
                "cache on a larger disk with MEDEXP_CACHE="
            ) from None


def bytes_of(pool: Pool) -> int:
    return len(pool) * math.prod(pool.shape) * int(np.dtype(pool.dtype).itemsize)


# ---------------------------------------------------------------- the rows


def decode_rows(pool: Pool, array: np.memmap, todo: list[int], listing: Path) -> list[Line]:
    """Decode these rows into their places; the finished ones are listed every few seconds.

    Returns the lines that say more than that a row was decoded.
    """

    def work(rows: list[int]) -> list[Line]:
        return [decode_into(array, pool, row) for row in rows]

    # Small images go to a thread several at a time: handing over costs more than decoding.
    many = max(1, min(32, BLOCK_BYTES * len(pool) // bytes_of(pool)))
    blocks = [todo[start : start + many] for start in range(0, len(todo), many)]
    # Python's own work on a tiny image outweighs the decoding, and only one thread can do that.
    workers = threads() if bytes_of(pool) > TINY_BYTES * len(pool) else 1
    told: list[Line] = []
    fresh: list[Line] = []
    flushed = time.monotonic()
    with (
        one_thread_of_opencv(),
        open(listing, "a", encoding="utf-8") as file,
        bar(f"decoding {pool.name}", len(pool), done=len(pool) - len(todo)) as advance,
    ):

        def flush() -> None:
            array.flush()  # pixels first: a row that is listed is on disk
            file.write(as_text(fresh))
            file.flush()
            os.fsync(file.fileno())
            fresh.clear()

        try:
            for block in in_order(work, blocks, workers):
                fresh += block
                told += filter(says_something, block)
                advance(len(block))
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    flush()
                    flushed = time.monotonic()
        finally:
            flush()
    return told


def says_something(line: Line) -> bool:
    """Whether a row has more to say than that it was decoded."""
    return "error" in line or bool(line["facts"])


@contextmanager
def one_thread_of_opencv() -> Iterator[None]:
    """The rows are the parallel work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def decode_into(array: np.ndarray, pool: Pool, row: int) -> Line:
    """Decode one image into its place; what its file says of itself, or why it cannot be read."""
    try:
        array[row], facts = decoded(pool, row)
        return {"row": row, "facts": facts}
    except MedexpError as error:
        return {"row": row, "error": str(error)}


def decoded(pool: Pool, row: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """The image as promised; MedexpError for another shape or type, and for NaN or infinity."""
    assert pool.decode is not None
    image, facts = pool.decode(row)
    if image.shape != tuple(pool.shape) or image.dtype != pool.dtype:
        raise MedexpError(
            f"{pool.ids[row]}: decoded to {image.shape} {image.dtype}, where the reader promised "
            f"{tuple(pool.shape)} {np.dtype(pool.dtype)}"
        )
    check_finite(image, f"{pool.files[row]} ({pool.ids[row]})")
    return image, facts


def check_finite(image: np.ndarray, name: str) -> None:
    """Raise MedexpError, with the image's name, for NaN and infinity."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise MedexpError(f"{name}: has NaN or infinite pixels")


def as_text(lines: list[Line]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def finished_rows(file: Path) -> dict[int, Line]:
    """The rows that a killed build had finished; its last line may be half."""
    done: dict[int, Line] = {}
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            line = json.loads(text)
            done[int(line["row"])] = line
        except (ValueError, KeyError, TypeError):
            continue
    # Written again from what could be read, so that no half line stays.
    file.write_text(as_text(list(done.values())), encoding="utf-8")
    return done
