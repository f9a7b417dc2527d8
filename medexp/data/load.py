"""From a config's data set node to three splits: phantoms, reader, split, cache. No torch."""

import hashlib
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from medexp.config.compose import instantiate
from medexp.config.settings import DatasetNode, Plan, Settings, Source
from medexp.config.targets import locate
from medexp.data.base import PARTS, Dataset, Pool, Rows, Split
from medexp.data.cache import cache_dir, make_once
from medexp.data.split import leak_marks, plan_rows
from medexp.data.store import stored
from medexp.errors import ConfigError, MedexpError

log = logging.getLogger(__name__)


def load_data(settings: Settings, *, examine: bool = False) -> Dataset:
    """The data set of a config, split and decoded.

    examine: for `medexp data check`, which reports what stops a run: unreadable images are left
    out and groups may cross the split.
    """
    plan = settings.dataset.split
    if examine:
        plan = replace(plan, allow_leak=True, on_error="skip")
    loaded = load_pool(settings)
    if isinstance(loaded, Dataset):
        return given_dataset(loaded, plan)
    return split_pool(loaded, plan)


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


def split_pool(pool: Pool, plan: Plan) -> Dataset:
    """Split, decode (or find decoded), and leave out or refuse what cannot be read."""
    planned = plan_rows(pool, plan)
    pixels = stored(pool)
    skipped, notes = unreadable(pool, plan, pixels.failed)
    kept = {part: rows[~np.isin(rows, list(pixels.failed))] for part, rows in planned.rows.items()}

    def split(rows: np.ndarray) -> Split:
        groups = None if pool.groups is None else pool.groups[rows]
        return Split(Rows(pixels.array, rows), pool.labels[rows], pool.ids[rows], groups)

    return Dataset(
        pool.name,
        pool.classes,
        train=split(kept["train"]),
        val=split(kept["val"]),
        test=split(kept["test"]),
        partial=(*partial(pool, planned.kind), *planned.partial),
        notes=(*pool.notes, *planned.notes, *notes, *copies(pixels.digests, kept)),
        marks=planned.marks,
        skipped=skipped,
        facts={str(pool.ids[row]): facts for row, facts in pixels.facts.items()},
    )


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
    pool: Pool, plan: Plan, failed: Mapping[int, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """id -> reason of the images left out, and the note that says so; refused unless skipped."""
    if not failed:
        return {}, ()
    count = f"{len(failed):,} of {len(pool):,} images cannot be read"
    if plan.on_error == "fail":
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
    """Where this is less than the public data set."""
    found = []
    names = {"train": "training", "val": "validation", "test": "test"}
    if isinstance(pool.public, dict) and pool.parts is not None and kind == "given":
        for part, public in pool.public.items():
            have = int((pool.parts == part).sum())
            if have < public:
                found.append(f"{have:,} of {public:,} {names[part]} images")
    elif pool.public is not None:
        public = pool.public if isinstance(pool.public, int) else sum(pool.public.values())
        if len(pool) < public:
            found.append(f"{len(pool):,} of {public:,} images")
    return tuple(found)


def given_dataset(data: Dataset, plan: Plan) -> Dataset:
    """A data set that its own function has split: its groups are looked at, nothing is drawn."""
    for name, value in asdict(plan).items():
        if value != getattr(Plan(), name) and name not in ("allow_leak", "on_error"):
            raise ConfigError(
                f"dataset.{name}={value}: {data.name} comes split from its own function. Return a "
                "medexp.data.Pool to have medexp split it"
            )
    groups = [split.groups for split in data.splits().values() if split.groups is not None]
    if len(groups) < len(PARTS):
        return data
    ends = np.cumsum([len(part) for part in groups])
    rows = {
        part: np.arange(end - len(own), end)
        for part, own, end in zip(PARTS, groups, ends, strict=True)
    }
    leaks = leak_marks(data.name, np.concatenate(groups), rows, plan.allow_leak)
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
