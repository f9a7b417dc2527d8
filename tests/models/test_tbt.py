"""ViPTT-Net against Keras' layers, torchvision's VGG and itself in other chunks."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
import torchvision

from medexp.errors import ConfigError
from medexp.models.tbt import KerasLSTM, ViPTT, vgg16_features

keras = pytest.importorskip("keras")


def net(cell="lstm", classes=3, **changes):
    torch.manual_seed(0)
    settings = {"recurrent_units": 8, "dense": 12, "chunk": 2} | changes
    return ViPTT(num_classes=classes, in_channels=1, image_size=(3, 32, 32), cell=cell, **settings)


def volumes(n=2, depth=3):
    return torch.rand(n, 1, depth, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(network, x):
    network.zero_grad()
    network(x).square().sum().backward()
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def gates_to_keras(weight, order):
    """Rows of torch's gates in Keras' order; a matrix transposed, as Keras keeps it."""
    blocks = weight.chunk(len(order))
    joined = torch.cat([blocks[k] for k in order])
    return joined.T if joined.ndim == 2 else joined


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_layer_and_head_equal_keras(cell):
    network = net(cell)
    layer, units = network.recurrent, 8
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.5, 0.5)
    inputs = keras.Input((5, 512))
    kind = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
    recurrent = kind(units)
    hidden, out = keras.layers.Dense(12, activation="relu"), keras.layers.Dense(3)
    model = keras.Model(inputs, out(hidden(recurrent(inputs))))
    if cell == "lstm":
        kernels = [layer.kernel.T, layer.recurrent_kernel.T, layer.bias]
    else:
        z_r_h = (1, 0, 2)  # torch: reset, update, new
        biases = [gates_to_keras(b, z_r_h) for b in (layer.bias_ih_l0, layer.bias_hh_l0)]
        kernels = [
            gates_to_keras(layer.weight_ih_l0, z_r_h),
            gates_to_keras(layer.weight_hh_l0, z_r_h),
            torch.stack(biases),
        ]
    recurrent.set_weights([k.detach().numpy() for k in kernels])
    dense, head = network.dense[0], network.head
    hidden.set_weights([dense.weight.detach().T.numpy(), dense.bias.detach().numpy()])
    out.set_weights([head.weight.detach().T.numpy(), head.bias.detach().numpy()])

    x = torch.randn(4, 5, 512) / 10
    ours = network.head(network.dense(layer(x)[0][:, -1]))
    theirs = model(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    first = layer.kernel if cell == "lstm" else layer.weight_ih_l0
    order = (0, 1, 2, 3) if cell == "lstm" else (1, 0, 2)
    torch.testing.assert_close(
        gates_to_keras(first.grad, order), recurrent.trainable_variables[0].value.grad,
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    torch.testing.assert_close(
        dense.weight.grad.T, hidden.trainable_variables[0].value.grad, rtol=1e-4, atol=1e-6
    )


def test_the_vgg_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    ours = vgg16_features()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_forward_is_written_out_slice_by_slice():
    network = net().eval()
    x = volumes()
    with torch.inference_mode():
        slices = [
            network.features(network.colour(x[:, :, d])).mean((2, 3)) for d in range(x.shape[2])
        ]
        steps, _ = network.recurrent(torch.stack(slices, dim=1))
        want = network.head(network.dense(steps[:, -1]))
        torch.testing.assert_close(network(x), want, rtol=1e-5, atol=1e-6)
        image = network(x[:, :, 0])
        torch.testing.assert_close(image, network(x[:, :, :1]))


@pytest.mark.parametrize("changes", [{"chunk": 1}, {"chunk": 100}, {"checkpointing": True}])
def test_chunks_and_checkpoints_change_nothing(changes):
    x, plain, other = volumes(), net(), net(**changes)
    torch.testing.assert_close(plain(x), other(x), rtol=1e-5, atol=1e-6)
    for one, two in zip(gradients(plain, x), gradients(other, x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


def kept_bytes(network, x):
    """What a training forward keeps for its backward, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        network(x).sum()
    return sum(kept.values())


def test_what_is_kept_for_the_backward_pass():
    x = volumes(2, 6)
    trained, frozen, again = net(chunk=3), net(chunk=3), net(chunk=3, checkpointing=True)
    for stage in (frozen.colour, frozen.features):
        stage.requires_grad_(False)
    whole = kept_bytes(trained, x)
    assert kept_bytes(frozen, x) < 0.05 * whole
    assert kept_bytes(again, x) < 0.2 * whole


def test_the_first_convolution_trains_through_a_frozen_vgg():
    network, x = net(classes=10), volumes()
    network.features.requires_grad_(False)
    before = net(classes=10)
    want = gradients(before, x)[0]
    got = gradients(network, x)
    torch.testing.assert_close(got[0], want)
    assert all(p.grad is None for p in network.features.parameters())


def test_saliency_reaches_the_input_of_a_frozen_network():
    network, x = net().requires_grad_(False), volumes().requires_grad_()
    network(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(("classes", "total"), [(5, 15_770_443), (10, 15_775_568)])
def test_counts_are_those_of_the_authors_code(classes, total):
    with torch.device("meta"):
        network = ViPTT(num_classes=classes, in_channels=1, image_size=(70, 224, 224))
    count = sum(p.numel() for p in network.parameters())
    assert count == total
    parts = [sum(p.numel() for p in child.parameters()) for child in network.children()]
    assert parts[:4] == [6, 14_714_688, 787_456, 263_168]
    if classes == 10:
        assert count - parts[1] == 1_060_880


def test_keras_initialisation():
    network = net(recurrent_units=64)
    layer = network.recurrent
    assert isinstance(layer, KerasLSTM)
    bias = layer.bias.view(4, 64)
    assert (bias[1] == 1).all() and (bias[[0, 2, 3]] == 0).all()
    product = layer.recurrent_kernel.T @ layer.recurrent_kernel
    torch.testing.assert_close(product, torch.eye(64), rtol=0, atol=1e-5)
    bound = np.sqrt(6 / (512 + 256))
    assert 0.95 * bound < layer.kernel.abs().max() <= bound


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (3, 31, 40)}, "smallest that works is 32x32"),
        ({"cell": "rnn"}, "model.cell=rnn: must be lstm or gru"),
        ({"chunk": 0}, "model.chunk=0: must be an integer of at least 1"),
    ],
)
def test_refusals(changes, message):
    settings = {"num_classes": 2, "in_channels": 1, "image_size": (3, 32, 32)}
    with pytest.raises(ConfigError, match=message):
        ViPTT(**settings | changes)
