"""`medexp train`: build what the settings name, fit it, score it, write the run directory."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp.config.compose import instantiate
from medexp.config.settings import Settings, last_phase
from medexp.config.targets import check_node, locate
from medexp.data.base import Dataset
from medexp.data.load import load_data
from medexp.data.split import refuse_missing_classes
from medexp.errors import ConfigError, MedexpError, RefusedError
from medexp.jobs import binding, build, known, values
from medexp.jobs.applied import applied, told
from medexp.jobs.deviations import deviations, row_of
from medexp.jobs.marks import handed_on, marks, of_scores, scaled_keys
from medexp.jobs.record import record_of
from medexp.jobs.results import mean_probabilities, own_metrics, write_provenance, write_results
from medexp.models.stages import named_stages
from medexp.runs.files import writes
from medexp.runs.images import write_images
from medexp.score.predict import as_stored
from medexp.train.epochs import CLOCK
from medexp.train.loop import Fitted, Parts, Session, fit
from medexp.train.ranks import Ranks, adapted, normalises
from medexp.train.state import set_seeds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A phase of training that is over: the network has its best weights."""

    fitted: Fitted
    network: nn.Module
    dataset: Dataset
    device: torch.device


def train(settings: Settings, folder: Path, *, resume: bool, ranks: Ranks | None = None) -> float:
    """Write everything of a run into `folder`; return the monitor's best value.

    With `second` it trains twice: the first phase in the folder `first`, then one that starts from
    its best weights; both are in history.csv. ranks: the processes that train it together.
    """
    build.release_memory()
    if ranks is None and (settings.trainer.devices or 1) > 1:
        raise ConfigError(
            f"trainer.devices={settings.trainer.devices}: is read from the command line of a "
            "single run, which starts the processes. Give it there, without -m; or leave it out"
        )
    whole = settings
    last = last_phase(settings)  # what cannot be is refused before anything is trained
    own_metrics(settings)
    deviating = deviations(settings, scaled_keys(settings.paper or {}))
    earlier = []
    start = None
    if settings.init_from is not None:
        start = build.run_folder("init_from", settings.init_from)
    origin = binding.run_of_weights(settings)
    if settings.second:
        log.info("First phase:")
        only = replace(settings, second={})
        first = train_phase(
            only, folder / "first", start=start, origin=origin, resume=resume, ranks=ranks
        )
        start = folder / "first"
        origin = binding.phase_of(start, only)
        earlier = [{"phase": 1, **row} for row in first.fitted.history]
        log.info("Second phase:")
        del first
    settings = last
    phase = train_phase(
        settings,
        folder,
        start=start,
        origin=origin,
        earlier=earlier,
        resume=resume,
        ranks=ranks,
    )
    fitted = phase.fitted
    epochs = len(earlier) + len(fitted.history)
    facts = {
        "parameters": build.parameter_counts(phase.network),
        "best_epoch": fitted.best_epoch,
        "epochs": epochs,
        "wall_seconds": fitted.seconds,
        "monitor": settings.trainer.monitor,
        "applied": applied(settings.augment, phase.dataset, phase.network, whole.augment),
    }
    if fitted.pruned:
        facts["pruned_at"] = epochs
    if deviating:
        facts["deviates"] = {key: {"row": a, "run": b} for key, (a, b) in deviating.items()}
    predicted = {name: probabilities_of(phase, name, settings, ranks) for name in ("val", "test")}
    if not writes():
        return fitted.best_value
    marked = marks(settings, phase.dataset, epochs, deviating=deviating)
    if origin is not None:
        marked = handed_on(marked, origin.folder)
    data = phase.dataset
    marked |= of_scores(data.test, predicted["test"], data.classes, "test")
    write_results(folder, settings, phase.dataset, predicted, marked, facts)
    return fitted.best_value


def train_phase(
    settings: Settings,
    folder: Path,
    *,
    start: Path | None = None,
    origin: binding.Run | None = None,
    earlier: Sequence[dict[str, Any]] = (),
    resume: bool,
    ranks: Ranks | None = None,
) -> Phase:
    """Build everything of one phase of training and fit it.

    start: the folder of a run, from whose best weights it starts. origin: what that run was, or the
    one whose weights model.weights names. earlier: rows of the history of the phase before.
    ranks: see train().
    """
    if ranks:
        settings = replace(settings, trainer=adapted(settings.trainer, ranks.count))
    check_node("dataset", settings.dataset, {"root": ""})
    check_node("model", settings.model, {"num_classes": 2, "in_channels": 3, "image_size": ()})
    for key in CLOCK:
        if key in settings.schedule:
            raise ConfigError(f"schedule.{key}: the loop gives it to the schedule. Leave it out")
    device, precision = build.set_machine(settings.trainer)
    augment, schedule, sampling = (
        values.built(group, getattr(settings, group), partial(instantiate, group))
        for group in ("augment", "schedule", "sampling")
    )
    optimizer = values.optimizer_of(settings.optimizer, device)
    if origin is not None:
        settings = replace(settings, model=binding.carried_over(settings.model, origin))
    if resume and not (folder / "checkpoints" / "last.pt").exists():
        log.info("%s: nothing to resume here, the phase starts anew", folder)
        resume = False
    dataset = data_of(settings, folder, origin, resume=resume)
    if precision is not None and row_of(settings) is not None:
        noted = f"trained with AMP in {amp_of(precision)}; the paper's own precision is float32"
        dataset = replace(dataset, notes=(*dataset.notes, noted))
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    loss = values.loss_of(settings.loss, counts.tolist())

    def network_of(node: Any) -> nn.Module:
        set_seeds(settings.seed)
        return build.build_network(node, dataset)

    network = values.built("model", settings.model, network_of)
    values.try_network(network, settings.model.target, dataset)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if not resume:
        build.start_weights(network, settings.model.weights, start, folder)
    amp = amp_of(precision)
    if ranks:
        amp += f", {ranks.count} processes"
        dataset = replace(dataset, notes=(*dataset.notes, *of_shares(network, settings, ranks)))
    announce(settings, dataset, network, folder, f"{device}, {amp}")
    if not (resume and (folder / "provenance.json").exists()):
        write_provenance(folder, settings, dataset, device, amp)
        labels = {part: split.labels.tolist() for part, split in dataset.splits().items()}
        write_images(folder, known.images_of(dataset, origin), labels)
        record_of(settings, dataset, network, start).write(folder)
    fitted = fit(
        Session(folder, settings.seed, device, precision, tuple(earlier), resume, ranks),
        network,
        dataset,
        Parts(
            optimizer=optimizer,
            schedule=schedule,
            loss=loss,
            augment=augment,
            sampling=sampling,
            stages=named_stages(network, settings.model.stages),
        ),
        settings.trainer,
        [locate(path, f"observers.{name}")(folder) for name, path in settings.observers.items()]
        if writes()
        else (),
    )
    if fitted.pruned:
        dataset = replace(dataset, marks={**dataset.marks, "PRUNED": fitted.pruned})
    return Phase(fitted, network, dataset, device)


def probabilities_of(
    phase: Phase, name: str, settings: Settings, ranks: Ranks | None
) -> np.ndarray:
    """(N, C) float64 of a split, by this process or by all together."""
    predict = partial(
        mean_probabilities,
        phase.network,
        views=(as_stored,),
        trainer=settings.trainer,
        device=phase.device,
    )
    split = phase.dataset.splits()[name]
    if ranks is None:
        return predict(split)
    return ranks.over(split, settings.trainer.eval_batch_size, predict)


def of_shares(network: nn.Module, settings: Settings, ranks: Ranks) -> tuple[str, ...]:
    """The note of a run whose BatchNorm saw less than a batch at a time."""
    if settings.trainer.sync_batchnorm or not normalises(network):
        return ()
    size = settings.trainer.batch_size
    return (
        f"trained on {ranks.count} devices, each with BatchNorm's statistics of its own "
        f"{size / ranks.count:g} images of a batch of {size} (trainer.sync_batchnorm=false)",
    )


def amp_of(precision: torch.dtype | None) -> str:
    return "float32" if precision is None else str(precision).removeprefix("torch.")


def data_of(
    settings: Settings, folder: Path, origin: binding.Run | None, *, resume: bool
) -> Dataset:
    """The data of a phase: what it began with where it goes on; marked where its start knows it."""
    if resume:
        try:
            data = binding.load_as(settings, binding.phase_of(folder, settings), exact=True)
        except MedexpError as error:
            raise RefusedError(str(error)) from error
    else:
        data = load_data(settings)
        refuse_missing_classes(
            data,
            synthetic=settings.source.kind == "phantom",
            monitor=settings.trainer.monitor,
        )
    if origin is None:
        return data
    if set(data.classes) == set(origin.classes):  # the head's outputs keep their meaning
        data = binding.in_order(data, origin.classes, origin.name)
    if settings.dataset.target == origin.settings.dataset.target:
        notes = binding.reading_notes(settings, origin)
        data = replace(data, notes=(*data.notes, *notes))
    return known.with_leaks(settings, data, origin, ("val", "test"))


def announce(
    settings: Settings, data: Dataset, network: nn.Module, folder: Path, machine: str
) -> None:
    """Three lines on what is about to be trained, on what and where."""
    sizes = " / ".join(f"{len(split):,}" for split in data.splits().values())
    log.info("%s on %s, %s", settings.names.model, settings.names.dataset, folder)
    log.info(
        "%s train / val / test images, %s parameters, %s",
        sizes,
        f"{build.parameter_counts(network)['trainable']:,}",
        machine,
    )
    log.info(told(applied(settings.augment, data, network)))
