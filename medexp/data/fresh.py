"""New images, without labels: which files a person means, and how a run's reader reads them."""

import glob
import importlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medexp.data.base import NewFiles
from medexp.data.files import counted
from medexp.errors import ConfigError, MedexpError

TABLES = (".csv", ".parquet", ".pq")
PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "id")
MAGIC = "*?["


class Item(NamedTuple):
    """An image to be read. shown: the file as the person names it. number: of the image in a file
    of several, None in a file of one. error: why it is known already to be none."""

    shown: str
    file: Path
    number: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Places:
    """Where the paths in a table of new images may start from.

    root, folder, extension: of the run's own data, where a path is not found beside the table.
    column: the one of the run's own table; None: one of the usual names.
    """

    root: Path | None = None
    folder: str = ""
    extension: str = ""
    column: str | None = None


def reader_of(arguments: Mapping[str, Any], shape: tuple[int, ...]) -> NewFiles:
    """How the reader of a data set reads files without labels, to images of that shape.

    arguments: of the reader's node, `_target_` among them: those that decide pixels count. Raises
    ConfigError where the reader has no function for it.
    """
    target = str(arguments["_target_"])
    module, _, name = target.rpartition(".")
    make = getattr(importlib.import_module(module), f"{name}_new", None)
    if make is None:
        raise ConfigError(
            f"dataset._target_={target}: this reader reads images with their labels only. A "
            f"function {name}_new beside it says how a file without one is read: docs/predict.md"
        )
    taken = inspect.signature(make).parameters
    reader: NewFiles = make(shape, **{k: v for k, v in arguments.items() if k in taken})
    if tuple(reader.shape) != tuple(shape):
        raise MedexpError(
            f"{module}.{name}_new: its images are {tuple(reader.shape)}, and those of the run "
            f"{tuple(shape)}"
        )
    return reader


def files_of(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    suffixes: Sequence[str],
    places: Places,
) -> Callable[[], Iterator[Item]]:
    """The files that `images` names, in order, anew at every call.

    images: a folder, with all below it; a file; a pattern with * or ?; a table of paths; in Python
    also several paths. Raises ConfigError where there is no such thing.
    """
    if not isinstance(images, (str, os.PathLike)):
        listed = [Path(one) for one in images]
        return lambda: map(_item, listed)
    text = os.path.expanduser(os.fspath(images))
    path = Path(text)
    if path.is_dir():
        return lambda: map(_item, _walk(path, suffixes))
    if path.is_file() and path.suffix.lower() in TABLES:
        return lambda: _of_table(path, places)
    if path.is_file():
        if not _fits(path.name, suffixes):
            raise ConfigError(
                f"images={images}: the run reads files of {', '.join(suffixes)}, and tables of "
                f"their paths ({', '.join(TABLES)})"
            )
        return lambda: iter([_item(path)])
    if any(letter in text for letter in MAGIC):
        found = sorted(name for name in glob.glob(text, recursive=True) if _fits(name, suffixes))
        if not found:
            raise ConfigError(
                f"images={images}: no file of {', '.join(suffixes)} fits that pattern"
            )
        return lambda: (_item(Path(name)) for name in found)
    raise ConfigError(
        f"images={images}: no such file or folder. Give a folder, a file, a pattern in quotes such "
        "as 'new/*.png', or a CSV with a column of paths"
    )


def items_of(files: Iterator[Item], reader: NewFiles) -> Iterator[Item]:
    """Every image of the files; a file that cannot be opened is one image with its error."""
    for item in files:
        if item.error or reader.count is None:
            yield item
            continue
        try:
            count = reader.count(_present(item.file))
        except MedexpError as error:
            yield item._replace(error=str(error))
            continue
        if count == 1:
            yield item
        else:
            yield from (item._replace(number=number) for number in range(count))


def read_item(item: Item, reader: NewFiles) -> tuple[Any, dict[str, Any]]:
    """The image of an item and what its file says of itself; MedexpError where it has none."""
    if item.error:
        raise MedexpError(item.error)
    return reader.read(_present(item.file), item.number or 0)


def none_found(images: Any, suffixes: Sequence[str]) -> MedexpError:
    """What to say where a folder or table names nothing that could be read."""
    path = Path(os.path.expanduser(str(images)))
    if not path.is_dir():
        return MedexpError(f"images={images}: it names no image")
    others: Counter[str] = Counter(
        os.path.splitext(name)[1].lower() or "no suffix"
        for _, _, names in os.walk(path)
        for name in names
    )
    return MedexpError(
        f"images={images}: no file of {', '.join(suffixes)} below it (files: "
        f"{counted(others) or 'none'})"
    )


# ---------------------------------------------------------------- files


def _item(path: Path) -> Item:
    return Item(str(path).encode("utf-8", "backslashreplace").decode(), path)


def _present(file: Path) -> Path:
    if not file.is_file():
        raise MedexpError(f"{file}: no such file")
    return file


def _fits(name: str, suffixes: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def _walk(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files below a folder in the order of their paths, one folder's names held at a time.

    Hidden ones are left out, and linked folders, which could lead round in a circle.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__MACOSX"
            )
    except OSError as error:
        raise MedexpError(f"{folder}: cannot be listed ({error.strerror})") from None
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, suffixes)
        elif _fits(name, suffixes):
            yield folder / name


def _of_table(path: Path, places: Places) -> Iterator[Item]:
    """The images that a table names, as its cells have them."""
    from medexp.data.read.csv_table import comma_rows, parquet_rows

    rows = (comma_rows if path.suffix.lower() == ".csv" else parquet_rows)(path, ())
    column = None
    for place, cells in rows:
        column = column or _column(path, list(cells), places.column)
        text = cells[column].strip()
        if text:
            yield Item(text, _found(text, path.parent, places))
        else:
            yield Item("", path, error=f"{place}: the cell of column {column} is empty")


def _column(path: Path, header: Sequence[str], own: str | None) -> str:
    plain = {name.lower().replace(" ", "_"): name for name in reversed(header)}
    for name in (own, *PATH_COLUMNS):
        if name and (name in header or name in plain):
            return name if name in header else plain[name]
    raise MedexpError(
        f"{path}: which column holds the paths? It has {', '.join(header)}; name one of them "
        f"{PATH_COLUMNS[0]}"
    )


def _found(text: str, beside: Path, places: Places) -> Path:
    """The file of a cell: beside the table, else where the run's own images are."""
    candidates = [beside / text]
    if places.root is not None:
        suffix = f".{places.extension.removeprefix('.')}" if places.extension else ""
        candidates += [places.root / text, places.root / places.folder / f"{text}{suffix}"]
    return next((one for one in candidates if one.is_file()), candidates[0])
