"""Things made once and kept: a folder that is either whole or absent, whoever else is building."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
