"""Things made once and kept: a folder that is either whole or absent, whoever else is building."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """`$MEDEXP_CACHE`, else `$XDG_CACHE_HOME/medexp`, else `~/.cache/medexp`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("MEDEXP_CACHE") or Path(base) / "medexp")


def make_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return `folder`, calling `write(temporary)` first where it does not exist yet.

    The temporary folder is renamed into place when `write` returns, so a killed build leaves no
    broken cache; of two processes that build at once, the first to finish wins.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
