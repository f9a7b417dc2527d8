"""A run's record, made of its settings and data."""

from pathlib import Path

from torch import nn

from medexp.config.settings import Settings, decisive
from medexp.config.tree import plain
from medexp.data.base import Dataset
from medexp.data.store import fingerprint
from medexp.runs.files import versions
from medexp.runs.record import Part, Record, digest_of_ids

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
