"""What the machine has: the device, the precision it is fast in, the threads."""

import ctypes
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from medexp.errors import ConfigError, one_of

DEVICES = ("auto", "cuda", "cpu", "mps")
# Before any run changes it: a job of a sweep must not inherit the threads of the one before.
THREADS = torch.get_num_threads()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**30


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; a device that is absent is refused."""
    kind = name.split(":")[0]
    one_of("trainer.device", kind, DEVICES)
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[kind]:
        raise ConfigError(
            f"trainer.device={name}: this machine has none that torch {torch.__version__} can "
            "use. Set trainer.device=cpu, or install the driver or torch build for it"
        )
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, or None for float32 throughout.

    `auto` is bf16 where the device computes in it, else fp16 (with loss scaling) on CUDA, else
    float32: bf16 on a CPU without its instructions is emulated and slower than float32.
    """
    if name == "off":
        return None
    if name == "bf16":
        return torch.bfloat16
    if name == "fp16":
        if device.type == "cpu":
            raise ConfigError("trainer.amp=fp16: not for the CPU. Set trainer.amp=bf16 or off")
        return torch.float16
    if device.type == "cuda":
        bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if bf16 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    return any(flag in _cpuinfo() for flag in ("amx_bf16", "avx512_bf16"))


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")  # Linux only: elsewhere auto means float32
    return path.read_text() if path.exists() else ""


def device_name(device: torch.device) -> str:
    """The device as a person would name it, for the provenance and the log."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    name = cpu.group(1) if cpu else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def keep_freed_memory() -> None:
    """Have glibc hand freed memory to the next step, not to the system; elsewhere nothing is done.

    By default every large tensor of a step on the CPU is mapped anew and its pages are cleared, a
    tenth of the time of a small network's step. At most KEPT_BYTES stay unused at the heap's end.
    """
    with suppress(OSError, AttributeError, TypeError):  # no libc, no mallopt: no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def wait_for(device: torch.device) -> None:
    """Until all that was launched there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def generator_state(device: torch.device) -> Tensor:
    """Of the generator that dropout draws from there."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_generator_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.cpu(), device)
    else:
        torch.set_rng_state(state.cpu())
