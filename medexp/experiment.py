"""One experiment from its plain settings: build, fit, evaluate, write the run directory."""

import gc
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp import checkpoint, metrics, runs
from medexp import device as devices
from medexp.compose import instantiate
from medexp.config import check_node, one_of
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError, MedexpError
from medexp.evaluate import predict, probabilities
from medexp.sources import load_data
from medexp.stages import freeze, read_stages
from medexp.train import fit, set_seeds
from medexp.weights import load_weights, normalise_input

log = logging.getLogger(__name__)


def train(settings: dict[str, Any], folder: Path, *, resume: bool) -> float:
    """`medexp train`: write everything of a run into `folder`; return the monitor's best value."""
    release_memory()
    trainer = settings["trainer"]
    check_node("dataset", settings["dataset"], {"root": ""})
    check_node("model", settings["model"], {"num_classes": 2, "in_channels": 3, "image_size": ()})
    device, precision = set_machine(trainer)
    augment, loss, schedule, optimizer = (
        instantiate(group, settings[group])
        for group in ("augment", "loss", "schedule", "optimizer")
    )
    dataset = load_data(settings)
    set_seeds(settings["seed"])
    network = build_network(settings["model"], dataset)
    if settings["model"].get("weights") and not resume:
        log.info(load_weights(network, settings["model"]["weights"]).text())
        if hasattr(network, "statistics") and not hasattr(network, "input_mean"):
            log.info(
                "The network sees pixels in [0, 1]. If these weights were trained on ImageNet's "
                "normalisation, set model.normalise=true"
            )
    stages = read_stages(network, settings["model"].get("stages") or {})
    count = parameter_counts(network)
    amp = "float32" if precision is None else str(precision).removeprefix("torch.")
    sizes = " / ".join(f"{len(split):,}" for split in dataset.splits().values())
    log.info("%s on %s, %s", settings["names"]["model"], settings["names"]["dataset"], folder)
    log.info(
        "%s train / val / test images, %s parameters, %s, %s",
        sizes,
        f"{count['trainable']:,}",
        device,
        amp,
    )
    if not (resume and (folder / "provenance.json").exists()):
        write_provenance(folder, settings, dataset, device, amp)
        runs.write_split(folder / "split.csv", dataset)
    fitted = fit(
        network,
        dataset,
        folder,
        optimizer=optimizer,
        schedule=schedule,
        loss=loss,
        augment=augment,
        epochs=trainer["epochs"],
        batch_size=trainer["batch_size"],
        eval_batch_size=trainer["eval_batch_size"],
        monitor=trainer["monitor"],
        device=device,
        precision=precision,
        channels_last=trainer["channels_last"],
        seed=settings["seed"],
        place=trainer["data"],
        stages=stages,
        resume=resume,
    )
    facts = {
        "parameters": count,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "wall_seconds": fitted.seconds,
        "monitor": trainer["monitor"],
    }
    write_scores(folder, settings, dataset, network, device, ("val", "test"), facts)
    return fitted.best_value


def evaluate(settings: dict[str, Any], folder: Path) -> None:
    """`medexp eval`: the scores of `settings["run"]`'s best epoch, written into `folder`."""
    release_memory()
    one_of("split", settings["split"], ("train", "val", "test"))
    run = Path(settings["run"])
    device, _ = set_machine(settings["trainer"])
    dataset = load_data(settings)
    network = build_network(settings["model"], dataset)
    best = checkpoint.load(run / "checkpoints" / "best.pt", device)
    try:
        network.load_state_dict(best["model"])
    except RuntimeError as error:
        raise MedexpError(
            f"{run}/checkpoints/best.pt does not fit the network for these data "
            f"({len(dataset.classes)} classes, images {dataset.image_shape}). Evaluate on data of "
            "the kind that the run was trained on"
        ) from error
    trained = runs.read_json(run / "metrics.json") if (run / "metrics.json").exists() else {}
    facts = {
        "parameters": parameter_counts(network),
        "best_epoch": best["epoch"],
        "epochs": trained.get("epochs", best["epoch"]),
        "monitor": settings["trainer"]["monitor"],
        "evaluated_run": str(run),
    }
    network.to(device)
    if settings["trainer"]["channels_last"]:
        network.to(memory_format=torch.channels_last)
    write_provenance(folder, settings, dataset, device, "float32")
    runs.write_split(folder / "split.csv", dataset)
    name = settings["split"]
    explain = instantiate("explain", settings["explain"]) if settings["explain"] else None
    predicted = write_scores(folder, settings, dataset, network, device, (name,), facts)
    if explain:
        split = dataset.splits()[name]
        written = explain(
            network,
            split.images,
            split.labels,
            dataset.classes,
            split.ids,
            folder / "explain",
            marks=tuple(marks(settings, dataset, facts["epochs"], name)),
            predicted=predicted[name],
        )
        log.info("%d pictures in %s", len(written), folder / "explain")


def set_machine(trainer: Mapping[str, Any]) -> tuple[torch.device, torch.dtype | None]:
    """Device and autocast dtype of a trainer node; threads and determinism are set on the way."""
    device = devices.pick_device(trainer["device"])
    precision = devices.pick_precision(trainer["amp"], device)
    for key in ("epochs", "batch_size", "eval_batch_size", "threads"):
        if trainer[key] is not None and trainer[key] < 1:
            raise ConfigError(f"trainer.{key}={trainer[key]}: must be 1 or more")
    torch.set_num_threads(trainer["threads"] or devices.THREADS)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(trainer["deterministic"])
    torch.backends.cudnn.benchmark = not trainer["deterministic"]
    return device, precision


def build_network(node: Mapping[str, Any], data: Dataset) -> nn.Module:
    """The network of a config, with the channels, classes and image size of the data set."""
    *size, channels = data.image_shape
    network = instantiate(
        "model",
        node,
        num_classes=len(data.classes),
        in_channels=channels,
        image_size=tuple(size),
    )
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"model._target_={node['_target_']}: returned {type(network).__name__}, not a "
            "torch.nn.Module"
        )
    normalise = node.get("normalise")
    if normalise is None:
        normalise = node.get("weights") == "imagenet" and hasattr(network, "statistics")
    if normalise:
        normalise_input(network, channels)
    freeze(network, read_stages(network, node.get("stages") or {}))
    return network


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """trainable: weights that are trained; total: with the statistics that BatchNorm keeps.

    Keras counts so: its non-trainable parameters are the moving means and variances.
    """
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    weights = {name for name, _ in network.named_parameters()}
    kept = [t for name, t in network.state_dict().items() if name not in weights]
    buffers = sum(tensor.numel() for tensor in kept if tensor.is_floating_point())
    return {"trainable": trainable, "total": trainable + frozen + buffers}


def marks(
    settings: Mapping[str, Any], data: Dataset, epochs: int, split: str = "test"
) -> dict[str, str]:
    """Why the numbers are not the paper's: mark -> reason, shown wherever a number is."""
    found = {}
    if split != "test":
        found[f"{split.upper()} SPLIT"] = f"scored on the {split} split, not on the test split"
    source = settings["source"]
    if source["kind"] == "phantom":
        found["PHANTOM"] = f"{len(data.train):,} synthetic training images (seed {source['seed']})"
    partial = list(data.partial) if source["kind"] == "disk" else []
    paper = settings["paper"] or {}
    listed = any(settings["names"]["model"] in row["models"] for row in paper.get("rows", []))
    budget = paper.get("epochs")
    if listed and budget and epochs < budget:
        partial.insert(0, f"{epochs:,} of {budget:,} epochs")
    if partial:
        found["PARTIAL"] = "; ".join(partial)
    return found | dict(data.marks)


def write_scores(
    folder: Path,
    settings: Mapping[str, Any],
    data: Dataset,
    network: nn.Module,
    device: torch.device,
    splits: Sequence[str],
    facts: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """predictions.csv and metrics.json of the given splits, scored from the very same arrays.

    The last split is the one that tables and plots are of (`split` in metrics.json). Returns each
    split's probabilities (N, C).
    """
    trainer = settings["trainer"]
    predicted = {}
    for name in splits:
        split = data.splits()[name]
        logits = predict(
            network,
            split,
            device=device,
            batch_size=trainer["eval_batch_size"],
            channels_last=trainer["channels_last"],
        )
        predicted[name] = (split.ids, split.labels, probabilities(logits))
    runs.write_predictions(folder / "predictions.csv", predicted)
    scores = {
        name: metrics.score(labels, p, data.classes, resamples=trainer["resamples"])
        for name, (_, labels, p) in predicted.items()
    }
    runs.write_json(
        folder / "metrics.json",
        {
            "schema": runs.SCHEMA,
            **settings["names"],
            "classes": list(data.classes),
            "split": splits[-1],
            "marks": marks(settings, data, facts["epochs"], splits[-1]),
            "notes": list(data.notes),
            "skipped": dict(data.skipped),
            **scores,
            **facts,
        },
    )
    return {name: p for name, (_, _, p) in predicted.items()}


def write_provenance(
    folder: Path, settings: Mapping[str, Any], data: Dataset, device: torch.device, amp: str
) -> None:
    def facts(split: Split) -> dict[str, Any]:
        return {"images": len(split), "blake2b": split.fingerprint()}

    content = runs.provenance(
        seed=settings["seed"],
        device=f"{device}: {devices.device_name(device)}, {amp}",
        data={name: facts(split) for name, split in data.splits().items()},
        config_dir=os.environ.get("MEDEXP_CONFIG_DIR"),
    )
    runs.write_json(folder / "provenance.json", content)


def release_memory() -> None:
    """Give back what the last job of a sweep held, so that the next starts from a clean device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
