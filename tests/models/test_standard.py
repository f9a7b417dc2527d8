"""torchvision's networks under stage names: the same function, counts, smallest sizes."""

import pytest
import torch
import torchvision

from medexp.errors import ConfigError
from medexp.models import standard
from medexp.models.weights import rename

BUILD = {
    "alexnet": standard.alexnet,
    "vgg16": standard.vgg16,
    "resnet50": standard.resnet50,
    "resnet101": standard.resnet101,
    "inception_v3": standard.InceptionV3,
}
SMALLEST = {"alexnet": 63, "vgg16": 32, "resnet50": 1, "resnet101": 1, "inception_v3": 75}
PUBLISHED = {
    "alexnet": 61_100_840, "vgg16": 138_357_544, "resnet50": 25_557_032,
    "resnet101": 44_549_160, "inception_v3": 27_161_264,
}  # fmt: skip


def meta(name, size=299, num_classes=1000, in_channels=3):
    with torch.device("meta"):
        return BUILD[name](
            num_classes=num_classes, in_channels=in_channels, image_size=(size, size)
        )


@pytest.mark.parametrize("name", BUILD)
def test_counts_at_1000_classes_are_the_published_ones(name):
    assert sum(p.numel() for p in meta(name).parameters()) == PUBLISHED[name]
    weights = torchvision.models.get_weight(meta(name).imagenet)
    assert weights.meta["num_params"] == PUBLISHED[name]


@pytest.mark.parametrize("name", BUILD)
def test_every_tensor_of_torchvision_has_a_place(name):
    with torch.device("meta"):
        extra = {"init_weights": False} if name == "inception_v3" else {}
        theirs = getattr(torchvision.models, name)(weights=None, **extra).state_dict()
    network = meta(name)
    ours = network.state_dict()
    renamed = rename(theirs, network.renames, network)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize(
    ("name", "side"), [("alexnet", 63), ("resnet50", 40), ("inception_v3", 75)]
)
def test_the_function_is_torchvisions(name, side):
    torch.manual_seed(0)
    extra = {"init_weights": False, "transform_input": False} if name == "inception_v3" else {}
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=5, **extra).eval()
    ours = BUILD[name](num_classes=5, in_channels=3, image_size=(side, side)).eval()
    state = rename(theirs.state_dict(), ours.renames, ours)
    ours.load_state_dict({k: v for k, v in state.items() if k in ours.state_dict()})
    x = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BUILD)
def test_the_smallest_size_is_the_smallest(name):
    side = SMALLEST[name]
    with torch.device("meta"):
        network = meta(name, side, 3)
        output = network(torch.rand(2, 3, side, side))
        assert output.shape == (2, 3)
        if side > 1:
            with pytest.raises(ConfigError, match=f"smallest that works is {side}x{side}"):
                meta(name, side - 1)
            with pytest.raises((RuntimeError, ValueError)):
                network(torch.rand(2, 3, side - 1, side - 1))
    with pytest.raises(ConfigError, match="takes 2D images"):
        BUILD[name](num_classes=2, in_channels=3, image_size=(8, 99, 99))


def test_inception_has_its_auxiliary_head_where_the_image_leaves_enough_of_it():
    with torch.device("meta"):
        for side in (200, 282, 283, 284, 290, 298, 299, 310):
            network = meta("inception_v3", side, 3)
            output = network(torch.rand(2, 3, side, side))
            assert isinstance(output, tuple) == bool(list(network.aux.parameters()))
            if isinstance(output, tuple):
                assert [o.shape for o in output] == [(2, 3), (2, 3)]
            assert network.eval()(torch.rand(1, 3, side, side)).shape == (1, 3)
    assert list(meta("inception_v3", 299).aux.parameters())
    assert not list(meta("inception_v3", 200).aux.parameters())
    assert meta("inception_v3", 299).aux_weight == 0.4


def test_other_channels_keep_the_spread_of_the_first_layer():
    torch.manual_seed(0)
    three = standard.resnet50(num_classes=2, in_channels=3, image_size=(40, 40))
    one = standard.resnet50(num_classes=2, in_channels=1, image_size=(40, 40))
    assert one.features.conv1.weight.shape == (64, 1, 7, 7) and one.features.conv1.bias is None
    ratio = one.features.conv1.weight.std() / three.features.conv1.weight.std()
    assert ratio.item() == pytest.approx(3**0.5, rel=0.1)


@pytest.mark.parametrize(("side", "size"), [((7, 7), 7), ((6, 13), 6), ((3, 16), 7), ((28, 9), 4)])
def test_means_by_products_are_torchs_adaptive_pooling(side, size):
    """Values and gradients; what takes its place on CUDA where the same bits are asked for."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, *side, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, size, size, dtype=torch.float64)
    found = standard.window_means(x, (size, size))
    expected = torch.nn.functional.adaptive_avg_pool2d(x, size)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)
