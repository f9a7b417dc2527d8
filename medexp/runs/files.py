"""The run directory: what a run writes, atomically, and where it came from."""

import csv
import io
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from medexp import __version__
from medexp.errors import ConfigError, MedexpError
from medexp.runs.guard import MAX_JSON, read_bounded, refuse_special

SCHEMA = 1
# What a run that never began may have written of itself.
LEFT_BEHIND = (
    *("status.json", "config.yaml", "provenance.json", "record.json", "split.csv"),
    *("seen.csv", "transferred.txt", "run.log"),
)
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "omegaconf", "h5py")


_writes = True


def writes() -> bool:
    """Whether this process writes the files of a run: of several that train one, the first does."""
    return _writes


def write_nothing() -> None:
    """From here on this process reads the files of its run, and leaves writing them to another."""
    global _writes
    _writes = False


def write_text(path: Path, text: str) -> None:
    """Write beside the target and rename: a reader never sees half a file."""
    if not _writes:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # a link there would lead the text somewhere else
    with temporary.open("x", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON: a NaN in `content` is a defect and raises ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; MedexpError names a file that is none."""
    try:
        content = json.loads(read_bounded(path, MAX_JSON))
    except (OSError, ValueError) as error:
        raise MedexpError(f"{path}: cannot be read as JSON ({error})") from error
    except RecursionError as error:
        raise MedexpError(f"{path}: cannot be read as JSON (nested too deep)") from error
    if not isinstance(content, dict):
        raise MedexpError(f"{path}: holds a {type(content).__name__}, not a JSON object")
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a row under the first row's keys; floats in full, None as an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def csv_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row; every column asked for is there and not cut off."""
    refuse_special(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            lacking = [column for column in columns if column not in header]
            if lacking:
                raise MedexpError(
                    f"{path} has no column {', '.join(lacking)} in its header "
                    f"({', '.join(header) or 'empty file'})"
                )
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise MedexpError(
                        f"{path}, line {reader.line_num}: too few cells: need {', '.join(columns)}"
                    )
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise MedexpError(f"{path} is not UTF-8 text ({where}): save it as UTF-8") from None
    except csv.Error as error:
        raise MedexpError(f"{path} cannot be read as CSV ({error})") from None
    except OSError as error:
        raise MedexpError(f"{path} cannot be read ({error.strerror})") from None


def write_status(run: Path, state: str, reason: str | None = None) -> None:
    """state: running | done | failed; a failed run says why in `reason`."""
    write_json(
        run / "status.json",
        {
            "state": state,
            "reason": reason,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        },
    )


def is_run(folder: Path) -> bool:
    return (folder / "status.json").is_file()


def refuse_overwrite(folder: Path) -> None:
    """Raise ConfigError where `folder` holds a run or a sweep's runs: none is ever written over.

    A run that was refused before its first step is none: what it left is taken away.
    """
    taken = [folder, *sorted(folder.glob("*/"))] if folder.is_dir() else []
    for place in taken:
        if is_run(place) and not never_began(place):
            raise ConfigError(
                f"{place}: holds a run already, and medexp never writes over one. Choose another "
                f"folder, or go on with it: medexp train resume={place}"
            )
    for place in taken:
        if is_run(place):
            for name in LEFT_BEHIND:
                (place / name).unlink(missing_ok=True)


def never_began(run: Path) -> bool:
    """Whether a run failed before it had anything to keep: no epoch, no checkpoint, no result."""
    try:
        failed = read_json(run / "status.json").get("state") == "failed"
    except MedexpError:
        return False
    kept = ("history.csv", "metrics.json", "predictions.csv", "*.pt")
    return failed and not any(next(run.rglob(name), None) for name in kept)


def provenance(
    *, seed: int, device: str, data: Mapping[str, Any], config_dir: str | None
) -> dict[str, Any]:
    """What a reviewer needs to know where numbers come from; `data` holds the splits' digests."""
    return {
        "medexp": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "device": device,
        "seed": seed,
        "data": dict(data),
        "command": os.environ.get("MEDEXP_COMMAND"),
        "working_directory": str(Path.cwd()),
        "config_dir": config_dir,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    """Package -> version of those that numbers may depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def _commit() -> str | None:
    """The checkout's commit, `+` where the working tree differs; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def write_predictions(path: Path, splits: Mapping[str, tuple[Any, Any, Any]]) -> None:
    """predictions.csv: id, split, label, p_0..p_{C-1}; floats read back exactly.

    splits: name -> (ids (N,), labels (N,), probabilities (N, C) float64).
    """
    rows = []
    for split, (ids, labels, probabilities) in splits.items():
        for key, label, values in zip(
            ids.tolist(), labels.tolist(), probabilities.tolist(), strict=True
        ):
            columns = {f"p_{c}": repr(value) for c, value in enumerate(values)}
            rows.append({"id": key, "split": split, "label": label, **columns})
    write_csv(path, rows)
