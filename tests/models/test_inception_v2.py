"""InceptionV2 and conf/model/inception_v2.yaml against TensorFlow-Slim's facts and Keras 3."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import importlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

from medexp.errors import ConfigError
from medexp.models.inception_v2 import InceptionV2, SeparableConv

FILE = Path(__file__).parents[2] / "conf" / "model" / "inception_v2.yaml"
ENDPOINTS = {  # Slim's inception_v2_test.py, at 224x224
    "Conv2d_1a_7x7": (64, 112, 112),
    "MaxPool_2a_3x3": (64, 56, 56),
    "Conv2d_2b_1x1": (64, 56, 56),
    "Conv2d_2c_3x3": (192, 56, 56),
    "MaxPool_3a_3x3": (192, 28, 28),
    "Mixed_3b": (256, 28, 28),
    "Mixed_3c": (320, 28, 28),
    "Mixed_4a": (576, 14, 14),
    "Mixed_4b": (576, 14, 14),
    "Mixed_4c": (576, 14, 14),
    "Mixed_4d": (576, 14, 14),
    "Mixed_4e": (576, 14, 14),
    "Mixed_5a": (1024, 7, 7),
    "Mixed_5b": (1024, 7, 7),
    "Mixed_5c": (1024, 7, 7),
}
# Slim's scopes branch by branch: window x channels / stride, or a pooling.
SLIM = {
    "Conv2d_2b_1x1": "1x64",
    "Conv2d_2c_3x3": "3x192",
    "Mixed_3b": ["1x64", "1x64 3x64", "1x64 3x96 3x96", "avg 1x32"],
    "Mixed_3c": ["1x64", "1x64 3x96", "1x64 3x96 3x96", "avg 1x64"],
    "Mixed_4a": ["1x128 3x160/2", "1x64 3x96 3x96/2", "max/2"],
    "Mixed_4b": ["1x224", "1x64 3x96", "1x96 3x128 3x128", "avg 1x128"],
    "Mixed_4c": ["1x192", "1x96 3x128", "1x96 3x128 3x128", "avg 1x128"],
    "Mixed_4d": ["1x160", "1x128 3x160", "1x128 3x160 3x160", "avg 1x96"],
    "Mixed_4e": ["1x96", "1x128 3x192", "1x160 3x192 3x192", "avg 1x96"],
    "Mixed_5a": ["1x128 3x192/2", "1x192 3x256 3x256/2", "max/2"],
    "Mixed_5b": ["1x352", "1x192 3x320", "1x160 3x224 3x224", "avg 1x128"],
    "Mixed_5c": ["1x352", "1x192 3x320", "1x192 3x224 3x224", "max 1x128"],
}


def settings():
    return yaml.safe_load(FILE.read_text())


def build(num_classes=3, in_channels=3, image_size=(64, 64), **changes):
    """The network of the YAML file, its reserved keys left out as the runner does."""
    node = settings()
    assert node.pop("_target_") == "medexp.models.inception_v2.InceptionV2"
    for key in ("about", "stages", "weights"):
        del node[key]
    return InceptionV2(
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, **node | changes
    )


def images(n=3, channels=3, size=(64, 64), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def total(module):
    """Slim's count: every weight, and the moving means and variances."""
    kept = sum(b.numel() for b in module.buffers() if b.is_floating_point())
    return sum(p.numel() for p in module.parameters()) + kept


def test_slims_count():
    with torch.device("meta"):
        network, thousand = build(), build(num_classes=1000)
    assert total(network.features) == 10_173_112  # testModelHasExpectedNumberOfParameters
    assert total(thousand) == 10_173_112 + 1_025_000 == 11_198_112
    count = sum(p.numel() for p in network.parameters())
    shifts = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert count == 10_173_112 - 2 * shifts + 3_075 == 10_156_411
    assert f"{count:,}" in FILE.read_text() and "10,173,112" in FILE.read_text()
    assert [name for name, _ in network.named_children()] == ["features", "head"]
    assert set(settings()["stages"]) == {"features", "head"}
    assert sum(p.numel() for p in network.head.parameters()) == 3_075  # the last layer alone
    about = settings()["about"]
    assert (about["input"], about["classes"]) == ([3, 224, 224], 3)
    assert about["reported_parameters"] is None


def test_slims_endpoints():
    with torch.device("meta"):
        found = build(image_size=(224, 224)).endpoints(torch.empty(2, 3, 224, 224))
    assert [(name, tuple(x.shape[1:])) for name, x in found.items()] == list(ENDPOINTS.items())


def test_slims_half_size_images():
    with torch.device("meta"):
        network = build(image_size=(112, 112))
        assert network.endpoints(torch.empty(2, 3, 112, 112))["Mixed_5c"].shape == (2, 1024, 4, 4)


def test_endpoints_lead_to_the_logits():
    network, x = build(dropout=0.0).eval(), images()
    last = network.endpoints(x)["Mixed_5c"]
    assert torch.equal(network.head(last.mean((2, 3))), network(x))


def test_names_are_slims_scopes():
    with torch.device("meta"):
        names = [name for name, _ in build().named_parameters() if name.endswith("conv.weight")]
    scopes = [name.removeprefix("features.").removesuffix(".conv.weight") for name in names]
    assert len(scopes) == 2 + 8 * 7 + 2 * 5
    assert scopes[:2] == ["Conv2d_2b_1x1", "Conv2d_2c_3x3"]
    assert [scope for scope in scopes if "Mixed_4a" in scope] == [
        "Mixed_4a.Branch_0.Conv2d_0a_1x1",
        "Mixed_4a.Branch_0.Conv2d_1a_3x3",
        "Mixed_4a.Branch_1.Conv2d_0a_1x1",
        "Mixed_4a.Branch_1.Conv2d_0b_3x3",
        "Mixed_4a.Branch_1.Conv2d_1a_3x3",
    ]
    assert [scope for scope in scopes if "Mixed_5c" in scope] == [
        "Mixed_5c.Branch_0.Conv2d_0a_1x1",
        "Mixed_5c.Branch_1.Conv2d_0a_1x1",
        "Mixed_5c.Branch_1.Conv2d_0b_3x3",
        "Mixed_5c.Branch_2.Conv2d_0a_1x1",
        "Mixed_5c.Branch_2.Conv2d_0b_3x3",
        "Mixed_5c.Branch_2.Conv2d_0c_3x3",
        "Mixed_5c.Branch_3.Conv2d_0b_1x1",
    ]


@pytest.fixture
def keras64(monkeypatch):
    """Keras in float64, as on our side: BatchNorm over a few pixels magnifies float32's sums.

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


def keras_branch(keras, x, branch):
    """One line of SLIM in Keras layers."""
    layers = keras.layers
    for part in branch.split():
        if part in ("avg", "max", "max/2"):
            pooling = layers.AveragePooling2D if part == "avg" else layers.MaxPooling2D
            x = pooling(3, strides=2 if part == "max/2" else 1, padding="same")(x)
            continue
        window, channels, stride = re.fullmatch(r"(\d)x(\d+)(?:/(\d))?", part).groups()
        x = layers.Conv2D(
            int(channels), int(window), strides=int(stride or 1), padding="same", use_bias=False
        )(x)
        x = layers.BatchNormalization(momentum=0.9997, epsilon=0.001, scale=False)(x)
        x = layers.ReLU()(x)
    return x


def keras_endpoint(keras, x, name):
    """One of Slim's endpoints in Keras layers."""
    layers = keras.layers
    if name == "Conv2d_1a_7x7":
        return layers.SeparableConv2D(
            64, 7, strides=2, padding="same", depth_multiplier=8, activation="relu"
        )(x)
    if name.startswith("MaxPool"):
        return layers.MaxPooling2D(3, strides=2, padding="same")(x)
    if isinstance(SLIM[name], str):
        return keras_branch(keras, x, SLIM[name])
    return layers.Concatenate()([keras_branch(keras, x, branch) for branch in SLIM[name]])


def give_weights(ours, theirs, keras):
    """Put our weights into the Keras model, kind by kind of layer; return the pairs.

    Keras sorts the layers of branches by depth, so each convolution is found by its branch: the
    layers are created in the order of SLIM, and their names end in a running number.
    """
    pairs = []
    kinds = (
        (SeparableConv, keras.layers.SeparableConv2D),
        (nn.Conv2d, keras.layers.Conv2D),
        (nn.BatchNorm2d, keras.layers.BatchNormalization),
        (nn.Linear, keras.layers.Dense),
    )
    separable = [m for m in ours.modules() if isinstance(m, SeparableConv)]
    inside = [layer for m in separable for layer in m.modules() if layer is not m]
    for mine, kind in kinds:
        modules = [m for m in ours.modules() if isinstance(m, mine) and m not in inside]
        layers = sorted((layer for layer in theirs.layers if type(layer) is kind), key=number)
        for module, layer in zip(modules, layers, strict=True):
            if mine is nn.BatchNorm2d:
                tensors = [module.bias, module.running_mean, module.running_var]
            else:
                tensors = list(module.parameters())
            layer.set_weights([keras_layout(t.detach(), kind, keras).numpy() for t in tensors])
            pairs += [
                (parameter, weight, kind)
                for parameter, weight in zip(
                    module.parameters(), layer.trainable_weights, strict=True
                )
            ]
    return pairs


def number(layer):
    """The running number at the end of a Keras layer's name; the first has none."""
    found = re.search(r"_(\d+)$", layer.name)
    return int(found.group(1)) if found else 0


def keras_layout(tensor, kind, keras):
    """PyTorch's weight in Keras' order of axes; a depthwise kernel's maps lie by channel."""
    if tensor.ndim == 4 and kind is keras.layers.SeparableConv2D and tensor.shape[1] == 1:
        maps, _, rows, columns = tensor.shape
        return tensor.reshape(3, maps // 3, rows, columns).permute(2, 3, 0, 1)
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def shake(network):
    """Move every shift, bias and statistic away from zero and one."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim == 1:
                tensor.add_(torch.rand_like(tensor) * 0.2)


def close(ours, theirs, tolerance=1e-9):
    scale = theirs.detach().abs().max().item()
    torch.testing.assert_close(
        ours.detach(), theirs.detach(), rtol=tolerance, atol=tolerance * scale
    )


def equal_in_both_modes(ours, theirs, pairs, x, loss, keras):
    for training in (False, True):
        ours.train(training).zero_grad()
        theirs.zero_grad()
        out = ours(x)
        their_out = theirs(x.permute(0, 2, 3, 1).contiguous(), training=training)
        loss(out).backward()
        images_out = their_out.permute(0, 3, 1, 2) if their_out.ndim == 4 else their_out
        loss(images_out).backward()
        close(out, images_out)
        for parameter, weight, kind in pairs:
            assert parameter.grad.abs().max() > 0
            close(keras_layout(parameter.grad, kind, keras), weight.value.grad)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_endpoint_equals_keras(keras64, name):
    """Each endpoint by itself on a small odd image: output, and every weight's gradient."""
    torch.manual_seed(1)
    before = dict(zip(list(ENDPOINTS)[1:], ENDPOINTS.values(), strict=False))
    channels = before[name][0] if name in before else 3
    ours = build().features.get_submodule(name).double()
    shake(ours)
    entry = keras64.Input((7, 6, channels))
    theirs = keras64.Model(entry, keras_endpoint(keras64, entry, name))
    pairs = give_weights(ours, theirs, keras64)
    assert len(pairs) == len(list(ours.parameters()))
    x = images(2, channels, (7, 6)).double() - 0.5
    weight = torch.rand(ENDPOINTS[name][0], 1, 1).double()
    if pairs:
        equal_in_both_modes(ours, theirs, pairs, x, lambda out: (out * weight).sum(), keras64)
    else:
        close(ours(x), theirs(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2))


def test_network_equals_keras(keras64):
    """The whole network from image to logits: every gradient in both modes."""
    torch.manual_seed(2)
    ours = build(dropout=0.0).double()
    shake(ours)
    x = entry = keras64.Input((64, 64, 3))
    for name in ENDPOINTS:
        x = keras_endpoint(keras64, x, name)
    x = keras64.layers.Dense(3)(keras64.layers.GlobalAveragePooling2D()(x))
    theirs = keras64.Model(entry, x)
    pairs = give_weights(ours, theirs, keras64)
    assert len(pairs) == len(list(ours.parameters())) == 3 + 2 * 68 + 2
    y = torch.tensor([0, 1, 2])
    equal_in_both_modes(
        ours, theirs, pairs, images().double(), lambda out: cross_entropy(out, y), keras64
    )


def test_moving_statistics():
    """Slim's decay of .9997, of the batch's mean and (fused kernel) unbiased variance."""
    network, x = build(), images(4)
    conv = network.features.Conv2d_2b_1x1
    inside = network.features[:2](x)
    raw = conv.conv(inside)
    network(x)
    close(conv.norm.running_mean, 0.0003 * raw.mean((0, 2, 3)), 1e-4)
    close(conv.norm.running_var, 0.9997 + 0.0003 * raw.var((0, 2, 3)), 1e-5)
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1 - 0.9997}
    assert build(bn_decay=0.9).features.Mixed_3b.Branch_0.Conv2d_0a_1x1.norm.momentum == 1 - 0.9


def test_initial_kernels_are_slims_or_torchs():
    torch.manual_seed(0)
    slim, plain = build(), build(keras_defaults=False)
    found = slim.features
    shrunk = 0.8796  # deviation of a normal cut at two deviations
    for weight, std in (
        (found.Conv2d_1a_7x7.depthwise.weight, 1.0),
        (found.Conv2d_1a_7x7.pointwise.weight, 1.0),
        (found.Conv2d_2b_1x1.conv.weight, 0.1),
        (found.Conv2d_2c_3x3.conv.weight, (2.6 / (9 * 64)) ** 0.5),
        (found.Mixed_3b.Branch_0.Conv2d_0a_1x1.conv.weight, (2.6 / 192) ** 0.5),
        (found.Mixed_4a.Branch_0.Conv2d_0a_1x1.conv.weight, 0.09),
        (found.Mixed_4a.Branch_0.Conv2d_1a_3x3.conv.weight, (2.6 / (9 * 128)) ** 0.5),
        (found.Mixed_5c.Branch_2.Conv2d_0a_1x1.conv.weight, 0.09),
        (found.Mixed_5c.Branch_3.Conv2d_0b_1x1.conv.weight, 0.1),
        (slim.head.output.weight, (2.6 / 1024) ** 0.5),
    ):
        assert weight.std().item() == pytest.approx(shrunk * std, rel=0.06)
        assert weight.abs().max() <= 2 * std
    assert not found.Conv2d_1a_7x7.pointwise.bias.any() and not slim.head.output.bias.any()
    assert plain.features.Conv2d_1a_7x7.pointwise.bias.any() and plain.head.output.bias.any()
    norm = "Mixed_5c.Branch_3.Conv2d_0b_1x1.norm"
    assert found.get_submodule(norm).eps == 1e-3
    assert plain.features.get_submodule(norm).eps == 1e-5
    assert plain.features.get_submodule(norm).momentum == pytest.approx(0.1)


def test_dropout_is_of_the_head_alone():
    network = build()
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert network.head.dropout.p == settings()["dropout"]


@pytest.mark.parametrize(
    "num_classes, channels, size", [(2, 1, (48, 48)), (5, 4, (33, 47)), (3, 12, (1, 1))]
)
def test_other_data(num_classes, channels, size):
    network = build(num_classes, channels, size)
    logits = network(images(3, channels, size))
    assert logits.shape == (3, num_classes)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("channels, maps", [(1, 8), (3, 24), (8, 64), (12, 60), (70, 70)])
def test_separable_maps_are_no_more_than_the_channels_out(channels, maps):
    with torch.device("meta"):
        assert SeparableConv(channels, 64, 7, 2, slim=True).depthwise.out_channels == maps


@pytest.fixture
def forgetful():
    """Forget compiled code: at a second image size torch solves for symbolic sizes, for minutes."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_channels_last_one_graph_and_round_trip(tmp_path, forgetful):
    network, other, x = build(), build(), images()
    network(x)  # moves the running statistics
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        expected = network.eval()(x)
        assert torch.equal(other.eval()(x), expected)
        close(
            torch.compile(network, backend="eager", fullgraph=True, dynamic=False)(x),
            expected,
            1e-4,
        )
        with torch.autocast("cpu", torch.bfloat16):
            low = network(x)
        last = network.to(memory_format=torch.channels_last)
        close(last(x.to(memory_format=torch.channels_last)), expected, 1e-4)
    close(low.float(), expected, 0.05)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": (64, 64, 64)}, r"image_size=\(64, 64, 64\): this network takes 2D images"),
        ({"image_size": (0, 96)}, r"image_size=\(0, 96\): must be 2 integers of at least 1"),
        ({"image_size": 96}, r"image_size=96: must be 2 integers"),
        ({"num_classes": 1}, r"num_classes=1: must be an integer of at least 2"),
        ({"in_channels": 0}, r"in_channels=0: must be an integer of at least 1"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0: must be at least 0 and below 1, the share"),
        ({"bn_decay": 1}, r"model\.bn_decay=1: must be at least 0 and below 1, the share"),
        ({"bn_decay": "slow"}, r"model\.bn_decay=slow: must be at least 0"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
