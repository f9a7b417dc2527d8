"""Decoded once: every image of a pool in one memory-mapped array, kept in the cache.

An entry is a folder `arrays/<name>-<key>` with `images.npy` (N, *shape), `rows.jsonl` (what each
file says of itself, or why it cannot be read) and `entry.json`. The key is a digest of the files'
bytes, the reader's settings and its source, so a changed file, setting or reader never finds the
pixels of another. A build that is killed goes on where it stopped.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medexp.data.base import Pool, Split, fingerprint_of
from medexp.data.cache import cache_dir, make_once
from medexp.data.decode import build
from medexp.data.digests import file_digests
from medexp.errors import MedexpError

# Modules of data/ that the pixels of every reader may go through.
SHARED = ("axes", "files", "headers", "nifti", "npz", "pixels", "samples", "segment", "unpack")


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


def pixels_of(split: Split) -> np.ndarray:
    """Split.pixels, remembered beside the cached array that the split is rows of: (N,) bytes.

    Reading all of PCam's pixels takes longer than all else before the first step. They are
    remembered by the rows and the array's size and time of change.
    """
    array = getattr(split.images, "array", None)
    file = Path(getattr(array, "filename", None) or "")
    if "pixels" in vars(split) or not file.is_relative_to((cache_dir() / "arrays").absolute()):
        return split.pixels
    stat = file.stat()
    key = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=16)
    key.update(np.ascontiguousarray(split.images.rows).data)  # type: ignore[union-attr]
    path = file.parent / "fingerprints" / f"{key.hexdigest()}.npy"
    with suppress(OSError, ValueError):
        remembered = np.load(path)
        if remembered.shape == (len(split),):
            vars(split)["pixels"] = remembered  # what the cached property would have found
    if "pixels" not in vars(split):
        digests = split.pixels
        with suppress(OSError):  # a cache that cannot be written to is one that others made
            path.parent.mkdir(exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.npy")
            np.save(unfinished, digests)
            unfinished.replace(path)
    return split.pixels


def fingerprint(split: Split) -> str:
    """Split.fingerprint() by way of the remembered digests."""
    return fingerprint_of(split, pixels_of(split))


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
    shared = [Path(__file__).with_name(f"{name}.py") for name in SHARED]
    return b"".join(path.read_bytes() for path in (Path(inspect.getfile(function)), *shared))
