"""One run by several processes, a device each: rank 0 is the run, the others follow it.

torchrun starts them, or `medexp train trainer.devices=N` by torch's own launcher. Rank 0 does all
that one process does: composes, writes, speaks. The others get its settings, train their share, and
write nothing. Where one ends, the others fail at their next exchange, and rank 0 says how to go on.
"""

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from medexp.config.saved import add_config_dir
from medexp.config.settings import Settings, last_phase
from medexp.config.tree import build, plain
from medexp.errors import ConfigError, MedexpError
from medexp.jobs.train import train
from medexp.runs.files import read_json, write_nothing
from medexp.train.device import pick_device
from medexp.train.ranks import Ranks, adapted

log = logging.getLogger(__name__)

PATIENCE = 2  # seconds in which rank 0, if it is there, has said why it ends
RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # of torchrun
FOLDER = "medexp/folder"  # in the launcher's store, which outlives its processes


@dataclass(frozen=True)
class Place:
    """Where torchrun has put this process; local: among those of its host."""

    rank: int
    count: int
    local: int
    local_count: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Place":
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(environ[name]) for name in names))


def begin(environ: Mapping[str, str] = os.environ) -> Place:
    """Join the processes that torchrun started; the hosts talk by gloo, whatever the device."""
    place = Place.of(environ)
    store = launcher_store()
    if store is not None:  # processes started anew must not find the addresses of those before
        store = PrefixStore(f"medexp/{environ.get(RESTARTS, '0')}", store)
    dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.count)
    return place


# ---------------------------------------------------------------- the run and those that follow it


class Leading:
    """What rank 0 does as the work of its job: tell the others what to train, and train.

    told: whether they were told already; else they still wait.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.told = place, False

    def __call__(self, settings: Settings, folder: Path) -> float:
        placed(settings, self.place)  # what cannot be is refused before the others begin
        tell({"settings": plain(settings), "folder": str(folder.resolve())})
        self.told = True
        remember(folder.resolve())
        try:
            return together(settings, folder, self.place)
        except RuntimeError as error:
            if isinstance(error, MedexpError) or not is_lost(error):
                raise
            # The launcher ends us for it, and is to wait until the folder says what happened.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise MedexpError(lost(folder)) from error

    def end(self) -> None:
        """Let those go that still wait to be told, as the run failed before it began."""
        if not self.told:
            with suppress(RuntimeError):  # they are gone
                tell(None)


def follow(place: Place) -> int:
    """What the other ranks do: train what rank 0 says, silently; returns the exit code.

    Only what rank 0 cannot know is said: an error that it does not come upon itself.
    """
    write_nothing()
    order = tell(None)
    if order is None:
        return 0
    if folder := order["config_dir"]:
        add_config_dir(folder)
    settings, folder = build(Settings, order["settings"]), Path(order["folder"])
    try:
        together(settings, folder, place)
    except KeyboardInterrupt:  # rank 0 says so
        return 130
    except Exception as error:
        if not is_lost(error):
            print(f"medexp: process {place.rank} of {place.count}: {error}", file=sys.stderr)
        elif place.rank == 1 and is_left(folder):
            print(f"medexp: {lost(folder)}", file=sys.stderr)
        return 1
    return 0


def is_left(folder: Path) -> bool:
    """Whether it is rank 0 that is gone: the run's folder still says that it is running."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(PATIENCE)
    return bool(read_json(folder / "status.json")["state"] == "running")


def tell(order: dict[str, Any] | None) -> dict[str, Any] | None:
    """Rank 0 gives the order, the others get it; None: there is nothing to do."""
    if order is not None:
        order = {**order, "config_dir": os.environ.get("MEDEXP_CONFIG_DIR")}
    box = [order]
    dist.broadcast_object_list(box, 0)
    return box[0]


def together(settings: Settings, folder: Path, place: Place) -> float:
    """Train as one of the ranks."""
    settings, device = placed(settings, place)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "nccl"
    groups: Any = [dist.new_group(backend=kind) for kind in (backend, "gloo")]
    ranks = Ranks(place.rank, place.count, *groups)
    return train(settings, folder, resume=settings.resume is not None, ranks=ranks)


def placed(settings: Settings, place: Place) -> tuple[Settings, torch.device]:
    """The settings with this process's own device; ConfigError for what several cannot do."""
    name = settings.trainer.device
    device = pick_device(name)
    if device.type == "mps" or device.index is not None:
        raise ConfigError(
            f"trainer.device={name}: with trainer.devices={place.count} each process takes a "
            "device of its own. Set trainer.device=cuda or cpu"
        )
    if device.type == "cuda":
        if (there := torch.cuda.device_count()) < place.local_count:
            raise ConfigError(
                f"trainer.devices={place.local_count}: this machine has {there} GPU"
                f"{'s' * (there > 1)}. Set trainer.devices={there}, or trainer.device=cpu"
            )
        device = torch.device("cuda", place.local)
    trainer = replace(settings.trainer, device=str(device), devices=place.count)
    settings = replace(settings, trainer=trainer)
    adapted(trainer, place.count)
    if settings.second:
        adapted(last_phase(settings).trainer, place.count, "second.trainer")
    return settings, device


def is_lost(error: Exception) -> bool:
    """Whether an exchange failed since another process is gone."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()  # a collective of gloo raises no class of its own
    return isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)


def lost(folder: Path) -> str:
    last = folder / "checkpoints" / "last.pt"
    kept = f"{last} holds the last epoch" if last.is_file() else "No epoch was finished before"
    return (
        "Another process of this run ended, and none can go on without it: it, or what started it, "
        f"says why.\n{kept}. Go on with: medexp train resume={folder}"
    )


# ---------------------------------------------------------------- torchrun's restarts


def remember(folder: Path) -> None:
    """Leave the run's folder with the launcher, for those that it starts in our place."""
    if store := launcher_store():
        store.set(FOLDER, str(folder))


def folder_before() -> str | None:
    """The folder of the run that this process was started to go on with, by --max-restarts."""
    if os.environ.get(RESTARTS, "0") == "0":
        return None
    store = launcher_store()
    if store is None or not store.check([FOLDER]):
        return None
    return str(store.get(FOLDER).decode())


def launcher_store() -> Store | None:
    """The store that the launcher keeps; None where the processes keep one of their own."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, wait_for_workers=False)


# ---------------------------------------------------------------- our own start


def launch(devices: int, words: Sequence[str]) -> int:
    """Start `medexp train` once a device by torch's launcher; returns the exit code of rank 0."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Else each process computes with all cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // devices)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "medexp", "train", *words)
    except SignalException as error:
        return 130 if error.sigval in (signal.SIGINT, signal.SIGTERM) else 1
    except ChildFailedError as error:
        return ended(devices, error)
    return 0


def ended(devices: int, error: ChildFailedError) -> int:
    """The exit code of a run that failed, and a line for each process that was killed."""
    codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    for rank, code in codes.items():
        # The launcher itself ends the others by SIGTERM.
        if code < 0 and code != -signal.SIGTERM:
            name = signal.Signals(-code).name
            print(f"medexp: process {rank} of {devices} was ended by {name}", file=sys.stderr)
    return codes[0] if codes.get(0, -1) > 0 else 1
