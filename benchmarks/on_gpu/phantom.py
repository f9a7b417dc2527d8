"""`medexp train source=phantom` as in `make demo`, on the GPU and on the CPU: the same accuracy?"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.on_gpu.figures import attempt, note
from benchmarks.on_gpu.sizes import DEVICE, EPOCHS, PHANTOMS

STEP = "phantom"


def main() -> None:
    folder = Path(os.environ.get("WORK", ".")).absolute()
    tests = {}
    for name, device in (("here", str(DEVICE)), ("cpu", "cpu")):
        with attempt(STEP, f"{name}: run"):
            out = folder / name
            seconds = run(out, f"trainer.epochs={EPOCHS}", f"trainer.device={device}")
            tests[name] = json.loads((out / "metrics.json").read_text())["test"]
            written = ", phantoms written" if name == "here" else ""
            note(STEP, f"{name}: the command, {EPOCHS} epochs{written}", seconds, "s")
            note(STEP, f"{name}: an epoch", epoch_seconds(out), "s")
            note(STEP, f"{name}: test accuracy", tests[name]["accuracy"])
            note(STEP, f"{name}: test AUC", tests[name]["auc_binary"])
            note(STEP, f"{name}: steps", said_of_graphs((out / "run.log").read_text()))
    if len(tests) == 2:
        off = abs(tests["here"]["auc_binary"] - tests["cpu"]["auc_binary"])
        note(STEP, "difference of AUC to the CPU", off, goal="<= 0.03")


def run(out: Path, *words: str) -> float:
    """Wall seconds of the command. Raises RuntimeError with its last line where it fails."""
    command = [sys.executable, "-m", "medexp", "train", "dataset=pcam", "model=native3"]
    command += ["source=phantom", f"source.size={PHANTOMS}", "trainer.resamples=0"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, f"hydra.run.dir={out}", *words], cwd=out.parent, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr)
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
    return time.perf_counter() - began


def epoch_seconds(out: Path) -> float:
    """The median epoch, training and validation; the first, which tunes, counts only alone."""
    with (out / "history.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    ordered = sorted(seconds[1:] or seconds)
    return ordered[len(ordered) // 2]


def said_of_graphs(log: str) -> str:
    """What run.log says of CUDA graphs."""
    lines = [line for line in log.splitlines() if "CUDA graph" in line]
    return "; ".join(line.partition("INFO ")[2] for line in lines) or "plain, nothing said"


if __name__ == "__main__":
    main()
