"""Does pretraining on video help the network on CT? Phantoms of both, the same budget, three seeds.

    python benchmarks/pretraining.py [--seeds 3] [--epochs 8] [--pretraining 8]

Per seed: ViPTT-Net on ucf50's phantoms, then fine-tuned on tbt's (init_from), beside the same
network trained on tbt's phantoms from scratch, with the same epochs, batches, rate and split. No
ImageNet weights (they cannot be had offline), so the VGG is drawn at random and trained on the
video too. Small volumes (12x32x32) and Adam, as the paper's SGD would not move such a VGG in so few
epochs.
Prints kappa, AUC and accuracy of the validation part for each seed, and the mean difference
with a 95% t-interval.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

SIZE = ["optimizer=adam", "optimizer.lr=0.0002", "schedule=constant", "trainer.batch_size=8",
        "trainer.patience=null", "model.weights=null", "model.stages.features.frozen=false",
        "trainer.resamples=0", "source=phantom", "model.chunk=96"]  # fmt: skip
VIDEO = ["recipe=ucf50", "source.size=160", "dataset.size=32", "dataset.frames=12",
         "dataset.sampling=even", "dataset.scale=unit", "trainer.monitor=val_loss"]  # fmt: skip
CT = ["source.size=160", "dataset.size=[12,32,32]", "trainer.monitor=val_loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="on CT")
    parser.add_argument("--pretraining", type=int, default=8, help="epochs on video")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [one_seed(seed, Path(folder), given) for seed in range(given.seeds)]
    for metric in ("kappa", "auc_macro", "accuracy"):
        gains = np.array([tuned[metric] - scratch[metric] for scratch, tuned in found])
        half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
        pairs = ", ".join(f"{s[metric]:.3f} -> {t[metric]:.3f}" for s, t in found)
        print(f"{metric}: {pairs}; gain {gains.mean():+.3f} [{gains.mean() - half:+.3f}, "
              f"{gains.mean() + half:+.3f}]")  # fmt: skip


def one_seed(seed: int, folder: Path, given: argparse.Namespace) -> tuple[dict, dict]:
    """Scores from scratch, and after video."""
    video = folder / f"video{seed}"
    train(video, [*VIDEO, *SIZE, f"seed={seed}", f"trainer.epochs={given.pretraining}"])
    common = [*CT, *SIZE, f"seed={seed}", f"trainer.epochs={given.epochs}"]
    scratch = train(folder / f"scratch{seed}", ["recipe=tbt_no_pt", *common])
    tuned = train(folder / f"tuned{seed}", ["recipe=tbt_pt", f"init_from={video}", *common])
    print(f"seed {seed}: scratch {scratch['kappa']:.3f}, after video "
          f"{tuned['kappa']:.3f}", flush=True)  # fmt: skip
    return scratch, tuned


def train(run: Path, overrides: list[str]) -> dict:
    subprocess.run([sys.executable, "-m", "medexp", "train", *overrides, f"hydra.run.dir={run}"],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return json.loads((run / "metrics.json").read_text())["val"]


if __name__ == "__main__":
    main()
