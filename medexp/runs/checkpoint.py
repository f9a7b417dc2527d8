"""Atomic checkpoints: one plain dict, loaded with `weights_only=True`."""

import os
from pathlib import Path
from typing import Any

import torch

from medexp.errors import MedexpError
from medexp.runs.files import writes


def save(state: dict[str, Any], path: Path) -> None:
    """Write beside the target and rename, so that a kill leaves the old file or the new one."""
    if not writes():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
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
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        said = (str(error).splitlines() or ["it is empty"])[0]
        raise MedexpError(
            f"{path}: cannot be read as a checkpoint ({said}). It is "
            "truncated or not one of medexp's: use another checkpoint or train again"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise MedexpError(f"{path}: holds no 'model', so it is not one of medexp's checkpoints")
    return state
