"""A run's record made of its settings and data, and held against the one that a run left."""

import logging
from pathlib import Path

from torch import nn

from medexp.config.settings import Settings, decisive
from medexp.config.tree import plain
from medexp.data.base import Dataset
from medexp.data.store import fingerprint
from medexp.runs.files import versions
from medexp.runs.record import (
    Difference,
    Part,
    Record,
    differences,
    digest_of_ids,
    read_record,
)

log_file = logging.getLogger("medexp.file")  # run.log only
# The groups of a run whose keys are its recipe: how it is trained.
RECIPE = ("optimizer.", "schedule.", "loss.", "augment.", "sampling.", "trainer.", "model.stages.")


def record_of(
    settings: Settings, data: Dataset, network: nn.Module, start: Path | None = None
) -> Record:
    """What a run with these settings on these data is; start: the run that it starts from."""
    dataset, model = settings.dataset, settings.model
    deciding = decisive(plain(settings))
    return Record(
        dataset=settings.names.dataset,
        reader=dataset.arguments(),
        classes=tuple(data.classes),
        image_shape=tuple(data.image_shape),
        parts={
            name: Part(len(split), digest_of_ids(split.ids.tolist()), fingerprint(split))
            for name, split in data.splits().items()
        },
        model=settings.names.model,
        network=model.arguments(),
        weights=model.weights if start is None else str(start),
        normalised=hasattr(network, "input_mean"),
        recipe={key: value for key, value in deciding.items() if key.startswith(RECIPE)},
        seed=settings.seed,
        versions=versions(),
    )


def held_against(run: Path, asked: Record) -> list[Difference]:
    """What differs between a run and what a later command was asked for; noted in run.log.

    Empty too where an older version made the run, which left no record.
    """
    was = read_record(run)
    found = [] if was is None else differences(was, asked)
    for one in found:
        log_file.info("Differs from %s in %s", run, one.text())
    return found
