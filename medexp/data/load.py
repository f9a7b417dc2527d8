"""From a config's data set node to three splits: phantoms, reader, split, cache. No torch."""

import hashlib
import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medexp.config.compose import instantiate
from medexp.config.settings import DatasetNode, Settings, Source, SplitSettings
from medexp.config.targets import locate
from medexp.data.base import (
    PARTS,
    PARTS_IN_WORDS,
    Dataset,
    Pool,
    Rows,
    Split,
    consecutive_rows,
)
from medexp.data.cache import cache_dir, make_once
from medexp.data.leak import leak_marks
from medexp.data.split import replayed_rows, split_rows
from medexp.data.store import stored
from medexp.errors import ConfigError, MedexpError

log = logging.getLogger(__name__)

NO_SPLIT = "all images, of which no split was drawn"


@dataclass(frozen=True)
class Replay:
    """A run's split, to be found again: split -> ids of its images, and which must be whole."""

    ids: Mapping[str, Sequence[str]]
    needed: Collection[str] = PARTS


def load_data(
    settings: Settings,
    *,
    examine: bool = False,
    replay: Replay | None = None,
    whole: bool = False,
) -> Dataset:
    """The data set of a config, split and decoded.

    examine: as `medexp data check` needs it, which reports what stops a run: unreadable images are
    left out and groups may cross the split. replay: the split is that of a run, whatever was added
    to the data set since. whole: no split is drawn, all images are one part.
    """
    split = settings.dataset.split
    if whole:
        return undivided(load_pool(settings), split.on_error)
    return as_dataset(load_pool(settings), lenient(split) if examine else split, replay)


def lenient(split: SplitSettings) -> SplitSettings:
    """The same split, in which nothing is refused that can be reported."""
    return replace(split, allow_leak=True, on_error="skip")


def load_pool(settings: Settings) -> Pool | Dataset:
    """What the reader of a config returns; phantoms are written to the cache on first use."""
    dataset = settings.dataset
    arguments = dataset.arguments()
    if settings.source.kind == "phantom":
        name = settings.names.dataset
        arguments["root"] = str(phantom_root(name, dataset, settings.source))
    loaded = instantiate("dataset", arguments)
    if not isinstance(loaded, (Pool, Dataset)):
        raise ConfigError(
            f"dataset._target_={dataset.target}: returned {type(loaded).__name__}. It must "
            "return a medexp.data.Pool, or a medexp.data.Dataset that is split already"
        )
    return loaded


def as_dataset(
    loaded: Pool | Dataset, split: SplitSettings, replay: Replay | None = None
) -> Dataset:
    """Split and decode a pool, or hold a data set that comes split against the settings."""
    if isinstance(loaded, Dataset):
        return checked_dataset(loaded, split)
    return split_pool(loaded, split, replay)


def split_pool(pool: Pool, settings: SplitSettings, replay: Replay | None = None) -> Dataset:
    """Split, decode (or find decoded), and leave out or refuse what cannot be read."""
    if replay is None:
        split = split_rows(pool, settings)
        pixels = stored(pool)
    else:
        pixels = stored(pool)
        split = replayed_rows(pool, settings, replay.ids, replay.needed, pixels.failed)
    failed = pixels.failed
    if replay is not None:  # what the run has no use for may be damaged
        used = set(np.concatenate(list(split.rows.values())).tolist())
        failed = {row: why for row, why in failed.items() if row in used}
    skipped, notes = unreadable(pool, settings.on_error, failed)
    kept = {part: rows[~np.isin(rows, list(pixels.failed))] for part, rows in split.rows.items()}

    def part_of(rows: np.ndarray) -> Split:
        groups = None if pool.groups is None else pool.groups[rows]
        return Split(Rows(pixels.array, rows), pool.labels[rows], pool.ids[rows], groups)

    return Dataset(
        pool.name,
        pool.classes,
        train=part_of(kept["train"]),
        val=part_of(kept["val"]),
        test=part_of(kept["test"]),
        partial=(*partial(pool, split.kind), *split.partial),
        notes=(
            *pool.notes,
            *split.notes,
            *notes,
            *transparent(pixels.facts),
            *copies(pixels.digests, kept),
        ),
        marks=split.marks,
        skipped=skipped,
        facts={str(pool.ids[row]): facts for row, facts in pixels.facts.items()},
    )


def undivided(loaded: Pool | Dataset, on_error: str) -> Dataset:
    """All images of a pool as one part; what cannot be read is left out or refused."""
    if isinstance(loaded, Dataset):
        return joined(loaded)
    pixels = stored(loaded)
    skipped, notes = unreadable(loaded, on_error, pixels.failed)
    rows = np.array([row for row in range(len(loaded)) if row not in pixels.failed], np.intp)
    groups = None if loaded.groups is None else loaded.groups[rows]
    every = Split(Rows(pixels.array, rows), loaded.labels[rows], loaded.ids[rows], groups)
    return Dataset(
        loaded.name,
        loaded.classes,
        every,
        every,
        every,
        partial=partial(loaded, ""),
        notes=(*loaded.notes, NO_SPLIT, *notes, *transparent(pixels.facts)),
        skipped=skipped,
        facts={str(loaded.ids[row]): facts for row, facts in pixels.facts.items()},
        undivided=True,
    )


def joined(data: Dataset) -> Dataset:
    """A data set that comes split, as one part; an image that stands in two counts once."""
    splits = list(data.splits().values())
    _, first = np.unique(np.concatenate([split.ids for split in splits]), return_index=True)
    rows = np.sort(first)
    groups = [split.groups for split in splits if split.groups is not None]
    every = Split(
        np.concatenate([np.asarray(split.images) for split in splits])[rows],
        np.concatenate([split.labels for split in splits])[rows],
        np.concatenate([split.ids for split in splits])[rows],
        np.concatenate(groups)[rows] if len(groups) == len(splits) else None,
    )
    notes = (*data.notes, NO_SPLIT)
    whole = replace(data, train=every, val=every, test=every, undivided=True, notes=notes)
    return replace(whole, marks={})  # they are of parts that this has not


def transparent(facts: Mapping[int, Mapping[str, Any]]) -> tuple[str, ...]:
    """A note for each background that transparent images were laid over."""
    laid = Counter(str(one["transparent"]) for one in facts.values() if "transparent" in one)
    return tuple(f"{count:,} images with transparent pixels: {how}" for how, count in laid.items())


def copies(digests: np.ndarray | None, rows: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note where test images are files of the training part again, under another name."""
    if digests is None:
        return ()
    again = int(np.isin(digests[rows["test"]], digests[rows["train"]]).sum())
    if not again:
        return ()
    share = again / len(rows["test"])
    return (f"{again:,} test images ({share:.1%}) are copies of training images, byte for byte",)


def unreadable(
    pool: Pool, on_error: str, failed: Mapping[int, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """id -> reason of the images left out, and the note that says so; refused unless skipped."""
    if not failed:
        return {}, ()
    count = f"{len(failed):,} of {len(pool):,} images cannot be read"
    if on_error == "fail":
        raise MedexpError(
            f"{pool.name}: {count}. The first: {next(iter(failed.values()))}\n"
            "dataset.on_error=skip leaves them out and lists them in metrics.json"
        )
    log.warning("%s: %s and are left out; they are listed with the results", pool.name, count)
    return (
        {str(pool.ids[row]): reason for row, reason in failed.items()},
        (f"{count} and are left out (listed in metrics.json)",),
    )


def partial(pool: Pool, kind: str) -> tuple[str, ...]:
    """Where this is less than the public data set, in all or, if it comes split, in a part."""
    if pool.public is None:
        return ()
    if isinstance(pool.public, dict) and pool.parts is not None and kind == "given":
        counts = [
            (int((pool.parts == part).sum()), public, f"{PARTS_IN_WORDS[part]} images")
            for part, public in pool.public.items()
        ]
    else:
        public = pool.public if isinstance(pool.public, int) else sum(pool.public.values())
        counts = [(len(pool), public, "images")]
    return tuple(f"{n:,} of {public:,} {noun}" for n, public, noun in counts if n < public)


def checked_dataset(data: Dataset, split: SplitSettings) -> Dataset:
    """A data set that its own function has split: its groups are looked at, nothing is drawn."""
    for name, value in asdict(split).items():
        if value != getattr(SplitSettings(), name) and name not in ("allow_leak", "on_error"):
            raise ConfigError(
                f"dataset.{name}={value}: {data.name} comes split from its own function. Return a "
                "medexp.data.Pool to have medexp split it"
            )
    groups = [part.groups for part in data.splits().values() if part.groups is not None]
    if len(groups) < len(PARTS):
        return data
    rows = consecutive_rows(dict(zip(PARTS, map(len, groups), strict=True)))
    leaks = leak_marks(data.name, np.concatenate(groups), rows, split.allow_leak)
    return replace(data, marks={**data.marks, **leaks})


def phantom_root(name: str, node: DatasetNode, source: Source) -> Path:
    """The folder of a data set's phantoms, written on first use."""
    if not node.get("phantom"):
        raise ConfigError(
            f"source=phantom: dataset={name} has no phantoms. Set dataset.phantom to a function "
            "write(folder, size, seed), or source=disk"
        )
    write = locate(node["phantom"], "dataset.phantom")
    size, seed = source.size, source.seed
    if size is None:
        size = inspect.signature(write).parameters["size"].default
        if size is inspect.Parameter.empty:
            raise ConfigError(f"source.size: missing, and {node['phantom']} has no default for it")
    if size < 16:
        raise ConfigError(f"source.size={size}: must be 16 or more")
    # A changed generator must not find the images of the old one.
    text = b"".join(path.read_bytes() for path in sources(write))
    version = hashlib.blake2b(text, digest_size=4).hexdigest()
    folder = cache_dir() / "phantom" / f"{node['phantom']}-{size}-{seed}-{version}"
    if folder.exists():
        return folder
    log.info("Writing %d phantoms to %s, once", size, folder)
    with Console(stderr=True).status("writing phantoms"):
        return make_once(folder, lambda target: write(target, size=size, seed=seed))


def sources(write: Callable[..., None]) -> list[Path]:
    """The files that a phantom is drawn by: its writer's, and what that takes from our phantoms."""
    names = set()
    for value in vars(sys.modules[write.__module__]).values():
        name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        if str(name).startswith("medexp.data.phantom."):
            names.add(str(name))
    files = {Path(inspect.getfile(write)), *(Path(str(sys.modules[n].__file__)) for n in names)}
    return sorted(files)
