"""What a user is meant to read: errors, and the remedy of a misspelt name. Others are defects."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Control characters but tab and line feed; signs that turn the direction in which text is read.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class MedexpError(Exception):
    """The run failed (exit code 1). One to three lines: what (file, key, value) and the remedy."""


class ConfigError(MedexpError):
    """Wrong usage or configuration (exit code 2): names the key's full path and the remedy."""


class RefusedError(ConfigError):
    """What a finished or interrupted run cannot be taken for: the run is left as it was."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with the state saved (exit code 130). No Exception, so a sweep stops."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The remedy of a misspelt name: the nearest valid one where one is near, and all of them."""
    valid = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return (f"Did you mean '{near[0]}'? " if near else "") + f"Valid: {', '.join(valid)}"


def one_of(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` of the key is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{key}={value}: no such choice. {nearest(value, choices)}")


def printable(value: Any) -> Any:
    """Text of a file as it can be shown: what a terminal would obey is spelled out, as \\x1b is.

    Of lists and mappings, the same with all texts in them.
    """
    if isinstance(value, str):
        return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {printable(key): printable(inner) for key, inner in value.items()}
    return [printable(inner) for inner in value] if isinstance(value, list) else value
