"""Forward + backward of every network at its paper's input and batch size.

    python benchmarks/networks.py [--models vgg16 viptt] [--device cuda] [--seconds 5]

Each network runs in a process of its own: images/s is the median step (forward, cross-entropy,
backward; no optimizer) after one warm-up step, memory the peak resident set of the process, on CUDA
the peak allocated. Precision is what `trainer.amp=auto` would take. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def measure(
    name: str, device_name: str, seconds: float, changes: dict[str, object]
) -> dict[str, float]:
    """batch; seconds of a step; memory: peak bytes on CUDA, else 0; flops: operations of a step."""
    import torch

    from benchmarks.speed.ceilings import training_counts
    from medexp.config import compose
    from medexp.models import summary
    from medexp.train import device
    from medexp.train.losses import cross_entropy

    node = compose.compose([f"model={name}"]).model
    about = node["about"]
    channels, *size = about["input"]
    classes, batch = about.get("classes", 2), about["batch"]
    target = device.pick_device(device_name)
    if target.type == "cpu":
        device.keep_freed_memory()  # as medexp train does
    else:
        torch.backends.cudnn.benchmark = True  # likewise
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    precision = device.pick_precision("auto", target)

    def made() -> torch.nn.Module:
        supplied = {"num_classes": classes, "in_channels": channels, "image_size": tuple(size)}
        network: torch.nn.Module = compose.instantiate("model", dict(node) | changes, **supplied)
        return network

    with torch.device("meta"):
        counts = training_counts(summary.layers(made(), (channels, *size)))
    network = made()
    network.to(target, memory_format=torch.channels_last).train()
    x = torch.rand(batch, channels, *size, device=target)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=target) % classes

    def step() -> float:
        began = time.perf_counter()
        network.zero_grad(set_to_none=True)
        with torch.autocast(target.type, precision, enabled=precision is not None):
            output = network(x)
        logits = output[0] if isinstance(output, tuple) else output
        cross_entropy(logits, labels).backward()
        device.wait_for(target)
        return time.perf_counter() - began

    step()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        times.append(step())
    return {
        "batch": batch,
        "seconds": statistics.median(times),
        "memory": torch.cuda.max_memory_allocated() if target.type == "cuda" else 0,
        "flops": 2 * counts["multiply_adds"] * batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--set", default="{}", help="JSON of model keys, such as checkpointing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        found = measure(given.one, given.device, given.seconds, json.loads(given.set))
        print(json.dumps(found))
        return
    from medexp.config.groups import options

    print("| network | batch | images/s | ms a step | peak memory, GB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in given.models or options("model"):
        command = [sys.executable, __file__, "--one", name, "--device", given.device]
        command += ["--seconds", str(given.seconds), "--set", given.set]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            print(f"| {name} | failed, status {status} | | | |", flush=True)
            continue
        got = json.loads(out.splitlines()[-1])
        memory = (got["memory"] or usage.ru_maxrss * 1024) / 1e9
        rate, step = got["batch"] / got["seconds"], 1e3 * got["seconds"]
        shown = f"{rate:,.1f}" if rate >= 1 else f"{rate:.3f}"
        print(f"| {name} | {got['batch']} | {shown} | {step:,.0f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
