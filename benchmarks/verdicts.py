"""How often an exact replication of a paper's number is called different.

    python -m benchmarks.verdicts [--rounds 2000]

The paper's run and ours are draws of one lottery: each has a true accuracy that varies from seed to
seed by a standard deviation, and is scored on n test images; our seeds share theirs, so that half
of the variance of their errors is common. The paper's number is printed with two digits of percent.
Prints a table for benchmarks/RESULTS.md: the share of verdicts `differs`, the highest over the true
accuracies .7, .9 and .98. A single run does not tell what seeds do: there the verdict grants it
SINGLE_RUN or the error of its images, and keeps its rate for seeds that vary by less.
"""

import argparse

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

from medexp.score.intervals import share_interval
from medexp.score.verdict import Ours, compare

RUNS = (1, 2, 3, 5, 10)
SIZES = (24, 50, 149, 500, 1673, 2121)
SPREADS = (0.0, 0.005, 0.015, 0.03)
TRUE = (0.7, 0.9, 0.98)


def rate(n: int, runs: int, spread: float, rounds: int) -> float:
    """The highest share of `differs` over the true accuracies."""
    rng = np.random.default_rng([n, runs, int(1e4 * spread)])
    return max(
        float(np.mean([one(n, runs, spread, true, rng) for _ in range(rounds)])) for true in TRUE
    )


def one(n: int, runs: int, spread: float, true: float, rng: np.random.Generator) -> bool:
    def level() -> float:
        return float(np.clip(true + rng.normal(0, spread), 1e-3, 1 - 1e-3))

    reported = rng.binomial(n, level()) / n
    hard = rng.normal(size=n)  # how hard each of our images is
    scores = []
    for _ in range(runs):
        own = (hard + rng.normal(size=n)) / np.sqrt(2)
        scores.append(float((own < norm.ppf(level())).mean()))
    mean = float(np.mean(scores))
    ends = [share_interval(score * n, n) for score in scores]
    below = float(np.mean([score - low for score, (low, _) in zip(scores, ends, strict=True)]))
    above = float(np.mean([high - score for score, (_, high) in zip(scores, ends, strict=True)]))
    sd = float(np.std(scores, ddof=1)) if runs > 1 else None
    ours = Ours(mean, (mean - below, mean + above), n, runs, sd)
    text = f"{100 * reported:.2f}"
    return compare(text, ours, "accuracy", scale=100, images=n).verdict == "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    places = [(spread, n, runs) for spread in SPREADS for n in SIZES for runs in RUNS]
    found = Parallel(n_jobs=-1)(
        delayed(rate)(n, runs, spread, rounds) for spread, n, runs in places
    )
    rates = dict(zip(places, found, strict=True))
    print(
        "| sd over seeds | n |", " | ".join(f"{runs} run{'s' * (runs > 1)}" for runs in RUNS), "|"
    )
    print("|---|---|" + "---|" * len(RUNS))
    for spread in SPREADS:
        for n in SIZES:
            cells = (f"{rates[spread, n, runs]:.3f}" for runs in RUNS)
            print(f"| {spread:g} | {n:,} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
