"""What only a GPU shows: graphs on every optimizer, the same bits twice, too little memory.

With MEDEXP_REHEARSE set they run without one too, on the CPU and without graphs, so that a test
that is itself broken is found before the few minutes that a GPU is at hand.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medexp.augment import FlipsTurns
from medexp.config.compose import compose, compose_node, instantiate
from medexp.config.groups import options
from medexp.data.base import Split
from medexp.errors import MedexpError
from medexp.explain.maps import gradcam_maps, saliency_maps
from medexp.models.tbt import ViPTT
from medexp.score.predict import predict
from medexp.train.losses import cross_entropy
from tests.train.kit import weights
from tests.train.test_graphs import network
from tests.train.test_loop import data, fit

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
REPLAYED = "on" if CUDA else "off"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not CUDA and not os.environ.get("MEDEXP_REHEARSE"), reason="needs a CUDA device"
    ),
]


@pytest.fixture
def exact(monkeypatch):
    """Only kernels that give the same bits every time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# ---------------------------------------------------------------- graphs


@pytest.mark.parametrize("name", options("optimizer"))
def test_a_graph_trains_as_plain_steps_with_every_optimizer(tmp_path, exact, name):
    """Dropout, BatchNorm, parts of a batch, an average and augmentation among it."""
    settings = {
        "epochs": 3,
        "dataset": data(90),
        "device": DEVICE,
        "optimizer": instantiate("optimizer", compose_node("optimizer", name)),
        "augment": FlipsTurns(),
        "accumulate": 2,
        "ema": 0.9,
    }
    plain, one = fit(tmp_path / "plain", network(), graphs="off", **settings)
    net, other = fit(tmp_path / "replayed", network(), graphs=REPLAYED, **settings)
    torch.testing.assert_close(weights(net), weights(plain), rtol=1e-3, atol=1e-4)
    losses = [[row["train_loss"] for row in fitted.history] for fitted in (one, other)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["native3", "native1_counted", "cervixnet1", "ldct_m4"])
def test_a_graph_trains_a_papers_network(tmp_path, exact, name):
    node = compose([f"model={name}"]).model
    channels, *size = node["about"]["input"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, *size, channels)).astype(np.uint8)
    labels = np.arange(48) % 2
    split = Split(images, labels, np.arange(48).astype(str))
    toy = data(48)
    dataset = type(toy)("noise", toy.classes, split, split, split)

    def trained(folder, graphs):
        torch.manual_seed(0)
        net = instantiate(
            "model", node, num_classes=2, in_channels=channels, image_size=tuple(size)
        )
        settings = {"device": DEVICE, "precision": torch.bfloat16, "epochs": 2, "batch_size": 8}
        sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
        fit(tmp_path / folder, net, dataset, optimizer=sgd, graphs=graphs, **settings)
        return weights(net)

    torch.testing.assert_close(
        trained("replayed", REPLAYED), trained("plain", "off"), rtol=1e-2, atol=1e-3
    )


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("graphs", ["off", REPLAYED] if CUDA else ["off"])
def test_resident_and_streamed_train_to_the_same_bits(tmp_path, exact, graphs):
    nets = [
        fit(
            tmp_path / place,
            network(),
            data(90),
            device=DEVICE,
            data=place,
            augment=FlipsTurns(),
            graphs=graphs,
            optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        )[0]
        for place in ("device", "stream")
    ]
    assert torch.equal(*map(weights, nets))


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_resumed_equals_uninterrupted(tmp_path, exact, precision):
    settings = {"dataset": data(90), "device": DEVICE, "precision": precision, "graphs": "off"}
    settings |= {"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9), "ema": 0.9}
    whole, _ = fit(tmp_path / "whole", network(), epochs=4, **settings)
    fit(tmp_path / "cut", network(), epochs=2, **settings)
    net, _ = fit(tmp_path / "cut", network(), epochs=4, resume=True, **settings)
    assert torch.equal(weights(whole), weights(net))


def test_resumed_with_graphs_it_goes_on(tmp_path, exact):
    """The first steps of a session are plain, and fused SGD rounds otherwise: close, not equal."""
    settings = {"dataset": data(90), "device": DEVICE, "graphs": REPLAYED}
    settings |= {"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9)}
    whole, _ = fit(tmp_path / "whole", network(), epochs=4, **settings)
    fit(tmp_path / "cut", network(), epochs=2, **settings)
    net, _ = fit(tmp_path / "cut", network(), epochs=4, resume=True, **settings)
    torch.testing.assert_close(weights(net), weights(whole), rtol=1e-3, atol=1e-4)


def test_deterministic_twice_gives_the_same_predictions(medexp):
    """trainer.deterministic=true, from the command line, the phantoms' cache among it."""
    command = ["train", "source=phantom", "source.size=256", "trainer.epochs=2"]
    command += ["trainer.resamples=0", "trainer.deterministic=true", f"trainer.device={DEVICE}"]
    texts = []
    try:
        for folder in ("one", "two"):
            assert medexp(*command, f"hydra.run.dir={folder}") == 0, medexp.err
            texts.append((Path(folder) / "predictions.csv").read_bytes())
    finally:
        torch.use_deterministic_algorithms(False)
    assert texts[0] == texts[1] and texts[0].count(b"\n") > 64


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg16", "resnet50", "inception_v2", "cervixnet1", "ldct_m1", "viptt"]
)
def test_every_kind_of_network_has_deterministic_steps(exact, name):
    """torch raises in the backward pass of what has none; here where it is known to be asked."""
    size = (2, 64, 64) if name == "viptt" else (96, 96)
    supplied = {"num_classes": 3, "in_channels": 1, "image_size": size}
    x = torch.rand(4, 1, *size, device=DEVICE)

    def gradients():
        torch.manual_seed(0)
        net = instantiate("model", compose([f"model={name}"]).model, **supplied)
        net.to(DEVICE).train()
        torch.manual_seed(1)
        output = net(x)
        output = output[0] if isinstance(output, tuple) else output
        cross_entropy(output, torch.arange(4, device=DEVICE) % 3).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])

    assert torch.equal(gradients(), gradients())


# ---------------------------------------------------------------- fp16


def test_fp16_leaves_out_the_steps_that_overflow_and_goes_on(tmp_path, monkeypatch):
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**40)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    net, fitted = fit(
        tmp_path, network(), data(320), device=DEVICE, precision=torch.float16, epochs=6,
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )  # fmt: skip
    saved = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)
    assert 1 < saved["scaler"]["scale"] < 2.0**40
    assert weights(net).isfinite().all() and fitted.best_value > 0.8


# ---------------------------------------------------------------- evaluation, explanations


def test_predictions_are_the_cpus_to_float32(monkeypatch):
    """Also where cuDNN may take TF32, which the convolutions of a step do."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 28 * 28, 2),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    split = Split(images, np.arange(20) % 2, np.arange(20).astype(str))

    def logits(device):
        return predict(net.to(device), split, device=device, batch_size=8, channels_last=True)

    here, there = logits(torch.device("cpu")), logits(DEVICE)
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("maps", [saliency_maps, gradcam_maps])
def test_viptt_is_explained_as_on_the_cpu(monkeypatch, maps, cell):
    """cuDNN differentiates a recurrent layer in its training mode only."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    net = ViPTT(num_classes=5, in_channels=1, image_size=(6, 32, 32), cell=cell, chunk=4).eval()
    x, target = torch.rand(2, 1, 6, 32, 32), torch.tensor([1, 3])
    here = maps(net, x, target)
    there = maps(net.to(DEVICE), x.to(DEVICE), target.to(DEVICE))
    assert there.shape == here.shape and here.max() > 0
    np.testing.assert_allclose(there, here, rtol=1e-2, atol=1e-2 * here.max())


# ---------------------------------------------------------------- memory


class Large(nn.Module):
    """Asks for a pebibyte in training, or in evaluation."""

    def __init__(self, training):
        super().__init__()
        self.inner, self.which = network(), training

    def forward(self, x):
        if self.training == self.which:
            if not CUDA:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 TiB.")
            torch.empty(2**50, dtype=torch.uint8, device=DEVICE)
        return self.inner(x)


@pytest.mark.parametrize(
    ("training", "remedy"), [(True, "trainer.batch_size"), (False, "trainer.eval_batch_size")]
)
@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_out_of_memory_is_an_error_with_its_remedy(tmp_path, training, remedy, graphs):
    with pytest.raises(MedexpError, match=r"memory is too small.*Tried to allocate") as caught:
        fit(tmp_path, Large(training), data(90), device=DEVICE, graphs=graphs)
    assert remedy in str(caught.value)
    # What was held is free again: the next run trains.
    fit(tmp_path / "next", network(), data(90), device=DEVICE, graphs=graphs)
