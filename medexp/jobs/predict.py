"""`medexp predict`: new images through a finished run, into a table that says where it is from."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medexp.config.compose import compose_node
from medexp.data.fresh import none_found
from medexp.data.progress import bar
from medexp.errors import ConfigError, MedexpError
from medexp.jobs import build
from medexp.jobs.apply import Model, Prediction, marks_of, model_of, trainer_of, views_of
from medexp.jobs.binding import read_run
from medexp.runs.files import SCHEMA, versions, write_json
from medexp.runs.predicted import check_target, table
from medexp.score.predict import View, as_stored
from medexp.train.device import device_name

log = logging.getLogger(__name__)

SHOWN = 10  # predictions that are shown one by one


@dataclass(frozen=True)
class Asked:
    """A command line: runs, images, where to write (None: below the run), tta and its keys."""

    runs: Sequence[str]
    images: str
    out: Path | None = None
    tta: str | None = None
    views: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()


@dataclass
class Summary:
    """What became of the images. first: the first few; errors: of them the first reasons."""

    table: Path
    classes: tuple[str, ...]
    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    first: list[Prediction] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)

    def add(self, one: Prediction) -> None:
        """Count a prediction."""
        self.images += 1
        if len(self.first) <= SHOWN:
            self.first.append(one)
        if one.label is None:
            self.unreadable += 1
            self.errors += [one.error] if len(self.errors) < 3 else []
            return
        self.counts[one.label] += 1
        if one.known:
            self.known[one.known] += 1


def predict(asked: Asked) -> Summary:
    """Write the table of predictions and, beside it, the JSON file of what it rests on.

    Raises ConfigError for what cannot be asked, MedexpError where no image can be read at all.
    """
    if asked.out is not None:
        check_target(asked.out)
    build.release_memory()
    views: tuple[View, ...] = (as_stored,)
    if asked.tta:
        node = compose_node("tta", asked.tta, list(asked.words))
        if unknown := [key for key in asked.views if key not in node]:
            raise ConfigError(
                f"tta.{unknown[0]}: not of tta={asked.tta}, which has {', '.join(node)}"
            )
        views = views_of({**node, **asked.views})
    first = read_run("run", Path(asked.runs[0]))
    device, _ = build.set_machine(trainer_of(first.settings.trainer, asked.trainer))
    model = model_of(asked.runs, asked.trainer, views, device)
    items = model.items(asked.images)
    total = sum(1 for _ in items())
    if not total:
        raise none_found(asked.images, model.reader.suffixes)
    summary = Summary(asked.out or own_place(model), model.classes, marks=marks_of(model.runs))
    began = time.monotonic()
    with table(summary.table, model.classes) as write, bar("predicting", total) as advance:
        for one in model.stream_items(items()):
            write(as_row(one, model.classes))
            summary.add(one)
            advance(1)
        if summary.unreadable == summary.images:
            raise MedexpError(
                f"images={asked.images}: none of {summary.images:,} images can be read, the first: "
                f"{summary.errors[0]}"
            )
    write_json(
        summary.table.with_suffix(".json"),
        facts_of(summary, model, asked) | {"seconds": round(time.monotonic() - began, 1)},
    )
    return summary


def own_place(model: Model) -> Path:
    """A new folder below the run; of an ensemble below outputs."""
    base = model.runs[0].folder if len(model.runs) == 1 else Path("outputs")
    return base / "predict" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}" / "predictions.csv"


def as_row(one: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """A row of the table; floats in full, so that they read back to the same bits."""
    values: list[float | None] = [None] * len(classes)
    if one.probabilities is not None:
        values = one.probabilities.tolist()
    return {
        "path": one.path,
        "row": one.row,
        "class": one.label,
        **{f"p_{name}": value for name, value in zip(classes, values, strict=True)},
        "known": one.known,
        "error": one.error,
    }


def facts_of(summary: Summary, model: Model, asked: Asked) -> dict[str, Any]:
    """What the JSON file beside the table says."""
    return {
        "schema": SCHEMA,
        "runs": [run.name for run in model.runs],
        "images": asked.images,
        "classes": list(model.classes),
        "views": len(model.views),
        "predicted": summary.images - summary.unreadable,
        "unreadable": summary.unreadable,
        "counts": {name: summary.counts[name] for name in model.classes},
        "known": dict(summary.known),
        "marks": summary.marks,
        "reader": model.runs[0].settings.dataset.arguments(),
        "batch": model.trainer.eval_batch_size,
        "device": f"{model.device}: {device_name(model.device)}, float32",
        "versions": versions(),
        "command": os.environ.get("MEDEXP_COMMAND"),
        "working_directory": str(Path.cwd()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
