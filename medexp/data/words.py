"""Words of the findings of `medexp data check`."""

from collections.abc import Mapping
from typing import Any


def both(pair: str) -> str:
    return pair.replace("/", " and ")


def share_of(pair: str, numbers: Mapping[str, Any]) -> str:
    """The share of the second part's images, in words."""
    second = pair.split("/")[1]
    return f"{percent(numbers[f'share_of_{second}'])} of the {second} images"


def percent(share: float) -> str:
    """0.0% is said of none only, and 100.0% of all."""
    if 0 < share < 0.001:
        return "under 0.1%"
    return "over 99.9%" if 0.999 < share < 1 else f"{share:.1%}"


def stand(count: int) -> str:
    return f"{plural(count, 'image')} {agree(count, 'stands', 'stand')}"


def agree(count: int, one: str, more: str) -> str:
    return one if count == 1 else more


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
