"""Repeats: runs of one experiment that differ in nothing but their seed or their fold.

Over seeds the images stay the same: standard deviation and interval are of the chance in training.
Over folds the test parts are disjoint and the training sets overlap, so that the scores are not
independent and a plain t interval is too narrow; no unbiased estimate of their variance exists
(Bengio & Grandvalet 2004). Folds get the corrected variance of Nadeau & Bengio (2003), "Inference
for the generalization error", Machine Learning 52, section 3: (1/n + n_test/n_train) sd^2.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medexp.report.table.load import Predictions, Run, read_predictions
from medexp.score.intervals import Mean, mean_of
from medexp.score.metrics import bounds, value_at

# Keys of a config that decide no number, or name the run that an evaluation is of.
_NO_NUMBER = ("resume", "debug", "explain", "run", "plot_schedule", "plot_augment")

SEEDS = (
    "mean of n (sd): over runs that differ in their seed alone, with the standard deviation of"
    " n - 1. Their 95% interval is Student's t over the runs, cut where the metric ends: it"
    " covers the chance in training, not that of the test images, which stay the same."
)
FOLDS = (
    "mean of n (sd): over folds, whose test parts are disjoint, with the standard deviation of"
    " n - 1. Their training sets overlap, which makes a plain t interval too narrow: their 95%"
    " interval (cut where the metric ends) has the variance of Nadeau & Bengio (2003),"
    " (1/n + test images/other images) sd²."
)
SEEDS_OF_FOLDS = "Seeds of one fold are averaged before the mean over the folds is taken."
POOLED = (
    "pooled: every image of the data, scored by the run that was not trained on it; its AUC"
    " compares probabilities of different networks (Forman & Scholz 2010)."
)


class Folds(NamedTuple):
    """overlap: n_test / n_train, None where unknown; complete: every image is in one test part."""

    overlap: float | None
    complete: bool


@dataclass(frozen=True)
class Repeats:
    """Two or more scored runs of one experiment, and those of it that have no scores."""

    runs: tuple[Run, ...]

    @cached_property
    def scored(self) -> tuple[Run, ...]:
        """The runs that count: of the scored ones of the same seed and fold the last."""
        last = {_place(run): run for run in self.runs if run.metrics is not None}
        return tuple(last.values())

    @property
    def of_folds(self) -> bool:
        return len({fold_of(run) for run in self.scored}) > 1

    @property
    def units(self) -> list[list[Run]]:
        """What the mean is over: the runs of each fold, or else each run."""
        if not self.of_folds:
            return [[run] for run in self.scored]
        folds: dict[Any, list[Run]] = {}
        for run in self.scored:
            folds.setdefault(fold_of(run), []).append(run)
        return list(folds.values())

    @property
    def marks(self) -> dict[str, str]:
        """All that any of the runs is marked with."""
        return {mark: reason for run in self.runs for mark, reason in run.marks.items()}

    @property
    def state(self) -> str:
        """`done`, or how many of the seeds and folds are."""
        places = {_place(run) for run in self.runs}
        done = len(self.scored)
        return "done" if done == len(places) else f"{done} of {len(places)} done"

    @property
    def title(self) -> str:
        """`mean of 5 seeds (sd)` and the like."""
        count = len(self.units)
        text = f"mean of {count} {'folds' if self.of_folds else 'seeds'}"
        if self.state != "done":
            text += f", {self.state}"
        elif count < len(self.scored):
            text += f", {len(self.scored)} runs"
        return f"{text} (sd)"

    def words(self, run: Run) -> list[str]:
        """What tells a member from the others, as on the command line."""
        seeds, folds = ({place[i] for place in map(_place, self.runs)} for i in (0, 1))
        found = [f"seed={run.config['seed']}"] if len(seeds) > 1 else []
        return found + ([f"dataset.fold={fold_of(run)}"] if len(folds) > 1 else [])

    def mean(self, metric: str, split: str | None = None) -> Mean | None:
        """Of a key of `metrics.value_at`, on their own split or another; None where undefined."""
        values: list[float] = []
        for unit in self.units:
            found = [value_at(scores(run, split), metric) for run in unit]
            if None in found:
                return None
            values.append(float(np.mean(np.array(found, np.float64))))
        # How far the training sets of folds overlap is known for the part that they are scored on.
        overlap = self.folds.overlap if split is None else None
        return mean_of(values, overlap if self.of_folds else 0.0, bounds(metric))

    @property
    def folds(self) -> Folds:
        """What the lists of images (split.csv) say of the folds."""
        run = self.scored[0]
        return _folds(tuple(unit[0].path.resolve() for unit in self.units), run.split)

    def pooled(self) -> list[tuple[str, dict[str, Any]]]:
        """Title and scores over all out-of-fold predictions, for each seed that has all folds."""
        if not self.of_folds or not self.folds.complete:
            return []
        found = []
        for seed in dict.fromkeys(run.config["seed"] for run in self.scored):
            runs = [run for run in self.scored if run.config["seed"] == seed]
            alone = len(runs) == len(self.scored)
            if len(runs) == len(self.units) and all(map(_predictions, runs)):
                title = f"pooled over {len(runs)} folds" + ("" if alone else f", seed={seed}")
                found.append((title, _score(tuple(run.path.resolve() for run in runs))))
        return found

    def notes(self, label: str) -> list[str]:
        """What is particular of these runs."""
        found = []
        without = [run for run in self.runs if run.metrics is None]
        if without:
            names = ", ".join(" ".join([*self.words(run), run.state]) for run in without)
            found.append(f"{label}: not in the mean, without scores: {names}.")
        for run in self.scored:
            same = [other for other in self.runs if _place(other) == _place(run)]
            if sum(other.metrics is not None for other in same) > 1:
                words = " ".join(self.words(run))
                found.append(f"{label}: {words} is here more than once; the mean takes {run.path}.")
        if self.of_folds and self.folds.overlap is None:
            found.append(f"{label}: no interval, as a run of it has no split.csv.")
        elif self.of_folds and not self.folds.complete:
            found.append(f"{label}: no pooled score, as these folds do not cover the data.")
        return found


def find_repeats(runs: Sequence[Run]) -> list[Repeats]:
    """The groups among the runs of which two or more with another seed or fold are scored.

    Runs are alike if their configs are, but for `seed`, `dataset.fold` and what decides no number.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        if "seed" in run.config:
            alike.setdefault(_identity(run), []).append(run)
    groups = [Repeats(tuple(members)) for members in alike.values()]
    return [group for group in groups if len(group.units) > 1]


def arranged(runs: Sequence[Run], groups: Sequence[Repeats]) -> list[Run | Repeats]:
    """The runs in order, a group of repeats in the place of its first member."""
    group_of = {run.path: group for group in groups for run in group.runs}
    entries = {id(entry): entry for run in runs for entry in [group_of.get(run.path, run)]}
    return list(entries.values())


def notes(groups: Sequence[Repeats], labels: dict[Path, str]) -> list[str]:
    """The footnotes of a table with these groups."""
    kinds = {group.of_folds for group in groups}
    crossed = any(len(group.units) < len(group.scored) for group in groups)
    pooled = any(group.pooled() for group in groups)
    return [
        *(note for group in groups for note in group.notes(group_label(group, labels))),
        *([SEEDS] if False in kinds else []),
        *([FOLDS] if True in kinds else []),
        *([SEEDS_OF_FOLDS] if crossed else []),
        *([POOLED] if pooled else []),
    ]


def group_label(group: Repeats, labels: dict[Path, str]) -> str:
    """The words that the labels of all members have in common."""
    words = [labels[run.path].split() for run in group.runs]
    common = set(words[0]).intersection(*words[1:])
    return " ".join(word for word in words[0] if word in common)


def scores(run: Run, split: str | None = None) -> dict[str, Any]:
    """What the run scored, on its own split unless another is asked for; empty if nothing."""
    return (run.metrics or {}).get(split or run.split) or {}


def fold_of(run: Run) -> int | None:
    fold: int | None = (run.config.get("dataset") or {}).get("fold")
    return fold


def _place(run: Run) -> tuple[Any, int | None]:
    return run.config["seed"], fold_of(run)


def _identity(run: Run) -> str:
    config = {k: v for k, v in run.config.items() if k not in (*_NO_NUMBER, "seed")}
    dataset = dict(config.get("dataset") or {})
    dataset["fold"] = dataset.get("fold") is not None  # no fold is another kind of split
    if (paper := config.get("paper")) and paper.get("row") is not None:
        config.pop("init_from", None)  # follows from the row and the seed
        config["paper"] = {key: value for key, value in paper.items() if key != "only"}
    # An evaluation has keys of its own (split, tta), and so is no repeat of a run.
    facts = [config | {"dataset": dataset}, run.dataset, run.model]
    return json.dumps(facts, sort_keys=True, default=str)


def _predictions(run: Run) -> bool:
    return (run.path / "predictions.csv").is_file()


# A table, its CSV and the terminal ask in turn; finished runs do not change.
@lru_cache(maxsize=16)
def _folds(paths: tuple[Path, ...], part: str) -> Folds:
    """What runs of different folds say of their images: `part` is the one that they are scored on.

    The other images are the training and the validation part, so that of k equal folds the overlap
    is 1 / (k - 1); images that dataset.max_train left out of training count as well.
    """
    tests, images = [], set()
    for path in paths:
        if not (path / "split.csv").is_file():
            return Folds(None, complete=False)
        with (path / "split.csv").open(newline="", encoding="utf-8") as file:
            rows = [(row["id"], row["split"]) for row in csv.DictReader(file)]
        tests.append({name for name, split in rows if split == part})
        images |= {name for name, _ in rows}
    sizes = [len(test) for test in tests]
    complete = sum(sizes) == len(images) == len(set.union(*tests))
    if max(sizes) == len(images):
        return Folds(None, complete=False)
    return Folds(float(np.mean([n / (len(images) - n) for n in sizes])), complete)


@lru_cache(maxsize=16)
def _score(paths: tuple[Path, ...]) -> dict[str, Any]:
    """`metrics.score` of the predictions of several runs together, as the first was scored."""
    from medexp.report.table.load import groups_of, load_run
    from medexp.score.metrics import score

    first = load_run(paths[0])
    read: list[Predictions] = [
        read_predictions(path / "predictions.csv")[first.split] for path in paths
    ]
    groups = [groups_of(path, first.split, one.ids) for path, one in zip(paths, read, strict=True)]
    known = [one for one in groups if one is not None]
    as_before = scores(first)
    return score(
        np.concatenate([one.labels for one in read]),
        np.concatenate([one.probabilities for one in read]),
        (first.metrics or {})["classes"],
        resamples=as_before.get("ci_resamples", 1000),
        seed=as_before.get("ci_seed", 0),
        groups=np.concatenate(known) if len(known) == len(groups) else None,
    )
