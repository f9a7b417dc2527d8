"""What a network gives on a split, and the files that say so: predictions.csv and metrics.json."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp.config.settings import Settings, Trainer
from medexp.config.targets import locate
from medexp.data.base import Dataset, Split
from medexp.data.store import fingerprint
from medexp.errors import ConfigError
from medexp.runs import files
from medexp.runs.record import digest_of_ids
from medexp.score import metrics
from medexp.score.predict import View, predict_views, probabilities
from medexp.train.device import device_name


def mean_probabilities(
    network: nn.Module,
    split: Split,
    views: Sequence[View],
    trainer: Trainer,
    device: torch.device,
) -> np.ndarray:
    """The mean over the views of a network's probabilities on a split: (N, C) float64."""
    logits = predict_views(
        network,
        split,
        views,
        device=device,
        batch_size=trainer.eval_batch_size,
        channels_last=trainer.channels_last,
    )
    return np.asarray(np.mean([probabilities(one) for one in logits], axis=0))


def write_results(
    folder: Path,
    settings: Settings,
    data: Dataset,
    predicted: Mapping[str, np.ndarray],
    marked: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """predictions.csv and metrics.json, scored from the very same arrays.

    predicted: split -> probabilities (N, C); the last split is the one that tables and plots are of
    (`split` in metrics.json).
    """
    splits = data.splits()
    rows = {name: (splits[name].ids, splits[name].labels, p) for name, p in predicted.items()}
    files.write_predictions(folder / "predictions.csv", rows)
    more = own_metrics(settings)
    scores = {}
    for name, (_, labels, p) in rows.items():
        scored = metrics.score(
            labels,
            p,
            data.classes,
            resamples=settings.trainer.resamples,
            groups=splits[name].groups,
        )
        values = {key: float(metric(labels, p)) for key, metric in more.items()}
        scores[name] = scored | {k: v if np.isfinite(v) else None for k, v in values.items()}
    content = {
        "schema": files.SCHEMA,
        "dataset": settings.names.dataset,
        "model": settings.names.model,
        "classes": list(data.classes),
        "split": list(predicted)[-1],
        "marks": dict(marked),
        "notes": list(data.notes),
        "skipped": dict(data.skipped),
        "scored": {name: digest_of_ids(ids.tolist()) for name, (ids, _, _) in rows.items()},
        **scores,
        **facts,
    }
    files.write_json(folder / "metrics.json", content)


def own_metrics(settings: Settings) -> dict[str, Callable[..., float]]:
    """Name -> function of a user's own, of the key `metrics`.

    Raises ConfigError where there is no such function, or medexp has a score of that name.
    """
    ours = metrics.score(np.array([0, 1]), np.eye(2), ("a", "b"), resamples=0)
    for name in settings.metrics:
        if name in ours:
            raise ConfigError(f"metrics.{name}: medexp has a score of that name. Choose another")
    return {name: locate(path, f"metrics.{name}") for name, path in settings.metrics.items()}


def write_provenance(
    folder: Path, settings: Settings, data: Dataset, device: torch.device, amp: str
) -> None:
    """provenance.json: versions, commit, device, seed, and a digest of each split's pixels."""
    content = files.provenance(
        seed=settings.seed,
        device=f"{device}: {device_name(device)}, {amp}",
        data={
            name: {"images": len(split), "blake2b": fingerprint(split)}
            for name, split in data.splits().items()
        },
        config_dir=os.environ.get("MEDEXP_CONFIG_DIR"),
    )
    files.write_json(folder / "provenance.json", content)
