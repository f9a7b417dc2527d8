"""Why a run's numbers are not the paper's: the marks that stand wherever one of them does."""

from collections.abc import Mapping
from typing import Any

from medexp.config.settings import Settings
from medexp.data.base import Dataset


def marks(settings: Settings, data: Dataset, epochs: int, split: str = "test") -> dict[str, str]:
    """Mark -> reason, of a run that was trained for so many epochs and is scored on `split`."""
    found = {}
    if split != "test":
        found[f"{split.upper()} SPLIT"] = f"scored on the {split} split, not on the test split"
    source = settings.source
    if source.kind == "phantom":
        found["PHANTOM"] = f"{len(data.train):,} synthetic training images (seed {source.seed})"
    reasons = list(data.partial) if source.kind == "disk" else []
    paper = settings.paper or {}
    row, budget = paper.get("row"), paper.get("budget", "full")
    if row and budget != "full":
        scaled = budget_of(paper, row, budget)
        words = ", ".join(f"{k}={'null' if v is None else v}" for k, v in scaled.items())
        reasons.insert(0, f"budget {budget} ({words})")
    rows = paper.get("rows") or ()
    listed = row or any(settings.names.model in (other.get("models") or ()) for other in rows)
    if listed and paper.get("epochs") and epochs < paper["epochs"]:
        reasons.insert(0, f"{epochs:,} of {paper['epochs']:,} epochs")
    if reasons:
        found["PARTIAL"] = "; ".join(reasons)
    return found | dict(data.marks)


def budget_of(paper: Mapping[str, Any], row: str, budget: str) -> dict[str, Any]:
    """KEY -> value that a budget lays over a row of a table, or over a run that rows start from."""
    if row.startswith("before: "):
        nodes = [paper["before"][row.removeprefix("before: ")]]
    else:
        own = (one for one in paper["rows"] if row in (one.get("group"), one["label"]))
        nodes = [paper, *own]
    scaled: dict[str, Any] = {}
    for node in nodes:
        scaled |= (node.get("budgets") or {}).get(budget) or {}
    return scaled
