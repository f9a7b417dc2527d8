"""What was done to the images between the store and the network, in words: for logs and tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from medexp.data.base import Dataset
from medexp.jobs.paper import value_text


def applied(
    augment: Mapping[str, Any],
    data: Dataset,
    network: nn.Module,
    first: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """`augment`: how training images were augmented; `input`: what the network saw of any image.

    augment: the node that the network was, or is, trained with. first: that of the phase before.
    """
    words = augmentation(augment)
    if first is not None and (before := augmentation(first)) != words:
        words += f" (in the first phase {before})"
    stored = "bytes divided by 255"
    if data.train.images.dtype != np.uint8:
        stored = "real numbers as they are stored"
    if hasattr(network, "input_mean"):
        stored += ", then ImageNet's mean subtracted and divided by its standard deviation"
    return {"augment": words, "input": stored}


def augmentation(node: Mapping[str, Any]) -> str:
    """A node of the group `augment` in words; `none` for the one that changes nothing."""
    name = str(node["_target_"]).rpartition(".")[2]
    if name == "Identity":
        return "none"
    if "steps" in node:
        return ", then ".join(map(augmentation, node["steps"]))
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    listed = ", ".join(f"{key}={value_text(value)}" for key, value in arguments.items())
    return f"{name}({listed})"


def told(said: Mapping[str, str]) -> str:
    """Both in one sentence, for run.log and the terminal."""
    return f"Augmentation: {said['augment']}. Network input: {said['input']}"
