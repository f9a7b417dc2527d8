"""Accuracy over the seeds in fp32, bf16, fp16, by graphs, compiled: the ways beside each other."""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from benchmarks.on_gpu.figures import attempt, note
from benchmarks.on_gpu.sizes import DEVICE, EPOCHS, PHANTOMS, SEEDS
from benchmarks.same_accuracy import WAYS, interval, scores

STEP = "accuracy"


def main() -> None:
    folder = Path(os.environ.get("WORK", ".")).absolute() / "ways"
    folder.mkdir(exist_ok=True)
    given = argparse.Namespace(seeds=SEEDS, epochs=EPOCHS, jobs=1)
    words = [f"source.size={PHANTOMS}", f"trainer.device={DEVICE}", "trainer.threads=2"]
    ways = [way for way in WAYS if DEVICE.type == "cuda" or way in ("fp32", "bf16")]
    found: dict[str, np.ndarray] = {}
    # Each way is a process of its own, and accuracy is no matter of time: so all at once.
    with ThreadPoolExecutor(len(ways)) as pool:
        running = {pool.submit(scores, way, given, folder, words): way for way in ways}
        for done in as_completed(running):
            way = running[done]
            with attempt(STEP, way):
                found[way] = done.result()
                note(STEP, f"{way}: accuracy, {SEEDS} seeds", float(found[way][:, 0].mean()))
                note(STEP, f"{way}: AUC, {SEEDS} seeds", float(found[way][:, 1].mean()))
                compare(found, way)


def compare(found: dict[str, np.ndarray], latest: str) -> None:
    """The differences to fp32 that are known now and were not before `latest` was."""
    for way in found if latest == "fp32" else [latest]:
        if way != "fp32" and "fp32" in found:
            for name, column in zip(
                ("accuracy", "AUC"), (found[way] - found["fp32"]).T, strict=True
            ):
                note(STEP, f"{way}: {name} - fp32, 95% interval", interval(column))


if __name__ == "__main__":
    main()
