"""What a later command asks for, held against what the run was: one check for all of them.

`eval`, `resume`, `init_from` and ensembles come through here. The run's own split is found again by
the ids of its images; classes are mapped by name; the scale of the inputs is carried over; images
that the weights were trained on are never scored unmarked; what cannot change is refused by key.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medexp.config.saved import saved_config
from medexp.config.settings import (
    EvalSettings,
    ModelNode,
    Settings,
    SplitSettings,
    decisive,
    last_phase,
)
from medexp.config.tree import build as build_settings
from medexp.config.tree import plain
from medexp.data.base import PARTS, WHOLE, Dataset, Split
from medexp.data.load import Replay, load_data
from medexp.data.store import pixels_of
from medexp.errors import ConfigError, RefusedError
from medexp.runs.files import read_json
from medexp.runs.images import Images, Listed, read_images
from medexp.runs.record import Record, read_record

# Keys of a data set's node that say which images go where, as against how they are read.
DRAWING = tuple(
    name for name in SplitSettings.__dataclass_fields__ if name not in ("allow_leak", "on_error")
)


@dataclass(frozen=True)
class Run:
    """A run that a later command is about.

    settings: of its last phase; whole: as config.yaml has them. images, record: None where an older
    version left none. classes: in the order of the network's outputs; empty where it is not known.
    """

    folder: Path
    settings: Settings
    images: Images | None
    record: Record | None
    classes: tuple[str, ...]
    whole: Settings

    @property
    def name(self) -> str:
        return str(self.folder)


def read_run(key: str, folder: Path) -> Run:
    """The run in a folder, which the key (`run`, `init_from`, ...) names; ConfigError if none."""
    content = saved_config(key, str(folder))
    kind = EvalSettings if "run" in content else Settings  # an evaluation has a config too
    whole = build_settings(kind, content)
    record = read_record(folder)
    classes: Sequence[str] = ()
    if record is not None:
        classes = record.classes
    elif (folder / "metrics.json").is_file():
        classes = read_json(folder / "metrics.json").get("classes") or ()
    return Run(folder, last_phase(whole), read_images(folder), record, tuple(classes), whole)


def phase_of(folder: Path, settings: Settings) -> Run:
    """A phase of training that wrote this folder, or is about to go on in it."""
    record = read_record(folder)
    classes = () if record is None else record.classes
    return Run(folder, settings, read_images(folder), record, tuple(classes), settings)


def run_of_weights(settings: Settings) -> Run | None:
    """The run that training starts from: of init_from, or whose checkpoint model.weights names."""
    if settings.init_from is not None:
        return _if_a_run("init_from", Path(settings.init_from))
    weights = settings.model.weights
    if weights and Path(weights).parent.name == "checkpoints":
        return _if_a_run("model.weights", Path(weights).parents[1])
    return None


def _if_a_run(key: str, folder: Path) -> Run | None:
    """Weights may lie in a folder without its config, such as one that was copied by hand."""
    return read_run(key, folder) if (folder / "config.yaml").is_file() else None


# ---------------------------------------------------------------- the network


def carried_over(model: ModelNode, run: Run) -> ModelNode:
    """The model's node, with the scale of the inputs that the run's weights were trained on."""
    if model.normalise is not None:
        return model
    was = run.settings.model
    if run.record is not None:
        normalise = run.record.normalised
    else:
        normalise = was.weights == "imagenet" if was.normalise is None else was.normalise
    return ModelNode({**model.content, "normalise": normalise})


def same_network(settings: Settings, run: Run) -> None:
    """Raise ConfigError where the network of an evaluation computes what the run's does not."""
    was, asked = run.settings.model, settings.model
    keys = {"normalise", *was.arguments(), *asked.arguments()} - {"_target_"}
    for key in sorted(keys):
        if was.get(key) != asked.get(key):
            raise ConfigError(
                f"model.{key}={asked.get(key)}: the network of {run.name} was trained with "
                f"{was.get(key)}, and its weights mean nothing else. Leave model.{key} out"
            )


# ---------------------------------------------------------------- the data


def load_as(
    settings: Settings, run: Run, needed: Collection[str] = PARTS, *, exact: bool = False
) -> Dataset:
    """The data of a later command: the run's own split, unless another one or other data are asked.

    needed: the splits that must be whole; of `all` no split is drawn. exact: nothing may differ
    (`resume`). Classes come in the run's order. Notes and marks say what is not as it was.

    Raises MedexpError where images are gone, classes have other names, or what must be exact
    is not.
    """
    replay = None
    if run.images is not None:
        replay = Replay({part: one.ids for part, one in run.images.parts.items()}, needed)
    if not same_drawing(settings, run):
        replay = None
    if WHOLE in needed:
        data = load_data(settings, whole=True)
    elif replay is None or same_place(settings, run):
        data = load_data(settings, replay=replay)
    else:
        data = load_data(settings)
        if same_images(settings, data, run):
            data = load_data(settings, replay=replay)
    data = in_order(data, run.classes, run.name)
    changed = changed_images(settings, data, run)
    if exact:
        refuse_other_images(data, run, changed)
    elif changed:
        total = len({key for split in data.splits().values() for key in split.ids.tolist()})
        reason = (
            f"{len(changed):,} of {total:,} images have other pixels than {run.name} read: "
            f"{_few(changed)}"
        )
        data = replace(data, marks={**data.marks, "CHANGED IMAGES": reason})
    if settings.dataset.target == run.settings.dataset.target:
        data = replace(data, notes=(*data.notes, *reading_notes(settings, run)))
    return data


def same_drawing(settings: Settings, run: Run) -> bool:
    """Whether the split that is asked for is drawn by the same keys as the run's."""
    now, then = settings.dataset.split, run.settings.dataset.split
    return all(getattr(now, key) == getattr(then, key) for key in DRAWING)


def same_place(settings: Settings, run: Run) -> bool:
    """Whether the same reader reads the same folder, or the same phantoms."""
    return _place(settings) == _place(run.settings)


def _place(settings: Settings) -> tuple[Any, ...]:
    source, root = settings.source, settings.dataset.get("root")
    where = str(Path(str(root)).expanduser().resolve()) if source.kind == "disk" and root else None
    return settings.dataset.target, where, source if source.kind == "phantom" else source.kind


def same_reading(settings: Settings, data: Dataset, run: Run) -> bool:
    """Whether equal images have equal pixels here and in the run."""
    shape = data.image_shape if run.record is None else run.record.image_shape
    same = _reading(settings) == _reading(run.settings)
    return same and tuple(data.image_shape) == tuple(shape)


def same_images(settings: Settings, data: Dataset, run: Run) -> bool:
    """Whether an id stands for the same image here and in the run.

    In the same place it does. In another one the pixels tell, if they can be compared: where no
    image that shares an id has the run's pixels, the names are alike by chance.
    """
    if run.images is None or same_place(settings, run):
        return True
    known: dict[str, str] = {}
    for listed in (*run.images.parts.values(), run.images.seen):
        known |= listed.known_pixels()
    shared = False
    for split in data.splits().values():
        for key, pixels in zip(split.ids.tolist(), pixels_as_text(split), strict=True):
            if key in known:
                shared = True
                if known[key] == pixels:
                    return True
    return shared and not same_reading(settings, data, run)


def in_order(data: Dataset, classes: Sequence[str], run: str) -> Dataset:
    """The data with the classes in a run's order, mapped by their names.

    Raises ConfigError for a class that the run does not have.
    """
    if not classes or tuple(data.classes) == tuple(classes):
        return data
    if unknown := [name for name in data.classes if name not in classes]:
        kept = [name for name in data.classes if name in classes]
        left = f", or leave them out with dataset.classes=[{','.join(kept)}]" if kept[1:] else ""
        raise ConfigError(
            f"dataset: its classes are {', '.join(data.classes)}, and those of {run} "
            f"{', '.join(classes)}: it has no {', '.join(unknown)}. Give them the run's names{left}"
        )
    place = np.array([list(classes).index(name) for name in data.classes], np.int64)
    named = [replace(split, labels=place[split.labels]) for split in data.splits().values()]
    train, val, test = named * 3 if data.undivided else named
    return replace(data, classes=tuple(classes), train=train, val=val, test=test)


def columns_of(data: Dataset, run: Run) -> list[int]:
    """Where each class of the data stands among the outputs of a run's network."""
    if not run.classes:
        return list(range(len(data.classes)))
    return [run.classes.index(name) for name in data.classes]


def read_otherwise(settings: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    """KEY -> (ours, other's) of a reader's arguments that decide pixels and are not the same."""
    mine, theirs = _reading(settings), _reading(other)
    return {
        key: (mine.get(key), theirs.get(key))
        for key in dict.fromkeys([*mine, *theirs])
        if mine.get(key) != theirs.get(key)
    }


def reading_notes(settings: Settings, run: Run) -> tuple[str, ...]:
    """A note for each key by which images are read otherwise than by a run."""
    other = read_otherwise(settings, run.settings)
    return tuple(
        f"dataset.{key}={_text(now)} here, {_text(was)} in training of {run.name}"
        for key, (now, was) in other.items()
    )


def _reading(settings: Settings) -> dict[str, Any]:
    arguments = settings.dataset.arguments()
    return {key: value for key, value in arguments.items() if key not in ("root", "classes")}


def changed_images(settings: Settings, data: Dataset, run: Run) -> list[str]:
    """The ids of the images that have other pixels than in the run, where they can be compared."""
    if run.images is None or not same_images(settings, data, run):
        return []
    if not same_reading(settings, data, run):
        return []
    known: dict[str, str] = {}
    for listed in run.images.parts.values():
        known |= listed.known_pixels()
    return list(
        dict.fromkeys(
            key
            for split in data.splits().values()
            for key, pixels in zip(split.ids.tolist(), pixels_as_text(split), strict=True)
            if known.get(key, pixels) != pixels
        )
    )


def refuse_other_images(data: Dataset, run: Run, changed: Sequence[str]) -> None:
    """Raise RefusedError unless a run that goes on does so on its own images."""
    if changed:
        raise RefusedError(
            f"resume={run.name}: {len(changed):,} images have other pixels than when the run "
            f"began: {_few(changed)}. Put them back, or start another run from its weights: "
            f"medexp train init_from={run.name}"
        )
    for part, split in data.splits().items():
        known = run.images.parts.get(part, Listed()).ids if run.images else split.ids.tolist()
        if set(known) != set(split.ids.tolist()):
            raise RefusedError(
                f"resume={run.name}: its {part} images are others now ({len(split):,}, and "
                f"{len(known):,} when it began). Put the data back, or start another run from its "
                f"weights: medexp train init_from={run.name}"
            )


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def pixels_as_text(split: Split) -> list[str]:
    """The digest of each image of a split as split.csv holds it."""
    return [digest.decode() for digest in pixels_of(split).tolist()]


# ---------------------------------------------------------------- a run that goes on

# What a run may be resumed with otherwise: how long it trains, how it is stopped, watched and
# scored, and on what kind of machine. Everything else is what the run is.
RESUMABLE = (
    *("trainer.epochs", "trainer.max_steps", "trainer.patience", "trainer.min_delta"),
    *("trainer.prune_after", "trainer.resamples", "trainer.eval_batch_size", "trainer.amp"),
    "trainer.devices",
    *("trainer.graphs", "trainer.compile", "trainer.channels_last", "trainer.deterministic"),
    *("dataset.allow_leak", "dataset.on_error"),
)


def changes_on_resume(was: Settings, asked: Settings) -> dict[str, tuple[Any, Any]]:
    """KEY -> (was, asked) of what a run is resumed with otherwise; RefusedError where it cannot."""
    before, now = decisive(plain(was)), decisive(plain(asked))
    differing = {
        key: (before.get(key), now.get(key))
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    }
    for key, (old, new) in differing.items():
        if key.removeprefix("second.") in RESUMABLE or key.startswith("metrics."):
            continue
        group, _, rest = key.partition(".")
        shown = rest if group == "names" else key
        raise RefusedError(
            f"{shown}={_text(new)}: the run has {_text(old)}, and resume goes on with a run as it "
            f"is. To train another from its weights: medexp train init_from={asked.resume} "
            f"{shown}={_text(new)}"
        )
    return differing


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def noted(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Changes of a resume as provenance.json keeps them."""
    return {key: {"was": was, "now": now} for key, (was, now) in changes.items()}
