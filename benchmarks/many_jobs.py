"""K small jobs at once: what is gained over one after another.

    python benchmarks/many_jobs.py sweep [--jobs 1 4 16 64]
    python benchmarks/many_jobs.py stacked [--jobs 1 4 16 64] [--device cuda]

sweep: wall time of `medexp train -m seed=0,...,K-1` on a small phantom, one job after another with
all threads, then in as many processes as there are cores, of one thread each, which share the
cached images (hydra/launcher=joblib). Prints Markdown.

stacked: the alternative that medexp does not have, K networks as one by torch.func: the time of a
training step of native3 for K networks one after another, and of one step of all of them with
their weights stacked (vmap makes grouped convolutions of it), and with convolutions written as
matrix products (vmap makes batched ones). The gradients are held against each other's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

BATCH = 32
PIECES = 6  # rounds in which the ways take turns


def sweep(jobs: list[int], rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    beside = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}", "trainer.threads=1"]
    print("| jobs | one after another | side by side | gain |")
    print("| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        seconds_of(1, [], folder)  # draws the phantom
        for count in jobs:
            one, other = [], []
            for _ in range(rounds):
                one.append(seconds_of(count, [], folder))
                other.append(seconds_of(count, beside, folder))
            a, b = statistics.median(one), statistics.median(other)
            print(f"| {count} | {a:.1f} s | {b:.1f} s | {a / b:.2f} |", flush=True)


def seconds_of(count: int, options: list[str], folder: str) -> float:
    seeds = ",".join(map(str, range(count)))
    command = [sys.executable, "-m", "medexp", "train", "-m", "source=phantom", "source.size=2048"]
    command += ["trainer.epochs=3", "trainer.resamples=0", f"seed={seeds}", *options]
    began = time.perf_counter()
    subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def convolutions_as_products() -> Any:
    """A context in which a 2D convolution is a matrix product with its unfolded input."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    class Products(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, given: Any = (), options: Any = None
        ) -> Any:
            if function is not torch.conv2d:
                return function(*given, **(options or {}))
            x, weight, bias, stride, padding = given[:5]
            size = [
                (n + 2 * p - k) // s + 1
                for n, p, k, s in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
            ]
            columns = functional.unfold(x, weight.shape[2:], padding=padding, stride=stride)
            out = columns.transpose(1, 2) @ weight.flatten(1).t() + bias
            return out.transpose(1, 2).unflatten(2, size)

    return Products()


def stacked(jobs: list[int], device_name: str) -> None:
    import torch
    from torch import Tensor
    from torch.func import functional_call, vmap

    from medexp.config import compose
    from medexp.train import device
    from medexp.train.losses import cross_entropy

    target = device.pick_device(device_name)
    precision = device.pick_precision("auto", target)
    if target.type == "cpu":
        device.keep_freed_memory()
    node = compose.compose(["model=native3"]).model

    def network() -> Any:
        made = compose.instantiate("model", node, num_classes=2, in_channels=3, image_size=(96, 96))
        return made.to(target, memory_format=torch.channels_last).train()

    def seconds(work: Callable[[], Any]) -> float:
        work()
        wait()
        began = time.perf_counter()
        times = 0
        while time.perf_counter() - began < 1.0:
            work()
            wait()
            times += 1
        return (time.perf_counter() - began) / times

    def wait() -> None:
        if target.type == "cuda":
            torch.cuda.synchronize()

    def row(count: int) -> str:
        networks = [network() for _ in range(count)]
        images = torch.rand(count, BATCH, 96, 96, 3, device=target).movedim(-1, 2)
        labels = torch.arange(BATCH, device=target) % 2
        together = {
            name: torch.stack([n.get_parameter(name).detach() for n in networks]).requires_grad_()
            for name, _ in networks[0].named_parameters()
        }
        separate = [torch.optim.SGD(n.parameters(), lr=0.0) for n in networks]
        joint = torch.optim.SGD(together.values(), lr=0.0)  # 0: gradients are compared behind it

        def loss_of(logits: Tensor) -> Tensor:
            return cross_entropy(logits, labels)

        def autocast(enabled: bool = True) -> Any:
            return torch.autocast(target.type, precision, enabled=enabled and precision is not None)

        def alone(cast: bool = True) -> None:
            for n, x, optimizer in zip(networks, images, separate, strict=True):
                optimizer.zero_grad()
                with autocast(cast):
                    value = loss_of(n(x))
                torch.autograd.backward(value)
                optimizer.step()

        def one(weights: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(networks[0], weights, (x,))

        def as_one(cast: bool = True) -> None:
            joint.zero_grad()
            with autocast(cast):
                logits = vmap(one)(together, images)
                value = torch.stack([loss_of(part) for part in logits]).sum()
            torch.autograd.backward(value)
            joint.step()

        def products(cast: bool = True) -> None:
            with convolutions_as_products():
                as_one(cast)

        alone(False)
        for way in (as_one, products):
            way(False)
            for name, weights in together.items():
                own = torch.stack([n.get_parameter(name).grad for n in networks])
                off = (weights.grad - own).norm() / own.norm()
                assert off < 1e-2, (way.__name__, name, off)  # a ReLU at 0 may fall either way
        taken: dict[str, list[float]] = {"alone": [], "as_one": [], "products": []}
        for _ in range(PIECES):
            for way in (alone, as_one, products):
                taken[way.__name__].append(seconds(way) / count)
        base = statistics.median(taken["alone"])
        cells = [f"{1e3 * base:.2f}"]
        for name in ("as_one", "products"):
            own = statistics.median(taken[name])
            cells.append(f"{1e3 * own:.2f} ({base / own:.2f})")
        return f"| {count} | {' | '.join(cells)} |"

    print("| networks | ms of a network's step alone | stacked, grouped | stacked, products |")
    print("| ---: | ---: | ---: | ---: |")
    for count in jobs:
        print(row(count), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["sweep", "stacked"])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=1, help="of sweep")
    parser.add_argument("--device", default="auto", help="of stacked")
    given = parser.parse_args()
    if given.what == "sweep":
        sweep(given.jobs, given.rounds)
    else:
        stacked(given.jobs, given.device)


if __name__ == "__main__":
    main()
