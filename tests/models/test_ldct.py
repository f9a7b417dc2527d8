"""The four LDCT networks and conf/model/ldct_m*.yaml against counts by hand and Keras 3."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

from medexp.errors import ConfigError
from medexp.models import ldct

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(CONF.glob("ldct_*.yaml"))
NAMES = [file.stem for file in FILES]
BOTH_FLATTENINGS = ["ldct_m1", "ldct_m4"]  # behind the first dense layer, and before it
# At 120x120x1 by hand: convolutions, scale and shift, dense, output.
TRAINABLE = {
    "ldct_m1": 6_100 + 150_120 + 129_720 + 1_210 + (25 * 25 * 10 * 2 + 2),
    "ldct_m2": 160 + 64 + 8_256 + 128 + (118 * 118 * 64 * 10 + 10) + 22,
    "ldct_m3": 6_100 + 100 + 36_080 + 160 + (26 * 26 * 80 * 10 + 10) + 22,
    "ldct_m4": 640 + 36_928 + (30 * 30 * 64 * 128 + 128) + 258,
}
MOVING = {"ldct_m1": 0, "ldct_m2": 192, "ldct_m3": 260, "ldct_m4": 0}
SHAPES = {  # of the features at 120x120
    "ldct_m1": (120, 25, 25),
    "ldct_m2": (64, 118, 118),
    "ldct_m3": (80, 26, 26),
    "ldct_m4": (64, 30, 30),
}
SMALLEST = {"ldct_m1": 22, "ldct_m2": 3, "ldct_m3": 18, "ldct_m4": 4}
WIDTHS = {
    "ldct_m1": {"filters": [4, 6, 5], "dense_units": 3},
    "ldct_m2": {"filters": [4, 6], "dense_units": 7},
    "ldct_m3": {"filters": [4, 6], "dense_units": 7},
    "ldct_m4": {"filters": [4, 6], "dense_units": 7},
}


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def build(name, num_classes=2, in_channels=1, image_size=(120, 120), **changes):
    """The network of a YAML file, its facts left out as the runner does."""
    node = settings(name)
    _, _, target = node.pop("_target_").rpartition(".")
    for fact in ("about", "stages", "weights"):
        del node[fact]
    return getattr(ldct, target)(
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, **node | changes
    )


def small(name, **changes):
    arguments = {"image_size": (27, 30)} | WIDTHS[name] | changes
    return build(name, **arguments)


def images(n=3, channels=1, size=(27, 30), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def test_the_glob_finds_the_four():
    assert list(TRAINABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts(name):
    with torch.device("meta"):
        network = build(name)
        assert network.features(torch.rand(2, 1, 120, 120)).shape == (2, *SHAPES[name])
    count = sum(p.numel() for p in network.parameters())
    moving = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    assert (count, moving) == (TRAINABLE[name], MOVING[name])
    text = (CONF / f"{name}.yaml").read_text()
    assert f"{count:,}" in text and f"{count + moving:,}" in text


@pytest.mark.parametrize("name", NAMES)
def test_facts(name):
    node = settings(name)
    about = node["about"]
    assert (about["input"], about["classes"]) == ([1, 120, 120], 2)
    assert about["reported_parameters"] is None and about["reported_total"] is None
    assert node["weights"] is None
    stage = {"lr": None, "l2": 0.0, "frozen": False}
    assert node["stages"] == {"features": stage, "head": stage}
    assert [child for child, _ in small(name).named_children()] == ["features", "head"]


@pytest.fixture
def keras_float64(monkeypatch):
    """Float64 within Keras' BatchNorm too, as on its TensorFlow backend; elsewhere it goes down
    to float32 and back."""
    pytest.importorskip("keras")
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")


def in_keras(name, shape, filters, dense_units, *, padding=None, activation=None, dtype="float64"):
    """The paper's networks in Keras, written from its section 3.1 and not from ldct.py.

    Only of M4 does it say "the first fully connected layer uses ELU"; M1's "RELU is used as an
    activation function in all the convolution layers" leaves Keras' default to the dense layer.
    activation: another one, of every layer.
    """
    keras = pytest.importorskip("keras")
    layers = keras.layers
    padding = padding or ("same" if name == "ldct_m4" else "valid")
    stated = {"activation": activation or "elu"} if activation or name == "ldct_m4" else {}
    activation = activation or ("elu" if name == "ldct_m4" else "relu")

    def conv(i, kernel):
        return layers.Conv2D(
            filters[i], kernel, padding=padding, activation=activation, dtype=dtype
        )

    def pool():
        return layers.MaxPooling2D(pool_size=2, strides=2, dtype=dtype)

    def normalise():
        return layers.BatchNormalization(dtype=dtype)

    def dropout():
        return layers.Dropout(0.0, dtype=dtype)

    def flatten():
        return layers.Flatten(dtype=dtype)

    dense = layers.Dense(dense_units, **stated, dtype=dtype)
    stack = {
        "ldct_m1": lambda: [
            *(conv(0, 11), conv(1, 5), pool()),
            *(conv(2, 3), pool()),
            *(dense, flatten()),
        ],
        "ldct_m2": lambda: [
            *(conv(0, 2), normalise(), dropout()),
            *(conv(1, 2), normalise(), dropout()),
            *(flatten(), dense, dropout()),
        ],
        "ldct_m3": lambda: [
            *(conv(0, 11), normalise(), dropout(), pool()),
            *(conv(1, 3), normalise(), dropout(), pool()),
            *(flatten(), dense),
        ],
        "ldct_m4": lambda: [
            *(conv(0, 3), pool(), dropout()),
            *(conv(1, 3), pool(), dropout()),
            *(flatten(), flatten(), dense),
        ],
    }[name]()
    stack.append(layers.Dense(2, dtype=dtype))
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stack])


def without_dropout(name):
    rates = settings(name).get("dropout")
    return {} if rates is None else {"dropout": [0.0] * len(rates)}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name, changes",
    [
        *((name, {}) for name in NAMES),
        *((name, {"padding": "same", "activation": "elu"}) for name in NAMES[:3]),
        ("ldct_m4", {"padding": "valid", "activation": "relu"}),
    ],
)
def test_equals_keras(name, training, changes, keras_float64):
    """The same layers with the same weights: logits, loss, every gradient, moving means.

    In float64, as the sums of a gradient over pixels lose more than 1e-5 of it in float32.
    """
    theirs = in_keras(name, (27, 30, 1), **WIDTHS[name], **changes)
    if changes:
        changes = changes | {"dense_activation": changes["activation"]}
    torch.manual_seed(1)
    ours = small(name, **without_dropout(name), **changes).double()
    compare(ours, theirs, images().double(), training)


@pytest.mark.parametrize("name", ["ldct_m1", "ldct_m3", "ldct_m4"])
def test_equals_keras_at_the_papers_size(name, keras_float64):
    """M2's dense layer, nine million weights of the same layers as above, is left to the counts."""
    node = settings(name)
    theirs = in_keras(name, (120, 120, 1), node["filters"], node["dense_units"])
    torch.manual_seed(1)
    ours = build(name, **without_dropout(name)).double()
    compare(ours, theirs, images(2, size=(120, 120)).double(), training=True)


@pytest.mark.parametrize("name", NAMES)
def test_equals_keras_in_float32(name):
    theirs = in_keras(name, (27, 30, 1), **WIDTHS[name], dtype="float32")
    torch.manual_seed(1)
    ours = small(name).eval()
    share_weights(ours, theirs)
    x = images()
    close(ours(x), theirs(x.permute(0, 2, 3, 1).contiguous(), training=False))


def share_weights(ours, theirs):
    """Biases and statistics that are neither 0 nor 1, then the same weights in both."""
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.1)
        for buffer in ours.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    weights = [tensor for tensor in ours.state_dict().values() if tensor.is_floating_point()]
    theirs.set_weights([keras_layout(weight).numpy() for weight in weights])


def compare(ours, theirs, x, training):
    share_weights(ours, theirs)
    y = torch.arange(len(x)) % 2
    ours.train(training)
    logits = ours(x)
    loss = cross_entropy(logits, y)
    loss.backward()
    their_logits = theirs(x.permute(0, 2, 3, 1).contiguous(), training=training)
    their_loss = cross_entropy(their_logits, y)
    their_loss.backward()

    assert logits.shape == (len(x), 2) and logits.dtype == their_logits.dtype == torch.float64
    close(logits, their_logits)
    close(loss, their_loss)
    for parameter, weight in zip(ours.parameters(), theirs.trainable_weights, strict=True):
        assert parameter.grad.abs().max() > 0
        close(keras_layout(parameter.grad), weight.value.grad)
    means = [buffer for key, buffer in ours.named_buffers() if key.endswith("running_mean")]
    theirs_too = [w for w in theirs.non_trainable_weights if w.name == "moving_mean"]
    for mean, weight in zip(means, theirs_too, strict=True):
        close(mean, weight.value)


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
    "num_classes, channels, size", [(2, 3, (64, 64)), (5, 1, (33, 47)), (3, 4, (120, 96))]
)
def test_other_data(name, num_classes, channels, size):
    network = build(name, num_classes, channels, size, **WIDTHS[name])
    logits = network(images(2, channels, size))
    assert logits.shape == (2, num_classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def layers(name):
    network = small(name)
    return [
        type(layer).__name__.replace("Same", "") if not isinstance(layer, nn.Dropout) else layer.p
        for part in (network.features, network.head)
        for layer in part
    ]


def test_order_of_layers_and_dropout():
    conv, pool, norm, dense = "Conv2d", "MaxPool2d", "BatchNorm2d", "Linear"
    assert layers("ldct_m1") == [
        *(conv, "ReLU", conv, "ReLU", pool, conv, "ReLU", pool),
        *(dense, "Identity", "Flatten", dense),
    ]
    block = [conv, "ReLU", norm, 0.25]
    assert layers("ldct_m2") == [*block, *block, dense, "Identity", 0.25, dense]
    assert layers("ldct_m3") == [*block, pool, *block, pool, dense, "Identity", dense]
    block = [conv, "ELU", pool, 0.25]
    assert layers("ldct_m4") == [*block, *block, dense, "ELU", dense]


def test_each_dropout_has_its_own_rate():
    rates = [0.1, 0.2, 0.3]
    for name in ("ldct_m2", "ldct_m3", "ldct_m4"):
        count = 3 if name == "ldct_m2" else 2
        network = small(name, dropout=rates[:count])
        found = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
        assert found == rates[:count]


def test_the_first_dense_layer_of_m1_acts_on_each_pixel_alone():
    network = small("ldct_m1")
    dense = network.head.dense1
    x = network.features(images())
    as_convolution = nn.functional.conv2d(x, dense.weight[:, :, None, None], dense.bias)
    close(dense(x.permute(0, 2, 3, 1)), as_convolution.permute(0, 2, 3, 1))
    assert network.head.output.in_features == 3 * 2 * 3  # h * w * units, from 27x30


def test_linear_is_no_activation():
    network = small("ldct_m2", activation="linear", dense_activation="linear")
    assert isinstance(network.features.activation1, nn.Identity)
    assert isinstance(network.head.activation1, nn.Identity)


def test_defaults_are_keras_or_torch():
    keras_like, torch_like = small("ldct_m3"), small("ldct_m3", keras_defaults=False)
    assert (keras_like.features.norm2.eps, keras_like.features.norm2.momentum) == (1e-3, 0.01)
    assert (torch_like.features.norm2.eps, torch_like.features.norm2.momentum) == (1e-5, 0.1)
    assert not any(m.bias.any() for m in (keras_like.features.conv1, keras_like.head.output))
    assert all(m.bias.any() for m in (torch_like.features.conv1, torch_like.head.output))
    limit = (6 / (121 * 1 + 121 * 4)) ** 0.5
    assert 0.9 * limit < keras_like.features.conv1.weight.abs().max() <= limit


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_uniform", "he_normal"])
def test_initializer_is_that_of_keras(initializer):
    keras = pytest.importorskip("keras")
    torch.manual_seed(0)
    network = small("ldct_m4", filters=[64, 64], dense_units=32, initializer=initializer)
    for layer in (network.features.conv2, network.head.dense1):
        shape = tuple(keras_layout(layer.weight).shape)
        theirs = torch.as_tensor(keras.initializers.get(initializer)(shape)).detach()
        for measure in (torch.std, lambda weight: weight.abs().quantile(0.99)):
            found, expected = measure(layer.weight.detach()), measure(theirs)
            assert found.item() == pytest.approx(expected.item(), rel=0.02)
        assert not layer.bias.any()


def test_initializer_without_keras_defaults_keeps_the_biases_of_pytorch():
    network = small("ldct_m4", initializer="he_normal", keras_defaults=False)
    assert network.features.conv1.bias.any()


@pytest.mark.parametrize("name", BOTH_FLATTENINGS)
def test_channels_last_and_bf16(name):
    network = small(name).eval()
    x = images()
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            low = network(x)
        last = network.to(memory_format=torch.channels_last)
        close(last(x.to(memory_format=torch.channels_last)), expected)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", BOTH_FLATTENINGS)
def test_one_graph(name):
    network = small(name, **without_dropout(name))
    x = images()
    close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


@pytest.mark.parametrize("name", BOTH_FLATTENINGS)
def test_state_dict_round_trip(name, tmp_path):
    torch.manual_seed(0)
    first, second = small(name), small(name)
    first(images())  # moves the running statistics
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = images(seed=1)
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_image_works_and_a_smaller_one_is_refused(name):
    side = SMALLEST[name]
    assert small(name, image_size=(side, side))(images(2, size=(side, side))).shape == (2, 2)
    for size in [(side - 1, side), (120, side - 1)]:
        message = rf"image_size=\({size[0]}, {size[1]}\): too small .* is {side}x{side}$"
        with pytest.raises(ConfigError, match=message):
            small(name, image_size=size)


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_image_with_the_other_padding(name):
    padding = "valid" if name == "ldct_m4" else "same"
    side = {"ldct_m1": 4, "ldct_m2": 1, "ldct_m3": 4, "ldct_m4": 10}[name]
    network = small(name, image_size=(side, side), padding=padding)
    assert network(images(2, size=(side, side))).shape == (2, 2)
    with pytest.raises(ConfigError, match=rf"image_size=\({side - 1}, {side}\)"):
        small(name, image_size=(side - 1, side), padding=padding)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"filters": [4]}, r"model\.filters=\[4\]: must be [23] integers of at least 1"),
        ({"filters": 4}, r"model\.filters=4: must be [23] integers"),
        ({"kernels": [3, 0, 3]}, r"model\.kernels=\[3, 0, 3\]: must be [23] integers"),
        ({"dense_units": 0}, r"model\.dense_units=0: must be an integer of at least 1"),
        ({"padding": "full"}, r"model\.padding=full: no such choice"),
        ({"activation": "tanh"}, r"model\.activation=tanh: no such choice"),
        ({"dense_activation": "tanh"}, r"model\.dense_activation=tanh: no such choice"),
        ({"num_classes": 1}, r"num_classes=1: must be an integer of at least 2"),
        ({"in_channels": 0}, r"in_channels=0: must be an integer of at least 1"),
        ({"image_size": (120, 0)}, r"image_size=\(120, 0\): must be 2 integers"),
        (
            {"image_size": (70, 120, 120)},
            r"image_size=\(70, 120, 120\): this network takes 2D images",
        ),
    ],
)
def test_refuses(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        small(name, **changes)


@pytest.mark.parametrize(
    "name, dropout, message",
    [
        ("ldct_m2", [0.25, 0.25], r"model\.dropout=\[0\.25, 0\.25\]: must be 3 numbers"),
        ("ldct_m3", [0.25, 1.0], r"model\.dropout=\[0\.25, 1\.0\]: must be 2 numbers, each at"),
        ("ldct_m3", 0.25, r"model\.dropout=0\.25: must be 2 numbers"),
        ("ldct_m4", [True, 0.25], r"model\.dropout=\[True, 0\.25\]"),
        ("ldct_m4", [-0.1, 0.25], r"model\.dropout=\[-0\.1, 0\.25\]"),
    ],
)
def test_refuses_a_dropout(name, dropout, message):
    with pytest.raises(ConfigError, match=message):
        small(name, dropout=dropout)


def test_refuses_an_initializer():
    with pytest.raises(ConfigError, match=r"model\.initializer=zeros: no such choice"):
        small("ldct_m4", initializer="zeros")
