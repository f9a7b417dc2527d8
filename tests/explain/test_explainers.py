"""Saliency, Grad-CAM and feature maps against finite differences, CAM and planted evidence."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
import yaml
from matplotlib.image import imread
from torch import nn
from torch.utils.checkpoint import checkpoint

from medexp.config.targets import check_node, locate
from medexp.data.base import Split
from medexp.errors import ConfigError, MedexpError
from medexp.explain import explainers as explain
from medexp.explain.explainers import spread
from medexp.explain.maps import feature_maps, gradcam_maps, last_maps, saliency_maps
from tests.conftest import ROOT

KINDS = ("saliency", "gradcam", "features")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def small(outputs=3, inplace=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, outputs),
    ).eval()


class BySlice(nn.Module):
    """A volume's slices through a 2D network in chunks, and an LSTM over them."""

    def __init__(self, chunk, recompute=False):
        super().__init__()
        torch.manual_seed(0)
        self.chunk, self.recompute = chunk, recompute
        self.mix = nn.Conv3d(1, 3, 1)
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        slices = self.mix(x).transpose(1, 2).flatten(0, 1)  # (n * D, 3, H, W)
        run = partial(checkpoint, self.features, use_reentrant=False)
        run = run if self.recompute else self.features
        maps = torch.cat([run(part) for part in slices.split(self.chunk)])
        return self.head(self.lstm(maps.mean((2, 3)).unflatten(0, (len(x), -1)))[0][:, -1])


def state(network):
    return (
        [m.training for m in network.modules()],
        [len(m._forward_hooks) for m in network.modules()],
        [(p.requires_grad, p.grad) for p in network.parameters()],
        [m.dropout for m in network.modules() if isinstance(m, nn.LSTM)],
    )


# ---------------------------------------------------------------- saliency


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("target", [0, 1])
def test_saliency_is_the_finite_difference(outputs, target):
    network = small(outputs).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def score(images):
        with torch.no_grad():
            z = network(images)
        if outputs == 1:
            return (z if target else -z)[:, 0]
        return z[:, target]

    slopes = torch.zeros_like(x)
    for c, i, j in np.ndindex(3, 8, 8):
        step = torch.zeros_like(x)
        step[:, c, i, j] = 1e-6
        slopes[:, c, i, j] = (score(x + step) - score(x - step)) / 2e-6
    found = saliency_maps(network, x, torch.tensor([target, target]))
    assert found.shape == (2, 8, 8)
    np.testing.assert_allclose(found, slopes.abs().amax(dim=1).numpy(), atol=1e-8)


def test_saliency_of_a_volume():
    network = BySlice(chunk=3)
    found = saliency_maps(network, torch.rand(2, 1, 7, 8, 10), torch.tensor([0, 4]))
    assert found.shape == (2, 7, 8, 10)
    assert (found.reshape(2, -1).max(axis=1) > 0).all()


# ---------------------------------------------------------------- Grad-CAM


@pytest.mark.parametrize("inplace", [False, True])
def test_gradcam_of_pooled_maps_is_cam(inplace):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).double()
    x = torch.randn(2, 1, 6, 7, dtype=torch.float64)
    target = torch.tensor([2, 0])
    with torch.no_grad():
        maps = network[1](network[0](x))
        # Zhou et al. 2016: the maps summed by the weights of the class.
        cam = torch.einsum("nmhw,nm->nhw", maps, network[4].weight[target]).relu()
    expected = cam / cam.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(gradcam_maps(network, x, target), expected.numpy(), atol=1e-12)


def test_gradcam_by_hand_at_a_pooled_size():
    network, x = small(inplace=False), torch.rand(1, 3, 8, 8)
    maps = network[:6](x).detach().requires_grad_()  # (1, 6, 4, 4)
    network[6:](maps)[0, 1].backward()
    cam = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    large = nn.functional.interpolate(cam, size=(8, 8), mode="bilinear")[:, 0]
    for behaviour in (network, small(inplace=True)):
        found = gradcam_maps(behaviour, x, torch.tensor([1]))
        np.testing.assert_allclose(found, (large / large.max()).numpy(), atol=1e-6)


def planted():
    """A network that says class 1 where a patch is bright, and nothing else."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[0].weight.data.fill_(1 / 25)
    network[0].bias.data.fill_(-0.5)
    return network.eval()


@pytest.mark.parametrize("maps", [saliency_maps, gradcam_maps])
def test_the_maximum_lies_in_the_planted_square(maps):
    x = torch.zeros(2, 1, 24, 24)
    corners = [(3, 14), (12, 2)]
    for image, (row, column) in zip(x, corners, strict=True):
        image[:, row : row + 7, column : column + 7] = 1
    found = maps(planted(), x, torch.tensor([1, 1]))
    for heat, (row, column) in zip(found, corners, strict=True):
        i, j = np.unravel_index(heat.argmax(), heat.shape)
        assert row <= i < row + 7 and column <= j < column + 7
        assert heat[row : row + 7, column : column + 7].sum() > 0.5 * heat.sum()
    # Nothing speaks for class 0.
    if maps is gradcam_maps:
        assert not maps(planted(), x, torch.tensor([0, 0])).any()


@pytest.mark.parametrize("recompute", [False, True])
def test_gradcam_of_slices_is_the_same_in_chunks(recompute):
    x, target = torch.rand(2, 1, 7, 8, 10, dtype=torch.float64), torch.tensor([1, 3])
    whole = gradcam_maps(BySlice(chunk=14).double(), x, target)
    assert whole.shape == (2, 7, 8, 10)
    assert whole.max() == pytest.approx(1) and whole.min() >= 0
    parts = gradcam_maps(BySlice(chunk=3, recompute=recompute).double(), x, target)
    np.testing.assert_allclose(parts, whole, atol=1e-10)
    one = gradcam_maps(BySlice(chunk=3).double(), x[1:], target[1:])
    np.testing.assert_allclose(one, whole[1:], atol=1e-10)


def test_gradcam_of_a_3d_network():
    network = nn.Sequential(
        nn.Conv3d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    found = gradcam_maps(network, torch.rand(2, 1, 6, 8, 8), torch.tensor([0, 1]))
    assert found.shape == (2, 6, 8, 8)


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("vgg11", "features.19", 64),  # the last ReLU, before the last pooling
        ("resnet18", "layer4", 64),
        ("resnet50", "layer4", 64),
        ("inception_v3", "Mixed_7c", 160),
        ("densenet121", "features", 64),
        ("mobilenet_v3_small", "features", 64),
    ],
)
def test_the_default_layer_of_known_networks(name, layer, size):
    settings = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None, **settings).eval()
        assert last_maps(network, torch.empty(1, 3, size, size)) == layer


def test_maps_end_where_a_dense_layer_takes_the_channels():
    class ChannelsLast(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    network = nn.Sequential(nn.Conv2d(3, 4, 3), ChannelsLast(), nn.Linear(4, 2), nn.ReLU())
    assert last_maps(network, torch.rand(1, 3, 8, 8)) == "1"
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Flatten(), nn.Linear(144, 2))
    assert last_maps(network, torch.rand(1, 3, 8, 8)) == "0"


def test_a_network_without_convolution_names_the_remedy():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    message = "explain=gradcam: Sequential has no convolution .* Use explain=saliency"
    with pytest.raises(MedexpError, match=message):
        gradcam_maps(network, torch.rand(1, 3, 2, 2), torch.tensor([0]))


def test_a_layer_must_exist_and_have_maps():
    x, target = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    assert gradcam_maps(small(), x, target, "0").shape == (2, 8, 8)
    with pytest.raises(ConfigError, match=r"explain\.layer=44: no such layer\. Nearest: 4, "):
        gradcam_maps(small(), x, target, "44")
    with pytest.raises(MedexpError, match=r"explain\.layer=8: its output \(\[2, 3\]\) is not maps"):
        gradcam_maps(small(), x, target, "8")


# ---------------------------------------------------------------- feature maps


@pytest.mark.parametrize("inplace", [False, True])
def test_feature_maps_are_those_behind_norm_and_activation(inplace):
    network, x = small(inplace=inplace), torch.rand(1, 3, 8, 8)
    found = feature_maps(network, x)
    assert list(found) == ["0", "4"]
    with torch.no_grad():
        np.testing.assert_array_equal(found["0"], network[:3](x)[0].numpy())
        np.testing.assert_array_equal(found["4"], network[:6](x)[0].numpy())


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_feature_maps_of_a_volume_are_of_its_middle_slice(chunk):
    network, x = BySlice(chunk), torch.rand(1, 1, 7, 8, 10)
    found = feature_maps(network, x)
    with torch.no_grad():
        mixed = network.mix(x)[0, :, 3]
        np.testing.assert_allclose(found["mix"], mixed.numpy(), atol=1e-6)
        expected = network.features[:2](mixed[None])[0].numpy()
    np.testing.assert_allclose(found["features.0"], expected, atol=1e-6)


# ---------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("network", "shape"), [(small(), (1, 3, 8, 8)), (BySlice(3), (1, 1, 4, 8, 8))]
)
def test_the_network_is_left_as_it_was(network, shape, frozen):
    network.eval().requires_grad_(not frozen)
    x = torch.rand(shape)
    before, image = state(network), x.clone()
    target = torch.tensor([0])
    saliency_maps(network, x, target)
    gradcam_maps(network, x, target)
    feature_maps(network, x)
    with pytest.raises(RuntimeError):
        gradcam_maps(network, x[:, :, :0], target)
    assert state(network) == before
    assert torch.equal(x, image) and x.grad is None


@pytest.mark.gpu
def test_an_lstm_in_evaluation_mode_has_gradients_on_a_gpu(monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, target = torch.rand(2, 1, 7, 8, 10), torch.tensor([1, 3])
    network = BySlice(3).eval()
    for maps in (saliency_maps, gradcam_maps):
        here = maps(network.cpu(), x, target)
        there = maps(network.cuda(), x.cuda(), target.cuda())
        np.testing.assert_allclose(there, here, rtol=1e-2, atol=1e-2 * here.max())


# ---------------------------------------------------------------- choice of images, files


def test_images_are_spread_over_classes_right_and_wrong():
    labels = np.repeat([0, 1, 2], 20)
    guesses = labels.copy()
    guesses[[5, 25, 26]] = 2
    chosen = spread(labels, guesses, 8)
    assert len(set(chosen)) == 8 and list(chosen) == sorted(chosen)
    right = labels[chosen] == guesses[chosen]
    assert np.bincount(labels[chosen][right]).tolist() == [2, 2, 2]
    assert chosen[~right].tolist() == [5, 25]
    assert set(spread(labels, guesses, 4)) >= {0, 20, 40, 5}
    np.testing.assert_array_equal(spread(labels, guesses, 8), chosen)
    np.testing.assert_array_equal(spread(labels, guesses, 99), np.arange(60))


def call(kind, folder, network=None, volumes=False, **settings):
    rng = np.random.default_rng(0)
    shape = (9, 5, 16, 16, 1) if volumes else (9, 8, 8, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    network = network or (BySlice(3) if volumes else small())
    classes = [f"class {c}" for c in range(5)]
    ids = np.array([f"some/where/{i}.png" for i in range(9)])
    subject = {key: settings.pop(key) for key in ("marks", "predicted") if key in settings}
    explainer = getattr(explain, kind)(**{"n": 2, **settings})
    split = Split(images, np.arange(9) % 3, ids)
    return explainer(network.eval(), explain.Subject(split, classes, **subject), folder)


@pytest.mark.parametrize("volumes", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_written(tmp_path, kind, volumes):
    paths = call(kind, tmp_path / "new", volumes=volumes, marks=("PHANTOM",))
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    # A page of two images, or one a volume; two convolutions (and its 3D one) of each image.
    assert len(paths) == (4 if kind == "features" else 2 if volumes else 1)
    assert all(path.name.startswith(f"{kind}-1") for path in paths[: len(paths) // 2])
    assert all(np.asarray(imread(path))[..., :3].std() > 0.02 for path in paths)


def test_pages_of_six(tmp_path):
    assert [p.name for p in call("saliency", tmp_path, n=7)] == ["saliency-1.png", "saliency-2.png"]


def test_given_probabilities_choose_the_images_and_the_titles(tmp_path, monkeypatch):
    drawn = {}

    def draw(images, maps, titles, path, marks, heading):
        drawn.update(images=images, maps=maps, titles=titles, heading=heading)

    monkeypatch.setattr(explain.panels, "overlay_panel", draw)
    predicted = np.tile([0.1, 0.7, 0.2, 0.0, 0.0], (9, 1))
    call("gradcam", tmp_path, n=3, predicted=predicted, of="true")
    assert drawn["titles"] == [
        "some/where/0.png\ntrue: class 0, predicted: class 1 (p = 0.700)",
        "some/where/1.png\ntrue: class 1, predicted: class 1 (p = 0.700)",
        "some/where/2.png\ntrue: class 2, predicted: class 1 (p = 0.700)",
    ]
    assert drawn["heading"] == "Grad-CAM of the true class"
    x = torch.from_numpy(drawn["images"]).movedim(-1, 1) / 255
    expected = gradcam_maps(small(), x, torch.tensor([0, 1, 2]))
    np.testing.assert_allclose(drawn["maps"], expected, atol=1e-5)


def test_wrong_settings_name_the_key(tmp_path):
    for kind in KINDS:
        with pytest.raises(ConfigError, match=r"explain\.n=0: must be 1 or more"):
            call(kind, tmp_path, n=0)
    with pytest.raises(ConfigError, match=r"explain\.of=guess: no such choice"):
        call("saliency", tmp_path, of="guess")
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    for kind in ("gradcam", "features"):
        message = f"explain={kind}: Sequential has no convolution.* Use explain=saliency"
        with pytest.raises(MedexpError, match=message):
            call(kind, tmp_path, network=dense)
    assert call("saliency", tmp_path, network=dense)


def test_every_option_of_the_group_fits_its_function():
    files = sorted((ROOT / "conf" / "explain").glob("*.yaml"))
    assert {file.stem for file in files} == set(KINDS)
    for file in files:
        node = yaml.safe_load(file.read_text())
        check_node("explain", node)
        assert locate(node["_target_"], "explain._target_") is getattr(explain, file.stem)
        assert file.read_text().startswith("# ") and "medexp eval run=" in file.read_text()
