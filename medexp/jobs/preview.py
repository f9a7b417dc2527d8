"""Pictures of what a run would do, without a step: its learning rate, its augmentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medexp.augment import Augment
from medexp.config.compose import instantiate
from medexp.config.settings import Settings, last_phase
from medexp.data.base import Dataset
from medexp.data.load import load_data
from medexp.jobs.marks import marks
from medexp.jobs.values import optimizer_of
from medexp.report.figure import augment_sheet, schedule
from medexp.score.predict import to_input
from medexp.train.epochs import batch_cuts, epoch_draws, epochs_within

SHEET_ROWS, SHEET_COLUMNS = 6, 6


def preview(settings: Settings, folder: Path) -> list[Path]:
    """Draw what `plot_schedule` and `plot_augment` ask for; returns the files."""
    settings = last_phase(settings)
    dataset = load_data(settings)
    augment = instantiate("augment", settings.augment)
    written = []
    if settings.plot_schedule:
        written.append(draw_schedule(settings, dataset, augment, folder))
    if settings.plot_augment:
        marked = list(marks(settings, dataset, settings.trainer.epochs))
        written.append(draw_augment(dataset, augment, settings.seed, folder, marked))
    return written


def draw_schedule(settings: Settings, dataset: Dataset, augment: Augment, folder: Path) -> Path:
    """The learning rate of every step, as schedule.png."""
    trainer = settings.trainer
    sampling = instantiate("sampling", settings.sampling)
    order, _ = epoch_draws(dataset.train.labels, augment, sampling, seed=settings.seed, epoch=0)
    rule = instantiate("schedule", settings.schedule)
    optimizer = optimizer_of(settings.optimizer, torch.device("cpu"))
    lr = optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
    steps = len(batch_cuts(len(order), trainer.batch_size))
    epochs = epochs_within(trainer.epochs, trainer.max_steps, steps)
    curve = schedule.rates(rule, lr, epochs=epochs, steps=steps)
    name = settings.schedule.target.rpartition(".")[2]
    path = folder / "schedule.png"
    note = schedule.caveat(rule)
    schedule.draw_schedules({name: curve}, path, title="Learning rate", note=note)
    return path


def draw_augment(
    dataset: Dataset, augment: Augment, seed: int, folder: Path, marked: Sequence[str]
) -> Path:
    """A sheet of the first images, each beside several draws of its augmentation."""
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
