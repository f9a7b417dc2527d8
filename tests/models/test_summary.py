"""The layer summary against torch's flop counter, torchvision's published numbers and Keras."""

import io
import os

os.environ["KERAS_BACKEND"] = "torch"

from dataclasses import asdict

import keras
import pytest
import torch
import torchvision
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medexp.config.compose import compose, instantiate
from medexp.models.summary import layer_table, layers, totals


def native3():
    node = compose(["model=native3"]).model
    return instantiate("model", node, num_classes=2, in_channels=3, image_size=(96, 96))


def on_meta(build):
    with torch.device("meta"):
        return build()


def of_torchvision(name):
    settings = {"init_weights": False} if name == "inception_v3" else {}
    return on_meta(lambda: getattr(torchvision.models, name)(weights=None, **settings))


def counted_by_torch(network, *shape):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops()


def shown(rows, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(layer_table(rows, "a network"))
    return console.export_text()


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (native3, (3, 96, 96)),
        (torchvision.models.resnet18, (3, 224, 224)),
        (torchvision.models.alexnet, (3, 224, 224)),
        (torchvision.models.mobilenet_v3_small, (3, 128, 128)),  # grouped convolutions
        (torchvision.models.video.r3d_18, (3, 8, 32, 32)),
        (lambda: nn.Sequential(nn.ConvTranspose2d(6, 4, 3, 2, groups=2)), (6, 9, 9)),
    ],
)
def test_multiply_adds_are_half_of_torchs_flops_and_parameters_are_all(build, shape):
    network = on_meta(build)
    sums = totals(layers(network, shape))
    assert 2 * sums["multiply_adds"] == counted_by_torch(network, *shape) > 0
    assert sums["trainable"] == sum(p.numel() for p in network.parameters())
    floating = [b for b in network.buffers() if b.is_floating_point()]
    assert sums["total"] == sums["trainable"] + sum(b.numel() for b in floating)


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1, 224),
        ("vgg16", torchvision.models.VGG16_Weights.IMAGENET1K_V1, 224),
        ("inception_v3", torchvision.models.Inception_V3_Weights.IMAGENET1K_V1, 299),
    ],
)
def test_torchvisions_published_numbers(name, weights, size):
    # Its _ops are "GFLOPS" of one multiply-add each; an auxiliary head is among its parameters.
    sums = totals(layers(of_torchvision(name), (3, size, size)))
    assert sums["multiply_adds"] / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.01)
    assert sums["trainable"] == weights.meta["num_params"]


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_layers_by_hand(kind, gates, both_ways):
    network = on_meta(lambda: kind(6, 5, num_layers=2, batch_first=True, bidirectional=both_ways))
    (row,) = layers(network, (7, 6))
    ways = 1 + both_ways
    assert row.multiply_adds == 7 * ways * gates * 5 * ((6 + 5) + (5 * ways + 5))
    assert row.output_shape == (7, 5 * ways)
    assert row.parameters == sum(p.numel() for p in network.parameters())


class Chunked(nn.Module):
    """Slices of a volume through one network, a few at a time, as ViPTT-Net does."""

    def __init__(self, chunk):
        super().__init__()
        self.chunk = chunk
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        slices = x.transpose(1, 2).flatten(0, 1)
        maps = torch.cat([self.features(part) for part in slices.split(self.chunk)])
        return self.lstm(maps.mean((2, 3)).unflatten(0, (len(x), -1)))[0][:, -1]


def test_chunks_add_up():
    whole, parts = (layers(on_meta(lambda c=c: Chunked(c)), (1, 7, 8, 8)) for c in (7, 3))
    assert parts == whole
    assert parts[0].output_shape == (7, 6, 6, 4)
    assert parts[0].multiply_adds == 7 * 6 * 6 * 4 * 9
    assert parts[0].activations == 7 * 6 * 6 * 4
    assert parts[1].activations == 0  # in place


class OwnCount(nn.Module):
    """A recurrent layer of one's own, which says what it computes."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x):
        return self.cell(x), None

    def multiply_adds(self, x):
        return 1000 * x.shape[1]


def test_a_module_may_count_for_itself_and_for_what_it_is_made_of():
    (row,) = layers(on_meta(OwnCount), (3, 4))
    assert (row.kind, row.multiply_adds, row.parameters) == ("OwnCount", 3000, 20)
    assert (row.output_shape, row.activations) == ((3, 4), 12)


def test_shapes_and_parameters_are_those_that_keras_shows():
    k = keras.layers
    theirs = keras.Sequential(
        [
            k.Input((10, 12, 3)),
            k.Conv2D(8, 3),
            k.BatchNormalization(),
            k.MaxPooling2D(),
            k.Dense(5),  # on the channels, as in one of the CT paper's networks
            k.ReLU(),
            k.Flatten(),
            k.Dropout(0.5),
            k.Dense(2),
        ]
    )

    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    ours = on_meta(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.MaxPool2d(2),
            nn.Sequential(Last(), nn.Linear(8, 5)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(100, 2),
        )
    )
    rows = [row for row in layers(ours, (3, 10, 12)) if row.kind != "Last"]
    assert [row.output_shape for row in rows] == [layer.output.shape[1:] for layer in theirs.layers]
    assert [row.parameters + row.other for row in rows] == [
        layer.count_params() for layer in theirs.layers
    ]
    sums = totals(rows)
    assert sums["total"] == theirs.count_params()
    assert sums["trainable"] == sum(w.numpy().size for w in theirs.trainable_weights)


def test_activations_leave_out_what_needs_no_memory():
    network = on_meta(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Identity(), nn.Flatten(), nn.Dropout(0.5)
        )
    )
    rows = layers(network, (1, 3, 3))
    # The convolution's 18, and 18 of the dropout, which in training has an output of its own.
    assert [row.activations for row in rows] == [18, 0, 0, 0, 18]
    assert totals(rows)["activation_bytes"] == 4 * 36


def test_frozen_and_shared_weights():
    def build():
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        first.bias.requires_grad_(False)
        return nn.Sequential(first, second, nn.ReLU(), first)

    rows = layers(on_meta(build), (4,))
    assert [(row.parameters, row.other) for row in rows] == [(16, 4), (4, 0), (0, 0)]
    assert [row.multiply_adds for row in rows] == [32, 16, 0]


def test_an_auxiliary_head_counts_but_does_not_run():
    network = of_torchvision("inception_v3").train()
    rows = layers(network, (3, 299, 299))
    left_out = [row for row in rows if row.output_shape is None]
    assert {row.name.split(".")[0] for row in left_out} == {"AuxLogits"}
    assert rows[-len(left_out) :] == left_out
    assert "not run" in shown(rows)
    assert network.training and all(m.training for m in network.modules())
    assert not any(m._forward_hooks for m in network.modules())


def test_the_table_fits_80_columns_and_ends_in_totals():
    rows = layers(of_torchvision("densenet121"), (3, 224, 224))
    text = shown(rows)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" in text and "7,978,856" in text
    assert "features.conv0 (Conv2d)" in text and "112, 112, 64" in text
    assert "2,834.2 million multiply-adds" in text
    assert all(row.name in shown([row]) for row in rows if len(row.name) < 20)


def test_rows_are_plain_data():
    assert asdict(layers(on_meta(lambda: nn.Linear(4, 2)), (4,))[0]) == {
        "name": "",
        "kind": "Linear",
        "output_shape": (2,),
        "parameters": 10,
        "other": 0,
        "multiply_adds": 8,
        "activations": 2,
    }
