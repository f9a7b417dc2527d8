"""Decoding once and reading from the cache, beside a plain loop with the same libraries.

    python benchmarks/data_cache.py [--rounds 3] [all cervix tbt ...]

For each data set's phantoms, interleaved over several rounds: images/s of (a) a plain loop in one
process that decodes image after image into a list, (b) medexp's build of the cache, checks and
digests of the files included, (c) an epoch in random order that decodes every image again, as a
data loader without a cache does, in as many threads as there are cores, (d) the same epoch from the
cache. Ratios are medians over the rounds of b/a and d/c.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BATCH = 32
SIZES = {"pcam": 4000, "pcam_kaggle": 2000, "ldct": 2000, "all": 300, "cervix": 200, "tbt": 16,
         "ucf50": 32, "image_folder": 1000}  # fmt: skip
SMALLER = {"ucf50": ["dataset.size=112"]}  # the full clips take 5 GB a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["MEDEXP_CACHE"] = cache = tempfile.mkdtemp(prefix="medexp-bench-")
    try:
        print(f"{len(os.sched_getaffinity(0))} cores, {given.rounds} rounds, medians; images/s")
        titles = ("loop", "build", "ratio", "decode", "cache", "ratio")
        print(f"{'data set':14}" + "".join(f"{title:>10}" for title in titles))
        for name in given.names:
            measure(name, given.rounds)
    finally:
        shutil.rmtree(cache)


def measure(name: str, rounds: int) -> None:
    from medexp.config.compose import compose
    from medexp.data.cache import cache_dir
    from medexp.data.load import load_pool

    overrides = [f"dataset={name}", "source=phantom", f"source.size={SIZES[name]}"]
    settings = compose(overrides + SMALLER.get(name, []))
    load_pool(settings)  # writes the phantoms
    found: dict[str, list[float]] = {"loop": [], "build": [], "decode": [], "cache": []}
    for number in range(rounds):
        for part in ("arrays", "digests"):
            shutil.rmtree(cache_dir() / part, ignore_errors=True)
        for key, value in one_round(load_pool(settings), number).items():
            found[key].append(value)
    middle = {key: statistics.median(values) for key, values in found.items()}
    build = statistics.median(b / a for a, b in zip(found["loop"], found["build"], strict=True))
    cache = statistics.median(b / a for a, b in zip(found["decode"], found["cache"], strict=True))
    cells = (middle["loop"], middle["build"], build, middle["decode"], middle["cache"], cache)
    print(f"{name:14}" + "".join(f"{value:10,.2f}" for value in cells), flush=True)


def one_round(pool, number: int) -> dict[str, float]:
    from medexp.data import store as arrays

    n, order = len(pool), np.random.default_rng(number).permutation(len(pool))
    return {
        "loop": speed(n, lambda: np.stack([pool.decode(row)[0] for row in range(n)])),
        "build": speed(n, lambda: arrays.stored(pool)),
        "decode": speed(n, lambda: decode_epoch(pool, order)),
        "cache": speed(n, lambda: cached_epoch(arrays.stored(pool).array, order)),
    }


def speed(images: int, work) -> float:
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def decode_epoch(pool, order: np.ndarray) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH].tolist()
            np.stack([image for image, _ in threads.map(pool.decode, rows)])


def cached_epoch(images: np.ndarray, order: np.ndarray) -> None:
    for start in range(0, len(order), BATCH):
        np.asarray(images[order[start : start + BATCH]])


if __name__ == "__main__":
    main()
