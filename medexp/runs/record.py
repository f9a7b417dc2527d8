"""What a run is, as one object: written when it starts, read by every later command.

A later command makes the record of what it is asked to do and holds it against the run's, in one
place: `differences`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medexp.runs.files import read_json, write_json

FILE = "record.json"
SCHEMA = 1
NOT_COMPARED = ("versions", "schema")  # another version is no other run


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


@dataclass(frozen=True)
class Difference:
    """A fact of a run that is another one in what a later command is asked for."""

    fact: str
    was: Any
    asked: Any

    def text(self) -> str:
        return f"{self.fact}: {self.asked!r}, and the run had {self.was!r}"


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


def differences(was: Record, asked: Record, facts: Iterable[str] | None = None) -> list[Difference]:
    """The facts in which what is asked differs from what was, those of `facts` if they are named.

    Mappings are compared key by key, so that a difference names the key (`recipe.optimizer.lr`).
    Versions are left out: another version is no other run.
    """
    chosen = facts or [item.name for item in fields(Record) if item.name not in NOT_COMPARED]
    found: list[Difference] = []
    for name in chosen:
        found += _differing(name, getattr(was, name), getattr(asked, name))
    return found


def _differing(fact: str, was: Any, asked: Any) -> list[Difference]:
    if isinstance(was, Part) and isinstance(asked, Part):
        was, asked = asdict(was), asdict(asked)
    if isinstance(was, Mapping) and isinstance(asked, Mapping):
        keys = dict.fromkeys([*was, *asked])
        return [
            one for key in keys for one in _differing(f"{fact}.{key}", was.get(key), asked.get(key))
        ]
    if isinstance(was, (list, tuple)) and isinstance(asked, (list, tuple)):
        was, asked = list(was), list(asked)
    return [] if was == asked else [Difference(fact, was, asked)]


def digest_of_ids(ids: Iterable[str]) -> str:
    """A digest of ids that does not depend on their order."""
    text = "\n".join(sorted(map(str, ids)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
