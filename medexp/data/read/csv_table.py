"""Images of a user's own that a CSV or Parquet file labels; docs/your_own_data.md.

The table names images and their labels, and patients and parts where it knows them. There is no
INFO: no public set is behind them.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medexp.data import names as by_name
from medexp.data.base import Pool
from medexp.data.files import folder as existing_folder
from medexp.data.files import inside, reason
from medexp.data.photographs import (
    PARTS_OF,
    Background,
    Channels,
    Crop,
    Photographs,
    Pixels,
    Segment,
    check_classes,
    in_order,
    make_pool,
    segmenter_of,
)
from medexp.data.pixels import Scale
from medexp.data.read import image_folder
from medexp.data.segment import CLOSEST, SEGMENTS
from medexp.errors import ConfigError, MedexpError
from medexp.runs.files import csv_rows

PARQUET = (".parquet", ".pq")
# Names that columns of patients usually have, in lower case without signs; the coarsest first, as
# slides of one patient must not cross a split either.
PATIENTS = (
    *("patient", "patientid", "patients", "subject", "subjectid", "person", "personid"),
    *("participant", "participantid", "pid", "mrn", "case", "caseid", "slide", "slideid"),
    *("wsi", "wsiid"),
)


class Columns(NamedTuple):
    """Names of a table's columns; patient, part: None where it has none, or none is to be used."""

    path: str
    label: str
    patient: str | None
    part: str | None


class Row(NamedTuple):
    """An image that a table names. place: the row in words; patient, part: "" where not known."""

    place: str
    name: str
    label: str
    patient: str
    part: str


def load(
    root: str | Path,
    *,
    table: str = "labels.csv",
    path_column: str = "path",
    label_column: str = "label",
    patient_column: str | None = "patient",
    split_column: str | None = "split",
    folder: str = "",
    extension: str = "",
    classes: list[str | int] | None = None,
    size: int | list[int] | None = 224,
    channels: Channels = "rgb",
    crop: Crop = "none",
    interpolation: str = "area",
    scale: Scale | None = None,
    background: Background = "black",
    segment: Segment = "none",
    references: str | None = None,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
    patient: str | None = None,
    follow_links: bool = False,
) -> Pool:
    """List the images that a table names: a row each, ROOT/<folder>/<path><extension>.

    table: CSV in UTF-8 with a header, or Parquet (needs pyarrow), below root or anywhere.
    patient_column, split_column: used where the table has them; a name other than the default must
        be there, null uses none. Where there is no `patient`, a column of another usual name is
        taken, and a note says so. Parts are train, val, valid, validation, test (training, testing)
        in any case; an empty cell is still to be split.
    patient: in place of patient_column: a column, `folder` (the one that holds the file), or a
        regular expression that finds the patient in the path below root.
    classes: the labels in their order; None: all, by number where all are integers, else by name.
    The other arguments are those of read/image_folder.py.

    Raises ConfigError for values that do not exist; MedexpError, with the line, for a table that
    is missing, damaged, empty or lacks a column, and for a cell that cannot be used: an empty path
    or label, a path out of root or named twice, a part or class that does not exist. A file that
    is missing is decode's to report, so that dataset.on_error=skip can leave it out, but at least
    one must be there.
    """
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter, scale, background)
    chosen = check_classes(classes)
    base = Path(root)
    path = base / table
    wanted = Columns(path_column, label_column, patient_column, split_column)
    suffix = f".{extension.removeprefix('.')}" if extension else ""
    columns, cells = open_table(base, path, wanted, patient)
    rows = read_rows(base, (columns, cells), (folder, suffix), chosen, follow_links)
    names = chosen or in_order({row.label for row in rows})
    if len(names) < 2:
        raise MedexpError(
            f"{path}: every row has the {label_column} {names[0]!r}: need two classes or "
            "more. Name another column with dataset.label_column="
        )
    files = [base / row.name for row in rows]
    if not any(map(os.path.exists, files)):
        raise MedexpError(
            f"{path} names {len(files):,} images and none is there, the first as "
            f"{files[0]}. Paths are dataset.root / dataset.folder / cell + dataset.extension"
        )
    label_of = {name: label for label, name in enumerate(names)}
    groups, notes = patients_of(rows, columns, wanted, patient, names)
    images = Photographs(
        files,
        labels=[label_of[row.label] for row in rows],
        parts=[row.part for row in rows],
        groups=groups,
        places=[row.place for row in rows],
        notes=(*by_name.doubtful_classes(names), *notes),
    )
    return make_pool("csv_table", base, names, images, pixels)


load_new = image_folder.load_new  # images without labels need no table


# ---------------------------------------------------------------- patients


def patients_of(
    rows: Sequence[Row],
    columns: Columns,
    wanted: Columns,
    rule: str | None,
    classes: Sequence[str],
) -> tuple[list[str] | None, list[str]]:
    """The patient of each image, None where unknown, and what the tables must say of it.

    columns: as found; wanted: as asked for; rule: dataset.patient.
    """
    paths = [PurePosixPath(row.name) for row in rows]
    if columns.patient is None and rule is not None:
        groups = by_name.patients_by(rule, list(map(str, paths)), [p.parent.name for p in paths])
        return groups, [f"patients: by dataset.patient={rule}", *by_name.doubtful_patients(groups)]
    if columns.patient is None:
        return None, by_name.suggestion([f"{p.parent.name}/{p.name}" for p in paths])
    groups = [row.patient for row in rows]
    notes = []
    if columns.patient not in (wanted.patient, rule):
        values = len(set(groups))
        if values <= len(classes):
            return None, [
                f"column {columns.patient} has {values} values only and is not taken for patients "
                f"(dataset.patient_column={columns.patient} takes it)"
            ]
        notes.append(
            f"patients: column {columns.patient}, by its name (dataset.patient_column=null if "
            "that is not what it holds)"
        )
    return groups, [*notes, *by_name.doubtful_patients(groups)]


def usual_column(header: Sequence[str]) -> str | None:
    """The column that by its name holds patients or slides, the coarsest of several."""
    plain = {re.sub(r"[\W_]+", "", name).lower(): name for name in reversed(header)}
    return next((plain[name] for name in PATIENTS if name in plain), None)


# ---------------------------------------------------------------- rows


def read_rows(
    root: Path,
    opened: tuple[Columns, Iterator[tuple[str, dict[str, str]]]],
    around: tuple[str, str],
    classes: Sequence[str],
    follow_links: bool,
) -> list[Row]:
    """Every row of a table, held against the classes (any, where there are none) and each other.

    opened: what open_table returns. around: the folder before and the suffix behind each path.
    Raises MedexpError, with the line.
    """
    columns, table = opened
    below, suffix = around
    rows: dict[str, Row] = {}
    safe: set[str] = set()
    for place, cells in table:
        key, label, patient, part = (cells[name].strip() if name else "" for name in columns)
        for cell, column in zip((key, label, patient), columns, strict=False):
            if column and not cell:
                other = ", or give dataset.patient_column=null" if column == columns.patient else ""
                raise MedexpError(
                    f"{place}: the cell of column {column} is empty. Fill it in{other}"
                )
        if classes and label not in classes:
            raise MedexpError(
                f"{place}: label {label!r} is not in dataset.classes ({', '.join(classes)}). Add "
                "it there, or take such rows out of the table"
            )
        if part and part.lower() not in PARTS_OF:
            raise MedexpError(
                f"{place}: {columns.part} {part!r}: need train, val, test or nothing. For another "
                "meaning of that column give dataset.split_column=null"
            )
        name = f"{PurePosixPath(below, key)}{suffix}"
        check_path(place, root, name, safe, follow_links)
        if name in rows:
            raise MedexpError(
                f"{place}: {name} is named already, at {rows[name].place}. Give each image one row"
            )
        rows[name] = Row(place, name, label, patient, PARTS_OF.get(part.lower(), ""))
    return list(rows.values())


def check_path(place: str, root: Path, name: str, safe: set[str], follow: bool) -> None:
    """Raise MedexpError, with the row that gives it, for a name that leads out of root.

    follow: symbolic links may.

    safe: folders that were looked at; for another file in one of them its own link is enough to
    look at, which is many times faster.
    """
    parent, _, last = name.rpartition("/")
    plain = last not in ("", "..") and "\\" not in last and "\0" not in last
    if plain and parent in safe and (follow or not os.path.islink(root / name)):
        return
    inside(root, name, place, follow=follow)
    safe.add(parent)


# ---------------------------------------------------------------- tables


def open_table(
    root: Path, path: Path, wanted: Columns, rule: str | None = None
) -> tuple[Columns, Iterator[tuple[str, dict[str, str]]]]:
    """The columns that a table has of those wanted, and its rows, each with its place in words.

    rule: dataset.patient, which may be a column too, and else leaves none for patients.
    """
    existing_folder(root, "it should hold the table and the images that it names")
    if not path.is_file():
        there = [p.name for p in sorted(root.iterdir()) if p.suffix in (".csv", *PARQUET)]
        raise MedexpError(
            f"{path}: no such table (tables there: {', '.join(there) or 'none'}). Name it with "
            "dataset.table="
        )
    read = parquet_rows if path.suffix in PARQUET else comma_rows
    rows = read(path, wanted[:2])
    first = next(rows, None)
    if first is None:
        raise MedexpError(f"{path} has a header and no rows: need a row for each image")
    header = list(first[1])
    patient: str | None
    others = [name for name in header if name not in (wanted.path, wanted.label, wanted.part)]
    if rule is not None:
        patient = rule if rule in header else None
        if patient is None and rule != "folder" and re.fullmatch(r"[\w ]+", rule):
            raise ConfigError(
                f"dataset.patient={rule}: {path} has no such column ({', '.join(header)}), and it "
                "is neither `folder` nor a regular expression"
            )
    elif wanted.patient == "patient" and "patient" not in header and usual_column(others):
        patient = usual_column(others)
    else:
        words = ("patient", "subject")
        patient = known_column(path, header, "patient_column", wanted.patient, words)
    part = known_column(path, header, "split_column", wanted.part, ("split",))
    columns = wanted._replace(patient=patient, part=part)
    return columns, chain([first], rows)


def known_column(
    path: Path, header: list[str], key: str, column: str | None, words: tuple[str, ...]
) -> str | None:
    """An optional column, None where the table lacks it.

    Only the default name, words[0], may be lacking, and only where no other column looks like it:
    patients that are overlooked leak across a split.
    """
    if column is None or column in header:
        return column
    if column != words[0]:
        raise MedexpError(f"{path} has no column {column} in its header ({', '.join(header)})")
    similar = [name for name in header if any(word in name.lower() for word in words)]
    if similar:
        raise MedexpError(
            f"{path} has no column {column}, but {similar[0]}. If that is what it holds, give "
            f"dataset.{key}={similar[0]}, if not, dataset.{key}=null"
        )
    return None


def comma_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """csv_rows with its place in words, and every cell of the header there, no more, no less."""
    for line, cells in csv_rows(path, required):
        if None in cells or None in cells.values():
            raise MedexpError(
                f"{path}, line {line}: {'more' if None in cells else 'fewer'} cells than the "
                "header has. Put a cell that holds a comma in quotes"
            )
        yield f"{path}, line {line}", cells


def parquet_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a Parquet file, its cells as text ("" for null), counted from 1.

    Columns of anything but text, numbers and the like, such as images, are not read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types as kinds
    except ImportError:
        raise MedexpError(
            f'{path}: Parquet needs pyarrow: pip install "medexp[parquet]", or save it as CSV'
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        plain = [
            field.name
            for field in file.schema_arrow
            if not kinds.is_nested(field.type) and not kinds.is_binary(field.type)
        ]
        lacking = [column for column in required if column not in plain]
        if lacking:
            raise MedexpError(
                f"{path} has no column {', '.join(lacking)} in its header ({', '.join(plain)})"
            )
        number = 0
        for batch in file.iter_batches(columns=plain):
            for cells in batch.to_pylist():
                number += 1
                texts = {name: "" if cell is None else str(cell) for name, cell in cells.items()}
                yield f"{path}, row {number}", texts
    except (pyarrow.ArrowException, OSError) as error:
        raise MedexpError(f"{path} cannot be read as Parquet ({reason(error)})") from None
