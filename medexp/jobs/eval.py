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
from medexp.config.settings import EvalSettings, ModelNode, last_phase
from medexp.data.base import WHOLE
from medexp.errors import ConfigError, MedexpError
from medexp.explain.explainers import Subject
from medexp.jobs import binding, build, known
from medexp.jobs.applied import applied
from medexp.jobs.deviations import deviations
from medexp.jobs.marks import HANDED_ON, OF_SCORES, marks, of_scores, scaled_keys
from medexp.jobs.results import mean_probabilities, write_provenance, write_results
from medexp.runs import checkpoint
from medexp.runs.files import read_json
from medexp.runs.images import write_images
from medexp.score.predict import as_stored

log = logging.getLogger(__name__)


def evaluate(settings: EvalSettings, folder: Path) -> None:
    """Write the scores of the best epoch of `settings.run` into `folder`.

    With `ensemble`, several runs, those of the mean of their probabilities on the data of `run`;
    with `tta`, each run's probabilities are the mean over the views of an image.
    """
    build.release_memory()
    asked, settings = settings, last_phase(settings)
    name = settings.split
    if settings.ensemble and settings.explain:
        raise ConfigError("explain: of one run. Leave it out, or give a single run=DIR")
    device, _ = build.set_machine(settings.trainer)
    runs = [binding.read_run("run", Path(settings.run))]
    if settings.ensemble:
        runs = members_of(settings, name)
    else:
        binding.same_network(settings, runs[0])
    views = instantiate("tta", settings.tta) if settings.tta else (as_stored,)
    explain = instantiate("explain", settings.explain) if settings.explain else None
    dataset = binding.load_as(settings, runs[0], (name,))
    for run in runs:
        dataset = known.with_leaks(settings, dataset, run, () if name == "train" else (name,))
    split = dataset.splits()[name]
    members, probabilities = [], []
    for run in runs:
        model = settings.model if len(runs) == 1 else run.settings.model
        network, member = best_network(run, binding.carried_over(model, run), dataset, device)
        if settings.trainer.channels_last:
            network.to(memory_format=torch.channels_last)
        p = mean_probabilities(network, split, views, settings.trainer, device)
        probabilities.append(p[:, binding.columns_of(dataset, run)])
        member["applied"] = applied(run.settings.augment, dataset, network, run.whole.augment)
        members.append(member)
    write_provenance(folder, settings, dataset, device, "float32")
    labels = {part: one.labels.tolist() for part, one in dataset.splits().items()}
    write_images(folder, known.images_of(dataset, None), labels)
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
    deviating = {}
    if not settings.ensemble:  # trained as the run says, on the data that are asked for
        trained = replace(
            runs[0].whole, dataset=asked.dataset, source=asked.source, paper=asked.paper
        )
        deviating = deviations(trained, scaled_keys(asked.paper or {}))
    if deviating:
        facts["deviates"] = {key: {"row": a, "run": b} for key, (a, b) in deviating.items()}
    # Marks of this evaluation stand first, and their reasons count where a member has them too.
    here = marks(settings, dataset, facts["epochs"], name, deviating)
    marked = here | marked | here
    marked |= of_scores(split, predicted, dataset.classes, name)
    write_results(folder, settings, dataset, {name: predicted}, marked, facts)
    if explain:
        subject = Subject(split, dataset.classes, tuple(marked), predicted)
        written = explain(network, subject, folder / "explain")
        log.info("%d pictures in %s", len(written), folder / "explain")


def best_network(
    run: binding.Run, model: ModelNode, data: build.Kind, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a run's best epoch, on the device, and what metrics.json says of it."""
    network = build.build_network(model, data)
    best = checkpoint.load(run.folder / "checkpoints" / "best.pt", device)
    try:
        network.load_state_dict(best["model"])
    except RuntimeError as error:
        raise MedexpError(
            f"{run.folder}/checkpoints/best.pt does not fit the network for these data "
            f"({len(data.classes)} classes, images {data.image_shape}). Evaluate on data of "
            "the kind that the run was trained on"
        ) from error
    metrics = run.folder / "metrics.json"
    trained = read_json(metrics) if metrics.exists() else {}
    facts = {
        "parameters": build.parameter_counts(network),
        "best_epoch": best["epoch"],
        "epochs": trained.get("epochs", best["epoch"]),
        "evaluated_run": run.name,
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
    file = Path(settings.run) / "metrics.json"
    trained = read_json(file)["marks"] if file.is_file() else {}
    # What training lacked it lacks on any data; whether the row is the paper's is asked anew.
    kept = {m: trained[m] for m in HANDED_ON if m in trained and m != "DEVIATES"}
    return facts, kept


# ---------------------------------------------------------------- ensembles


def members_of(settings: EvalSettings, part: str) -> list[binding.Run]:
    """The runs of an ensemble.

    Raises ConfigError for a run that is named twice, and MedexpError for one that is not finished,
    has other classes, reads images otherwise, or whose images of the scored split are not the first
    one's: others could be among its training images.
    """
    runs: list[binding.Run] = []
    for folder in map(Path, settings.ensemble or ()):
        if folder in [run.folder for run in runs]:
            raise ConfigError(f"run={folder}: named twice. Name each run of an ensemble once")
        run = binding.read_run("run", folder)
        for name in ("metrics.json", "split.csv"):
            if not (folder / name).is_file():
                raise MedexpError(
                    f"run={folder}: no {name} there, so it is not finished. Leave it out, or go on "
                    f"with it: medexp train resume={folder}"
                )
        if runs:
            check_member(run, runs[0], part)
        runs.append(run)
    return runs


def check_member(run: binding.Run, first: binding.Run, part: str) -> None:
    """Raise MedexpError where a run cannot be averaged with the first of an ensemble."""
    check_alike(run, first)
    if part == WHOLE:  # what each run was trained on among them is marked LEAKY, run by run
        return
    ids, others = (set(one.images.parts[part].ids if one.images else ()) for one in (run, first))
    if ids != others:
        raise MedexpError(
            f"run={run.name}: its {len(ids):,} {part} images are not the {len(others):,} of "
            f"{first.name} ({len(ids & others):,} in common), so a run could be scored on what "
            "it was trained on. Take runs of the same split and fold"
        )


def check_alike(run: binding.Run, first: binding.Run) -> None:
    """Raise MedexpError where a run has other classes than the first, or reads images otherwise."""
    if set(run.classes) != set(first.classes):
        raise MedexpError(
            f"run={run.name}: its classes are {', '.join(run.classes)}, those of {first.name} "
            f"{', '.join(first.classes)}. An ensemble needs runs of the same data"
        )
    if differing := binding.read_otherwise(run.settings, first.settings):
        key, (own, other) = next(iter(differing.items()))
        raise MedexpError(
            f"run={run.name}: it was trained with dataset.{key}={own}, and {first.name} with "
            f"{other}. An ensemble sees the images as its first run does; take runs that read "
            "them alike"
        )


def ensemble_facts(
    members: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """What metrics.json says of an ensemble, and its marks: those of its members and its own."""
    listed = []
    marked: dict[str, str] = {}
    for member in members:
        trained = read_json(Path(member["evaluated_run"]) / "metrics.json")
        listed.append({"model": trained["model"], **member})
        of_all = {mark: why for mark, why in trained["marks"].items() if mark not in OF_SCORES}
        marked = of_all | marked
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
