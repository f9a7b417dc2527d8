"""Read run directories (layout: the contract in ARCHITECTURE.md) into plain typed values."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medexp.errors import MedexpError, printable
from medexp.runs.files import read_json
from medexp.runs.guard import read_yaml, refuse_special
from medexp.runs.images import read_images

History = dict[str, list[float | None]]


@dataclass(frozen=True)
class Run:
    """One run directory as it lies on disk; a failed or unfinished run has no `metrics`.

    Texts are such as a terminal may show (`printable`). `history` holds the columns of history.csv,
    None where a cell is empty; `overrides` the lines of .hydra/overrides.yaml.
    """

    path: Path
    config: dict[str, Any]
    status: dict[str, Any]
    metrics: dict[str, Any] | None
    history: History
    overrides: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self._name("dataset")

    @property
    def model(self) -> str:
        return self._name("model")

    @property
    def split(self) -> str:
        """The split that tables and plots are of: test, or what `medexp eval split=` asked for."""
        return str((self.metrics or {}).get("split", "test"))

    @property
    def state(self) -> str:
        """`done`, `running`, `failed`; `unfinished` for a done run without metrics.json."""
        state = str(self.status.get("state", "unfinished"))
        return "unfinished" if state == "done" and self.metrics is None else state

    @property
    def reason(self) -> str | None:
        reason = self.status.get("reason")
        return None if reason is None else str(reason)

    @property
    def marks(self) -> dict[str, str]:
        """PHANTOM, PARTIAL, ... with their reasons; before metrics.json only PHANTOM is known."""
        if self.metrics is not None:
            return {str(k): str(v) for k, v in (self.metrics.get("marks") or {}).items()}
        if (self.config.get("source") or {}).get("kind") == "phantom":
            return {"PHANTOM": "synthetic images, not patients"}
        return {}

    def _name(self, key: str) -> str:
        names = self.config.get("names") or {}
        return str((self.metrics or {}).get(key) or names.get(key) or "unknown")


class Predictions(NamedTuple):
    """One split: ids (N,), labels (N,) int64, probabilities (N, C) float64."""

    ids: list[str]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


def load_run(path: str | Path) -> Run:
    """Read one run directory.

    Raises:
        MedexpError: it is no run directory, or one of its files cannot be parsed.
    """
    path = Path(path)
    if not _is_run(path):
        raise MedexpError(
            f"{path} is no run directory: it holds neither status.json nor config.yaml;"
            " name a folder that medexp train wrote"
        )
    metrics, status = path / "metrics.json", path / "status.json"
    return Run(
        path=path,
        config=printable(_mapping(path / "config.yaml", _read_yaml(path / "config.yaml", {}))),
        status=printable(read_json(status)) if status.exists() else {},
        metrics=printable(read_json(metrics)) if metrics.exists() else None,
        history=_read_history(path / "history.csv"),
        overrides=tuple(
            printable(str(o)) for o in _read_yaml(path / ".hydra" / "overrides.yaml", [])
        ),
    )


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """All runs at or below the folders, each once, in natural order of their paths (2 before 10).

    Raises:
        MedexpError: a folder does not exist or holds no run, or a run cannot be read.
    """
    found: dict[Path, Run] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise MedexpError(f"{folder} is no folder; name a run directory or a folder of runs")
        paths = sorted(_run_paths(folder), key=_natural)
        if not paths:
            raise MedexpError(f"{folder} holds no run directory (none with a status.json)")
        for path in paths:
            found.setdefault(path.resolve(), load_run(path))
    return list(found.values())


def read_predictions(path: str | Path) -> dict[str, Predictions]:
    """Read predictions.csv (id, split, label, p_0 .. p_{C-1}) by split, in the file's order.

    Probabilities are the exact float64 values if the file holds their `repr`.

    Raises:
        MedexpError: the file is missing, or its header or a row is not as above.
    """
    path = Path(path)
    rows: dict[str, tuple[list[str], list[int], list[list[float]]]] = {}
    refuse_special(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            expected = ["id", "split", "label", *(f"p_{c}" for c in range(len(header) - 3))]
            if len(header) < 5 or header != expected:
                raise MedexpError(
                    f"{path}: the header is {','.join(header)!r}; expected id,split,label,p_0,p_1,…"
                )
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells; expected {len(header)}")
                name, split, label, *values = row
                ids, labels, probabilities = rows.setdefault(split, ([], [], []))
                ids.append(name)
                labels.append(int(label))
                probabilities.append([float(value) for value in values])
        return {
            split: Predictions(ids, np.array(labels, np.int64), np.array(p, np.float64))
            for split, (ids, labels, p) in rows.items()
        }
    except OSError as error:
        raise MedexpError(f"{path}: {error.strerror}; the run wrote no predictions") from error
    except ValueError as error:
        raise MedexpError(f"{path}, line {reader.line_num}: {error}") from error


def rescore(run_dir: str | Path) -> dict[str, dict[str, Any]]:
    """Split -> `metrics.score` of predictions.csv alone; equal to the run's metrics.json.

    metrics.json, if there is one, gives only the class names, and how many draws with which seed.
    """
    from medexp.score.metrics import score

    run = load_run(run_dir)
    scored = {}
    predictions = read_predictions(run.path / "predictions.csv")
    for split, (ids, labels, probabilities) in predictions.items():
        metrics = run.metrics or {}
        settings = metrics.get(split) or {}
        scored[split] = score(
            labels,
            probabilities,
            metrics.get("classes") or [str(c) for c in range(probabilities.shape[1])],
            resamples=settings.get("ci_resamples", 1000),
            seed=settings.get("ci_seed", 0),
            groups=groups_of(run.path, split, ids),
        )
    return scored


def groups_of(run_dir: Path, split: str, ids: Sequence[str]) -> npt.NDArray[np.str_] | None:
    """The patient or slide of each image of a split, (N,), from split.csv; None if not known."""
    images = read_images(run_dir)
    listed = images.parts.get(split) if images else None
    if listed is None or not any(listed.groups):
        return None
    group = dict(zip(listed.ids, listed.groups, strict=True))
    return np.array([group[one] for one in ids]) if set(ids) <= set(group) else None


def _is_run(path: Path) -> bool:
    return (path / "status.json").is_file() or (path / "config.yaml").is_file()


def _run_paths(folder: Path) -> list[Path]:
    """The run directories at or below a folder; one that links lead into again is listed once."""
    found, seen, waiting = [], {folder.resolve()}, [folder]
    while waiting:
        at = waiting.pop()
        if _is_run(at):
            found.append(at)
            continue
        for child in at.iterdir():
            if child.is_dir() and not child.name.startswith(".") and child.resolve() not in seen:
                seen.add(child.resolve())
                waiting.append(child)
    return found


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key in which runs of digits count as numbers: sweeps name their jobs 0, 1, ... 10."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def _read_yaml(path: Path, default: Any) -> Any:
    return (read_yaml(path) if path.exists() else None) or default


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MedexpError(f"{path} holds a {type(value).__name__}; expected a mapping")
    return value


def _read_history(path: Path) -> History:
    if not path.exists():
        return {}
    refuse_special(path)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    # A run that was killed while writing leaves a short last row: not an epoch.
    if rows and len(rows[-1]) < len(header):
        rows.pop()
    history: History = {name: [] for name in header}
    for line, row in enumerate(rows, start=2):
        for name, cell in zip(header, row, strict=False):
            try:
                history[name].append(float(cell) if cell else None)
            except ValueError as error:
                raise MedexpError(f"{path}, line {line}, {name}: {cell!r} is no number") from error
    return history
