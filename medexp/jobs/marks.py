"""Why a run's numbers are not the paper's: the marks that stand wherever one of them does."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medexp.config.paper import BEFORE
from medexp.config.settings import Settings
from medexp.data.base import WHOLE, Dataset, Split
from medexp.jobs.deviations import reason_of
from medexp.runs.files import read_json
from medexp.score import metrics

log = logging.getLogger(__name__)

# What is handed on to a run that starts from another's weights. What those were scored on is not.
HANDED_ON = ("PHANTOM", "PARTIAL", "DEVIATES", "PRUNED")
# What `of_scores` finds: of one network on one split, and of no other.
OF_SCORES = ("CONSTANT", "ONE CLASS", "LACKS CLASS")


def marks(
    settings: Settings,
    data: Dataset,
    epochs: int,
    split: str = "test",
    deviating: Mapping[str, tuple[Any, Any]] | None = None,
) -> dict[str, str]:
    """Mark -> reason, of a run that was trained for so many epochs and is scored on `split`.

    deviating: KEY -> (the row's value, the run's), where the run is not that of its paper's row.
    """
    found = {}
    if split == WHOLE:
        found["WHOLE SET"] = "scored on all images of the data set, not on a test split of it"
    elif split != "test":
        found[f"{split.upper()} SPLIT"] = f"scored on the {split} split, not on the test split"
    source = settings.source
    if source.kind == "phantom":
        found["PHANTOM"] = f"{len(data.train):,} synthetic training images (seed {source.seed})"
    reasons = list(data.partial) if source.kind == "disk" else []
    paper = settings.paper or {}
    if scaled := scaled_keys(paper):
        words = ", ".join(f"{k}={'null' if v is None else v}" for k, v in scaled.items())
        reasons.insert(0, f"budget {paper['budget']} ({words})")
    rows = paper.get("rows") or ()
    listed = paper.get("row") or any(
        settings.names.model in (other.get("models") or ()) for other in rows
    )
    left = dict(deviating or {})
    if listed and paper.get("epochs") and epochs < paper["epochs"]:
        reasons.insert(0, f"{epochs:,} of {paper['epochs']:,} epochs")
        left = {key: pair for key, pair in left.items() if not key.endswith("trainer.epochs")}
    if reasons:
        found["PARTIAL"] = "; ".join(reasons)
    if left:
        found["DEVIATES"] = reason_of(left, settings)
    return found | dict(data.marks)


def of_scores(
    split: Split, probabilities: np.ndarray, classes: Sequence[str], name: str
) -> dict[str, str]:
    """Mark -> reason, of scores that say less than they seem to; each is told on the terminal too.

    probabilities: (N, C) of the images of the split `name`. CONSTANT: the network calls every image
    the same, which a split that is mostly of one class rewards with a fine accuracy. ONE CLASS and
    LACKS CLASS: the split has no image of some class, so that its F1 is 0, its recall and AUC are
    undefined, and means over the classes leave it out or hold that 0.
    """
    found = {}
    there = np.bincount(split.labels, minlength=len(classes)) > 0
    if there.sum() == 1:
        only = classes[int(there.argmax())]
        found["ONE CLASS"] = (
            f"all {len(split):,} {name} images are {only}: an accuracy here tells nothing of the "
            "other classes, and there is no AUC"
        )
    elif not there.all():
        absent = ", ".join(one for one, here in zip(classes, there, strict=True) if not here)
        found["LACKS CLASS"] = (
            f"no {name} image is {absent}: scores of that class and means over the classes are "
            "undefined or mean little"
        )
    called = np.unique(metrics.predict(probabilities))
    if len(called) == 1 and len(split) > 1 and there.sum() > 1:
        share = float(np.mean(split.labels == called[0]))
        found["CONSTANT"] = (
            f"the network calls all {len(split):,} {name} images {classes[called[0]]}, which "
            f"{share:.1%} of them are: it tells no class from another"
        )
    for mark, reason in found.items():
        log.warning("%s: %s", mark, reason)
    return found


def handed_on(marked: Mapping[str, str], start: Path | None) -> dict[str, str]:
    """The marks of a run, and those that it lacks of the run that its first weights are of."""
    found = dict(marked)
    file = None if start is None else start / "metrics.json"
    if file is None or not file.is_file():
        return found
    for mark, reason in (read_json(file).get("marks") or {}).items():
        if mark in HANDED_ON:
            found.setdefault(mark, f"its first weights are of {start}: {reason}")
    return found


def scaled_keys(paper: Mapping[str, Any]) -> dict[str, Any]:
    """KEY -> value that the budget of a run lays over its row of a table; empty in full."""
    row, budget = paper.get("row"), paper.get("budget", "full")
    return budget_of(paper, row, budget) if row and budget != "full" else {}


def budget_of(paper: Mapping[str, Any], row: str, budget: str) -> dict[str, Any]:
    """KEY -> value that a budget lays over a row of a table, or over a run that rows start from."""
    if row.startswith(BEFORE):
        nodes = [paper["before"][row.removeprefix(BEFORE)]]
    else:
        own = (one for one in paper["rows"] if row in (one.get("group"), one["label"]))
        nodes = [paper, *own]
    scaled: dict[str, Any] = {}
    for node in nodes:
        scaled |= (node.get("budgets") or {}).get(budget) or {}
    return scaled
