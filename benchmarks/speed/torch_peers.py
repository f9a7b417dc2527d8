"""The torch peers, on the very network class that medexp trains.

    python -m benchmarks.speed.torch_peers bare|loop|lightning JOB.json

They are written as people write them and as kindly as that allows: images are read into memory
once, workers persist between epochs, nothing is logged or saved. What they need not do, they do
not do: the learning rate is constant, and no stage has a rate or an L2 of its own. Only their time
to the first step holds 0.2 s that are not theirs, the import of what builds medexp's network.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.speed.ceilings import ceilings
from medexp.config.compose import instantiate
from medexp.config.settings import ModelNode
from medexp.models.stages import freeze, named_stages
from medexp.score.predict import class_logits
from medexp.train.device import wait_for

Report = dict[str, Any]


def main() -> None:
    peer, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    torch.manual_seed(job["settings"]["seed"])
    print(json.dumps(PEERS[peer](job)))


# ---------------------------------------------------------------- what they share


def build(job: Mapping[str, Any]) -> nn.Module:
    """The network of the job, frozen as in medexp."""
    node = job["settings"]["model"]
    *size, channels = job["shape"]
    network: nn.Module = instantiate(
        "model", node, num_classes=job["classes"], in_channels=channels, image_size=tuple(size)
    )
    freeze(network, named_stages(network, ModelNode(node).stages))
    return network


def optimizer_of(job: Mapping[str, Any], network: nn.Module) -> Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    made: Optimizer = instantiate("optimizer", job["settings"]["optimizer"])(trained)
    return made


def loss_of(job: Mapping[str, Any], network: nn.Module) -> Callable[[Any, Tensor], Tensor]:
    """The config's loss of a network's output, an auxiliary head's (Inception) included."""
    loss, weight = instantiate("loss", job["settings"]["loss"]), getattr(network, "aux_weight", 0.0)

    def total(output: Any, target: Tensor) -> Tensor:
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        value: Tensor = loss(logits, target)
        for extra in auxiliary:
            value = value + weight * loss(extra, target)
        return value

    return total


class Patches(Dataset[tuple[Tensor, int]]):
    """One part of PCam's files, read into memory as stored: an item is an image and its label."""

    def __init__(
        self, folder: str | Path, part: str, transform: Callable[[Tensor], Tensor]
    ) -> None:
        stem = Path(folder) / f"camelyonpatch_level_2_split_{part}"
        with h5py.File(f"{stem}_x.h5") as x, h5py.File(f"{stem}_y.h5") as y:
            self.images = torch.from_numpy(x["x"][:])
            self.labels = y["y"][:].ravel().tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index].movedim(-1, 0)), self.labels[index]


def transforms(augment: Mapping[str, bool], scale: bool) -> Callable[[Tensor], Tensor]:
    """torchvision's, image by image: stored (C, H, W) -> float32; scale: 0..255 to [0, 1]."""
    steps: list[nn.Module] = []
    if augment.get("horizontal"):
        steps.append(v2.RandomHorizontalFlip())
    if augment.get("vertical"):
        steps.append(v2.RandomVerticalFlip())
    if augment.get("turns"):
        steps.append(v2.Lambda(quarter_turns))
    made: Callable[[Tensor], Tensor] = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=scale)])
    return made


def quarter_turns(image: Tensor) -> Tensor:
    return torch.rot90(image, int(torch.randint(4, ())), (-2, -1))


def loaders(
    job: Mapping[str, Any], last: Callable[[Tensor], Tensor] | None = None
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation loaders with a worker a core; `last` is done to every image."""
    trainer = job["settings"]["trainer"]
    shared: dict[str, Any] = {
        "num_workers": job["workers"],
        "persistent_workers": job["workers"] > 0,
        "pin_memory": torch.device(job["device"]).type == "cuda",
    }
    scale = job["dtype"] == "uint8"
    train, plain = transforms(job["augment"], scale), transforms({}, scale)
    if last is not None:
        train, plain = v2.Compose([train, v2.Lambda(last)]), v2.Compose([plain, v2.Lambda(last)])
    return (
        DataLoader(
            Patches(job["data"], "train", train),
            batch_size=trainer["batch_size"],
            shuffle=True,
            **shared,
        ),
        DataLoader(
            Patches(job["data"], "valid", plain), batch_size=trainer["eval_batch_size"], **shared
        ),
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    enabled = precision != "float32"
    return torch.autocast(device.type, getattr(torch, precision) if enabled else None, enabled)


def auc(logits: Tensor, labels: Tensor) -> float | None:
    """scikit-learn's AUC of a whole split: binary, or the mean of one class against the rest.

    None where a class has no image in the split.
    """
    probabilities = class_logits(logits.float()).softmax(1).cpu().numpy()
    if len(set(labels.tolist())) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels.cpu().numpy(), probabilities[:, 1]))
    return float(roc_auc_score(labels.cpu().numpy(), probabilities, multi_class="ovr"))


class Clock:
    """The times of a report, noted as a peer goes along; the device is waited for at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_step: float | None = None
        self.epochs: list[float] = []
        self.training: list[float] = []
        self.began = 0.0

    def epoch_begins(self) -> None:
        wait_for(self.device)
        self.began = time.perf_counter()

    def step_ends(self) -> None:
        if self.first_step is None:
            wait_for(self.device)
            self.first_step = time.time()

    def training_ends(self) -> None:
        wait_for(self.device)
        self.training.append(time.perf_counter() - self.began)

    def epoch_ends(self) -> None:
        wait_for(self.device)
        self.epochs.append(time.perf_counter() - self.began)

    def report(self, images: int, precision: str, *packages: str) -> Report:
        cuda = self.device.type == "cuda"
        return {
            "images": images,
            "epoch_seconds": self.epochs,
            "train_seconds": self.training,
            "first_step": self.first_step,
            "precision": precision,
            "device_memory": torch.cuda.max_memory_allocated() if cuda else None,
            "versions": {name: metadata.version(name) for name in packages},
        }


# ---------------------------------------------------------------- the peers


def bare(job: Mapping[str, Any]) -> Report:
    """The step alone, again and again on one batch that lies on the device: the upper bound.

    In medexp's precision and memory format; on CUDA as the replay of a graph where it can be
    captured. Measures the ceilings of the device too, once the steps are done.
    """
    trainer, precision = job["settings"]["trainer"], job["own_precision"]
    device = torch.device(job["device"])
    if trainer["threads"]:
        torch.set_num_threads(trainer["threads"])
    torch.backends.cudnn.benchmark = True
    if device.index:
        torch.cuda.set_device(device)
    clock = Clock(device)
    n = trainer["batch_size"]
    x = torch.rand(n, *job["shape"], device=device).movedim(-1, 1)
    target = torch.arange(n, device=device) % job["classes"]
    network = build(job).to(device).train()
    loss = loss_of(job, network)
    if trainer["channels_last"]:
        network.to(memory_format=torch.channels_last)
    else:
        x = x.contiguous()
    optimizer = optimizer_of(job, network)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            value = loss(network(x), target)
        torch.autograd.backward(scaler.scale(value))
        scaler.step(optimizer)
        scaler.update()

    step()
    clock.step_ends()
    graph = (
        captured(step, optimizer, device)
        if device.type == "cuda" and precision != "float16"
        else None
    )
    work = graph or step
    steps = max(job["images"]["train"] // n, 1)
    for _ in range(job["epochs"]):
        clock.epoch_begins()
        for _ in range(steps):
            work()
        clock.training_ends()
        clock.epochs.append(clock.training[-1])
    report = clock.report(steps * n, precision, "torch")
    report["memory"] = resident()  # before the ceilings take theirs
    found = ceilings(device, getattr(torch, precision))
    return report | {"extra": {"ceilings": found, "step": "graph" if graph else "eager"}}


def resident() -> int:
    """Peak resident bytes of this process until now."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def captured(
    step: Callable[[], None], optimizer: Optimizer, device: torch.device
) -> Callable[[], None] | None:
    """The step as a CUDA graph; None where something in it cannot be captured."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    for state in optimizer.state.values():  # counts of steps that were made on the host
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.to(device)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        print(f"no graph: {error}", file=sys.stderr)
        return None
    return graph.replay


def loop(job: Mapping[str, Any]) -> Report:
    """A DataLoader and a loop over it."""
    device = torch.device(job["device"])
    clock, precision = Clock(device), job["precision"]
    train, valid = loaders(job)
    network = build(job).to(device)
    loss = loss_of(job, network)
    optimizer = optimizer_of(job, network)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    scores, losses, hits = [], [], []
    for _ in range(job["epochs"]):
        clock.epoch_begins()
        network.train()
        running, right = 0.0, torch.zeros((), device=device)
        for images, labels in train:
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            with autocast(device, precision):
                output = network(images)
                value = loss(output, labels)
            torch.autograd.backward(scaler.scale(value))
            scaler.step(optimizer)
            scaler.update()
            logits = output[0] if isinstance(output, tuple) else output
            running += value.item() * len(labels)
            right += (class_logits(logits).argmax(1) == labels).sum()
            clock.step_ends()
        losses.append(running / job["images"]["train"])
        hits.append(right.item() / job["images"]["train"])
        clock.training_ends()
        network.eval()
        outputs, targets = [], []
        with torch.no_grad():
            for images, labels in valid:
                outputs.append(network(images.to(device)))
                targets.append(labels)
        scores.append(auc(torch.cat(outputs), torch.cat(targets)))
        clock.epoch_ends()
    report = clock.report(job["images"]["train"], precision, "torch", "torchvision")
    return report | {"extra": {"auc": scores, "train_loss": losses, "train_accuracy": hits}}


def lightning(job: Mapping[str, Any]) -> Report:
    """Lightning's Trainer over the same loaders, its logging, saving and bars switched off."""
    pl: Any = importlib.import_module("lightning.pytorch")
    torchmetrics: Any = importlib.import_module("torchmetrics")
    device = torch.device(job["device"])
    clock, precision = Clock(device), job["precision"]
    train, valid = loaders(job)
    classes = job["classes"]

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = build(job)
            self.loss = loss_of(job, self.network)
            kind = {"task": "binary"} if classes == 2 else {"task": "multiclass"}
            self.auc = torchmetrics.AUROC(**kind, num_classes=classes)
            self.accuracy = torchmetrics.Accuracy(**kind, num_classes=classes)

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, labels = batch
            output = self.network(images)
            logits = output[0] if isinstance(output, tuple) else output
            self.accuracy.update(class_logits(logits.detach()).argmax(1), labels)
            return self.loss(output, labels)

        def validation_step(self, batch: Any, index: int) -> None:
            images, labels = batch
            with torch.autocast(device.type, enabled=False):
                p = class_logits(self.network(images).float()).softmax(1)
            self.auc.update(p[:, 1] if classes == 2 else p, labels)

        def configure_optimizers(self) -> Optimizer:
            return optimizer_of(job, self.network)

    scores: list[float] = []

    class Times(pl.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            clock.epoch_begins()

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            clock.step_ends()

        def on_validation_start(self, trainer: Any, module: Any) -> None:
            clock.training_ends()
            module.accuracy.compute()
            module.accuracy.reset()

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            scores.append(float(module.auc.compute()))
            module.auc.reset()
            clock.epoch_ends()

    names = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    pl.Trainer(
        max_epochs=job["epochs"],
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=1,
        precision=names[precision],
        callbacks=[Times()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(Module(), train, valid)
    report = clock.report(job["images"]["train"], precision, "torch", "lightning")
    return report | {"extra": {"auc": scores}}


PEERS: dict[str, Callable[[Mapping[str, Any]], Report]] = {
    "bare": bare,
    "loop": loop,
    "lightning": lightning,
}

if __name__ == "__main__":
    main()
