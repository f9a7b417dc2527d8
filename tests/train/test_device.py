"""The choice of device and precision."""

import platform
import subprocess
import sys

import pytest
import torch

from medexp.errors import ConfigError
from medexp.train import device as devices

CPU = torch.device("cpu")


def test_auto_takes_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.pick_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.pick_device("auto").type == "cuda"
    assert devices.pick_device("cuda:1").index == 1


def test_an_absent_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="trainer.device=cuda: this machine has none.*device=cpu"):
        devices.pick_device("cuda")
    with pytest.raises(
        ConfigError, match="trainer.device=cdua: no such choice. Did you mean 'cuda'"
    ):
        devices.pick_device("cdua")


@pytest.mark.parametrize(("flags", "want"), [("avx2 avx512_bf16", torch.bfloat16), ("avx2", None)])
def test_bf16_on_a_cpu_that_has_it(monkeypatch, flags, want):
    monkeypatch.setattr(devices, "_cpuinfo", lambda: f"model name : An X100\nflags : {flags}\n")
    assert devices.pick_precision("auto", CPU) == want
    assert devices.pick_precision("bf16", CPU) == torch.bfloat16
    assert devices.pick_precision("off", CPU) is None
    assert devices.device_name(CPU).startswith("An X100, ")


@pytest.mark.parametrize(
    ("capability", "want"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_precision_by_generation_of_gpu(monkeypatch, capability, want):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.pick_precision("auto", torch.device("cuda")) == want


def test_fp16_is_not_for_the_cpu():
    with pytest.raises(ConfigError, match="trainer.amp=fp16: not for the CPU"):
        devices.pick_precision("fp16", CPU)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_freed_memory_is_used_again():
    steps = """
import resource, sys, torch
from medexp.train.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(60):
    if step == 10:
        before = faults()
    torch.ones(10**7)  # 40 MB, some 10,000 pages
print(faults() - before)
"""
    plain, kept = (
        int(subprocess.check_output([sys.executable, "-c", steps, how]))
        for how in ("plain", "kept")
    )
    assert plain > 400_000 and plain > 4 * kept
