"""What Hydra and OmegaConf refuse, as one ConfigError with key, value and nearest valid name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra.errors
import omegaconf.errors as refusals
from omegaconf import OmegaConf

from medexp.config.groups import groups
from medexp.errors import ConfigError, nearest

# Groups whose options set keys of any other group.
SETTING_OTHERS = ("recipe", "experiment", "tune")


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Hydra and OmegaConf refuse into one ConfigError with key, value and remedy."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a text of its own and exits with 1
    try:
        yield
    except (hydra.errors.HydraException, refusals.OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def explain(error: Exception) -> str:
    """The one thing to say about a composition that failed: key, value, nearest valid name."""
    text = str(error).splitlines()
    if isinstance(error, hydra.errors.MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if group and error.options:
            return f"{group}={option}: no such option. {nearest(option, error.options)}"
        return f"{error.missing_cfg_file}: no such config. {nearest(group or option, groups())}"
    if isinstance(error, hydra.errors.OverrideParseException):
        return (
            f"{error.override}: cannot be parsed ({text[0]}). Quote values with brackets or commas"
        )
    if "No match in the defaults list" in str(error):
        key = text[0].split("'")[1]
        return f"{key}: no such group. {nearest(key, groups())}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, refusals.OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, refusals.OmegaConfBaseException):
        key = str(cause.full_key or cause.key)
        unknown = (refusals.ConfigKeyError, refusals.ConfigAttributeError)
        if isinstance(cause, unknown) and cause.parent_node is not None:
            siblings: Any = cause.parent_node
            valid = [str(name) for name in siblings if name != "hydra"]
            for name in valid.copy():
                inner = OmegaConf.select(siblings, name)
                if OmegaConf.is_dict(inner) and str(cause.key) in inner:
                    return f"{key}: no such key. Did you mean '{name}.{cause.key}'?"
            if (file := unpackaged(text[0], key)) is not None:
                return (
                    f"{file}: its keys were put below `{key}`, which has none. Begin the file with "
                    "the line\n# @package _global_\nso that it sets keys of all groups"
                )
            where = f" ({text[0].split(':')[0]})" if text[0].startswith("In '") else ""
            return f"{key}: no such key{where}. {nearest(str(cause.key), valid)}"
        if isinstance(cause, refusals.MissingMandatoryValue):
            return f"{key}: missing. Give it as {key}=VALUE"
        return f"{key}: {str(cause).splitlines()[0]}"
    return " ".join(line.strip() for line in text[:2])


def unpackaged(said: str, key: str) -> str | None:
    """The YAML of a group that sets keys of others and lacks the line that says so; else None.

    said: Hydra's first line, "In 'experiment/mine': ...".
    """
    file = re.match(r"In '([^']+)'", said)
    if file is None or key not in SETTING_OTHERS or file[1].split("/")[0] != key:
        return None
    return f"{file[1]}.yaml"
