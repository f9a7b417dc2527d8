"""How long until the first step, and how much memory a run of N patches takes.

    python benchmarks/startup_and_memory.py [--patches 8192 65536]

Startup: wall time of `medexp --help` and of a run's command line to its first trained batch
(warm phantom cache; a run of one epoch on 64 patches is timed to the end of that epoch, which
bounds it from above). Memory: random patches in PCam's HDF5 layout, one epoch, evaluation and
report included; the peak resident set of the process beside 1.5 x the uint8 bytes + 1.5 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

MEDEXP = [sys.executable, "-m", "medexp"]


def write_random(folder: Path, n: int) -> int:
    """PCam's six files with n training patches; returns the bytes of all images."""
    rng, total = np.random.default_rng(0), 0
    for part, count in (("train", n), ("valid", n // 8), ("test", n // 8)):
        stem = folder / f"camelyonpatch_level_2_split_{part}"
        with h5py.File(f"{stem}_x.h5", "w") as file:
            x = file.create_dataset("x", (count, 96, 96, 3), "uint8", chunks=(64, 96, 96, 3))
            for start in range(0, count, 4096):
                stop = min(start + 4096, count)
                x[start:stop] = rng.integers(0, 256, (stop - start, 96, 96, 3), np.uint8)
            total += x.nbytes
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
    return total


def timed(arguments: list[str], folder: str, until: str | None = None) -> tuple[float, int]:
    """Seconds until `until` shows on stderr (else until the end), and the peak RSS in bytes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*MEDEXP, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seconds, said = None, []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if until and until in line and seconds is None:
            seconds = time.perf_counter() - began
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("".join(said))
    return seconds or time.perf_counter() - began, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, nargs="+", default=[8192, 65536])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = ["train", "source=phantom", "source.size=64", "trainer.epochs=1"]
        timed(small, folder)
        for name, arguments, until in (
            ("medexp --help", ["--help"], None),
            ("first epoch of 64 patches done", small, "epoch 1/1"),
        ):
            seconds = sorted(timed(arguments, folder, until)[0] for _ in range(options.rounds))
            print(f"{name}: {seconds[len(seconds) // 2]:.2f} s (median of {options.rounds})")
    for n in options.patches:
        with tempfile.TemporaryDirectory() as folder:
            size = write_random(Path(folder), n)
            run = ["train", f"dataset.root={folder}", "trainer.epochs=1", "trainer.resamples=100"]
            seconds, peak = timed(run, folder)
            limit = 1.5 * size + 1.5e9
            print(
                f"{n:,} training patches: images {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, "
                f"limit {limit / 1e9:.2f} GB, {peak / limit:.0%} of it, {seconds:.0f} s in all"
            )


if __name__ == "__main__":
    main()
