"""One experiment from its plain settings: build, fit, evaluate, write the run directory."""

import gc
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp.augment import Augment
from medexp.config.compose import instantiate, saved_config
from medexp.config.settings import Trainer
from medexp.config.targets import check_node, check_schema
from medexp.data.base import Dataset, Split
from medexp.data.files import csv_rows
from medexp.data.load import load_data
from medexp.data.store import fingerprint
from medexp.errors import ConfigError, MedexpError, nearest, one_of
from medexp.models.stages import freeze, read_stages
from medexp.models.weights import Loaded, load_weights, normalise_input
from medexp.runs import checkpoint
from medexp.runs import files as runs
from medexp.score import metrics
from medexp.score.predict import View, as_stored, predict_views, probabilities, to_input
from medexp.train import device as devices
from medexp.train.loop import CLOCK, Fitted, batch_cuts, epoch_draws, epochs_within, fit, set_seeds

log = logging.getLogger(__name__)

SHEET_ROWS, SHEET_COLUMNS = 6, 6
STAGE_GROUPS = (
    "dataset",
    "model",
    "optimizer",
    "schedule",
    "augment",
    "sampling",
    "loss",
    "trainer",
)
# The keys of the trainer that the loop takes as they are.
LOOP = (
    *("epochs", "max_steps", "batch_size", "eval_batch_size", "accumulate", "channels_last"),
    *("monitor", "patience", "min_delta", "clip_norm", "ema", "switch_at", "switch_to"),
    *("prune_after", "cache_features", "compile", "graphs", "profile"),
)


def train(settings: dict[str, Any], folder: Path, *, resume: bool) -> float:
    """`medexp train`: write everything of a run into `folder`; return the monitor's best value.

    With `second` it trains twice: the first stage in the folder `first`, then one that starts from
    its best weights; both are in history.csv.
    """
    release_memory()
    if settings["second"]:
        first = {**settings, "second": {}}
        log.info("First stage:")
        fitted, *_ = train_stage(first, folder / "first", resume=resume)
        start = folder / "first"
        earlier = [{"stage": 1, **row} for row in fitted.history]
        log.info("Second stage:")
    else:
        start, earlier = None, []
        if settings["init_from"] is not None:
            start = run_folder("init_from", settings["init_from"])
    settings = last_stage(settings)
    fitted, network, dataset, device = train_stage(
        settings, folder, start=start, earlier=earlier, resume=resume
    )
    facts = {
        "parameters": parameter_counts(network),
        "best_epoch": fitted.best_epoch,
        "epochs": len(earlier) + len(fitted.history),
        "wall_seconds": fitted.seconds,
        "monitor": settings["trainer"]["monitor"],
    }
    if fitted.pruned:
        facts["pruned_at"] = facts["epochs"]
    write_scores(folder, settings, dataset, network, device, ("val", "test"), facts)
    return fitted.best_value


def train_stage(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    start: Path | None = None,
    earlier: Sequence[dict[str, Any]] = (),
    resume: bool,
) -> tuple[Fitted, nn.Module, Dataset, torch.device]:
    """Build everything of one stage of training and fit it; the network has the best weights.

    start: the folder of a run, from whose best weights it starts.
    """
    trainer = settings["trainer"]
    check_node("dataset", settings["dataset"], {"root": ""})
    check_node("model", settings["model"], {"num_classes": 2, "in_channels": 3, "image_size": ()})
    for key in CLOCK:
        if key in settings["schedule"]:
            raise ConfigError(f"schedule.{key}: the loop gives it to the schedule. Leave it out")
    device, precision = set_machine(trainer)
    augment, schedule, optimizer, sampling = (
        instantiate(group, settings[group])
        for group in ("augment", "schedule", "optimizer", "sampling")
    )
    dataset = load_data(settings)
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    loss = instantiate("loss", settings["loss"], class_counts=counts.tolist())
    set_seeds(settings["seed"])
    network = build_network(settings["model"], dataset)
    if resume and not (folder / "checkpoints" / "last.pt").exists():
        log.info("%s: nothing to resume here, the stage starts anew", folder)
        resume = False
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if not resume:
        start_weights(network, settings["model"].get("weights"), start, folder)
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
        sampling=sampling,
        device=device,
        precision=precision,
        seed=settings["seed"],
        stages=read_stages(network, settings["model"].get("stages") or {}),
        earlier=earlier,
        resume=resume,
        place=trainer["data"],
        **{key: trainer[key] for key in LOOP},
    )
    if fitted.pruned:
        dataset = replace(dataset, marks={**dataset.marks, "PRUNED": fitted.pruned})
    return fitted, network, dataset, device


def preview(settings: Mapping[str, Any], folder: Path) -> list[Path]:
    """Pictures of what a run would do, without a step: schedule, examples of augmentation."""
    from medexp.report.figure import schedule

    settings = last_stage(settings)
    dataset = load_data(settings)
    marked = list(marks(settings, dataset, settings["trainer"]["epochs"]))
    augment, sampling = (instantiate(group, settings[group]) for group in ("augment", "sampling"))
    draws = epoch_draws(dataset.train.labels, augment, sampling, seed=settings["seed"], epoch=0)
    written = []
    if settings["plot_schedule"]:
        rule = instantiate("schedule", settings["schedule"])
        optimizer = instantiate("optimizer", settings["optimizer"])
        lr = optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
        trainer = settings["trainer"]
        steps = len(batch_cuts(len(draws[0]), trainer["batch_size"]))
        epochs = epochs_within(trainer["epochs"], trainer["max_steps"], steps)
        curve = schedule.rates(rule, lr, epochs=epochs, steps=steps)
        name = str(settings["schedule"]["_target_"]).rpartition(".")[2]
        path = folder / "schedule.png"
        note = schedule.caveat(rule)
        schedule.draw_schedules({name: curve}, path, title="Learning rate", note=note)
        written.append(path)
    if settings["plot_augment"]:
        written.append(augment_picture(dataset, augment, settings["seed"], folder, marked))
    return written


def augment_picture(
    dataset: Dataset, augment: Augment, seed: int, folder: Path, marked: Sequence[str]
) -> Path:
    """A sheet of the first images, each beside several draws of its augmentation."""
    from medexp.report.figure import augment_sheet

    rows = np.arange(min(SHEET_ROWS, len(dataset.train)))
    images = dataset.train.images[rows]
    draws = augment.draw(len(rows) * SHEET_COLUMNS, torch.Generator().manual_seed(seed))
    # Variant by variant, so that images that are mixed have different neighbours.
    batch = torch.from_numpy(np.concatenate([images] * SHEET_COLUMNS))
    changed = augment(batch, draws)
    if (mix := getattr(augment, "mix", None)) is not None:
        mixed, _ = mix(to_input(changed), torch.zeros(len(batch), len(dataset.classes)), draws)
        changed = mixed.movedim(1, -1)
        images = to_input(torch.from_numpy(images)).movedim(1, -1).numpy()
    variants = changed.view(SHEET_COLUMNS, len(rows), *images.shape[1:]).transpose(0, 1).numpy()
    path = folder / "augment.png"
    titles = [str(key) for key in dataset.train.ids[rows]]
    heading = f"{dataset.name}: {type(augment).__name__}"
    augment_sheet.draw_sheet(images, variants, path, titles=titles, marks=marked, heading=heading)
    return path


def start_weights(
    network: nn.Module, weights: str | None, start: Path | None, folder: Path
) -> None:
    """Load what the training starts from: model.weights, or the best weights of a run.

    transferred.txt in `folder` then says what became of each tensor.
    """
    if start is not None:
        weights = str(start / "checkpoints" / "best.pt")
    if not weights:
        return
    loaded = load_weights(network, weights)
    log.info(loaded.text())
    runs.write_text(folder / "transferred.txt", transferred(network, loaded))
    imagenet = start is None and hasattr(network, "statistics")
    if imagenet and not hasattr(network, "input_mean"):
        log.info(
            "The network sees pixels in [0, 1]. If these weights were trained on ImageNet's "
            "normalisation, set model.normalise=true"
        )


def transferred(network: nn.Module, loaded: Loaded) -> str:
    """A line a tensor of the network: name, shape, carried over or drawn anew and why."""
    fates = {
        **dict.fromkeys(loaded.matched, "carried over"),
        **dict.fromkeys(loaded.grey, "carried over, summed over RGB"),
        **dict.fromkeys(loaded.other_shape, "drawn anew: has another shape there"),
        **dict.fromkeys(loaded.missing, "drawn anew: is not there"),
    }
    state = network.state_dict()
    numbers = {name: tensor.numel() for name, tensor in state.items()}
    carried = sum(numbers[name] for name in loaded.matched)
    width = max(map(len, state)) + 2
    lines = [
        f"From {loaded.source}:",
        f"{len(loaded.matched)} of {len(state)} tensors, {carried:,} of "
        f"{sum(numbers.values()):,} numbers",
        "",
    ]
    for name, tensor in state.items():
        shape = "x".join(map(str, tensor.shape)) or "1"
        lines.append(f"{name:<{width}}{shape:<18}{fates[name]}")
    lines += [f"{name:<{width}}{'':<18}there, not in this network" for name in loaded.unused]
    return "\n".join(lines) + "\n"


def run_folder(key: str, folder: str) -> Path:
    """A run's folder; ConfigError where it holds no best weights."""
    path = Path(folder)
    if not (path / "checkpoints" / "best.pt").is_file():
        raise ConfigError(
            f"{key}={folder}: no checkpoints/best.pt there. Give the folder of a run, which "
            "`medexp train` named at its end"
        )
    return path


def last_stage(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the stage whose weights are kept: those of `second` over the others.

    A node of `second` with a `_target_` of its own replaces the first stage's node.
    """
    merged = dict(settings)
    for group, changes in settings["second"].items():
        if group not in STAGE_GROUPS:
            raise ConfigError(f"second.{group}: not of a stage. {nearest(group, STAGE_GROUPS)}")
        if not isinstance(changes, Mapping):
            raise ConfigError(f"second.{group}={changes!r}: need keys and values of that group")
        merged[group] = dict(changes) if "_target_" in changes else settings[group] | dict(changes)
    check_schema(merged["trainer"], Trainer, "second.trainer.")
    return merged


def evaluate(settings: dict[str, Any], folder: Path) -> None:
    """`medexp eval`: the scores of `settings["run"]`'s best epoch, written into `folder`.

    With `ensemble`, several runs, those of the mean of their probabilities on the data of `run`;
    with `tta`, each run's probabilities are the mean over the views of an image.
    """
    release_memory()
    settings = last_stage(settings)
    name, trainer = settings["split"], settings["trainer"]
    one_of("split", name, ("train", "val", "test"))
    if settings["ensemble"] and settings["explain"]:
        raise ConfigError("explain: of one run. Leave it out, or give a single run=DIR")
    device, _ = set_machine(trainer)
    models = {settings["run"]: settings["model"]}
    if settings["ensemble"]:
        models = check_members(settings["ensemble"], name)
    views = instantiate("tta", settings["tta"]) if settings["tta"] else (as_stored,)
    explain = instantiate("explain", settings["explain"]) if settings["explain"] else None
    dataset = load_data(settings)
    split = dataset.splits()[name]
    members, found = [], []
    for run, model in models.items():
        network, member = best_network(Path(run), model, dataset, device)
        if trainer["channels_last"]:
            network.to(memory_format=torch.channels_last)
        found.append(mean_probabilities(network, split, views, trainer, device))
        members.append(member)
    write_provenance(folder, settings, dataset, device, "float32")
    runs.write_split(folder / "split.csv", dataset)
    predicted = np.mean(found, axis=0)
    facts = members[0]
    marked: dict[str, str] = {}
    if "pruned_at" in facts:
        trained = runs.read_json(Path(settings["run"]) / "metrics.json")
        marked["PRUNED"] = trained["marks"]["PRUNED"]
    if settings["ensemble"]:
        facts, marked = ensemble_facts(members)
        networks = dict.fromkeys(member["model"] for member in facts["members"])
        settings["names"] = settings["names"] | {"model": "+".join(networks)}
    if len(views) > 1:
        facts["views"] = len(views)
        marked[f"TTA {len(views)} views"] = (
            f"test-time augmentation: mean of the probabilities over {len(views)} views of an image"
        )
    facts["monitor"] = trainer["monitor"]
    own = marks(settings, dataset, facts["epochs"], name)
    # Own marks stand first, and where a member has the same one, the own reason is what counts.
    marked = own | marked | own
    write_results(folder, settings, dataset, {name: predicted}, marked, facts)
    if explain:
        written = explain(
            network,
            split.images,
            split.labels,
            dataset.classes,
            split.ids,
            folder / "explain",
            marks=tuple(marked),
            predicted=predicted,
        )
        log.info("%d pictures in %s", len(written), folder / "explain")


def best_network(
    run: Path, model: Mapping[str, Any], data: Dataset, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a run's best epoch, on the device, and what metrics.json says of it."""
    network = build_network(model, data)
    best = checkpoint.load(run / "checkpoints" / "best.pt", device)
    try:
        network.load_state_dict(best["model"])
    except RuntimeError as error:
        raise MedexpError(
            f"{run}/checkpoints/best.pt does not fit the network for these data "
            f"({len(data.classes)} classes, images {data.image_shape}). Evaluate on data of "
            "the kind that the run was trained on"
        ) from error
    trained = runs.read_json(run / "metrics.json") if (run / "metrics.json").exists() else {}
    facts = {
        "parameters": parameter_counts(network),
        "best_epoch": best["epoch"],
        "epochs": trained.get("epochs", best["epoch"]),
        "evaluated_run": str(run),
        **({"pruned_at": trained["pruned_at"]} if "pruned_at" in trained else {}),
    }
    return network.to(device), facts


def set_machine(trainer: Mapping[str, Any]) -> tuple[torch.device, torch.dtype | None]:
    """Device and autocast dtype of a trainer node; threads and determinism are set on the way."""
    device = devices.pick_device(trainer["device"])
    precision = devices.pick_precision(trainer["amp"], device)
    for key in ("epochs", "batch_size", "eval_batch_size", "threads", "accumulate", "max_steps",
                "patience", "prune_after"):  # fmt: skip
        if trainer[key] is not None and trainer[key] < 1:
            raise ConfigError(f"trainer.{key}={trainer[key]}: must be 1 or more")
    if trainer["min_delta"] < 0:
        raise ConfigError(f"trainer.min_delta={trainer['min_delta']}: must be 0 or more")
    torch.set_num_threads(trainer["threads"] or devices.THREADS)
    if device.type == "cpu":
        devices.keep_freed_memory()
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
    row, budget = paper.get("row"), paper.get("budget", "full")
    if row and budget != "full":
        nodes = [paper, *(r for r in paper["rows"] if row in (r.get("group"), r["label"]))]
        if row.startswith("before: "):
            nodes = [paper["before"][row.removeprefix("before: ")]]
        scaled: dict[str, Any] = {}
        for node in nodes:
            scaled |= (node.get("budgets") or {}).get(budget) or {}
        words = ", ".join(f"{k}={'null' if v is None else v}" for k, v in scaled.items())
        partial.insert(0, f"budget {budget} ({words})")
    model = settings["names"]["model"]
    listed = row or any(model in (other.get("models") or ()) for other in paper.get("rows") or ())
    if listed and paper.get("epochs") and epochs < paper["epochs"]:
        partial.insert(0, f"{epochs:,} of {paper['epochs']:,} epochs")
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
) -> None:
    """predictions.csv and metrics.json of a network on the given splits."""
    predicted = {
        name: mean_probabilities(
            network, data.splits()[name], (as_stored,), settings["trainer"], device
        )
        for name in splits
    }
    marked = marks(settings, data, facts["epochs"], splits[-1])
    write_results(folder, settings, data, predicted, marked, facts)


def mean_probabilities(
    network: nn.Module,
    split: Split,
    views: Sequence[View],
    trainer: Mapping[str, Any],
    device: torch.device,
) -> np.ndarray:
    """The mean over the views of a network's probabilities on a split: (N, C) float64."""
    logits = predict_views(
        network,
        split,
        views,
        device=device,
        batch_size=trainer["eval_batch_size"],
        channels_last=trainer["channels_last"],
    )
    return np.asarray(np.mean([probabilities(one) for one in logits], axis=0))


def write_results(
    folder: Path,
    settings: Mapping[str, Any],
    data: Dataset,
    predicted: Mapping[str, np.ndarray],
    marked: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """predictions.csv and metrics.json, scored from the very same arrays.

    predicted: split -> probabilities (N, C); the last split is the one that tables and plots are of
    (`split` in metrics.json).
    """
    rows = {
        name: (data.splits()[name].ids, data.splits()[name].labels, p)
        for name, p in predicted.items()
    }
    runs.write_predictions(folder / "predictions.csv", rows)
    scores = {
        name: metrics.score(labels, p, data.classes, resamples=settings["trainer"]["resamples"])
        for name, (_, labels, p) in rows.items()
    }
    runs.write_json(
        folder / "metrics.json",
        {
            "schema": runs.SCHEMA,
            **settings["names"],
            "classes": list(data.classes),
            "split": list(predicted)[-1],
            "marks": dict(marked),
            "notes": list(data.notes),
            "skipped": dict(data.skipped),
            **scores,
            **facts,
        },
    )


# ---------------------------------------------------------------- ensembles


def check_members(folders: Sequence[str], part: str) -> dict[str, dict[str, Any]]:
    """Run -> the `model` node of its last stage, for the runs of an ensemble.

    Raises ConfigError for a run that is named twice, and MedexpError for one that is not finished,
    or whose class names or images of the scored split are not the first one's: others could be
    among its training images.
    """
    found: dict[str, dict[str, Any]] = {}
    classes, images = [], set[str]()
    for run in map(Path, folders):
        if str(run) in found:
            raise ConfigError(f"run={run}: named twice. Name each run of an ensemble once")
        found[str(run)] = last_stage(saved_config("run", str(run)))["model"]
        for name in ("metrics.json", "split.csv"):
            if not (run / name).is_file():
                raise MedexpError(
                    f"run={run}: no {name} there, so it is not finished. Leave it out, or go on "
                    f"with it: medexp train resume={run}"
                )
        own = runs.read_json(run / "metrics.json")["classes"]
        ids = {
            cells["id"]
            for _, cells in csv_rows(run / "split.csv", ("id", "split"))
            if cells["split"] == part
        }
        if len(found) == 1:
            classes, images = own, ids
        if own != classes:
            raise MedexpError(
                f"run={run}: its classes are {', '.join(own)}, those of {folders[0]} "
                f"{', '.join(classes)}. An ensemble needs runs of the same data"
            )
        if ids != images:
            raise MedexpError(
                f"run={run}: its {len(ids):,} {part} images are not the {len(images):,} of "
                f"{folders[0]} ({len(ids & images):,} in common), so a run could be scored on what "
                "it was trained on. Take runs of the same split and fold"
            )
    return found


def ensemble_facts(
    members: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """What metrics.json says of an ensemble, and its marks: those of its members and its own."""
    listed = []
    marked: dict[str, str] = {}
    for member in members:
        trained = runs.read_json(Path(member["evaluated_run"]) / "metrics.json")
        listed.append({"model": trained["model"], **member})
        marked = trained["marks"] | marked
    folders = ", ".join(str(member["evaluated_run"]) for member in members)
    marked[f"ENSEMBLE of {len(members)}"] = f"mean of the probabilities of {folders}"
    counts = [member["parameters"] for member in members]
    facts = {
        "parameters": {key: sum(count[key] for count in counts) for key in counts[0]},
        "best_epoch": None,
        "epochs": min(member["epochs"] for member in members),
        "members": listed,
    }
    return facts, marked


def write_provenance(
    folder: Path, settings: Mapping[str, Any], data: Dataset, device: torch.device, amp: str
) -> None:
    def facts(split: Split) -> dict[str, Any]:
        return {"images": len(split), "blake2b": fingerprint(split)}

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
