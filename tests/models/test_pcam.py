"""NativeCNN and conf/model/native*.yaml against the paper's counts and against Keras 3."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import binary_cross_entropy_with_logits

from medexp.config.settings import FACTS
from medexp.errors import ConfigError
from medexp.models.pcam import NativeCNN

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(CONF.glob("native*.yaml"))
NAMES = [file.stem for file in FILES]
REPORTED = {"native1": 451_791, "native2": 376_391, "native3": 511_891, "native4": 421_491}
LISTED = {  # Table 2 by hand: three convolutions, two dense layers, the output
    "native1": 7_320 + 48_100 + 90_100 + 1_600 * 200 + 200 + 40_200 + 201,
    "native2": 4_440 + 27_100 + 90_100 + 100 * 100 + 100 + 10_100 + 101,
    "native3": 9_030 + 48_100 + 40_100 + 900 * 300 + 300 + 60_200 + 201,
    "native4": 5_790 + 75_100 + 250_100 + 400 * 200 + 200 + 10_050 + 51,
}
SMALL = {
    "kernels": [4, 3, 2],
    "filters": [4, 6, 5],
    "strides": [2, 1, 1],
    "dense": [8, 7],
    "batch_norm": [False, True, False],
}


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def build(name, num_classes=2, in_channels=3, image_size=(96, 96), **changes):
    """The network of a YAML file, its facts left out as the runner does."""
    node = settings(name)
    assert node.pop("_target_") == "medexp.models.pcam.NativeCNN"
    for fact in FACTS["model"]:
        node.pop(fact, None)
    return NativeCNN(
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, **node | changes
    )


def small(**changes):
    arguments = {"num_classes": 2, "in_channels": 3, "image_size": (24, 24)} | SMALL | changes
    return NativeCNN(**arguments)


def images(n=3, channels=3, size=(96, 96), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def test_the_glob_finds_the_eight():
    assert sorted([*REPORTED, *(f"{name}_counted" for name in REPORTED)]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts(name):
    network = build(name)
    count = sum(p.numel() for p in network.parameters())
    plain = name.removesuffix("_counted")
    assert count == (LISTED[plain] if plain == name else REPORTED[plain])
    about = settings(name)["about"]
    assert about["reported_parameters"] == REPORTED[plain]
    assert about["input"] == [3, 96, 96]
    assert set(about) == {"paper", "where", "input", "batch", "reported_parameters", "note"}
    assert f"{count:,}" in (CONF / f"{name}.yaml").read_text()
    if plain != name:
        assert network.features(images(n=1)).shape == (1, 100, 2, 2)
        assert network.head.dense1.in_features == 400


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_equals_keras(name, training):
    """The same layers from the same YAML with the same weights: logits, and every gradient."""
    keras = pytest.importorskip("keras")
    node = settings(name)
    layers = [keras.Input((96, 96, 3))]
    for i in range(3):
        layers.append(
            keras.layers.Conv2D(
                node["filters"][i],
                node["kernels"][i],
                strides=node["strides"][i],
                padding="same",
                activation="relu",
            )
        )
        if node["batch_norm"][i]:
            layers.append(keras.layers.BatchNormalization())
        layers.append(
            keras.layers.MaxPooling2D(node["pool_size"], node["pool_stride"], padding="same")
        )
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(units, activation="relu") for units in node["dense"]]
    layers.append(keras.layers.Dense(1))
    theirs = keras.Sequential(layers)

    torch.manual_seed(1)
    ours = build(name)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.1)
        for buffer in ours.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    weights = [tensor for tensor in ours.state_dict().values() if tensor.is_floating_point()]
    theirs.set_weights([keras_layout(weight).numpy() for weight in weights])

    x, y = images(), torch.tensor([[0.0], [1.0], [1.0]])
    ours.train(training)
    logits = ours(x)
    loss = binary_cross_entropy_with_logits(logits, y)
    loss.backward()
    their_logits = theirs(x.permute(0, 2, 3, 1).contiguous(), training=training)
    their_loss = binary_cross_entropy_with_logits(their_logits, y)
    their_loss.backward()

    assert logits.shape == (3, 1)
    close(logits, their_logits)
    close(loss, their_loss)
    pairs = list(zip(ours.parameters(), theirs.trainable_weights, strict=True))
    assert len(pairs) == 12 + 2 * sum(node["batch_norm"])
    for parameter, weight in pairs:
        assert parameter.grad.abs().max() > 0
        close(keras_layout(parameter.grad), weight.value.grad)


def keras_layout(tensor):
    """PyTorch's weight in Keras' order of axes."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def close(ours, theirs):
    """Within 1e-5 of the largest value: an entry's own size is lost in float32 sums."""
    scale = theirs.detach().abs().max().item()
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "num_classes, channels, size", [(2, 1, (64, 64)), (5, 3, (33, 47)), (3, 4, (96, 96))]
)
def test_other_data(name, num_classes, channels, size):
    network = build(name, num_classes, channels, size)
    logits = network(images(2, channels, size))
    assert logits.shape == (2, 1 if num_classes == 2 else num_classes)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_single_pixel_still_works():
    assert small(image_size=(1, 1))(images(2, size=(1, 1))).shape == (2, 1)


def test_pooling_of_stride_one():
    network = small(pool_stride=1)
    assert network.features(images(size=(24, 24))).shape == (3, 5, 12, 12)
    assert network(images(size=(24, 24))).shape == (3, 1)


def test_batch_norm_lies_between_relu_and_pooling():
    network = small(batch_norm=[True, True, True])
    names = [name for name, _ in network.features.named_children()]
    assert names == [f"{layer}{i}" for i in (1, 2, 3) for layer in ("conv", "relu", "norm", "pool")]
    head = [name for name, _ in network.head.named_children()]
    assert head == ["dense1", "relu1", "dense2", "relu2", "output"]
    assert [name for name, _ in network.named_children()] == ["features", "head"]


def test_defaults_are_keras_or_torch():
    keras_like, torch_like = small(), small(keras_defaults=False)
    assert (keras_like.features.norm2.eps, keras_like.features.norm2.momentum) == (1e-3, 0.01)
    assert (torch_like.features.norm2.eps, torch_like.features.norm2.momentum) == (1e-5, 0.1)
    assert not any(m.bias.any() for m in (keras_like.features.conv1, keras_like.head.output))
    assert all(m.bias.any() for m in (torch_like.features.conv1, torch_like.head.output))
    limit = (6 / (16 * 3 + 16 * 4)) ** 0.5
    assert 0.9 * limit < keras_like.features.conv1.weight.abs().max() <= limit


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kernels": [3, 3]}, r"model\.kernels=\[3, 3\]: must be 3 integers of at least 1"),
        ({"kernels": 3}, r"model\.kernels=3: must be 3 integers"),
        ({"filters": [4, 0, 5]}, r"model\.filters=\[4, 0, 5\]"),
        ({"strides": [2, 1, -1]}, r"model\.strides=\[2, 1, -1\]"),
        ({"strides": [2, 1, 1.5]}, r"model\.strides=\[2, 1, 1\.5\]"),
        ({"dense": [8]}, r"model\.dense=\[8\]: must be 2 integers"),
        ({"pool_size": 0}, r"model\.pool_size=0: must be an integer of at least 1"),
        ({"pool_stride": "2"}, r"model\.pool_stride=2: must be an integer"),
        ({"batch_norm": [True]}, r"model\.batch_norm=\[True\]: must be 3 booleans"),
        ({"batch_norm": [0, 1, 0]}, r"model\.batch_norm=\[0, 1, 0\]: must be 3 booleans"),
        ({"num_classes": 1}, r"num_classes=1: must be an integer of at least 2"),
        ({"in_channels": 0}, r"in_channels=0"),
        ({"image_size": (96, 0)}, r"image_size=\(96, 0\): must be 2 integers"),
        ({"image_size": (70, 96, 96)}, r"image_size=\(70, 96, 96\): this network takes 2D images"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)
