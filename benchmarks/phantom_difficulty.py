"""How hard are the phantoms? Test AUC of simple baselines and, for PCam, of native3.

    python benchmarks/phantom_difficulty.py            PCam's baselines, about a minute
    python benchmarks/phantom_difficulty.py --native3  and native3 by `medexp train`
    python benchmarks/phantom_difficulty.py all ldct   of other data sets, at their phantoms' size

Wanted of PCam: logistic regression on colour below 0.65 and on shrunken pixels below 0.8, so that
neither gives the label away; native3 above 0.90 after two minutes on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.config.compose import compose
from medexp.data import Dataset
from medexp.data.load import load_data
from medexp.data.phantom.pcam import CENTRE

Features = Callable[[np.ndarray], np.ndarray]  # (n, ..., C) uint8 -> (n, features)


def mean(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=tuple(range(1, images.ndim - 1)))


def mean_and_std(images: np.ndarray) -> np.ndarray:
    return np.hstack([mean(images), images.std(axis=tuple(range(1, images.ndim - 1)))])


def centre_mean_and_std(images: np.ndarray) -> np.ndarray:
    return np.hstack([mean_and_std(images[:, CENTRE, CENTRE]), mean_and_std(images)])


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Pixels shrunk to side x side; a volume or a clip is first shrunk to its mean slice."""
    if images.ndim == 5:
        images = images.mean(axis=1)
    step = images.shape[1] // side
    cut = images[:, : side * step, : side * step]
    cells = cut.reshape(len(images), side, step, side, step, images.shape[-1])
    return cells.mean(axis=(2, 4)).reshape(len(images), -1)


def logistic(strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))


def auc(data: Dataset, features: Features, model: Any) -> float:
    """Test AUC, one against the rest where there are more than two classes."""
    model.fit(features(data.train.images[:]), data.train.labels)
    score = model.predict_proba(features(data.test.images[:]))
    if score.shape[1] == 2:
        return float(roc_auc_score(data.test.labels, score[:, 1]))
    return float(roc_auc_score(data.test.labels, score, multi_class="ovr"))


def native3(folder: Path) -> float:
    """Test AUC that `medexp train` reports for native3."""
    command = [sys.executable, "-m", "medexp", "train", "dataset=pcam", "model=native3",
               "source=phantom", f"hydra.run.dir={folder}"]  # fmt: skip
    subprocess.run(command, check=True)
    return float(json.loads((folder / "metrics.json").read_text())["test"]["auc_binary"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", default=["pcam"])
    parser.add_argument("--native3", action="store_true", help="train native3 as well")
    parser.add_argument("--size", type=int, help="phantoms; their own number if left out")
    arguments = parser.parse_args()
    size = [f"source.size={arguments.size}"] if arguments.size else []
    baselines: list[tuple[str, Features, Any]] = [
        ("mean colour", mean, logistic(1.0)),
        ("mean and std colour", mean_and_std, logistic(1.0)),
        ("pixels shrunk to 6x6", partial(shrunk, side=6), logistic(0.01)),
        ("pixels shrunk to 12x12", partial(shrunk, side=12), logistic(0.003)),
        ("pixels shrunk to 24x24", partial(shrunk, side=24), logistic(0.0003)),
        ("forest on 12x12", partial(shrunk, side=12), RandomForestClassifier(200, random_state=0)),
    ]
    for name in arguments.datasets:
        data = load_data(compose([f"dataset={name}", "source=phantom", *size]))
        centre = ("mean and std, centre and patch", centre_mean_and_std, logistic(1.0))
        for title, features, model in [*baselines, *([centre] if name == "pcam" else [])]:
            print(f"{auc(data, features, model):.4f}  {name}: {title}", flush=True)
    if arguments.native3:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{native3(Path(folder) / 'run'):.4f}  native3, medexp train")


if __name__ == "__main__":
    main()
