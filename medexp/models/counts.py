"""What a network's paper reports of its size, beside what is counted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medexp.config.compose import instantiate
from medexp.models import summary
from medexp.models.summary import Layer


def model_layers(node: Mapping[str, Any]) -> list[Layer]:
    """The layers of a network built on the meta device at its paper's input."""
    channels, *size = input_of(node)
    classes = (node.get("about") or {}).get("classes", 2)
    with torch.device("meta"):
        network = instantiate(
            "model", node, num_classes=classes, in_channels=channels, image_size=tuple(size)
        )
        return summary.layers(network, input_of(node))


def input_of(node: Mapping[str, Any]) -> tuple[int, ...]:
    """(C, H, W) or (C, D, H, W) of the paper; PCam's where a YAML of a user's own does not say."""
    return tuple((node.get("about") or {}).get("input", (3, 96, 96)))


def model_row(name: str, node: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Any]:
    """What a network's paper reports beside what is counted, and the verdict."""
    about = node.get("about") or {}
    totals = summary.totals(layers)
    reported, counted = reported_count(about, totals["trainable"], totals["total"])
    return {
        "model": name,
        "paper": about.get("paper"),
        "where": about.get("where"),
        "input": list(input_of(node)),
        **totals,
        "reported": reported,
        "counted": counted,
        "verdict": verdict(counted, reported),
        "note": about.get("note"),
    }


def reported_count(about: Mapping[str, Any], trainable: int, total: int) -> tuple[int | None, int]:
    """The paper's count and ours of the same thing.

    A paper may report the total instead of the trainable weights, or the size of a TensorFlow 1
    checkpoint: every weight, Adam's two slots for each, and three scalars (two powers of beta, the
    global step).
    """
    if about.get("reported_includes_adam"):
        return about["reported_parameters"], 3 * trainable + 3
    if about.get("reported_parameters") is None and about.get("reported_total") is not None:
        return about["reported_total"], total
    return about.get("reported_parameters"), trainable


def verdict(counted: int, reported: int | None) -> str:
    """`agrees`, `differs` (by how much: ours less the paper's) or `not reported`."""
    if reported is None:
        return "not reported"
    return "agrees" if counted == reported else f"differs ({counted - reported:+,})"
