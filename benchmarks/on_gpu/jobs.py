"""Many jobs at once: K seeds of native3 on the same patches, in three ways.

    python -m benchmarks.on_gpu.jobs streams|stacked|processes

streams: one process and one CUDA graph, in which the K steps are branches side by side. stacked:
the K networks as one by torch.func, with grouped convolutions and with matrix products. processes:
one each, which share the patches on the device by CUDA IPC. In all of them a graph holds a whole
step, gathering and augmentation too, and reads from a counter which batch is its turn, so that a
step is one launch. Job 0's weights at the end are held against those that it has alone.
"""

import queue
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.many_jobs import convolutions_as_products
from benchmarks.on_gpu.figures import attempt, note, value_of
from benchmarks.on_gpu.sizes import DEVICE, EDGE, JOB_PATCHES, JOBS, SMALL
from medexp.augment import FlipsTurns
from medexp.config.compose import compose, instantiate
from medexp.score.predict import to_input
from medexp.train import graphs
from medexp.train.device import pick_precision, wait_for
from medexp.train.epochs import epoch_draws
from medexp.train.losses import cross_entropy
from medexp.train.sampling import Shuffle
from medexp.train.state import set_seeds
from medexp.train.step import Step

STEP = "jobs"
BATCH, RATE = 32, 0.01
EPOCHS = 1 if SMALL else 5  # timed, behind one in which the graph is captured
STREAMS = 32
CUDA = DEVICE.type == "cuda"

Round = Callable[[Tensor, Tensor], None]  # a step of all jobs: x (K, B, C, H, W), target (K, B)


def main() -> None:
    torch.backends.cudnn.benchmark = True  # as medexp train
    way = sys.argv[1]
    if way == "processes":
        for count in JOBS:
            with attempt(STEP, f"{way}: {count} jobs"):
                noted(way, count, in_processes(count, patches()))
            if CUDA and value_of(STEP, f"{way}: {count} jobs: epoch") is None:
                with attempt(STEP, f"own copies: {count} jobs"):
                    noted("processes, own copies", count, in_processes(count, None))
        return
    kinds = {"streams": {way: streams}, "stacked": {"products": products, "grouped": grouped}}[way]
    images = patches()
    for name, make in kinds.items():
        for count in JOBS:
            with attempt(STEP, f"{name}: {count} jobs"):
                seconds, first = measured(count, make, images, list(range(count)))
                noted(name, count, seconds)
                compare(name, count, first)


def noted(way: str, count: int, seconds: float) -> None:
    note(STEP, f"{way}: {count} jobs: epoch", seconds, "s")
    note(STEP, f"{way}: {count} jobs: images/s", count * JOB_PATCHES / seconds)
    one = value_of(STEP, "streams: 1 jobs: epoch")
    if one and count == JOBS[-1]:
        note(STEP, f"{way}: {count} jobs over one", seconds / one, goal="<= 8")


ALONE: dict[str, Tensor] = {}


def compare(name: str, count: int, first: Tensor) -> None:
    """Job 0's weights among count jobs against those of the first measurement, relative."""
    alone = ALONE.setdefault("weights", first)
    if alone is not first:
        off = (first - alone).norm() / alone.norm()
        note(STEP, f"{name}: {count} jobs: job 0 differs by", off.item(), goal="<= 0.02")


# ---------------------------------------------------------------- what all ways share


def patches() -> Tensor:
    """(N, H, W, C) uint8 noise on the device."""
    made = torch.randint(0, 256, (JOB_PATCHES, *EDGE), dtype=torch.uint8)
    return made.to(DEVICE)


def network_of(seed: int) -> nn.Module:
    set_seeds(seed)
    node = compose(["model=native3"]).model
    made: Any = instantiate("model", node, num_classes=2, in_channels=3, image_size=EDGE[:2])
    network: nn.Module = made.to(DEVICE, memory_format=torch.channels_last).train()
    return network


def autocast() -> torch.autocast:
    precision = pick_precision("auto", DEVICE)
    return torch.autocast(DEVICE.type, dtype=precision, enabled=precision is not None)


class Replay:
    """Work that is done plainly three times, then captured, then replayed."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work, self.calls, self.graph = work, 0, None

    def __call__(self) -> None:
        self.calls += 1
        if not CUDA or self.calls <= graphs.WARM_UP:
            self.work()
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            stream = torch.cuda.current_stream()
            with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
                self.work()
        self.graph.replay()


def measured(
    count: int,
    make: Callable[[list[nn.Module]], tuple[Round, Callable[[], Tensor]]],
    images: Tensor,
    seeds: list[int],
    ready: Callable[[], Any] = lambda: None,
) -> tuple[float, Tensor]:
    """Seconds of an epoch of all jobs, and the weights of the first of them at the end.

    make: of the networks, a step of all of them, and what tells the first one's weights. ready:
    called before the timed epochs.
    """
    augment, labels = FlipsTurns(), torch.arange(JOB_PATCHES) % 2
    here = labels.to(DEVICE)
    order = torch.zeros(count, JOB_PATCHES, dtype=torch.int64, device=DEVICE)
    draws = torch.zeros(count, JOB_PATCHES, 3, device=DEVICE)
    position = torch.zeros((), dtype=torch.int64, device=DEVICE)
    ramp = torch.arange(BATCH, device=DEVICE)

    def begin(epoch: int) -> None:
        for row, seed in enumerate(seeds):
            own = epoch_draws(labels.numpy(), augment, Shuffle(), seed=seed, epoch=epoch)
            order[row].copy_(own[0])
            draws[row].copy_(own[1])
        position.zero_()

    with graphs.own_stream(DEVICE):
        round_of_all, weights = make([network_of(seed) for seed in seeds])

        def work() -> None:
            columns = position + ramp
            index = order.index_select(1, columns)
            chosen = images.index_select(0, index.flatten())
            chosen = augment(chosen, draws.index_select(1, columns).flatten(0, 1))
            x = to_input(chosen).unflatten(0, (count, BATCH))
            round_of_all(x, here.index_select(0, index.flatten()).view_as(index))
            position.add_(BATCH)

        run = Replay(work)
        for epoch in range(1 + EPOCHS):
            if epoch == 1:
                wait_for(DEVICE)
                ready()
                began = time.perf_counter()
            begin(epoch)
            for _ in range(JOB_PATCHES // BATCH):
                run()
        wait_for(DEVICE)
        return (time.perf_counter() - began) / EPOCHS, weights().float().cpu()


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# ---------------------------------------------------------------- the ways


def streams(networks: list[nn.Module]) -> tuple[Round, Callable[[], Tensor]]:
    """medexp's own steps, each on a stream of its own, which are branches of the graph."""
    settings = compose(["model=native3"]).trainer
    steps = []
    for network in networks:
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
        if CUDA:
            graphs.prepare(optimizer)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=False)
        rest = {"autocast": autocast, "scaler": scaler}
        steps.append(Step(network, network, cross_entropy, optimizer, settings, **rest))
    side = [torch.cuda.Stream() for _ in range(min(STREAMS, len(steps)))] if CUDA else []

    def work(x: Tensor, target: Tensor) -> None:
        if not CUDA:
            for number, step in enumerate(steps):
                step(x[number], target[number], {})
            return
        main = torch.cuda.current_stream()
        for stream in side:
            stream.wait_stream(main)
        for number, step in enumerate(steps):
            with torch.cuda.stream(side[number % len(side)]):
                step(x[number], target[number], {})
        for stream in side:
            main.wait_stream(stream)

    return work, partial(flat, networks[0])


def grouped(
    networks: list[nn.Module], context: Callable[[], Any] | None = None
) -> tuple[Round, Callable[[], Tensor]]:
    """All as one network whose weights have one more dimension: grouped convolutions by vmap."""
    together = {
        name: torch.stack([n.get_parameter(name).detach() for n in networks]).requires_grad_()
        for name, _ in networks[0].named_parameters()
    }
    optimizer = torch.optim.SGD(list(together.values()), lr=RATE, fused=True)

    def one(weights: dict[str, Tensor], x: Tensor) -> Any:
        return functional_call(networks[0], weights, (x,))

    def forward(x: Tensor) -> Tensor:
        with autocast():
            made: Tensor = vmap(one)(together, x)
        return made

    def work(x: Tensor, target: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        if context is None:
            logits = forward(x)
        else:
            with context():
                logits = forward(x)
        losses = binary_cross_entropy_with_logits(
            logits.float().squeeze(-1), target.float(), reduction="none"
        )
        torch.autograd.backward(losses.mean(1).sum())
        optimizer.step()

    def first() -> Tensor:
        return torch.cat([weights[0].detach().flatten() for weights in together.values()])

    return work, first


def products(networks: list[nn.Module]) -> tuple[Round, Callable[[], Tensor]]:
    """The same with convolutions as matrix products: vmap makes batched ones."""
    return grouped(networks, convolutions_as_products)


# ---------------------------------------------------------------- processes


def in_processes(count: int, images: Tensor | None) -> float:
    """Seconds of an epoch of count processes: from when all are ready until the last has ended.

    images: which they share; None: each makes its own.
    """
    import torch.multiprocessing as processes

    # A process that has looked for a GPU cannot be forked; these modules do not look when imported.
    context = processes.get_context("forkserver")
    context.set_forkserver_preload(["torch", "medexp.train.step", "medexp.models.pcam"])
    if images is not None and not CUDA:
        images.share_memory_()
    barrier, results = context.Barrier(count), context.Queue()
    workers = [
        context.Process(target=worker, args=(seed, images, barrier, results), daemon=True)
        for seed in range(count)
    ]
    for process in workers:
        process.start()
    spans = []
    try:
        while len(spans) < count:
            try:
                got = results.get(timeout=1)
            except queue.Empty:
                if any(process.exitcode for process in workers):
                    raise RuntimeError("a process ended without a result") from None
                continue
            if isinstance(got, str):
                raise RuntimeError(got)
            spans.append(got)
    finally:
        for process in workers:
            if len(spans) < count:
                process.terminate()
            process.join(10)
    return (max(end for _, end in spans) - min(began for began, _ in spans)) / EPOCHS


def worker(seed: int, images: Tensor | None, barrier: Any, results: Any) -> None:
    """One job of `processes`: (begin, end) of its timed epochs, or what went wrong."""
    try:
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
        began = [0.0]

        def ready() -> None:
            barrier.wait(120)
            began[0] = time.perf_counter()

        measured(1, streams, patches() if images is None else images, [seed], ready)
        results.put((began[0], time.perf_counter()))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
