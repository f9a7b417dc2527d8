"""Whether a node fits its `_target_`: its keys are the arguments of a function or class.

So a user's own class needs no second declaration: its signature is the schema.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from medexp.config.settings import FACTS
from medexp.config.tree import fits, spell
from medexp.errors import ConfigError, nearest

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


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
        if name in hints and not fits(value, hints[name]):
            raise ConfigError(
                f"{key}.{name}={value!r}: must be {spell(hints[name])}, not {type(value).__name__}"
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
