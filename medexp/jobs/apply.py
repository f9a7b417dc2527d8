"""Finished runs applied to new images, one run or the mean of several: medexp.load."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medexp.config.compose import compose_node, instantiate
from medexp.config.saved import add_config_dir
from medexp.config.settings import Trainer
from medexp.data.base import NewFiles, Split, image_digest
from medexp.data.decode import check_finite, one_thread_of_opencv
from medexp.data.fresh import Item, Places, files_of, items_of, read_item, reader_of
from medexp.data.load import phantom_root
from medexp.data.progress import in_order, threads
from medexp.errors import ConfigError, MedexpError
from medexp.jobs import binding
from medexp.jobs.build import build_network
from medexp.jobs.eval import best_network, check_alike
from medexp.jobs.results import mean_probabilities
from medexp.runs.files import read_json
from medexp.runs.images import Listed
from medexp.score import metrics
from medexp.score.predict import View, as_stored
from medexp.train import device as devices

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
# Of an image that several parts of a run hold, the last of these is what counts.
KNOWN = ("test", "val", "before", "train")


@dataclass(frozen=True)
class Prediction:
    """What is said of one new image.

    row: its number in a file of several; None in a file of one. label: the predicted class.
    probabilities: (C,) float64, in the order of the model's classes. known: "" for an image that is
    new to the run; else what the run had it for: train, before (by the run that it started from),
    val (its best epoch was picked by it) or test. error: why it cannot be read; then label and
    probabilities are None.
    """

    path: str
    row: int | None
    label: str | None
    probabilities: np.ndarray | None
    known: str = ""
    error: str = ""


@dataclass(frozen=True)
class Known:
    """The images of runs, by their pixels and by their places below the root of the first."""

    pixels: Mapping[str, str]
    ids: Mapping[str, str]
    root: str | None

    def word(self, image: np.ndarray, file: Path) -> str:
        """What a run had an image for, as Prediction.known."""
        found = {self.pixels.get(image_digest(np.ascontiguousarray(image)).decode(), "")}
        if self.root is not None:
            place = os.path.relpath(os.path.abspath(file), self.root)
            found.add(self.ids.get(place.replace(os.sep, "/"), ""))
        return next((word for word in reversed(KNOWN) if word in found), "")


@dataclass(frozen=True)
class Model:
    """Networks of finished runs with what belongs to them: reader, classes, what they know.

    classes: in the order of the columns of probabilities. image_shape: of an image as it is read,
    (H, W, C) or (D, H, W, C). networks: one a run; each takes (N, C, [D,] H, W) float32 and
    normalises in itself. For an image they see what the run's own reader makes of its file.
    """

    runs: tuple[binding.Run, ...]
    networks: tuple[nn.Module, ...]
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    reader: NewFiles
    known: Known
    trainer: Trainer
    device: torch.device
    views: tuple[View, ...] = (as_stored,)

    @property
    def network(self) -> nn.Module:
        """The network of the run, or of the first of several."""
        return self.networks[0]

    def read(self, path: str | os.PathLike[str], row: int = 0) -> np.ndarray:
        """The image in a file as the run's reader makes it; MedexpError where there is none."""
        return self._image(Item(str(path), Path(path), row))

    def _image(self, item: Item) -> np.ndarray:
        image, _ = read_item(item, self.reader)
        dtype = self.reader.dtype
        if image.shape != self.image_shape or (dtype is not None and image.dtype != dtype):
            raise MedexpError(
                f"{item.file}: images of {image.shape} {image.dtype}, where the run has "
                f"{self.image_shape}{'' if dtype is None else f' {np.dtype(dtype)}'}"
            )
        check_finite(image, str(item.file))
        return np.asarray(image)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(N, C) float64 of images (N, *image_shape), uint8 or float, as `read` gives them."""
        n = len(images)
        split = Split(images, np.zeros(n, np.int64), np.arange(n).astype(str))
        found = []
        for run, network in zip(self.runs, self.networks, strict=True):
            p = mean_probabilities(network, split, self.views, self.trainer, self.device)
            found.append(p[:, [run.classes.index(name) for name in self.classes]])
        return np.asarray(np.mean(found, axis=0))

    def items(self, images: Images) -> Callable[[], Iterator[Item]]:
        """The images that a folder, file, pattern, table or list of paths names; see files_of."""
        files = files_of(images, self.reader.suffixes, places_of(self.runs[0]))
        return lambda: items_of(files(), self.reader)

    def stream(self, images: Images) -> Iterator[Prediction]:
        """A prediction an image, in order, in memory that does not grow with their number."""
        return self.stream_items(self.items(images)())

    def stream_items(self, items: Iterable[Item]) -> Iterator[Prediction]:
        """Batches are of images that can be read, as those of an evaluation are."""
        Read = tuple[Item, np.ndarray | None, str, str]

        def work(item: Item) -> Read:
            try:
                image = self._image(item)
            except MedexpError as error:
                return item, None, "", str(error)
            except Exception as error:  # as in the cache's build: a file's fault, not the others'
                return item, None, "", f"{item.file}: {type(error).__name__}: {error}"
            return item, image, self.known.word(image, item.file), ""

        waiting: list[Read] = []
        held: list[np.ndarray] = []
        with one_thread_of_opencv():
            for one in in_order(work, items, threads()):
                image = one[1]
                if held and image is not None and image.dtype != held[0].dtype:
                    yield from self._predicted(waiting, held)
                    waiting, held = [], []
                waiting.append(one)
                if image is not None:
                    held.append(image)
                if len(held) == self.trainer.eval_batch_size:
                    yield from self._predicted(waiting, held)
                    waiting, held = [], []
            yield from self._predicted(waiting, held)

    def _predicted(
        self, waiting: Sequence[tuple[Item, np.ndarray | None, str, str]], held: list[np.ndarray]
    ) -> Iterator[Prediction]:
        rows = iter(())  # type: Iterator[tuple[np.ndarray, int]]
        if held:
            p = self.probabilities(np.stack(held))
            rows = zip(p, metrics.predict(p).tolist(), strict=True)
        for item, image, known, error in waiting:
            if image is None:
                yield Prediction(item.shown, item.number, None, None, known, error)
                continue
            values, label = next(rows)
            yield Prediction(item.shown, item.number, self.classes[label], values, known)

    def predict(self, images: Images) -> list[Prediction]:
        """A prediction an image, in order."""
        return list(self.stream(images))


def load(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    device: str = "auto",
    batch_size: int | None = None,
    tta: str | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> Model:
    """A finished run, or several of one data set whose probabilities are averaged.

    runs: the folder that `medexp train` named at its end. batch_size: None as in training. tta: an
    option of conf/tta, such as "flips". config_dir: the folder of your own modules and groups, if
    the run is of them; a run is not asked where they are. Raises MedexpError where it is no such
    folder.
    """
    one = isinstance(runs, (str, os.PathLike))
    folders = [os.fspath(runs)] if one else [os.fspath(run) for run in runs]  # type: ignore
    words: list[str] = []
    if config_dir is not None:
        add_config_dir(os.fspath(config_dir))
        words = ["--config-dir", os.fspath(config_dir)]
    views = views_of(compose_node("tta", tta, words)) if tta else (as_stored,)
    settings: dict[str, Any] = {"device": device}
    if batch_size is not None:
        settings["eval_batch_size"] = batch_size
    return model_of(folders, settings, views, devices.pick_device(device))


def views_of(node: Mapping[str, Any]) -> tuple[View, ...]:
    """The views of test-time augmentation."""
    return tuple(instantiate("tta", node))


def model_of(
    folders: Sequence[str],
    changes: Mapping[str, Any],
    views: tuple[View, ...],
    device: torch.device,
) -> Model:
    """The networks of runs on a device. changes: of the first run's trainer."""
    if len(set(folders)) < len(folders):
        raise ConfigError(f"run={','.join(folders)}: name each run of an ensemble once")
    runs = [binding.read_run("run", Path(folder)) for folder in folders]
    first = runs[0]
    for run in runs:
        kind_of(run)
        if run is not first:
            check_alike(run, first)
    assert first.record is not None
    arguments = first.settings.dataset.arguments()
    if first.settings.source.kind == "phantom":
        name, node = first.settings.names.dataset, first.settings.dataset
        arguments["root"] = str(phantom_root(name, node, first.settings.source))
    trainer = trainer_of(first.settings.trainer, changes)
    networks = []
    for run in runs:
        network = network_of(run, device)
        if trainer.channels_last:
            network.to(memory_format=torch.channels_last)
        networks.append(network)
    shape = tuple(first.record.image_shape)
    return Model(
        runs=tuple(runs),
        networks=tuple(networks),
        classes=first.classes,
        image_shape=shape,
        reader=reader_of(arguments, shape),
        known=known_of(runs),
        trainer=trainer,
        device=device,
        views=views,
    )


def network_of(run: binding.Run, device: torch.device, *, weights: bool = True) -> nn.Module:
    """The network of a run's best epoch, to be evaluated; without its weights where asked so."""
    model = binding.carried_over(run.settings.model, run)
    if not weights:
        return build_network(model, kind_of(run)).to(device).eval()
    network, _ = best_network(run, model, kind_of(run), device)
    return network.eval()


def kind_of(run: binding.Run) -> "OfRun":
    """What a run's record says of its data; MedexpError where it has none."""
    if run.record is None or not run.classes:
        raise MedexpError(
            f"run={run.name}: no record.json there, by which its classes and images would be "
            "known: an older version made it. Train it again"
        )
    return OfRun(run.classes, tuple(run.record.image_shape))


def marks_of(runs: Sequence[binding.Run]) -> dict[str, str]:
    """The marks of runs, which hold for what they predict: PHANTOM, PARTIAL, ..."""
    marked: dict[str, str] = {}
    for run in runs:
        file = run.folder / "metrics.json"
        if file.is_file():
            marked = (read_json(file).get("marks") or {}) | marked
        else:
            marked["UNFINISHED"] = f"{run.name} has no metrics.json: its training is not finished"
    return marked


@dataclass(frozen=True)
class OfRun:
    """What a run's record says of its data."""

    classes: tuple[str, ...]
    image_shape: tuple[int, ...]


def trainer_of(trainer: Trainer, changes: Mapping[str, Any]) -> Trainer:
    """The trainer with other values of some keys; ConfigError for one out of range."""
    from medexp.config.tree import build, plain

    return build(Trainer, {**plain(trainer), **changes}, "trainer.")


def places_of(run: binding.Run) -> Places:
    """Where paths in a table may start from, as the run's own data say."""
    node = run.settings.dataset
    if run.settings.source.kind == "phantom" or not node.get("root"):
        return Places()
    column = node.get("path_column")
    root = Path(str(node["root"])).expanduser()
    return Places(root, str(node.get("folder") or ""), str(node.get("extension") or ""), column)


def known_of(runs: Sequence[binding.Run]) -> Known:
    """The images of runs; of several the one counts that knows an image best."""
    pixels: dict[str, str] = {}
    ids: dict[str, str] = {}
    first = places_of(runs[0]).root
    for word in KNOWN:
        for run in runs:
            listed = Listed()
            if run.images is not None:
                seen = run.images.seen
                listed = seen if word == "before" else run.images.parts.get(word, Listed())
            pixels |= dict.fromkeys(filter(None, listed.pixels), word)
            if places_of(run).root == first:
                ids |= dict.fromkeys(listed.ids, word)
    return Known(pixels, ids, None if first is None else os.path.abspath(first))
