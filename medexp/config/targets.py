"""Whether the keys of a node fit its `_target_`, and values fit a schema.

Hydra's struct mode refuses a misspelt key on the command line, but not one in a composed YAML: the
schema, first in the defaults list, does both. Inside a group's node the keys are the arguments of
its `_target_`, so the schema there is the target's own signature.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from medexp.config.settings import FACTS
from medexp.errors import ConfigError, nearest

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def check_schema(settings: Mapping[str, Any], schema: type, prefix: str = "") -> None:
    """Refuse a key that the schema does not have, or a value of another type.

    Hydra checks what it composes; `+key=value` and plain nodes get past it.
    """
    fields = typing.get_type_hints(schema)
    for name, value in settings.items():
        if name not in fields:
            raise ConfigError(f"{prefix}{name}: no such key. {nearest(name, fields)}")
        if is_dataclass(fields[name]):
            check_schema(value, fields[name], f"{prefix}{name}.")
        elif not _fits(value, fields[name]):
            raise ConfigError(
                f"{prefix}{name}={value!r}: must be {_spell(fields[name])}, "
                f"not {type(value).__name__}"
            )


def locate(path: str, key: str) -> Callable[..., Any]:
    """The function or class that a dotted path names; ConfigError says which part is missing."""
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name + ".").startswith(error.name + "."):
                continue
            raise
        for name in parts[split:]:
            if not hasattr(found, name):
                raise ConfigError(f"{key}={path}: {module_name} has no '{name}'")
            found = getattr(found, name)
        if not callable(found):
            raise ConfigError(f"{key}={path}: not a function or class")
        return typing.cast(Callable[..., Any], found)
    raise ConfigError(
        f"{key}={path}: no module '{'.'.join(parts[:-1])}'. A file of your own must lie in the "
        "folder that --config-dir names or on PYTHONPATH"
    )


def check_node(
    key: str, node: Mapping[str, Any], supplied: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Hold the keys and value types of a group's node against the signature of its `_target_`.

    `supplied` are arguments that medexp offers at the call; those that the target takes and the
    node does not set are returned. Raises ConfigError with the full key.
    """
    supplied = supplied or {}
    if "_target_" not in node:
        raise ConfigError(f"{key}._target_: missing. Name a function or class by its dotted path")
    target = locate(str(node["_target_"]), f"{key}._target_")
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for name, value in node.items():
        if name in _HYDRA_KEYS or name in FACTS.get(key, ()):
            continue
        if name not in parameters and not open_ended:
            valid = {*parameters, *FACTS.get(key, ())} - set(supplied) - {"self"}
            raise ConfigError(
                f"{key}.{name}: not an argument of {node['_target_']}. {nearest(name, valid)}"
            )
        if name in hints and not _fits(value, hints[name]):
            raise ConfigError(
                f"{key}.{name}={value!r}: must be {_spell(hints[name])}, not {type(value).__name__}"
            )
        for inner, node_inside in _nodes_in(f"{key}.{name}", value):
            check_node(inner, node_inside)
    for name, parameter in parameters.items():
        given = name in node or name in supplied or "_partial_" in node
        bound = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if not given and not bound:
            raise ConfigError(f"{key}.{name}: missing, and {node['_target_']} needs it")
    return {
        name: value
        for name, value in supplied.items()
        if name not in node and (open_ended or name in parameters)
    }


def _nodes_in(key: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outermost nodes with a `_target_` inside a value, each with its full key."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, value
            return
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = enumerate(value)
    else:
        return
    for name, inner in items:
        yield from _nodes_in(f"{key}.{name}", inner)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # a user's annotation that cannot be evaluated is no reason to stop
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value can be meant for a parameter so annotated; True where in doubt."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
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
            len(items) == len(value) and all(_fits(v, a) for v, a in zip(value, items, strict=True))
        )
    if (origin or hint) in (dict, Mapping):
        return isinstance(value, Mapping)
    # Tensors, callables and the like have no YAML form but a nested node.
    return inspect.isclass(hint) is False or isinstance(value, (Mapping, hint))


def _spell(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spell(argument) for argument in arguments)
    if origin in (list, tuple, Sequence):
        items = dict.fromkeys(_spell(argument) for argument in arguments if argument is not ...)
        return f"a list of {', '.join(items)}"
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    return getattr(hint, "__name__", None) if inspect.isclass(hint) else str(hint)  # type: ignore
