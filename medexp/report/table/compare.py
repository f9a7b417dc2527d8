"""Pairs of runs that were scored on the same images, for tables and pages."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from medexp.report.table.entries import run_labels, run_names
from medexp.report.table.load import Predictions, Run, groups_of, read_predictions
from medexp.report.table.repeats import Repeats, arranged, find_repeats, scores
from medexp.report.table.sweeps import leading
from medexp.score.comparisons import Areas, delong, holm, mcnemar
from medexp.score.metrics import predict

NOTES = (
    "Difference of AUC: DeLong et al. (1988), with a 95% interval; of accuracy: McNemar's exact"
    " test. Images of one patient or slide count together where split.csv knows them (Obuchowski"
    " 1997; Durkalski et al. 2003). Neither says anything of the chance in training.",
    "p (Holm): adjusted for all pairs here, each test by itself (Holm 1979).",
    "Where runs differ in seed or fold alone, the first of them is compared; of more than 12 runs"
    " of a data set, the 12 best by validation.",
)

_STATISTICS = (
    "images", "auc_a", "auc_b", "auc_difference", "auc_low", "auc_high", "auc_p", "auc_p_holm",
    "accuracy_a", "accuracy_b", "accuracy_difference", "both_right", "only_a_right",
    "only_b_right", "both_wrong", "mcnemar_p", "mcnemar_p_holm",
)  # fmt: skip


# ---------------------------------------------------------------- runs


def compare_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every pair of scored runs of one data set, as a flat JSON-ready mapping; NOTES explain it.

    Of runs that differ in seed or fold alone the first scored one is compared, and of more than 12
    of a data set the 12 best by validation (`sweeps.leading`). A pair that was not scored on the
    same images has a `reason`, and no statistic; of more than two classes the AUC is not compared.
    Runs of different data sets are no pair.
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    names = run_names(runs, labels)
    by_dataset: dict[str, list[Run]] = {}
    for one in arranged(runs, groups):
        run = one.scored[0] if isinstance(one, Repeats) else one
        if scores(run):
            by_dataset.setdefault(run.dataset, []).append(run)
    pairs = []
    for found in by_dataset.values():
        kept, _ = leading(found)
        read = {run.path: _predictions(run) for run in kept}
        pairs += [_pair(a, b, names, read[a.path], read[b.path]) for a, b in combinations(kept, 2)]
    for key in ("auc_p", "mcnemar_p"):
        for pair, p in zip(pairs, holm([pair[key] for pair in pairs]), strict=True):
            pair[f"{key}_holm"] = p
    return pairs


def _predictions(run: Run) -> Predictions | None:
    path = run.path / "predictions.csv"
    return read_predictions(path).get(run.split) if path.is_file() else None


def _pair(
    a: Run,
    b: Run,
    names: Mapping[Path, str],
    read_a: Predictions | None,
    read_b: Predictions | None,
) -> dict[str, Any]:
    reason = _reason(a, b, read_a, read_b)
    facts: dict[str, Any] = {
        "dataset": a.dataset,
        "split": a.split,
        "a": names[a.path],
        "b": names[b.path],
        "marks_a": ", ".join(a.marks),
        "marks_b": ", ".join(b.marks),
    }
    if read_a is None or read_b is None or reason:
        return facts | dict.fromkeys(_STATISTICS) | {"reason": reason}
    # The same images may stand in another order.
    place = {name: i for i, name in enumerate(read_b.ids)}
    labels, p = read_a.labels, read_a.probabilities
    q = read_b.probabilities[[place[name] for name in read_a.ids]]
    groups = groups_of(a.path, a.split, read_a.ids)
    areas = delong(labels, p[:, 1], q[:, 1], groups) if p.shape[1] == 2 else Areas()
    table, count = mcnemar(labels, predict(p), predict(q), groups), len(labels)
    low, high = areas.interval or (None, None)
    found = {
        "images": count,
        "auc_a": areas.a,
        "auc_b": areas.b,
        "auc_difference": areas.difference,
        "auc_low": low,
        "auc_high": high,
        "auc_p": areas.p,
        "accuracy_a": (table.both + table.only_a) / count,
        "accuracy_b": (table.both + table.only_b) / count,
        "accuracy_difference": (table.only_a - table.only_b) / count,
        "both_right": table.both,
        "only_a_right": table.only_a,
        "only_b_right": table.only_b,
        "both_wrong": table.neither,
        "mcnemar_p": table.p,
    }
    return facts | {key: found.get(key) for key in _STATISTICS} | {"reason": None}


def _reason(a: Run, b: Run, read_a: Predictions | None, read_b: Predictions | None) -> str | None:
    """Why two runs cannot be compared; None if they can."""
    if a.split != b.split:
        return f"scored on different splits: {a.split} and {b.split}"
    if (a.metrics or {}).get("classes") != (b.metrics or {}).get("classes"):
        return "different classes"
    if read_a is None or read_b is None:
        return f"no predictions of the {a.split} split"
    ids_a, ids_b = set(read_a.ids), set(read_b.ids)
    if len(ids_a) < len(read_a.ids) or len(ids_b) < len(read_b.ids):
        return "images without an id of their own"
    if ids_a != ids_b:
        return (
            f"different images: {len(ids_a):,} and {len(ids_b):,}, {len(ids_a & ids_b):,} in both"
        )
    if dict(zip(*read_a[:2], strict=True)) != dict(zip(*read_b[:2], strict=True)):
        return "different labels of the same images"
    return None
