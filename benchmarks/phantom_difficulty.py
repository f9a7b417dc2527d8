"""How hard are the PCam phantoms? Test AUC of simple baselines and of native3, default size.

    python benchmarks/phantom_difficulty.py            baselines, about a minute
    python benchmarks/phantom_difficulty.py --native3  and native3 by `medexp train`

Wanted: logistic regression on colour below 0.65 and on shrunken pixels below 0.8, so that neither
gives the label away; native3 above 0.90 after two minutes on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.base import Dataset
from medexp.data.phantom.pcam import CENTRE, write
from medexp.data.read.pcam import load

SIZE = 4096
SEED = 0


def mean(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(1, 2))


def mean_and_std(images: np.ndarray) -> np.ndarray:
    return np.hstack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))])


def centre_mean_and_std(images: np.ndarray) -> np.ndarray:
    return np.hstack([mean_and_std(images[:, CENTRE, CENTRE]), mean_and_std(images)])


def shrunk(side: int) -> Callable[[np.ndarray], np.ndarray]:
    def features(images: np.ndarray) -> np.ndarray:
        step = images.shape[1] // side
        cells = images.reshape(len(images), side, step, side, step, 3)
        return cells.mean(axis=(2, 4)).reshape(len(images), -1)

    return features


def auc(data: Dataset, features: Callable[[np.ndarray], np.ndarray], strength: float) -> float:
    """Test AUC of a logistic regression on standardised features, C = `strength`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
    model.fit(features(data.train.images), data.train.labels)
    return float(
        roc_auc_score(data.test.labels, model.decision_function(features(data.test.images)))
    )


def native3(folder: Path) -> float:
    """Test AUC that `medexp train` reports for native3."""
    command = [sys.executable, "-m", "medexp", "train", "dataset=pcam", "model=native3",
               "source=phantom", f"source.size={SIZE}", f"source.seed={SEED}",
               f"hydra.run.dir={folder}"]  # fmt: skip
    subprocess.run(command, check=True)
    return float(json.loads((folder / "metrics.json").read_text())["test"]["auc_binary"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--native3", action="store_true", help="train native3 as well")
    train = parser.parse_args().native3
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary), size=SIZE, seed=SEED)
        data = load(temporary)
        for name, features, strength in (
            ("mean colour (3)", mean, 1.0),
            ("mean and std colour (6)", mean_and_std, 1.0),
            ("pixels shrunk to 6x6", shrunk(6), 0.01),
            ("pixels shrunk to 12x12", shrunk(12), 0.003),
            ("pixels shrunk to 24x24", shrunk(24), 0.0003),
            ("mean and std, centre and patch (12)", centre_mean_and_std, 1.0),
        ):
            print(f"{auc(data, features, strength):.4f}  {name}", flush=True)
        if train:
            print(f"{native3(Path(temporary) / 'run'):.4f}  native3, medexp train")


if __name__ == "__main__":
    main()
