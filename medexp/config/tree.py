"""A tree of frozen dataclasses from plain data, and back: what Hydra composed, what YAML holds.

A field says its help, its range and whether it decides numbers once, by `setting`. From that follow
the schema that Hydra composes into, the checks, and which keys two runs may differ in.
"""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any, TypeVar

from medexp.errors import ConfigError, nearest, one_of

T = TypeVar("T")


def setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    numbers: bool = True,
) -> Any:
    """A field of a settings dataclass.

    least, above, below: its range, which null is always in; choices: of a text. numbers: whether a
    run's numbers may depend on it; two runs that differ in none that do are the same run.
    """
    metadata = {
        "help": help,
        "least": least,
        "above": above,
        "below": below,
        "choices": tuple(choices),
        "numbers": numbers,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Node(Mapping[str, Any]):
    """The chosen option of a group: a `_target_`, its arguments, and facts beside them.

    It reads like the mapping that was composed. A subclass names its facts, the keys that are no
    arguments of the target.
    """

    content: Mapping[str, Any]

    FACTS: typing.ClassVar[tuple[str, ...]] = ()

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    @property
    def target(self) -> str:
        """The dotted path of a function or class."""
        return str(self.content["_target_"])

    def arguments(self) -> dict[str, Any]:
        """The content less the facts: the target and what it is called with."""
        return {key: value for key, value in self.content.items() if key not in self.FACTS}


def build(kind: type[T], content: Mapping[str, Any], prefix: str = "") -> T:
    """An object of a settings dataclass from plain data; keys that are left out get their default.

    Raises ConfigError, with the full key, for a key that the dataclass does not have, a value of
    another type or out of range, and one that is missing.
    """
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in fields(kind) if item.init}  # type: ignore[arg-type]
    for name in content:
        if name not in known:
            raise ConfigError(f"{prefix}{name}: no such key. {nearest(str(name), known)}")
    values = {}
    for name, item in known.items():
        if name in content:
            values[name] = _value(content[name], hints[name], f"{prefix}{name}")
            check_range(f"{prefix}{name}", values[name], item.metadata)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{prefix}{name}: missing. Give it as {prefix}{name}=VALUE")
    return kind(**values)


def _value(value: Any, hint: Any, key: str) -> Any:
    inner = _without_none(hint)
    if value is None and inner is not hint:
        return None
    if is_dataclass(inner):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r}: must be keys and values, not one value")
        if issubclass(inner, Node):  # type: ignore[arg-type]
            return inner(value)  # type: ignore[call-arg,operator]
        return build(inner, value, f"{key}.")  # type: ignore[arg-type]
    if not fits(value, hint):
        raise ConfigError(f"{key}={value!r}: must be {spell(hint)}, not {type(value).__name__}")
    if typing.get_origin(inner) is tuple:
        return tuple(value)
    return float(value) if inner is float else value


def _without_none(hint: Any) -> Any:
    """T of `T | None`; any other annotation as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kept = [one for one in typing.get_args(hint) if one is not type(None)]
        return kept[0] if len(kept) == 1 else hint
    return hint


def check_range(key: str, value: Any, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError where a value lies outside of what `setting` says of its field."""
    if value is None or not facts:
        return
    if facts["choices"]:
        one_of(key, value, facts["choices"])
    least, above, below = facts["least"], facts["above"], facts["below"]
    if least is not None and below is not None and not least <= value < below:
        raise ConfigError(f"{key}={value}: must be {least:g} or more, and below {below:g}")
    if least is not None and not value >= least:
        raise ConfigError(f"{key}={value}: must be {least:g} or more")
    if above is not None and not value > above:
        raise ConfigError(f"{key}={value}: must be above {above:g}, or null for no limit")


def plain(value: Any) -> Any:
    """The plain data that `build` makes the same object of."""
    if isinstance(value, Node):
        return plain(dict(value.content))
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def schema_of(kind: type) -> type:
    """The dataclass that Hydra composes into: nodes as mappings, and nothing frozen."""
    hints = typing.get_type_hints(kind)
    made = []
    for item in fields(kind):
        hint = hints[item.name]
        inner = _without_none(hint)
        default: Any = "???"
        if item.default is not MISSING:
            default = item.default
        elif item.default_factory is not MISSING:
            default = item.default_factory()
        if inner is not hint:
            kept = dict[str, Any] if is_dataclass(inner) or _is_mapping(inner) else inner
            made.append((item.name, kept | None, field(default=default)))
        elif is_dataclass(inner) and not issubclass(inner, Node):  # type: ignore[arg-type]
            nested = schema_of(inner)  # type: ignore[arg-type]
            made.append((item.name, nested, field(default_factory=nested)))
        elif is_dataclass(inner) or _is_mapping(inner):
            start = inner.defaults() if hasattr(inner, "defaults") else {}
            made.append((item.name, dict[str, Any], field(default_factory=start.copy)))
        elif typing.get_origin(inner) is tuple:
            items: Any = list[typing.get_args(inner)[0]]  # type: ignore[misc]
            made.append((item.name, items, field(default_factory=list)))
        else:
            made.append((item.name, inner, field(default=default)))
    return make_dataclass(kind.__name__, made)


def _is_mapping(hint: Any) -> bool:
    return (typing.get_origin(hint) or hint) is Mapping


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all values in nested mappings; an empty mapping is a value."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def without_numbers(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a settings dataclass that decide no number of a run."""
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        inner = _without_none(hints[item.name])
        if not item.metadata.get("numbers", True):
            yield prefix + item.name
        elif is_dataclass(inner) and not issubclass(inner, Node):  # type: ignore[arg-type]
            yield from without_numbers(inner, f"{prefix}{item.name}.")  # type: ignore[arg-type]


def defaults_of(kind: type) -> dict[str, Any]:
    """KEY -> default of a settings dataclass, all of whose fields have one."""
    return asdict(kind())


def fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value can be meant for a parameter so annotated; True where in doubt."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        wanted = int if hint is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str)
    if (origin or hint) in (list, tuple, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        items = (
            arguments[:1] * len(value) if (origin is not tuple or ... in arguments) else arguments
        )
        return not arguments or (
            len(items) == len(value) and all(fits(v, a) for v, a in zip(value, items, strict=True))
        )
    if (origin or hint) in (dict, Mapping):
        return isinstance(value, Mapping)
    # Tensors, callables and the like have no YAML form but a nested node.
    return isinstance(hint, type) is False or isinstance(value, (Mapping, hint))


def spell(hint: Any) -> str:
    """An annotation in words, for a message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spell(argument) for argument in arguments)
    if origin in (list, tuple, Sequence):
        items = dict.fromkeys(spell(argument) for argument in arguments if argument is not ...)
        return f"a list of {', '.join(items)}"
    if hint is type(None):
        return "null"
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    return str(getattr(hint, "__name__", hint)) if isinstance(hint, type) else str(hint)
