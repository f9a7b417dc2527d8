"""Is the accuracy the same however a step is computed? Seeds of native3 on the PCam phantoms.

    python benchmarks/same_accuracy.py [--seeds 5] [--epochs 12] [--jobs 2] [--ways fp32 bf16]

Each way is a sweep over the seeds, whose runs have the same images, initial weights, order and
augmentation. Prints Markdown: mean test accuracy and AUC, and the mean difference to the first way
with Student's 95% interval of the paired runs. `graphs` and `fp16` need a GPU; with --jobs 1 the
runs are one after another.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

WAYS = {
    "fp32": ["trainer.amp=off", "trainer.graphs=off"],
    "bf16": ["trainer.amp=bf16", "trainer.graphs=off"],
    "fp16": ["trainer.amp=fp16"],
    "compile": ["trainer.amp=bf16", "trainer.compile=true"],
    "graphs": ["trainer.amp=bf16", "trainer.graphs=on"],
}


def scores(
    way: str, given: argparse.Namespace, folder: Path, more: Sequence[str] = ()
) -> np.ndarray:
    """(seeds, 2): test accuracy and AUC; more: of the command line."""
    out = folder / way
    words = ["source=phantom", f"trainer.epochs={given.epochs}", "trainer.resamples=0"]
    words += [f"seed={','.join(map(str, range(given.seeds)))}", f"hydra.sweep.dir={out}"]
    if given.jobs > 1:
        words += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={given.jobs}"]
        words += ["trainer.threads=1"]
    command = [sys.executable, "-m", "medexp", "train", "-m", *words, *WAYS[way], *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = sorted(out.glob("*/metrics.json"), key=lambda path: int(path.parent.name.split("-")[0]))
    tests = [json.loads(path.read_text())["test"] for path in found]
    return np.array([[test["accuracy"], test["auc_binary"]] for test in tests])


def interval(differences: np.ndarray) -> str:
    mean, error = differences.mean(), stats.sem(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * error
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=["fp32", "bf16", "compile"]
    )
    given = parser.parse_args()
    print("| way | accuracy | AUC | accuracy - first | AUC - first |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for way in given.ways:
            own = scores(way, given, Path(folder))
            first = own if first is None else first
            cells = [f"{value:.4f}" for value in own.mean(0)]
            if way != given.ways[0]:
                cells += [interval(column) for column in (own - first).T]
            print(f"| {way} | {' | '.join([*cells, '', ''][:4])} |", flush=True)


if __name__ == "__main__":
    main()
