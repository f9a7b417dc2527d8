"""How often the 95% intervals of score/intervals.py hold the true value.

    python -m benchmarks.intervals [--rounds 400]

Data are drawn from known distributions: labels at a prevalence (two classes) or of five classes,
even or uneven; predicted classes with a recall that is the same for every class; scores of two
normal distributions for the AUC. Grouped data are of patients with four images each, whose errors
are alike (an intraclass correlation of a half). Prints a table for benchmarks/RESULTS.md: the
lowest coverage of each metric at each n, over all prevalences and true values, and every case
below 93%.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

from medexp.score.metrics import of_confusion, score

SIZES = (24, 50, 100, 500)
PREVALENCES = (0.1, 0.25, 0.5)
TRUE = (0.7, 0.8, 0.9, 0.95, 0.99)
UNEVEN = (0.5, 0.2, 0.15, 0.1, 0.05)
ALIKE = 4  # images of a patient
KEYS = ("accuracy", "recall_binary", "precision_binary", "specificity_binary", "f1_binary")
MEANS = ("kappa", "geometric_mean", "recall_macro", "precision_macro", "f1_macro", "f1_weighted")


def cases() -> Iterator[dict[str, Any]]:
    """Every kind of data: its name, n, shares of the classes, true value, images of a patient."""
    for n, true in product(SIZES, TRUE):
        for prevalence in PREVALENCES:
            shares = (1 - prevalence, prevalence)
            for kind in ("classes", "auc"):
                yield {"kind": kind, "n": n, "shares": shares, "true": true, "alike": 1}
        for shares in ((0.2,) * 5, UNEVEN):
            yield {"kind": "five classes", "n": n, "shares": shares, "true": true, "alike": 1}
        if n >= 100:  # 25 patients and more
            for kind in ("classes", "auc"):
                yield {"kind": kind, "n": n, "shares": (0.5, 0.5), "true": true, "alike": ALIKE}


def coverage(case: dict[str, Any], rounds: int) -> dict[str, float]:
    """Metric -> share of the rounds whose interval holds the true value."""
    rng = np.random.default_rng([case["n"], int(100 * case["true"]), len(case["shares"])])
    held: dict[str, list[bool]] = defaultdict(list)
    truth = true_values(case)
    for number in range(rounds):
        y, p, groups = drawn(case, rng)
        if len(np.unique(y)) < len(case["shares"]):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = [str(c) for c in range(len(case["shares"]))]
            scored = score(y, p, names, resamples=400, seed=number, groups=groups)
        for key, value in truth.items():
            low, high = scored["ci95"][key]
            held[key].append(low <= value <= high)
    return {key: float(np.mean(values)) for key, values in held.items() if len(values) > 50}


def true_values(case: dict[str, Any]) -> dict[str, float]:
    shares, true = np.array(case["shares"]), case["true"]
    if case["kind"] == "auc":
        return {"auc_binary": true}
    classes = len(shares)
    recall = np.full((classes, classes), (1 - true) / (classes - 1))
    np.fill_diagonal(recall, true)
    scalars, _ = of_confusion((shares[:, None] * recall)[None])
    return {key: float(scalars[key][0]) for key in (*KEYS, *MEANS) if key in scalars}


def drawn(
    case: dict[str, Any], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """labels (N,), probabilities (N, C), patients (N,) or None."""
    shares, true, alike = case["shares"], case["true"], case["alike"]
    count = case["n"] // alike
    y = np.repeat(rng.choice(len(shares), size=count, p=shares), alike)
    groups = None if alike == 1 else np.repeat(np.arange(count), alike)
    own = rng.normal(size=len(y))
    if alike > 1:  # half of the variance is the patient's
        own = (own + np.repeat(rng.normal(size=count), alike)) / np.sqrt(2)
    if case["kind"] == "auc":
        x = norm.cdf(own + np.sqrt(2) * norm.ppf(true) * y)
        return y, np.stack([1 - x, x], axis=1), groups
    right = own < norm.ppf(true)
    wrong = (y + rng.integers(1, len(shares), size=len(y))) % len(shares)
    predicted = np.where(right, y, wrong)
    p = np.full((len(y), len(shares)), 0.1 / (len(shares) - 1))
    p[np.arange(len(y)), predicted] = 0.9
    return y, p, groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    every = list(cases())
    found = Parallel(n_jobs=-1)(delayed(coverage)(case, rounds) for case in every)
    lowest: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    low = []
    for case, held in zip(every, found, strict=True):
        kind = f"{len(case['shares'])} classes" + (", patients" if case["alike"] > 1 else "")
        for key, share in held.items():
            row = lowest[kind, key]
            row[case["n"]] = min(share, row.get(case["n"], 1.0))
            if share < 0.93:
                low.append(
                    f"{key}, {kind}, n {case['n']}, {case['shares']}, {case['true']}: {share:.3f}"
                )
    print("| data | metric |", " | ".join(f"n = {n}" for n in SIZES), "|")
    print("|---|---|" + "---|" * len(SIZES))
    for (kind, key), row in lowest.items():
        cells = (f"{row[n]:.3f}" if n in row else "" for n in SIZES)
        print(f"| {kind} | {key} |", " | ".join(cells), "|")
    print(f"\n{len(low)} of {sum(map(len, found))} cases below 0.93 ({rounds} rounds each):")
    print("\n".join(low))


if __name__ == "__main__":
    main()
