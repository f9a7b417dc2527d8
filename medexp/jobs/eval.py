"""`medexp eval`: a finished run, or an ensemble of several, scored again."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp.config.compose import instantiate
from medexp.config.saved import saved_config
from medexp.config.settings import EvalSettings, ModelNode, Settings, last_phase
from medexp.config.tree import build as build_settings
from medexp.data.base import Dataset
from medexp.data.files import csv_rows
from medexp.data.load import load_data
from medexp.errors import ConfigError, MedexpError
from medexp.explain.explainers import Subject
from medexp.jobs import build
from medexp.jobs.marks import marks
from medexp.jobs.record import held_against, record_of
from medexp.jobs.results import mean_probabilities, write_provenance, write_results
from medexp.runs import checkpoint
from medexp.runs.files import read_json, write_split
from medexp.score.predict import as_stored

log = logging.getLogger(__name__)


def evaluate(settings: EvalSettings, folder: Path) -> None:
    """Write the scores of the best epoch of `settings.run` into `folder`.

    With `ensemble`, several runs, those of the mean of their probabilities on the data of `run`;
    with `tta`, each run's probabilities are the mean over the views of an image.
    """
    build.release_memory()
    settings = last_phase(settings)
    name = settings.split
    if settings.ensemble and settings.explain:
        raise ConfigError("explain: of one run. Leave it out, or give a single run=DIR")
    device, _ = build.set_machine(settings.trainer)
    models = {settings.run: settings.model}
    if settings.ensemble:
        models = members_of(settings.ensemble, name)
    views = instantiate("tta", settings.tta) if settings.tta else (as_stored,)
    explain = instantiate("explain", settings.explain) if settings.explain else None
    dataset = load_data(settings)
    split = dataset.splits()[name]
    members, probabilities = [], []
    for run, model in models.items():
        network, member = best_network(Path(run), model, dataset, device)
        held_against(Path(run), record_of(settings, dataset, network))
        if settings.trainer.channels_last:
            network.to(memory_format=torch.channels_last)
        probabilities.append(mean_probabilities(network, split, views, settings.trainer, device))
        members.append(member)
    write_provenance(folder, settings, dataset, device, "float32")
    write_split(folder / "split.csv", dataset)
    predicted = np.mean(probabilities, axis=0)
    facts, marked = facts_of(settings, members)
    if settings.ensemble:
        networks = dict.fromkeys(member["model"] for member in facts["members"])
        settings = replace(settings, names=replace(settings.names, model="+".join(networks)))
    if len(views) > 1:
        facts["views"] = len(views)
        marked[f"TTA {len(views)} views"] = (
            f"test-time augmentation: mean of the probabilities over {len(views)} views of an image"
        )
    facts["monitor"] = settings.trainer.monitor
    # Marks of this evaluation stand first, and their reasons count where a member has them too.
    here = marks(settings, dataset, facts["epochs"], name)
    marked = here | marked | here
    write_results(folder, settings, dataset, {name: predicted}, marked, facts)
    if explain:
        subject = Subject(split, dataset.classes, tuple(marked), predicted)
        written = explain(network, subject, folder / "explain")
        log.info("%d pictures in %s", len(written), folder / "explain")


def best_network(
    run: Path, model: ModelNode, data: Dataset, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a run's best epoch, on the device, and what metrics.json says of it."""
    network = build.build_network(model, data)
    best = checkpoint.load(run / "checkpoints" / "best.pt", device)
    try:
        network.load_state_dict(best["model"])
    except RuntimeError as error:
        raise MedexpError(
            f"{run}/checkpoints/best.pt does not fit the network for these data "
            f"({len(data.classes)} classes, images {data.image_shape}). Evaluate on data of "
            "the kind that the run was trained on"
        ) from error
    trained = read_json(run / "metrics.json") if (run / "metrics.json").exists() else {}
    facts = {
        "parameters": build.parameter_counts(network),
        "best_epoch": best["epoch"],
        "epochs": trained.get("epochs", best["epoch"]),
        "evaluated_run": str(run),
        **({"pruned_at": trained["pruned_at"]} if "pruned_at" in trained else {}),
    }
    return network.to(device), facts


def facts_of(
    settings: EvalSettings, members: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What metrics.json says of the evaluated run or runs, and the marks that come with them."""
    if settings.ensemble:
        return ensemble_facts(members)
    (facts,) = members
    if "pruned_at" not in facts:
        return facts, {}
    trained = read_json(Path(settings.run) / "metrics.json")
    return facts, {"PRUNED": trained["marks"]["PRUNED"]}


# ---------------------------------------------------------------- ensembles


def members_of(folders: Sequence[str], part: str) -> dict[str, ModelNode]:
    """Run -> the network of its last phase, for the runs of an ensemble.

    Raises ConfigError for a run that is named twice, and MedexpError for one that is not finished,
    or whose class names or images of the scored split are not the first one's: others could be
    among its training images.
    """
    models: dict[str, ModelNode] = {}
    classes, images = [], set[str]()
    for run in map(Path, folders):
        if str(run) in models:
            raise ConfigError(f"run={run}: named twice. Name each run of an ensemble once")
        models[str(run)] = last_phase(build_settings(Settings, saved_config("run", str(run)))).model
        for name in ("metrics.json", "split.csv"):
            if not (run / name).is_file():
                raise MedexpError(
                    f"run={run}: no {name} there, so it is not finished. Leave it out, or go on "
                    f"with it: medexp train resume={run}"
                )
        run_classes = read_json(run / "metrics.json")["classes"]
        ids = ids_of(run, part)
        if len(models) == 1:
            classes, images = run_classes, ids
        if run_classes != classes:
            raise MedexpError(
                f"run={run}: its classes are {', '.join(run_classes)}, those of {folders[0]} "
                f"{', '.join(classes)}. An ensemble needs runs of the same data"
            )
        if ids != images:
            raise MedexpError(
                f"run={run}: its {len(ids):,} {part} images are not the {len(images):,} of "
                f"{folders[0]} ({len(ids & images):,} in common), so a run could be scored on what "
                "it was trained on. Take runs of the same split and fold"
            )
    return models


def ids_of(run: Path, part: str) -> set[str]:
    """The ids of one split of a run."""
    rows = csv_rows(run / "split.csv", ("id", "split"))
    return {cells["id"] for _, cells in rows if cells["split"] == part}


def ensemble_facts(
    members: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """What metrics.json says of an ensemble, and its marks: those of its members and its own."""
    listed = []
    marked: dict[str, str] = {}
    for member in members:
        trained = read_json(Path(member["evaluated_run"]) / "metrics.json")
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
