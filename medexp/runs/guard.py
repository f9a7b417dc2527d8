"""Files that may be somebody else's: read within bounds, as plain data, inside their folder."""

import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from medexp.errors import MedexpError, printable

MAX_YAML = 2**20  # bytes; the longest config that medexp writes has a fiftieth of it
MAX_JSON = 2**28
MAX_DEPTH = 64  # of lists and mappings inside one another; medexp's own have ten
MAX_ENTRIES = 100_000  # files and folders of a run directory that are looked at
MAX_DIGITS = 300  # PyYAML takes the square of their count to read 1:1:1:...
_NUMBER = re.compile(r"[-+]?[0-9][0-9_:.a-fA-Fox]*")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse_special(path: Path) -> None:
    """Raise MedexpError for a pipe, a device or a socket, which could be read without end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise MedexpError(f"{path}: is no regular file, so it is not read")


def read_bounded(path: Path, most: int) -> str:
    """The UTF-8 text of a regular file of `most` bytes at most.

    Raises MedexpError, and OSError or UnicodeDecodeError as reading does.
    """
    refuse_special(path)
    if (size := path.stat().st_size) > most:
        raise MedexpError(f"{path}: has {size:,} bytes; a file of medexp has {most:,} at most")
    return path.read_text(encoding="utf-8")


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file; MedexpError as `parse_yaml`, and where it cannot be read."""
    try:
        text = read_bounded(path, MAX_YAML)
    except (OSError, ValueError) as error:
        raise MedexpError(f"{path}: cannot be read ({error})") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of YAML, in a time that its length bounds.

    Raises MedexpError where it is none, and for what could make much of little: aliases (medexp
    writes none), deep nesting, numbers of hundreds of digits, tags that make objects.
    """
    try:
        _refuse_bomb(text, where)
        return yaml.load(text, Loader=_LOADER)  # the safe loader, in C where PyYAML has it
    except (ValueError, yaml.YAMLError, OverflowError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise MedexpError(f"{where} is not valid YAML ({printable(said)})") from error
    except (TypeError, AttributeError, KeyError) as error:  # PyYAML's, of a tag on the wrong node
        raise MedexpError(f"{where} is not valid YAML ({type(error).__name__})") from error


def _refuse_bomb(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = 1 + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.AliasEvent):
            raise MedexpError(
                f"{where}, line {line}: refers to another part by an alias "
                f"(*{printable(str(event.anchor))}). medexp writes none and reads none"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise MedexpError(f"{where}, line {line}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_DIGITS:
            plain = event.implicit[0] and _NUMBER.fullmatch(event.value)
            if plain or (event.tag and not event.tag.endswith(":str")):
                size = len(event.value)
                raise MedexpError(f"{where}, line {line}: a number of {size:,} characters")


class Shown(logging.Formatter):
    """A formatter of logs whose text no terminal obeys: names of files and classes stand in it."""

    def format(self, record: logging.LogRecord) -> str:
        return str(printable(super().format(record)))


def cell(value: Any) -> Any:
    """A value as a cell of a CSV that a person opens: no text that a spreadsheet would compute.

    Such a text gets a quote before it, which spreadsheets show as text; numbers stay numbers.
    """
    if not isinstance(value, (str, Path)):
        return value
    text = printable(str(value))
    if not text.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def refuse_ways_out(folder: Path) -> None:
    """Raise MedexpError where a run directory holds what leads out of it.

    That is a link to a place outside of it, through which a later command would read or write
    there, a pipe, a device or a socket. The folder itself may be a link: the user named it.
    """
    root = folder.resolve()
    for number, path in enumerate(_entries(folder)):
        if number >= MAX_ENTRIES:
            raise MedexpError(f"{folder}: holds more than {MAX_ENTRIES:,} files, so it is no run")
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            if not Path(os.path.realpath(path)).is_relative_to(root):
                raise MedexpError(
                    f"{path}: a link that leads out of {folder}, to {os.path.realpath(path)}. "
                    "medexp would read or write there: put what it names in its place"
                )
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise MedexpError(f"{path}: is no regular file, and a run holds no other. Remove it")


def _entries(folder: Path) -> Iterator[Path]:
    """Every entry below a folder; links are not followed."""
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        try:
            with os.scandir(at) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise MedexpError(f"{at}: cannot be listed ({error.strerror})") from None
        for entry in entries:
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
