"""`medexp doctor`: whether training can work here, and what this machine and installation have.

Every check is made, whatever the others find, and nothing heavy is imported before it is asked for:
a broken installation is what this is for.
"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from medexp import __version__

SUPPORTED = ((3, 11), (3, 13))  # as pyproject.toml says
# Where the name to import is not the package's.
MODULES = {
    "hydra-core": "hydra", "scikit-learn": "sklearn", "scikit-image": "skimage",
    "opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml",
}  # fmt: skip
DEVELOPERS = ("test", "lint", "bench")  # extras that no user needs
LEAST_DISK, LEAST_MEMORY = 10**9, 10**9  # bytes below which a run is likely to die
SIDE, BATCH = 96, 32  # of the speed test's images: a step of a small network on PCam's patches

OK, NOTE, BAD = "ok", "note", "bad"


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: ok, note (training works without it), or bad (it cannot)."""

    section: str
    name: str
    text: str
    state: str = OK
    remedy: str = ""


def examine(seconds: float = 1.0, arguments: Sequence[str] = ()) -> Iterator[Finding]:
    """Every finding as it is made. seconds: of the speed test of each precision; 0: none."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        python,
        packages,
        lambda: devices(seconds),
        memory,
        disk,
        cache,
        lambda: data_sets(arguments),
        extras,
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # one that fails must not hide the others
            name = getattr(check, "__name__", "check").strip("<>")
            yield Finding(name, "check", f"failed: {reason_of(error)}", NOTE)


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


# ---------------------------------------------------------------- the installation


def python() -> Iterator[Finding]:
    """medexp, Python and the platform."""
    yield Finding("installation", "medexp", f"{__version__}, {Path(__file__).resolve().parents[1]}")
    version = sys.version_info[:2]
    supported = SUPPORTED[0] <= version <= SUPPORTED[1]
    text = f"{platform.python_version()}, {sys.executable}"
    words = " to ".join(".".join(map(str, one)) for one in SUPPORTED)
    if supported:
        yield Finding("installation", "python", text)
    else:
        yield Finding("installation", "python", text, BAD, f"medexp needs Python {words}")
    yield Finding("installation", "platform", platform.platform())


def requirements() -> tuple[list[str], list[str]]:
    """What medexp requires, extras among them, and the extras' names; of a checkout its own."""
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        optional = project.get("optional-dependencies") or {}
        listed = [f'{one}; extra == "{extra}"' for extra in optional for one in optional[extra]]
        return [*project["dependencies"], *listed], list(optional)
    found = metadata.metadata("medexp").get_all("Provides-Extra") or []
    return metadata.requires("medexp") or [], list(found)


def packages() -> Iterator[Finding]:
    """Each package that medexp needs: there, of a version that will do, and importable."""
    from packaging.requirements import Requirement

    for text in requirements()[0]:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        remedy = f'pip install "{one.name}{one.specifier}"'
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Finding("installation", one.name, "not installed", BAD, remedy)
            continue
        if not one.specifier.contains(version, prereleases=True):
            text = f"{version}, and medexp needs {one.specifier}"
            yield Finding("installation", one.name, text, BAD, remedy)
            continue
        try:
            importlib.import_module(MODULES.get(one.name, one.name.replace("-", "_")))
        except Exception as error:  # a library of the system that is missing, such as libGL
            text = f"{version} cannot be imported: {reason_of(error)}"
            yield Finding("installation", one.name, text, BAD, f"{remedy} --force-reinstall")
            continue
        yield Finding("installation", one.name, version)


def extras() -> Iterator[Finding]:
    """Each extra: what it brings and how to install it where that is missing."""
    from packaging.requirements import Requirement

    listed, names = requirements()
    for extra in names:
        if extra in DEVELOPERS:
            continue
        missing = [
            one.name
            for one in map(Requirement, listed)
            if one.marker is not None
            and one.marker.evaluate({"extra": extra})
            and not one.marker.evaluate({"extra": ""})
            and not installed(one.name)
        ]
        if missing:
            remedy = f'pip install "medexp[{extra}]"'
            yield Finding("extras", extra, f"without {', '.join(missing)}", NOTE, remedy)
        else:
            yield Finding("extras", extra, "installed")


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# ---------------------------------------------------------------- the machine


def devices(seconds: float) -> Iterator[Finding]:
    """Each device, whether a step of training works on it, and its speed in each precision."""
    try:
        import torch
    except Exception as error:
        yield Finding("devices", "torch", f"cannot be imported: {reason_of(error)}", BAD)
        return
    from medexp.train.device import device_name, pick_device, pick_precision

    chosen = pick_device("auto")
    auto = pick_precision("auto", chosen)
    for device in present():
        text = device_name(device)
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            major, minor = torch.cuda.get_device_capability(device)
            text += f", {free / 1e9:.1f} of {total / 1e9:.1f} GB free, capability {major}.{minor}"
        yield Finding("devices", str(device), text)
        taken = device.type == chosen.type
        for name, precision in precisions(device).items():
            label = f"{device}, {name}"
            try:
                speed = images_per_second(device, precision, seconds)
            except Exception as error:
                state = BAD if taken and precision in (None, auto) else NOTE
                remedy = "trainer.device=cpu trainer.amp=off" if state == BAD else ""
                yield Finding("devices", label, f"fails: {reason_of(error)}", state, remedy)
                continue
            words = "works" if speed is None else f"{speed:,.0f} images/s"
            choice = ", what trainer.amp=auto takes" if taken and precision == auto else ""
            yield Finding("devices", label, words + choice)
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = (
            f"torch is built for CUDA {built}, and finds no driver or GPU"
            if built
            else ("this torch is built without CUDA")
        )
        yield Finding("devices", "cuda", f"none: {why}", NOTE)


def present() -> list[Any]:
    """The devices here, the CPU last."""
    import torch

    found = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return [*found, torch.device("cpu")]


def precisions(device: Any) -> dict[str, Any]:
    """Name -> autocast dtype of what trainer.amp= may name on a device."""
    import torch

    named = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if device.type == "cpu":  # fp16 is refused there
        del named["fp16"]
    return named


def images_per_second(device: Any, precision: Any, seconds: float) -> float | None:
    """Images a second of training steps of a small network; None where seconds is 0.

    A first step is made in any case. Raises whatever it fails with, and ValueError where the loss
    is no number.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, 2)),
    )
    network.to(device).to(memory_format=torch.channels_last)
    x = torch.rand(BATCH, 3, SIDE, SIDE, device=device).to(memory_format=torch.channels_last)
    y = torch.arange(BATCH, device=device) % 2
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> torch.Tensor:
        loss: Any
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return torch.as_tensor(loss.detach())

    for _ in range(2):  # kernels are chosen and memory is taken in the first
        loss = float(step())
    if loss != loss:
        raise ValueError("the loss of a step is no number")
    if not seconds:
        return None
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            loss_now = step()
        steps += 4
        float(loss_now)  # waits for the device
    return steps * BATCH / (time.perf_counter() - began)


def memory() -> Iterator[Finding]:
    """The memory that is free to this process, also where a container has a limit of its own."""
    found = free_memory()
    if found is None:
        yield Finding("memory", "memory", "not known on this system", NOTE)
        return
    free, total = found
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < LEAST_MEMORY:
        remedy = "close other programs, or take a larger machine: PyTorch alone takes most of 1 GB"
        yield Finding("memory", "memory", text, BAD, remedy)
    else:
        yield Finding("memory", "memory", text)


def free_memory() -> tuple[int, int] | None:
    """(free, total) bytes; None where the system does not say."""
    file = Path("/proc/meminfo")
    if not file.is_file():
        return None
    rows = (line.split(":") for line in file.read_text().splitlines())
    kept = {name: int(rest.split()[0]) * 1024 for name, rest in rows}
    free, total = kept["MemAvailable"], kept["MemTotal"]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        total = min(total, int(text))
        free = min(free, total - int(used.read_text()))
    return free, total


def disk() -> Iterator[Finding]:
    """Where runs and the cache are written: writable, and the room there."""
    from medexp.data.cache import cache_dir

    for name, folder, remedy in (
        ("outputs", Path.cwd(), "go to a folder that you may write to"),
        ("cache", cache_dir(), "name another folder with MEDEXP_CACHE="),
        ("temporary", Path(tempfile.gettempdir()), "name another folder with TMPDIR="),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(b"medexp")
                file.flush()
        except OSError as error:
            text = f"{folder}: cannot be written ({error.strerror})"
            yield Finding("disk", name, text, BAD, remedy)
            continue
        free = shutil.disk_usage(folder).free
        text = f"{free / 1e9:,.1f} GB free at {folder}"
        if free < LEAST_DISK:
            yield Finding("disk", name, text, BAD, f"make room, or {remedy}")
        else:
            yield Finding("disk", name, text)


# ---------------------------------------------------------------- cache and data


def cache() -> Iterator[Finding]:
    """What the cache holds."""
    from medexp.data.cache import entries

    held = entries()
    size = sum(entry["bytes"] for entry in held)
    yield Finding("data", "cache", f"{len(held):,} entries, {size / 1e9:.2f} GB")


def data_sets(arguments: Sequence[str]) -> Iterator[Finding]:
    """The public data sets that are found here."""
    from medexp.data.catalogue import dataset_rows

    where = os.environ.get("MEDEXP_DATA") or "data"
    rows = [row for row in dataset_rows(arguments) if row["found"] is not None]
    found = [f"{row['dataset']} ({row['root']})" for row in rows if row["found"]]
    absent = [row["dataset"] for row in rows if not row["found"] and row["url"]]
    yield Finding("data", "found", ", ".join(found) or f"none below {where}")
    if absent:
        remedy = "medexp datasets says where they are from; source=phantom needs none"
        yield Finding("data", "not found", ", ".join(absent), NOTE, remedy)
