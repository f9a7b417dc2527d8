"""AllNet, conf/model/allnet.yaml and allnet_14.yaml against the paper's counts and Keras 3."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import itertools
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

from medexp.errors import ConfigError
from medexp.models.all import AllNet

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMES = ["allnet", "allnet_14"]
FILTERS = (32, 64, 128, 256, 384, 512)
CONVOLUTIONS = {"allnet": [3, 2, 2, 2, 2, 2], "allnet_14": [3, 3, 2, 2, 2, 2]}
SMALL = {"filters": [4, 5, 6, 7, 8, 9], "dense": [11, 10]}
EXTRA = 9 * 64 * 64 + 64  # the third convolution of block 2


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def build(name="allnet", num_classes=2, in_channels=3, image_size=(150, 150), **changes):
    """The network of a YAML file, its facts left out as the runner does."""
    node = settings(name)
    assert node.pop("_target_") == "medexp.models.all.AllNet"
    for fact in ("about", "stages", "weights"):
        del node[fact]
    return AllNet(
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, **node | changes
    )


def small(name="allnet", **changes):
    return build(name, **{"image_size": (32, 32)} | SMALL | changes)


def images(n=4, channels=3, size=(32, 32), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def counts(network):
    """(trainable, with BatchNorm's moving mean and variance)"""
    trainable = sum(p.numel() for p in network.parameters())
    return trainable, trainable + sum(b.numel() for b in network.buffers() if b.ndim)


@pytest.mark.parametrize("unpooled, side", [(1, 150), (2, 150), (3, 150), (1, 149), (1, 152)])
def test_every_figure_of_the_paper(unpooled, side):
    """Figures 18 and 19; the same for each block that may lack its pooling."""
    with torch.device("meta"):
        network = build(image_size=(side, side), unpooled_block=unpooled)
        figures(network, torch.rand(2, 3, side, side))


def test_six_poolings_of_300_pixels_meet_the_figures_too():
    with torch.device("meta"):
        figures(build(image_size=(300, 300), unpooled_block=None), torch.rand(2, 3, 300, 300))


def figures(network, x):
    assert counts(network.features) == (7_529_472, 7_535_040)
    assert counts(network) == (64_061_370, 64_066_938)
    dense = [layer for layer in network.head if isinstance(layer, nn.Linear)]
    assert [counts(layer)[0] for layer in dense] == [52_432_896, 4_097_000, 2_002]
    assert dense[0].in_features == 12_800
    shapes, own = {}, {}
    for name, layer in network.features.named_children():
        x = layer(x)
        shapes[name], own[name] = tuple(x.shape[1:]), counts(layer)[1]
    figure_18 = [
        ("block4_conv1", 38, 256, 295_168),
        ("block4_norm1", 38, 256, 1_024),
        ("block4_conv2", 38, 256, 590_080),
        ("block4_norm2", 38, 256, 1_024),
        ("block4_pool1", 19, 256, 0),
        ("block5_conv1", 19, 384, 885_120),
        ("block5_norm1", 19, 384, 1_536),
        ("block5_conv2", 19, 384, 1_327_488),
        ("block5_norm2", 19, 384, 1_536),
        ("block5_pool1", 10, 384, 0),
        ("block6_conv1", 10, 512, 1_769_984),
        ("block6_norm1", 10, 512, 2_048),
        ("block6_conv2", 10, 512, 2_359_808),
        ("block6_norm2", 10, 512, 2_048),
        ("block6_pool1", 5, 512, 0),
    ]
    for name, side, channels, parameters in figure_18:
        assert (shapes[name], own[name]) == ((channels, side, side), parameters)
    listed = [name for name in shapes if name[:6] >= "block4" and "relu" not in name]
    assert listed == [row[0] for row in figure_18]


def test_no_other_division_into_blocks_meets_the_counts():
    """Fewer than seven convolutions in each of blocks 1 to 3; blocks 4 to 6 stand in Figure 18."""
    found = []
    for first in itertools.product(range(1, 7), repeat=3):
        total, channels = 0, 3
        for blocks, out in zip((*first, 2, 2, 2), FILTERS, strict=True):
            total += 9 * (channels + (blocks - 1) * out) * out + 5 * blocks * out
            channels = out
        found += [first] if total == 7_535_040 else []
    assert found == [(3, 2, 2)]


def test_fourteen_convolutions_count_what_the_third_of_block_2_adds():
    with torch.device("meta"):
        network = build("allnet_14")
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.features) == 14
    more, moving = EXTRA + 2 * 64, 2 * 64
    assert counts(network) == (64_061_370 + more, 64_066_938 + more + moving)
    assert hasattr(network.features, "block2_conv3")


@pytest.mark.parametrize("name", NAMES)
def test_facts(name):
    node, text = settings(name), (CONF / f"{name}.yaml").read_text()
    about = node["about"]
    assert node["convolutions"] == CONVOLUTIONS[name]
    assert (about["input"], about["classes"], about["batch"]) == ([3, 150, 150], 2, 30)
    assert (about["reported_parameters"], about["reported_total"]) == (64_061_370, 64_066_938)
    assert node["weights"] is None
    stage = {"lr": None, "l2": 0.02, "frozen": False}
    assert node["stages"] == {"features": stage, "head": stage}
    assert [child for child, _ in small(name).named_children()] == ["features", "head"]
    with torch.device("meta"):
        assert all(f"{count:,}" in text for count in counts(build(name)))


def test_l2_that_the_losses_of_figure_20_imply():
    """Once the images are learnt, SGD shrinks each kernel by 1 - 2 lr L2 a batch, their L2 loss
    by the square; Keras shows an epoch's mean, which shrinks by the same share."""
    losses, batches = [83.4389, 82.5533, 81.6776, 80.8105], -(-20_000 // 30)
    l2 = settings("allnet")["stages"]["head"]["l2"]
    share = (1 - 2 * 0.0002 * l2) ** (2 * batches)
    for before, after in itertools.pairwise(losses):
        assert after / before == pytest.approx(share, abs=1e-5)


@pytest.fixture
def keras_float64(monkeypatch):
    """Float64 within Keras' BatchNorm too, as on its TensorFlow backend; elsewhere it goes down
    to float32 and back."""
    pytest.importorskip("keras")
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")


def in_keras(convolutions, unpooled, input_shape, dtype="float32"):
    """The network of section 3.5 in Keras, written from its Figures 18 and 19."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    stack = []
    for block in range(6):
        for _ in range(convolutions[block]):
            filters = SMALL["filters"][block]
            stack += [
                layers.Conv2D(filters, (3, 3), padding="same", activation="relu", dtype=dtype),
                layers.BatchNormalization(dtype=dtype),
            ]
        if block + 1 != unpooled:
            stack.append(layers.MaxPooling2D((2, 2), padding="same", dtype=dtype))
    stack.append(layers.Flatten(dtype=dtype))
    for units in SMALL["dense"]:
        dense = layers.Dense(units, activation="relu", dtype=dtype)
        stack += [dense, layers.Dropout(0.0, dtype=dtype)]
    stack.append(layers.Dense(2, dtype=dtype))
    return keras.Sequential([keras.Input(input_shape, dtype=dtype), *stack])


@pytest.mark.parametrize(
    "name, unpooled, size",
    [
        ("allnet", 1, (32, 32)),
        ("allnet", 2, (37, 45)),  # odd sizes in every block
        ("allnet", 3, (32, 32)),
        ("allnet", None, (75, 40)),
        ("allnet_14", 1, (32, 32)),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_equals_keras(name, unpooled, size, training, keras_float64):
    """The same layers with the same weights: logits, loss, every gradient, moving means.

    In float64: thirteen BatchNorms in a row lose more than 1e-5 of a gradient in float32.
    """
    theirs = in_keras(CONVOLUTIONS[name], unpooled, (*size, 3), dtype="float64")
    torch.manual_seed(1)
    ours = small(name, image_size=size, unpooled_block=unpooled, dropout=[0.0, 0.0]).double()
    perturb(ours)
    weights = [tensor for tensor in ours.state_dict().values() if tensor.is_floating_point()]
    theirs.set_weights([keras_layout(weight).numpy() for weight in weights])

    x, y = images(size=size).double(), torch.tensor([0, 1, 1, 0])
    ours.train(training)
    logits = ours(x)
    loss = cross_entropy(logits, y)
    loss.backward()
    their_logits = theirs(x.permute(0, 2, 3, 1).contiguous(), training=training)
    their_loss = cross_entropy(their_logits, y)
    their_loss.backward()

    assert logits.shape == (4, 2) and logits.dtype == their_logits.dtype == torch.float64
    close(logits, their_logits)
    close(loss, their_loss)
    pairs = list(zip(ours.parameters(), theirs.trainable_weights, strict=True))
    assert len(pairs) == 4 * sum(CONVOLUTIONS[name]) + 6
    for parameter, weight in pairs:
        assert parameter.grad.abs().max() > 0
        close(keras_layout(parameter.grad), weight.value.grad)
    means = [buffer for key, buffer in ours.named_buffers() if key.endswith("running_mean")]
    for mean, weight in zip(means, moving_means(theirs), strict=True):
        close(mean, weight.value)


def moving_means(network):
    return [weight for weight in network.non_trainable_weights if weight.name == "moving_mean"]


def test_equals_keras_in_float32():
    theirs = in_keras(CONVOLUTIONS["allnet"], 1, (32, 32, 3))
    torch.manual_seed(1)
    ours = small().eval()
    perturb(ours)
    weights = [tensor for tensor in ours.state_dict().values() if tensor.is_floating_point()]
    theirs.set_weights([keras_layout(weight).numpy() for weight in weights])
    x = images()
    close(ours(x), theirs(x.permute(0, 2, 3, 1).contiguous(), training=False))


def perturb(network):
    """Biases and statistics that are neither 0 nor 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.1)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))


def keras_layout(tensor):
    """PyTorch's weight in Keras' order of axes."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def close(ours, theirs):
    """Within 1e-5 of the largest value: an entry's own size is lost in sums."""
    scale = theirs.detach().abs().max().item()
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "num_classes, channels, size", [(2, 1, (64, 64)), (5, 3, (33, 47)), (3, 4, (90, 32))]
)
def test_other_data(name, num_classes, channels, size):
    network = small(name, num_classes=num_classes, in_channels=channels, image_size=size)
    logits = network(images(2, channels, size))
    assert logits.shape == (2, num_classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_single_pixel_still_works():
    assert small(image_size=(1, 1))(images(2, size=(1, 1))).shape == (2, 2)


def test_order_of_layers_and_dropout():
    network = small(dropout=[0.1, 0.2])
    children = [name for name, _ in network.features.named_children()]
    assert [name for name in children if "block1" in name] == [
        f"block1_{layer}{i}" for i in (1, 2, 3) for layer in ("conv", "relu", "norm")
    ]
    assert [name for name in children if "block2" in name] == [
        *(f"block2_{layer}{i}" for i in (1, 2) for layer in ("conv", "relu", "norm")),
        "block2_pool1",
    ]
    head = [name for name, _ in network.head.named_children()]
    assert head == [*(f"{n}{i}" for i in (1, 2) for n in ("dense", "relu", "dropout")), "output"]
    assert (network.head.dropout1.p, network.head.dropout2.p) == (0.1, 0.2)
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 2


def test_defaults_are_keras_or_torch():
    keras_like, torch_like = small(), small(keras_defaults=False)
    norm = keras_like.features.block3_norm1
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    norm = torch_like.features.block3_norm1
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)
    conv1, output = keras_like.features.block1_conv1, keras_like.head.output
    assert not conv1.bias.any() and not output.bias.any()
    assert torch_like.features.block1_conv1.bias.any() and torch_like.head.output.bias.any()
    limit = (6 / (9 * 3 + 9 * 4)) ** 0.5
    assert 0.9 * limit < conv1.weight.abs().max() <= limit


def test_channels_last_and_bf16():
    network = small().eval()
    x = images()
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            low = network(x)
        last = network.to(memory_format=torch.channels_last)
        close(last(x.to(memory_format=torch.channels_last)), expected)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.02)


def test_one_graph():
    network = small(dropout=[0.0, 0.0]).eval()
    x = images()
    close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_state_dict_round_trip(tmp_path):
    torch.manual_seed(0)
    first, second = small(), small()
    first(images())  # moves the running statistics
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = images(seed=1)
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"convolutions": [3, 2]}, r"model\.convolutions=\[3, 2\]: must be 6 integers of at least"),
        ({"convolutions": 13}, r"model\.convolutions=13: must be 6 integers"),
        ({"filters": [4, 0, 5, 6, 7, 8]}, r"model\.filters=\[4, 0, 5, 6, 7, 8\]"),
        ({"dense": [8]}, r"model\.dense=\[8\]: must be 2 integers"),
        ({"dropout": [0.3]}, r"model\.dropout=\[0\.3\]: must be 2 numbers, each at least 0"),
        ({"dropout": [0.3, 1.0]}, r"model\.dropout=\[0\.3, 1\.0\]"),
        ({"dropout": 0.3}, r"model\.dropout=0\.3: must be 2 numbers"),
        ({"unpooled_block": 4}, r"model\.unpooled_block=4: must be 1, 2 or 3 .*, or null"),
        ({"unpooled_block": 0}, r"model\.unpooled_block=0: must be 1, 2 or 3"),
        ({"unpooled_block": True}, r"model\.unpooled_block=True"),
        ({"num_classes": 1}, r"num_classes=1: must be an integer of at least 2"),
        ({"in_channels": 0}, r"in_channels=0"),
        ({"image_size": (96, 0)}, r"image_size=\(96, 0\): must be 2 integers"),
        ({"image_size": (70, 96, 96)}, r"image_size=\(70, 96, 96\): this network takes 2D images"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)
