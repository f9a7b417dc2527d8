"""CervixNet1, CervixNet2 and conf/model/cervixnet*.yaml against the paper's counts and Keras 3."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import importlib
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

from medexp.errors import ConfigError
from medexp.models.cervix import CervixNet1, CervixNet2

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(CONF.glob("cervixnet*.yaml"))
NAMES = [file.stem for file in FILES]
CLASSES = {"cervixnet1": CervixNet1, "cervixnet2": CervixNet2}
DENSE = 4_096 * 1_024 + 1_024 + 1_024 * 3 + 3  # CervixNet-1's dense layers, by hand
COUNTS = {
    "cervixnet1": 7 * 7 * 3 * 32 + 7 * 7 * 32 * 16 + 2 * 48 + DENSE,
    "cervixnet2": (896 + 9_248 + 18_496 + 36_928 + 73_856) + (12_800 * 512 + 512) + 1_539,
}


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def build(name, num_classes=3, in_channels=3, image_size=(160, 160), **changes):
    """The network of a YAML file, its reserved keys left out as the runner does."""
    node = settings(name)
    assert node.pop("_target_") == f"medexp.models.cervix.{CLASSES[name].__name__}"
    for key in ("about", "stages", "weights"):
        del node[key]
    return CLASSES[name](
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, **node | changes
    )


def images(n=3, channels=3, size=(160, 160), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def children(module):
    return [name for name, _ in module.named_children()]


def test_the_glob_finds_both():
    assert sorted(CLASSES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts(name):
    with torch.device("meta"):
        network = build(name)
    count = sum(p.numel() for p in network.parameters())
    assert count == COUNTS[name]
    assert f"{count:,}" in (CONF / f"{name}.yaml").read_text()
    about = settings(name)["about"]
    assert (about["input"], about["classes"]) == ([3, 160, 160], 3)
    assert set(settings(name)["stages"]) == set(children(network)) == {"features", "head"}


def test_the_reported_count_of_cervixnet1_is_with_adam():
    about = settings("cervixnet1")["about"]
    reported = about["reported_parameters"]
    assert about["reported_includes_adam"] is True
    assert reported == 12_684_876 == 3 * COUNTS["cervixnet1"] + 3
    with torch.device("meta"):
        network = build("cervixnet1")
    dense = sum(p.numel() for p in network.head.parameters())
    assert dense == DENSE == 4_198_403
    assert f"{dense / reported:.3%}" == "33.098%"
    assert f"{dense / COUNTS['cervixnet1']:.1%}" in about["note"]


@pytest.mark.parametrize("strides", [[2, 5], [5, 2]])
def test_both_orders_of_the_strides_count_the_same(strides):
    with torch.device("meta"):
        network = build("cervixnet1", strides=strides)
        assert network.features(torch.empty(1, 3, 160, 160)).shape == (1, 16, 16, 16)
    assert sum(p.numel() for p in network.parameters()) == COUNTS["cervixnet1"]


def test_defaults_of_the_signatures_are_the_yaml():
    for name in NAMES:
        with torch.device("meta"):
            plain = CLASSES[name](num_classes=3, in_channels=3, image_size=(160, 160))
            assert str(plain) == str(build(name))


def keras_cervixnet1(keras, node, size):
    """Section 5.3.1 in Keras layers."""
    layers = keras.layers
    stack = [keras.Input((*size, 3))]
    for i in range(2):
        stack += [
            layers.Conv2D(
                node["filters"][i],
                node["kernels"][i],
                strides=node["strides"][i],
                padding="same",
                activation="relu",
                use_bias=False,
            ),
            layers.BatchNormalization(),
        ]
    stack += [layers.Flatten(), layers.Dense(node["dense"], activation="relu"), layers.Dense(3)]
    return keras.Sequential(stack)


def keras_cervixnet2(keras, node, size):
    """Section 5.3.2 in Keras layers."""
    layers = keras.layers
    stack = [keras.Input((*size, 3))]
    for i in range(5):
        stack.append(
            layers.Conv2D(
                node["filters"][i],
                node["kernels"][i],
                strides=node["strides"][i],
                padding="same",
                activation="relu",
                use_bias=not node["batch_norm"],
            )
        )
        if node["batch_norm"]:
            stack.append(layers.BatchNormalization())
        if node["pools"][i]:
            stack.append(
                layers.MaxPooling2D(node["pool_size"], node["pool_stride"], padding="same")
            )
    stack.append(layers.Flatten())
    stack += [layers.Dense(units, activation="relu") for units in node["dense"]]
    stack.append(layers.Dense(3))
    return keras.Sequential(stack)


@pytest.fixture
def keras64(monkeypatch):
    """Keras in float64, as on our side: float32 sums over many pixels differ by 1e-5 and more.

    On torch, Keras computes dense layers and BatchNorm of float64 in float32 unless its table of
    64-bit types is changed.
    """
    keras = pytest.importorskip("keras")
    types = importlib.import_module("keras.src.backend.common.dtypes")
    monkeypatch.setitem(types.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield keras
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.parametrize(
    "name, size, changes",
    [
        ("cervixnet1", (160, 160), {}),
        ("cervixnet1", (53, 71), {"strides": [5, 2]}),
        ("cervixnet2", (160, 160), {}),
        ("cervixnet2", (53, 71), {"batch_norm": True, "pool_size": 3, "dense": [20, 10]}),
    ],
)
def test_equals_keras(keras64, name, size, changes):
    """The same layers from the same YAML with the same weights: logits, and every gradient."""
    node = settings(name) | changes
    written = {"cervixnet1": keras_cervixnet1, "cervixnet2": keras_cervixnet2}[name]
    theirs = written(keras64, node, size)
    torch.manual_seed(1)
    rates = {"dropout": 0.0} | ({"conv_dropout": 0.0} if name == "cervixnet2" else {})
    ours = build(name, image_size=size, **changes | rates).double()
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            if tensor.ndim == 1:
                tensor.add_(torch.rand_like(tensor) * 0.1)
    weights = [tensor for tensor in ours.state_dict().values() if tensor.is_floating_point()]
    theirs.set_weights([keras_layout(weight).numpy() for weight in weights])

    x, y = images(size=size).double(), torch.tensor([0, 1, 2])
    for training in (False, True):
        ours.train(training).zero_grad()
        logits = ours(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        theirs.zero_grad()
        their_logits = theirs(x.permute(0, 2, 3, 1).contiguous(), training=training)
        their_loss = cross_entropy(their_logits, y)
        their_loss.backward()
        assert logits.shape == (3, 3)
        close(logits, their_logits)
        close(loss, their_loss)
        pairs = list(zip(ours.parameters(), theirs.trainable_weights, strict=True))
        assert len(pairs) >= 10
        for parameter, weight in pairs:
            assert parameter.grad.abs().max() > 0
            close(keras_layout(parameter.grad), weight.value.grad)


def keras_layout(tensor):
    """PyTorch's weight in Keras' order of axes."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def close(ours, theirs):
    """Within 1e-5 of the largest value, in float32; of float64 far closer."""
    tolerance = 1e-9 if theirs.dtype == torch.float64 else 1e-5
    scale = theirs.detach().abs().max().item()
    torch.testing.assert_close(
        ours.detach(), theirs.detach(), rtol=tolerance, atol=tolerance * scale
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "num_classes, channels, size", [(2, 1, (64, 64)), (5, 3, (33, 47)), (3, 4, (1, 1))]
)
def test_other_data(name, num_classes, channels, size):
    network = build(name, num_classes, channels, size)
    logits = network(images(3, channels, size))
    assert logits.shape == (3, num_classes)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_order_of_the_layers():
    with torch.device("meta"):
        one, two, norm = (
            build("cervixnet1"),
            build("cervixnet2"),
            build("cervixnet2", batch_norm=True, dense=[]),
        )
    assert children(one.features) == [
        f"{layer}{i}" for i in (1, 2) for layer in ("conv", "relu", "norm", "dropout")
    ]
    assert children(one.head) == ["dense1", "relu1", "output"]
    pooled = {2, 4, 5}
    for network, layers in ((two, ["conv", "relu"]), (norm, ["conv", "relu", "norm"])):
        assert children(network.features) == [
            f"{layer}{i}"
            for i in range(1, 6)
            for layer in [*layers, *(["pool"] if i in pooled else []), "dropout"]
        ]
    assert children(two.head) == ["dense1", "relu1", "dropout1", "output"]
    assert children(norm.head) == ["output"]
    assert (two.features.conv1.stride, two.features.conv2.stride) == ((2, 2), (1, 1))
    assert norm.features.conv1.bias is None and two.features.conv1.bias is not None


def test_dropout_rates():
    with torch.device("meta"):
        one = build("cervixnet1")
        two = build("cervixnet2", conv_dropout=0.25)
    rates = [m.p for m in one.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.2, 0.2]  # keep = .8, Table 2
    rates = [m.p for m in two.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.25] * 5 + [0.5]


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name):
    network, x = build(name, image_size=(40, 40)), images(size=(40, 40))
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_defaults_are_keras_or_torch():
    keras_like = build("cervixnet1", image_size=(40, 40))
    torch_like = build("cervixnet1", image_size=(40, 40), keras_defaults=False)
    assert (keras_like.features.norm2.eps, keras_like.features.norm2.momentum) == (1e-3, 0.01)
    assert (torch_like.features.norm2.eps, torch_like.features.norm2.momentum) == (1e-5, 0.1)
    assert not keras_like.head.output.bias.any() and torch_like.head.output.bias.any()
    limit = (6 / (49 * 3 + 49 * 32)) ** 0.5
    assert 0.9 * limit < keras_like.features.conv1.weight.abs().max() <= limit
    plain = build("cervixnet2", image_size=(40, 40), keras_defaults=False, batch_norm=True)
    assert (plain.features.norm5.eps, plain.features.norm5.momentum) == (1e-5, 0.1)


@pytest.fixture
def forgetful():
    """Forget compiled code: at a second image size torch solves for symbolic sizes, for minutes."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_one_graph_and_round_trip(name, tmp_path, forgetful):
    network, other = build(name, image_size=(40, 40)), build(name, image_size=(40, 40))
    x = images(size=(40, 40))
    network(x)  # moves the running statistics
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        expected = network.eval()(x)
        assert torch.equal(other.eval()(x), expected)
        close(torch.compile(network, backend="eager", fullgraph=True, dynamic=False)(x), expected)
        last = network.to(memory_format=torch.channels_last)
        close(last(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": (64, 64, 64)}, r"image_size=\(64, 64, 64\): this network takes 2D images"),
        ({"image_size": (0, 96)}, r"image_size=\(0, 96\): must be 2 integers of at least 1"),
        ({"image_size": 96}, r"image_size=96: must be 2 integers"),
        ({"num_classes": 1}, r"num_classes=1: must be an integer of at least 2"),
        ({"in_channels": 0}, r"in_channels=0: must be an integer of at least 1"),
        ({"kernels": [3]}, r"model\.kernels=\[3\]: must be [25] integers of at least 1"),
        ({"filters": 3}, r"model\.filters=3: must be [25] integers"),
        ({"strides": [2, 0, 1, 1, 1]}, r"model\.strides=\[2, 0, 1, 1, 1\]: must be [25] integers"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0: must be at least 0 and below 1, the share"),
        ({"dropout": "no"}, r"model\.dropout=no: must be at least 0"),
    ],
)
def test_refuses(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **changes)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("cervixnet1", {"dense": 0}, r"model\.dense=0: must be an integer of at least 1"),
        ("cervixnet2", {"dense": [9, 0]}, r"model\.dense=\[9, 0\]: must be a list of integers of"),
        ("cervixnet2", {"dense": 9}, r"model\.dense=9: must be a list of integers"),
        ("cervixnet2", {"pools": [True]}, r"model\.pools=\[True\]: must be 5 booleans"),
        ("cervixnet2", {"pools": 5}, r"model\.pools=5: must be 5 booleans"),
        ("cervixnet2", {"pool_size": 0}, r"model\.pool_size=0: must be an integer"),
        ("cervixnet2", {"pool_stride": 1.5}, r"model\.pool_stride=1\.5: must be an integer"),
        ("cervixnet2", {"conv_dropout": -0.1}, r"model\.conv_dropout=-0\.1: must be at least 0"),
    ],
)
def test_refuses_its_own_keys(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **changes)
