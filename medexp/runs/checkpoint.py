"""Atomic checkpoints: one plain dict, loaded with `weights_only=True`."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from medexp.errors import MedexpError
from medexp.runs.files import writes
from medexp.runs.guard import refuse_special


def save(state: dict[str, Any], path: Path) -> None:
    """Write beside the target and rename, so that a kill leaves the old file or the new one."""
    if not writes():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)  # a link there would lead the weights somewhere else
    with temporary.open("xb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; MedexpError names the file where it is missing or not one of medexp's."""
    if not path.is_file():
        raise MedexpError(
            f"{path}: no such checkpoint. The run has not finished an epoch, or it was removed"
        )
    try:
        state = read_tensors(path, device)
    except Exception as error:
        said = (str(error).splitlines() or ["it is empty"])[0]
        raise MedexpError(
            f"{path}: cannot be read as a checkpoint ({said}). It is "
            "truncated or not one of medexp's: use another checkpoint or train again"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise MedexpError(f"{path}: holds no 'model', so it is not one of medexp's checkpoints")
    return state


def read_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """What torch saved in a file, as plain data and tensors; no code in the file is run.

    Raises MedexpError for a file that unpacks to more than it has bytes: torch packs nothing, so
    what is read is never larger than the file. Whatever else torch cannot read it raises.
    """
    refuse_special(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if packed:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise MedexpError(
                f"its {size:,} bytes unpack to {unpacked:,}, and torch's own files are not packed"
            )
    return torch.load(path, map_location=device, weights_only=True)
