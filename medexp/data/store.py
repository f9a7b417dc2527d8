"""Decoded once: every image of a pool in one memory-mapped array, kept in the cache.

An entry is a folder `arrays/<name>-<key>` with `images.npy` (N, *shape), `rows.jsonl` (what each
file says of itself, or why it cannot be read) and `entry.json`. The key is a digest of the files'
bytes, the reader's settings and its source, so a changed file, setting or reader never finds the
pixels of another. A build that is killed goes on where it stopped.
"""

import hashlib
import inspect
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medexp.data.base import Pool, Split
from medexp.data.cache import cache_dir, lock_of, make_once
from medexp.errors import MedexpError

log = logging.getLogger(__name__)

Lines = list[dict[str, Any]]
BLOCK_BYTES = 2**20  # of decoded images that a thread gets at once
TINY_BYTES = 2**15  # of one decoded image
FLUSH_SECONDS = 5.0  # work that a killed build may lose
PROBES = 4  # images tried first: where all of them fail, so will the others
LONG_DIGEST = 1e9  # bytes from which a bar is shown


@dataclass(frozen=True)
class Stored:
    """array: (N, *shape), memory-mapped. failed: row -> reason. facts: row -> of the file.

    digests: (N,) str, of the file of each image; None where one file holds many.
    """

    array: np.ndarray
    failed: dict[int, str]
    facts: dict[int, dict[str, Any]]
    digests: np.ndarray | None = None


def stored(pool: Pool) -> Stored:
    """The pixels of a pool: from the cache, after decoding every image in parallel on first use.

    Raises MedexpError where the disk cannot hold them, and where nothing can be decoded at all.
    """
    if pool.array is not None:
        return Stored(pool.array, {}, {})
    if pool.decode is None:
        raise MedexpError(
            f"{pool.name}: only a list of files is known, no pixels. Leave dataset.file_list "
            "out, or look at the split alone: medexp data check"
        )
    digests = file_digests(pool)
    folder = cache_dir() / "arrays" / f"{pool.name}-{key_of(pool, digests)}"
    make_once(folder, lambda unfinished: build(pool, unfinished), resume=True)
    try:
        array = np.load(folder / "images.npy", mmap_mode="r")
        text = (folder / "rows.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        if array.shape != (len(pool), *pool.shape):
            raise ValueError(f"shape {array.shape}")
    except (OSError, ValueError) as error:
        raise MedexpError(
            f"{folder}: damaged ({error}). Remove it; it is built again on the next run"
        ) from None
    return Stored(
        array,
        {line["row"]: line["error"] for line in lines if "error" in line},
        {line["row"]: line["facts"] for line in lines if "facts" in line},
        np.array(digests) if len(set(pool.files)) == len(pool) else None,
    )


def fingerprint(split: Split) -> str:
    """Split.fingerprint(), remembered beside the cached array that the split is rows of.

    Reading all of PCam's pixels takes longer than all else before the first step. It is remembered
    by the rows, the labels and the array's size and time of change.
    """
    array = getattr(split.images, "array", None)
    file = Path(getattr(array, "filename", None) or "")
    if not file.is_relative_to((cache_dir() / "arrays").absolute()):
        return split.fingerprint()
    stat = file.stat()
    key = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=16)
    for numbers in (split.images.rows, split.labels):  # type: ignore[union-attr]
        key.update(np.ascontiguousarray(numbers).data)
    path = file.parent / "fingerprints" / key.hexdigest()
    with suppress(OSError):
        return path.read_text()
    found = split.fingerprint()
    with suppress(OSError):  # a cache that cannot be written to is one that others made
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(found)
        unfinished.replace(path)
    return found


# ---------------------------------------------------------------- the key


def key_of(pool: Pool, digests: Sequence[str]) -> str:
    """What the pixels follow from: bytes of the files, settings, and the source of the reader."""
    assert pool.decode is not None
    content = {
        "settings": dict(pool.settings),
        "shape": list(pool.shape),
        "dtype": str(np.dtype(pool.dtype)),
        "reader": hashlib.blake2b(reader_source(pool.decode), digest_size=8).hexdigest(),
        "ids": pool.ids.tolist(),
        "files": list(digests),
    }
    text = json.dumps(content, sort_keys=True, default=str).encode()
    return hashlib.blake2b(text, digest_size=10).hexdigest()


def reader_source(decode: Callable[..., Any]) -> bytes:
    """The code that pixels go through: a changed reader must not find those of the old one."""
    function = getattr(decode, "func", decode)  # of a functools.partial
    shared = [Path(__file__).with_name(f"{name}.py") for name in ("files", "pixels", "segment")]
    return b"".join(path.read_bytes() for path in (Path(inspect.getfile(function)), *shared))


def file_digests(pool: Pool) -> list[str]:
    """A digest of the bytes of each image's file, "unreadable: ..." where there is none.

    A file is read again only when its size or time of change differ from what they were.
    """
    files = list(dict.fromkeys(map(str, pool.files)))
    root = os.path.commonpath(files) if len(files) > 1 else files[0]
    place = hashlib.blake2b(os.path.abspath(root).encode(), digest_size=8).hexdigest()
    memo = cache_dir() / "digests" / f"{pool.name}-{place}.json"
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}

    def look(file: str) -> tuple[list[int], str | None]:
        try:
            status = os.stat(file)
            seen = [status.st_size, status.st_mtime_ns]
        except OSError as error:
            return [], f"unreadable: {error.strerror}"
        old = known.get(file)
        return seen, old[1] if old and old[0] == seen else None

    states = {file: look(file) for file in files}
    new = [file for file, (_, digest) in states.items() if digest is None]
    size = sum(states[file][0][0] for file in new)
    with (
        ThreadPoolExecutor(threads()) as pool_of_threads,
        bar(f"reading {pool.name}", size, shown=size > LONG_DIGEST, unit=1e6) as advance,
    ):
        for file, digest in zip(new, pool_of_threads.map(digest_of, new), strict=True):
            states[file] = (states[file][0], digest)
            advance(states[file][0][0])
    if new:
        readable = {f: state for f, state in states.items() if not str(state[1]).startswith("un")}
        temporary = memo.with_name(f".{memo.name}.{os.getpid()}")
        with suppress(OSError):  # only speed is lost; a cache that cannot be written says so itself
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(readable), encoding="utf-8")
            temporary.replace(memo)
    return [str(states[str(file)][1]) for file in pool.files]


def digest_of(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


# ---------------------------------------------------------------- the build


def build(pool: Pool, folder: Path) -> None:
    """Decode what `folder` lacks of the pool, in parallel and in order."""
    assert pool.decode is not None
    began = time.monotonic()
    array = allocate(pool, folder / "images.npy")
    done = finished_rows(folder / "rows.jsonl") if array is not None else {}
    if array is None:
        probe(pool)
        array = np.lib.format.open_memmap(
            folder / "images.npy", "w+", pool.dtype, (len(pool), *pool.shape)
        )
        reserve(folder / "images.npy", pool)
    todo = [row for row in range(len(pool)) if row not in done]
    told = [line for line in done.values() if says(line)]
    log.info("Decoding %s images of %s, once", f"{len(todo):,}", pool.name)

    def work(rows: list[int]) -> list[dict[str, Any]]:
        return [decode_into(array, pool, row) for row in rows]

    # Small images go to a thread several at a time: handing over costs more than decoding.
    many = max(1, min(32, BLOCK_BYTES * len(pool) // bytes_of(pool)))
    blocks = [todo[start : start + many] for start in range(0, len(todo), many)]

    # Python's own work on a tiny image outweighs the decoding, and only one thread can do that.
    workers = threads() if bytes_of(pool) > TINY_BYTES * len(pool) else 1
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the rows are the parallel work
    fresh: list[dict[str, Any]] = []
    flushed = time.monotonic()
    with open(folder / "rows.jsonl", "a", encoding="utf-8") as lines:
        try:
            with bar(f"decoding {pool.name}", len(pool), done=len(done)) as advance:
                for block in in_order(work, blocks, workers):
                    fresh += block
                    told += filter(says, block)
                    advance(len(block))
                    # Pixels first: a row that is listed is on disk.
                    if time.monotonic() - flushed > FLUSH_SECONDS:
                        array.flush()
                        flush(lines, fresh)
                        fresh, flushed = [], time.monotonic()
        finally:
            cv2.setNumThreads(before)
            array.flush()
            flush(lines, fresh)
    # Every run reads this file: only rows of which there is something to say stay in it.
    (folder / "rows.jsonl").write_text("".join(map(as_line, told)), encoding="utf-8")
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


def says(line: Mapping[str, Any]) -> bool:
    """Whether a row has more to say than that it was decoded."""
    return "error" in line or bool(line["facts"])


def decode_into(array: np.ndarray, pool: Pool, row: int) -> dict[str, Any]:
    """Decode one image into its place; what its file says of itself, or why it cannot be read."""
    assert pool.decode is not None
    try:
        image, facts = pool.decode(row)
        array[row] = checked(pool, row, image)
        return {"row": row, "facts": facts}
    except MedexpError as error:
        return {"row": row, "error": str(error)}


def allocate(pool: Pool, file: Path) -> np.memmap | None:
    """The array that a killed build left, or None; MedexpError where the disk is too small."""
    if file.exists():
        try:
            array: np.memmap = np.load(file, mmap_mode="r+")
            if array.shape == (len(pool), *pool.shape) and array.dtype == pool.dtype:
                return array
        except (OSError, ValueError):
            file.unlink()
    need = bytes_of(pool)
    free = shutil.disk_usage(file.parent).free
    if need > free:
        raise MedexpError(
            f"{pool.name}: its {len(pool):,} decoded images take {need / 1e9:,.1f} GB, and "
            f"{file.parent.parent} has {free / 1e9:,.1f} GB left. Put the cache on a larger disk "
            "with MEDEXP_CACHE=, free some with medexp data cache --clear, or store less: a "
            "smaller dataset.size"
        )
    return None


def probe(pool: Pool) -> None:
    """Decode a few images: a setting that fits none must not cost a decoding of all."""
    assert pool.decode is not None
    reasons = []
    for row in np.unique(np.linspace(0, len(pool) - 1, PROBES).astype(int)).tolist():
        try:
            checked(pool, row, pool.decode(row)[0])
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


def as_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def finished_rows(file: Path) -> dict[int, dict[str, Any]]:
    """The rows that a killed build had finished; its last line may be half."""
    done = {}
    if file.exists():
        for text in file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                done[int(line["row"])] = line
            except (ValueError, KeyError, TypeError):
                continue
    # Written again from what could be read, so that no half line stays.
    file.write_text("".join(map(as_line, done.values())), encoding="utf-8")
    return done


def checked(pool: Pool, row: int, image: np.ndarray) -> np.ndarray:
    """The image as promised; MedexpError for another shape or type, and for NaN or infinity."""
    if image.shape != tuple(pool.shape) or image.dtype != pool.dtype:
        raise MedexpError(
            f"{pool.ids[row]}: decoded to {image.shape} {image.dtype}, where the reader promised "
            f"{tuple(pool.shape)} {np.dtype(pool.dtype)}"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise MedexpError(f"{pool.files[row]} ({pool.ids[row]}): has NaN or infinite pixels")
    return image


def flush(lines: Any, fresh: list[dict[str, Any]]) -> None:
    lines.write("".join(map(as_line, fresh)))
    lines.flush()
    os.fsync(lines.fileno())


def in_order(
    work: Callable[[list[int]], Lines], blocks: list[list[int]], workers: int
) -> Iterator[Lines]:
    """work(rows) of every block in so many threads, results in order, few waiting at a time."""
    with ThreadPoolExecutor(workers) as executor:
        waiting: deque[Future[Lines]] = deque()
        try:
            for rows in blocks:
                waiting.append(executor.submit(work, rows))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def bar(
    text: str, total: float, *, done: float = 0, shown: bool = True, unit: float = 1
) -> Iterator[Callable[[float], None]]:
    """A progress bar with time left on a terminal; `unit` is what one step on it counts for."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(text, total=int(total / unit), completed=int(done / unit))
        yield lambda steps: progress.advance(task, steps / unit)


# ---------------------------------------------------------------- what the cache holds


def entries() -> list[dict[str, Any]]:
    """What the cache holds, one dict a folder: name, kind (arrays | phantom | building), bytes,
    created (seconds since 1970), path, and what entry.json says (images, shape, settings, ...)."""
    found = []
    for kind in ("arrays", "phantom"):
        for folder in sorted((cache_dir() / kind).glob("*")):
            if not folder.is_dir():
                continue
            unfinished = folder.name.endswith(".building")
            try:
                about = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                about = {}
            found.append(
                about
                | {
                    "name": folder.name.removeprefix(".").removesuffix(".building"),
                    "kind": "building" if unfinished else kind,
                    "bytes": sum(f.stat().st_blocks for f in folder.rglob("*")) * 512,
                    "created": folder.stat().st_mtime,
                    "path": str(folder),
                }
            )
    return found


def clear() -> tuple[int, list[str]]:
    """Remove every entry; returns the bytes freed, and the names that another process builds."""
    freed, busy = 0, []
    for entry in entries():
        folder = Path(entry["path"])
        final = folder.with_name(entry["name"])
        lock = FileLock(lock_of(final))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder)
                freed += entry["bytes"]
        except Timeout:
            busy.append(entry["name"])
    shutil.rmtree(cache_dir() / "digests", ignore_errors=True)
    return freed, busy
