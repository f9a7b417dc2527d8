"""What exists: the rows behind `medexp models` and `medexp datasets`."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medexp.compose import compose, instantiate, options
from medexp.experiment import parameter_counts


def model_rows(arguments: list[str]) -> list[dict[str, Any]]:
    """One row a model option: what its paper reports beside what it counts, and the verdict."""
    return [
        model_row(name, compose([f"model={name}"], arguments)["model"])
        for name in options("model", arguments)
    ]


def model_row(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Build the network on the meta device, at its paper's input, and count."""
    about = node.get("about") or {}
    channels, *size = about.get("input", [3, 96, 96])
    classes = about.get("classes", 2)
    with torch.device("meta"):
        network = instantiate(
            "model", node, num_classes=classes, in_channels=channels, image_size=tuple(size)
        )
    count, reported = parameter_counts(network), about.get("reported_parameters")
    return {
        "model": name,
        "paper": about.get("paper"),
        "where": about.get("where"),
        "input": [channels, *size],
        **count,
        "reported": reported,
        "verdict": verdict(count["trainable"], reported),
        "note": about.get("note"),
    }


def verdict(counted: int, reported: int | None) -> str:
    """`agrees`, `differs` (by how much: ours less the paper's) or `not reported`."""
    if reported is None:
        return "not reported"
    return "agrees" if counted == reported else f"differs ({counted - reported:+,})"


def dataset_rows(arguments: list[str]) -> list[dict[str, Any]]:
    """One row a data set option: its public facts, where it is looked for, whether it is there."""
    rows = []
    for name in options("dataset", arguments):
        node = compose([f"dataset={name}"], arguments)["dataset"]
        module = importlib.import_module(str(node["_target_"]).rpartition(".")[0])
        info = getattr(module, "INFO", None)
        root = Path(node["root"]) if "root" in node else None
        rows.append(
            {
                "dataset": name,
                "title": info.title if info else None,
                "classes": list(info.classes) if info else None,
                "counts": info.counts if info else None,
                "licence": info.licence if info else None,
                "size": info.size if info else None,
                "url": info.url if info else None,
                "root": str(root) if root else None,
                "found": root.is_dir() if root else None,
                "phantom": bool(node.get("phantom")),
            }
        )
    return rows
