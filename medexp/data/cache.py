"""Things made once and kept: a folder that is either whole or absent, whoever else is building."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from medexp.errors import MedexpError


def cache_dir() -> Path:
    """`$MEDEXP_CACHE`, else `$XDG_CACHE_HOME/medexp`, else `~/.cache/medexp`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("MEDEXP_CACHE") or Path(base) / "medexp")


def make_once(folder: Path, write: Callable[[Path], None], *, resume: bool = False) -> Path:
    """Return `folder`, calling `write(unfinished folder)` first where it does not exist yet.

    The unfinished folder is renamed into place when `write` returns, so a killed build leaves no
    broken cache. Of several processes that start together one builds and the others wait. With
    `resume` the next build gets what a killed one left; without, it gets an empty folder.
    Raises MedexpError where the cache cannot be written.
    """
    if folder.exists():
        return folder
    with locked(folder):
        if folder.exists():
            return folder
        unfinished = folder.with_name(f".{folder.name}.building")
        if unfinished.exists() and not resume:
            shutil.rmtree(unfinished)
        unfinished.mkdir(exist_ok=True)
        try:
            write(unfinished)
            unfinished.rename(folder)
        except BaseException:
            if not resume or not any(unfinished.iterdir()):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder; says so where another process has it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_of(folder))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with Console(stderr=True).status(f"another process is building {folder.name}"):
                lock.acquire()
    except OSError as error:
        raise MedexpError(
            f"{folder.parent}: the cache cannot be written ({error.strerror}). Name another folder "
            "with MEDEXP_CACHE="
        ) from None
    try:
        yield
    finally:
        lock.release()


def lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


# ---------------------------------------------------------------- what the cache holds


def entries() -> list[dict[str, Any]]:
    """What the cache holds, one dict a folder.

    name, kind (arrays | phantom | building), bytes, created (seconds since 1970), path, and what
    entry.json says (images, shape, settings, ...).
    """
    return [
        entry_of(folder, kind)
        for kind in ("arrays", "phantom")
        for folder in sorted((cache_dir() / kind).glob("*"))
        if folder.is_dir()
    ]


def entry_of(folder: Path, kind: str) -> dict[str, Any]:
    try:
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entry = {}
    unfinished = folder.name.endswith(".building")
    return {
        **entry,
        "name": folder.name.removeprefix(".").removesuffix(".building"),
        "kind": "building" if unfinished else kind,
        "bytes": sum(f.stat().st_blocks for f in folder.rglob("*")) * 512,
        "created": folder.stat().st_mtime,
        "path": str(folder),
    }


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
