"""The table of predictions of new images, written row by row: CSV, or Parquet by its name."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medexp.errors import ConfigError, MedexpError

Write = Callable[[Mapping[str, Any]], None]
PARQUET = (".parquet", ".pq")
ROWS = 4096  # of a Parquet file that are written together


def columns_of(classes: Sequence[str]) -> list[str]:
    """path, row (in a file of several images), class, p_<class>, known, error."""
    return ["path", "row", "class", *(f"p_{name}" for name in classes), "known", "error"]


def check_target(path: Path) -> None:
    """Raise ConfigError unless a table of that name can be written and is not there yet."""
    if path.suffix.lower() not in (".csv", *PARQUET):
        raise ConfigError(f"out={path}: name a file that ends in .csv or .parquet")
    for there in (path, path.with_suffix(".json")):
        if there.exists():
            raise ConfigError(f"out={path}: {there} is there already. Choose another name")
    if path.suffix.lower() in PARQUET:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MedexpError(
                f'out={path}: Parquet needs pyarrow: pip install "medexp[parquet]", or name a .csv'
            ) from None


@contextmanager
def table(path: Path, classes: Sequence[str]) -> Iterator[Write]:
    """Yield what writes a row; the file appears when all are written, and not at all otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    make = _parquet if path.suffix.lower() in PARQUET else _csv
    try:
        with make(temporary, classes) as write:
            yield write
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _csv(path: Path, classes: Sequence[str]) -> Iterator[Write]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns_of(classes), lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


@contextmanager
def _parquet(path: Path, classes: Sequence[str]) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    types = {"row": pyarrow.int64(), **{f"p_{name}": pyarrow.float64() for name in classes}}
    names = columns_of(classes)
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in names])
    rows: list[Mapping[str, Any]] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def write(row: Mapping[str, Any]) -> None:
            rows.append(row)
            if len(rows) == ROWS:
                flush()

        yield write
        if rows:
            flush()
