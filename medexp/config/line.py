"""The command line behind `medexp train` and `medexp eval`, read by Hydra's own parsers."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from medexp.config.refusals import explained
from medexp.errors import ConfigError


@dataclass(frozen=True)
class Line:
    """A command line: Hydra's options, and the overrides with their values as Hydra reads them."""

    words: tuple[str, ...]
    overrides: tuple[Override, ...]
    config_dir: str | None
    multirun: bool

    def value(self, key: str) -> Any:
        """What the line sets a key to, typed; of a sweep its first value; None if it does not."""
        values = [first_value(one) for one in self.overrides if one.key_or_group == key]
        return values[-1] if values else None

    def text(self, key: str) -> str | None:
        """What the line sets a key to as it was typed, without quotes around it."""
        texts = [str(one.input_line) for one in self.overrides if one.key_or_group == key]
        return texts[-1].partition("=")[2].strip("'\"") if texts else None

    def sets(self, key: str) -> bool:
        """Whether the line gives a key or group any value."""
        return any(one.key_or_group == key for one in self.overrides)

    def sweeps(self, key: str) -> bool:
        """Whether the line gives a key or group several values."""
        return any(one.key_or_group == key and one.is_sweep_override() for one in self.overrides)

    def argv(self) -> list[str]:
        """The words with all overrides first: Hydra's own parser takes one stretch of them."""
        typed = [str(one.input_line) for one in self.overrides]
        return typed + [word for word in self.words if word not in typed]

    def without(self, *keys: str) -> list[str]:
        """The words less the overrides of some keys."""
        dropped = {one.input_line for one in self.overrides if one.key_or_group in keys}
        return [word for word in self.words if word not in dropped]


def read_line(words: Sequence[str]) -> Line:
    """Parse the words; ConfigError for an option that is none and an override that cannot be."""
    options, unknown = get_args_parser().parse_known_intermixed_args(list(words))
    if unknown:
        raise ConfigError(
            f"{unknown[0]}: no such option. Settings are given as KEY=VALUE, such as "
            "trainer.epochs=3; --help lists them"
        )
    with explained():
        overrides = OverridesParser.create().parse_overrides(options.overrides)
    return Line(tuple(words), tuple(overrides), options.config_dir, bool(options.multirun))


def read_partial(words: Sequence[str]) -> Line:
    """The words that parse: of a line that is still being typed, the last may not."""
    parsed: list[Override] = []
    for word in words:
        with suppress(ConfigError):
            parsed += read_line([word]).overrides
    return Line(tuple(words), tuple(parsed), None, False)


def first_value(override: Override) -> Any:
    """The value of an override; of a sweep its first one."""
    if not override.is_sweep_override():
        return override.value()
    if override.is_interval_sweep():  # a search draws from it: no value comes first
        return override.value().start  # type: ignore[union-attr]
    return next(iter(override.sweep_iterator()), None)


def folders_of(value: str | None) -> list[str]:
    """The run directories that `run=` names: DIR, or for an ensemble A,B,C or [A,B,C]."""
    if value and Path(value).is_dir():  # its name may hold a comma
        return [value]
    parts = (part.strip(" '\"") for part in (value or "").strip("[]").split(","))
    return [part for part in parts if part]


def of_ensemble(folders: Sequence[str], line: Line) -> Line:
    """A line with run=A,B,C spelled as Hydra takes it: run=A ensemble=[A,B,C].

    Unquoted, Hydra takes A,B,C for a sweep, and [A,B,C] for a list that the key `run` is not.
    """
    for one in line.overrides:
        if re.match(r"model($|\.)", one.key_or_group):
            raise ConfigError(
                f"{one.input_line}: the runs of an ensemble bring their networks. Leave it out"
            )
    quoted = [json.dumps(folder, ensure_ascii=False) for folder in folders]
    rest = line.without("run")
    return read_line([*rest, f"run={quoted[0]}", f"ensemble=[{','.join(quoted)}]"])
