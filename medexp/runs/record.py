"""What a run is, as one object: written when it starts, read by every later command.

What a later command asks for is held against it in one place, medexp/jobs/binding.py.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medexp.runs.files import read_json, write_json

FILE = "record.json"
SCHEMA = 1


@dataclass(frozen=True)
class Part:
    """One split of a data set: how many images, and digests of their ids and of their pixels.

    ids: of the sorted ids, so that it does not depend on their order. pixels: of ids, labels and
    decoded images, as provenance.json has it.
    """

    images: int
    ids: str
    pixels: str


@dataclass(frozen=True)
class Record:
    """A run's facts.

    dataset, model: the options by name. reader: the data set's target and arguments, which decide
    the pixels. classes: in the order of labels and of the network's outputs. image_shape: of a
    stored image, channels last. parts: split -> Part; split.csv holds the ids themselves. network:
    the model's target and arguments. weights: what it started from (`imagenet`, a file, or the
    folder of a run). normalised: whether inputs are normalised as ImageNet's. recipe: KEY -> value
    of all else that decides the numbers. versions: package -> version.
    """

    dataset: str
    reader: Mapping[str, Any]
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    parts: Mapping[str, Part]
    model: str
    network: Mapping[str, Any]
    weights: str | None
    normalised: bool
    recipe: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """record.json of a run's folder."""
        write_json(folder / FILE, asdict(self))


def read_record(folder: Path) -> Record | None:
    """The record of a run; None where an older version of medexp made it and it has none.

    Raises MedexpError where the file is no record.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = read_json(path)
    known = {item.name for item in fields(Record)}
    values = {key: value for key, value in content.items() if key in known}
    values["parts"] = {name: Part(**part) for name, part in content["parts"].items()}
    for name in ("classes", "image_shape"):
        values[name] = tuple(content[name])
    return Record(**values)


def digest_of_ids(ids: Iterable[str]) -> str:
    """A digest of ids that does not depend on their order."""
    text = "\n".join(sorted(map(str, ids)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
