"""Every network's step at its paper's batch: images/s, memory, share of the matrix rate.

    python -m benchmarks.on_gpu.nets [profile]

profile: of the first network's step alone, by kernel.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import measure
from benchmarks.on_gpu.figures import attempt, note, value_of
from benchmarks.on_gpu.sizes import DEVICE, SMALL
from medexp.config.compose import compose, instantiate
from medexp.config.groups import options

STEP = "networks"
FIRST = ("viptt", "native3", "native1", "vgg16", "resnet50", "inception_v2", "allnet", "ldct_m1")
SECONDS = 0.3 if SMALL else 0.5
CHANGES: dict[str, dict[str, Any]] = {
    "viptt": {},
    "viptt, checkpointing": {"checkpointing": True},
    "viptt, all slices at once": {"chunk": 140},
}


def main() -> None:
    names = ["native3", "ldct_m3"] if SMALL else [*FIRST, *sorted({*options("model")} - {*FIRST})]
    if "profile" in sys.argv:
        profile(names[0])
        return
    for name in names:
        for what, changes in (CHANGES if name == "viptt" else {name: {}}).items():
            with attempt(STEP, what):
                noted(what, measure(name, DEVICE.type, SECONDS, changes))


def noted(what: str, found: dict[str, float]) -> None:
    step, rate = found["seconds"], value_of("ceilings", "bfloat16 matrix product")
    note(STEP, f"{what} at {found['batch']:.0f}: images/s", found["batch"] / step)
    if found["memory"]:
        note(STEP, f"{what}: peak memory", found["memory"] / 1e9, "GB")
    if rate:
        share = found["flops"] / step / 1e12 / rate
        goal = ">= 0.4" if what == "viptt" else ""
        note(STEP, f"{what}: share of the bf16 matrix rate", share, goal=goal)


def profile(name: str) -> None:
    """The kernels of two steps of a network, to $OUT/profile.txt."""
    from torch.profiler import ProfilerActivity

    node = compose([f"model={name}"]).model
    channels, *size = node["about"]["input"]
    network = instantiate(
        "model", node, num_classes=2, in_channels=channels, image_size=tuple(size)
    )
    network.to(DEVICE, memory_format=torch.channels_last).train()
    x = torch.rand(node["about"]["batch"], channels, *size, device=DEVICE)
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (DEVICE.type == "cuda")]

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            value = network(x).float().square().mean()
        value.backward()

    step()
    with torch.profiler.profile(activities=kinds) as watched:
        for _ in range(2):
            step()
    order = "self_cuda_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
    table = watched.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=70)
    with (Path(os.environ.get("OUT", ".")) / "profile.txt").open("a") as out:
        out.write(f"{name}, 2 steps, by {order}\n{table}\n")


if __name__ == "__main__":
    main()
