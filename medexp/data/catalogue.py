"""The data sets that can be chosen: their public facts, and whether they are here."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medexp.config.compose import compose_node
from medexp.config.groups import header, options


def dataset_rows(arguments: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One JSON-ready row for each option of the group `dataset`.

    Public facts are the `INFO` of the reader's module, None without one; `root` is where the images
    are looked for, `found` whether that is a folder. arguments: the command line, for its
    --config-dir.
    """
    rows = []
    for name in options("dataset", arguments):
        node = compose_node("dataset", name, arguments)
        module = importlib.import_module(str(node["_target_"]).rpartition(".")[0])
        info = getattr(module, "INFO", None)
        root = Path(node["root"]) if "root" in node else None
        rows.append(
            {
                "dataset": name,
                "title": info.title if info else header("dataset", name, arguments),
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
