"""Does pretraining on video help the network on CT? Phantoms of both, the same budget, three seeds.

    python benchmarks/pretraining.py --out DIR [--seeds 3]     again with the same DIR: goes on

Video: ucf50's phantoms, split by source video. CT: cord_phantom.py, made for this: as in a clip,
the class is how one thing moves from slice to slice. ViPTT-Net whole, 12 slices of 32x32, no
ImageNet weights (they cannot be had offline): its VGG is drawn as He et al. 2015 propose, as from
Glorot's draw it does not start, and the input is centred. Both arms start from the same draw of a
seed, and have the same 60 CT volumes, steps, batches and rate. That rate, 1e-4, had the least
validation loss of 3e-5, 1e-4 and 3e-4 in either arm in one trial each on other phantoms, of which
the arm from scratch at 3e-5 and the tuned one at 3e-4 were cut off halfway: it is not tuned for
each arm and seed. A seed draws weights, order and its own phantoms.

Prints test accuracy, AUC and kappa for each seed and arm, means, and the paired difference with a
95% t-interval. Says nothing of real CT, nor which part of pretraining acts: motion, or any at all.
Cost: a seed is 4,800 passes of a clip and 3,600 of a CT volume, 0.08 s each on one free core.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from medexp.models.tbt import ViPTT

METRICS = ("accuracy", "auc_macro", "kappa")
SEED_OF_PHANTOMS = 100  # trials before were on 0
COMMON = ["model=viptt", "model.chunk=1024", "model.normalise=true", "optimizer=adam",
          "schedule=cosine", "trainer.clip_norm=1", "trainer.monitor=val_loss",
          "trainer.patience=null", "trainer.resamples=0", "trainer.threads=1", "augment=none",
          "source=phantom"]  # fmt: skip
VIDEO = ["dataset=ucf50", "source.size=1000", "dataset.size=32", "dataset.frames=12",
         "dataset.sampling=even", "dataset.scale=unit", "dataset.short=pad",
         "dataset.split=patients", "dataset.test_share=0.1", "dataset.val_share=0.1",
         "optimizer.lr=5e-5", "schedule.warmup=0.6", "trainer.epochs=6",
         "trainer.batch_size=16"]  # fmt: skip
CT = ["dataset=tbt", "dataset.phantom=cord_phantom.write", "source.size=400",
      "dataset.size=[12,32,32]", "dataset.window=[-3000,3000]", "dataset.test_share=0.5",
      "dataset.val_share=0.15", "dataset.max_train=60", "optimizer.lr=1e-4",
      "schedule.warmup=3", "trainer.epochs=30", "trainer.batch_size=8"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    given = parser.parse_args()
    with ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(lambda seed: one_seed(seed, given.out), range(given.seeds)))
    for metric in METRICS:
        scratch, tuned = (np.array([pair[arm][metric] for pair in found]) for arm in (0, 1))
        pairs = ", ".join(f"{s:.3f} -> {t:.3f}" for s, t in zip(scratch, tuned, strict=True))
        print(f"{metric}: {pairs}; mean {scratch.mean():.3f} -> {tuned.mean():.3f}; "
              f"{difference(tuned - scratch)}")  # fmt: skip


def one_seed(seed: int, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Test scores from scratch, and after video."""
    folder = out.resolve() / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = he_weights(folder / "drawn.pt", seed)
    seeds = [f"seed={seed}", f"source.seed={SEED_OF_PHANTOMS + seed}"]
    video = train(folder / "video", [*VIDEO, f"model.weights={drawn}", *seeds])
    arms = {"scratch": f"model.weights={drawn}", "tuned": f"init_from={folder / 'video'}"}
    scores = []
    for arm, start in arms.items():
        scores.append(train(folder / arm, [*CT, start, *seeds])["test"])
        shown = ", ".join(f"{name} {scores[-1][name]:.3f}" for name in METRICS)
        print(f"seed {seed}, {arm}: {shown}", flush=True)
    print(f"seed {seed}, video: test accuracy {video['test']['accuracy']:.3f}", flush=True)
    return scores[0], scores[1]


def he_weights(path: Path, seed: int) -> Path:
    """A checkpoint of ViPTT whose VGG has kernels of variance 2 / inputs (He et al. 2015)."""
    torch.manual_seed(seed)
    network = ViPTT(num_classes=5, in_channels=1, image_size=(12, 32, 32))
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


def difference(gains: np.ndarray) -> str:
    """Mean of paired differences with Student's 95% interval."""
    low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    return f"gain {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def train(run: Path, overrides: list[str]) -> dict[str, Any]:
    """metrics.json of a run, trained unless it is there already."""
    if not (run / "metrics.json").exists():
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, "-m", "medexp", "train", *COMMON, *overrides,
                        f"hydra.run.dir={run}"], check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)})  # fmt: skip
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return content


if __name__ == "__main__":
    main()
