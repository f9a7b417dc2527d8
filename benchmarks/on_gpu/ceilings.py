"""The card, the versions, and what the card can do at most: every other figure is held to these."""

import platform
import subprocess

import numpy as np
import torch
import torchvision

from benchmarks.on_gpu.figures import attempt, note
from benchmarks.on_gpu.sizes import DEVICE, SMALL
from benchmarks.speed.ceilings import ceilings
from medexp.train.device import device_name

STEP = "ceilings"


def main() -> None:
    note(STEP, "device", device_name(DEVICE))
    versions = f"python {platform.python_version()}, torch {torch.__version__}, "
    versions += f"torchvision {torchvision.__version__}, numpy {np.__version__}"
    note(STEP, "versions", f"{versions}, cuDNN {torch.backends.cudnn.version()}")
    if DEVICE.type == "cuda":
        with attempt(STEP, "driver"):
            query = "--query-gpu=driver_version,clocks.sm,clocks.mem,memory.total,mig.mode.current"
            done = subprocess.run(
                ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True
            )
            note(STEP, "driver, clocks, memory, MIG", done.stdout.strip())
    small = {"matrix": 256, "copy": 2**20} if SMALL else {}
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        with attempt(STEP, f"{name} matrix product"):
            found = ceilings(DEVICE, dtype, **small)
            note(STEP, f"{name} matrix product", found["flops"] / 1e12, "TFLOP/s")
            if dtype == torch.bfloat16:
                note(STEP, "copy, read and written", found["bytes"] / 1e9, "GB/s")


if __name__ == "__main__":
    main()
