"""One run on several devices: what two processes on two cores gain, and what the exchange costs.

    python benchmarks/devices.py [--models native3 ldct_m4] [--batch 32] [--rounds 3]

Training images a second, from history.csv without the first epoch, of small phantoms in float32:
one process with a thread; one with a thread a core; `trainer.devices` processes, a core each, with
BatchNorm's statistics apart and synchronised; and as many runs at once that have nothing to do with
each other, of a share of the batch each, which is what no exchange would give. The ways take turns,
and the medians are printed, as Markdown.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# How a model is fed: a data set whose phantoms are small.
DATA = {"ldct": ("dataset=ldct", "source.size=128", "dataset.size=64", "augment=none")}
WAYS = ("1 process, 1 thread", "1 process, all cores", "shared", "synchronised", "apart")


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medexp", "train", "source=phantom", *words]
    command += ["trainer.device=cpu", "trainer.amp=off", "trainer.resamples=0"]
    command += ["trainer.monitor=val_loss", f"hydra.run.dir={folder}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rate_of(folder: Path) -> float:
    """Images a second of a run, the median of its epochs behind the first."""
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return statistics.median(float(row["images_per_s"]) for row in rows[1:])


def measure(way: str, words: Sequence[str], batch: int, cores: int, folder: Path) -> float:
    shared = f"trainer.devices={cores}"
    options = {
        WAYS[0]: (["trainer.threads=1"], batch, 1),
        WAYS[1]: ([f"trainer.threads={cores}"], batch, 1),
        WAYS[2]: ([shared, "trainer.threads=1"], batch, 1),
        WAYS[3]: ([shared, "trainer.threads=1", "trainer.sync_batchnorm=true"], batch, 1),
        WAYS[4]: (["trainer.threads=1"], batch // cores, cores),
    }
    more, size, runs = options[way]
    folders = [folder / str(run) for run in range(runs)]
    begun = [start(one, *words, *more, f"trainer.batch_size={size}") for one in folders]
    if any([process.wait() for process in begun]):
        raise SystemExit(f"{way}: a run failed, see {folder}")
    return sum(map(rate_of, folders))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["native3", "ldct_m4"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"| network | {' | '.join(WAYS)} | gain over all cores | ms a step for the exchange |")
    print("| --- |" + " ---: |" * (len(WAYS) + 2))
    for model in asked.models:
        words = [f"model={model}", f"trainer.epochs={asked.epochs}"]
        words += DATA.get(model.split("_")[0], ("source.size=1024",))
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way in WAYS:
                with tempfile.TemporaryDirectory() as folder:
                    rates[way].append(measure(way, words, asked.batch, cores, Path(folder)))
        medians = {way: statistics.median(found) for way, found in rates.items()}
        gain = medians["shared"] / medians[WAYS[1]]
        cost = 1e3 * asked.batch * (1 / medians["shared"] - 1 / medians["apart"])
        cells = [f"{rate:,.0f}" for rate in medians.values()]
        print(f"| {model} | {' | '.join(cells)} | {gain:.2f} | {cost:.1f} |", flush=True)


if __name__ == "__main__":
    main()
