"""Digests of the files that images are read from, remembered so that each is read once."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from medexp.data.base import Pool
from medexp.data.cache import cache_dir
from medexp.data.progress import bar, threads

LONG = 1e9  # bytes from which a bar is shown
UNREADABLE = "unreadable: "


def file_digests(pool: Pool) -> list[str]:
    """A digest of the bytes of each image's file, "unreadable: ..." where there is none.

    A file is read again only when its size or time of change differ from what they were.
    """
    files = list(dict.fromkeys(map(str, pool.files)))
    memo = memo_of(pool.name, files)
    try:
        remembered = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    states = {file: state_of(file, remembered) for file in files}
    new = [file for file, (_, digest) in states.items() if digest is None]
    size = sum(states[file][0][0] for file in new)
    with (
        ThreadPoolExecutor(threads()) as executor,
        bar(f"reading {pool.name}", size, shown=size > LONG, unit=1e6) as advance,
    ):
        for file, digest in zip(new, executor.map(digest_of, new), strict=True):
            states[file] = (states[file][0], digest)
            advance(states[file][0][0])
    if new:
        remember(memo, states)
    return [str(states[str(file)][1]) for file in pool.files]


def memo_of(name: str, files: list[str]) -> Path:
    """The file that remembers the digests of a data set in one place."""
    root = os.path.commonpath(files) if len(files) > 1 else files[0]
    place = hashlib.blake2b(os.path.abspath(root).encode(), digest_size=8).hexdigest()
    return cache_dir() / "digests" / f"{name}-{place}.json"


def state_of(file: str, remembered: Mapping[str, Any]) -> tuple[list[int], str | None]:
    """[size, time of change] of a file, and its digest where it is known; [] where unreadable."""
    try:
        status = os.stat(file)
    except OSError as error:
        return [], f"{UNREADABLE}{error.strerror}"
    state = [status.st_size, status.st_mtime_ns]
    old = remembered.get(file)
    return state, old[1] if old and old[0] == state else None


def remember(memo: Path, states: Mapping[str, tuple[list[int], str | None]]) -> None:
    readable = {
        file: state for file, state in states.items() if not str(state[1]).startswith(UNREADABLE)
    }
    temporary = memo.with_name(f".{memo.name}.{os.getpid()}")
    with suppress(OSError):  # only speed is lost; a cache that cannot be written says so itself
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(readable), encoding="utf-8")
        temporary.replace(memo)


def digest_of(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return f"{UNREADABLE}{error.strerror}"
