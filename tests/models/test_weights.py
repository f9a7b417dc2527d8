"""Weights from files made here, and from a registry that points at them."""

import hashlib
import pickle

import pytest
import torch
import torchvision
from torch import nn

from medexp.errors import ConfigError, MedexpError
from medexp.models import weights
from medexp.models.standard import IMAGENET_STATISTICS
from medexp.runs import checkpoint


class Small(nn.Module):
    """A network whose torchvision counterpart calls its parts `body` and `fc`."""

    imagenet = "Small_Weights.IMAGENET1K_V1"
    renames = {"body.": "features.", "fc.": "head."}  # noqa: RUF012
    statistics = IMAGENET_STATISTICS

    def __init__(self, channels=3, classes=2):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def theirs(classes=1000):
    """The state dict as torchvision would name it."""
    torch.manual_seed(5)
    state = Small(classes=classes).state_dict()
    return {
        k.replace("features.", "body.").replace("head.", "fc."): v + 1
        if v.is_floating_point()
        else v
        for k, v in state.items()
    }


def test_torchvision_names_match_and_a_head_of_another_size_is_replaced(tmp_path):
    torch.save(theirs(), tmp_path / "w.pth")
    network = Small()
    head = network.head.weight.clone()
    report = weights.load_weights(network, str(tmp_path / "w.pth"))
    assert torch.equal(network.features[0].weight, theirs()["body.0.weight"])
    assert torch.equal(network.head.weight, head)
    assert set(report.other_shape) == {"head.weight", "head.bias"}
    assert not report.missing and not report.unused and len(report.matched) == 7
    text = report.text()
    assert "7 tensors loaded" in text and "left as drawn, other shape: head.weight" in text


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix", ["module.", "net.", "model.", "_orig_mod.", "_orig_mod.module.", "model.net.module."]
)
def test_wrappers_around_the_network_are_cut_off_its_names(tmp_path, prefix, key):
    state = {prefix + name: tensor for name, tensor in theirs(classes=2).items()}
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "w.pth")
    network = Small()
    report = weights.load_weights(network, str(tmp_path / "w.pth"))
    assert torch.equal(network.features[0].weight, theirs()["body.0.weight"])
    assert torch.equal(network.head.weight, theirs(classes=2)["fc.weight"])
    assert len(report.matched) == 9 and not report.missing and report.prefix == prefix
    assert f"names in the file begin with {prefix}, which was cut off" in report.text()


def test_torchs_own_wrappers(tmp_path):
    """DataParallel, torch.compile, and AveragedModel with its counter beside the network."""
    source = Small()
    wrapped = {
        "dp": nn.DataParallel(source),
        "ema": torch.optim.swa_utils.AveragedModel(source),
        "compiled": torch.compile(source),
    }
    for name, wrapper in wrapped.items():
        torch.save(wrapper.state_dict(), tmp_path / f"{name}.pth")
        network = Small()
        report = weights.load_weights(network, str(tmp_path / f"{name}.pth"))
        assert torch.equal(network.head.weight, source.head.weight), name
        assert report.unused == (("n_averaged",) if name == "ema" else ())


def test_names_that_are_the_networks_own_are_left(tmp_path):
    """A network whose own first part is called `module`, and a wrapped one that does not fit."""
    own = nn.Sequential()
    own.add_module("module", nn.Conv2d(3, 4, 3))
    torch.save(own.state_dict(), tmp_path / "own.pth")
    assert weights.load_weights(own, str(tmp_path / "own.pth")).prefix == ""
    torch.save({f"module.{k}": v for k, v in nn.Linear(2, 2).state_dict().items()}, tmp_path / "x")
    with pytest.raises(MedexpError, match="It is of another network"):
        weights.load_weights(Small(), str(tmp_path / "x"))


def test_a_medexp_checkpoint_and_safetensors(tmp_path):
    source = Small()
    checkpoint.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    network = Small()
    weights.load_weights(network, str(tmp_path / "best.pt"))
    assert torch.equal(network.head.weight, source.head.weight)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(theirs(classes=2), tmp_path / "w.safetensors")
    weights.load_weights(network, str(tmp_path / "w.safetensors"))
    assert torch.equal(network.head.weight, theirs(classes=2)["fc.weight"])


def test_grey_images_take_the_sum_over_rgb(tmp_path):
    torch.save(theirs(classes=2), tmp_path / "w.pth")
    grey, colour = Small(channels=1).eval(), Small().eval()
    report = weights.load_weights(grey, str(tmp_path / "w.pth"))
    weights.load_weights(colour, str(tmp_path / "w.pth"))
    assert report.grey == ("features.0.weight",) and "summed over RGB" in report.text()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)))


def test_missing_and_unused_are_told(tmp_path):
    state = theirs(classes=2)
    del state["body.1.bias"]
    torch.save(state | {"classifier.weight": torch.ones(2)}, tmp_path / "w.pth")
    report = weights.load_weights(Small(), str(tmp_path / "w.pth"))
    assert report.missing == ("features.1.bias",) and report.unused == ("classifier.weight",)


class Evil:
    def __reduce__(self):
        return (print, ("code in a pickle ran",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_bytes(b"PK" + b"0" * 50), "cannot be read"),
        (
            lambda p: (torch.save(theirs(), p), p.write_bytes(p.read_bytes()[:900])),
            "cannot be read",
        ),
        (lambda p: torch.save({"body.0.weight": Evil()}, p), "cannot be read"),
        (lambda p: p.write_bytes(pickle.dumps({"w": Evil()}, protocol=2)), "cannot be read"),
        (lambda p: torch.save({"other.weight": torch.ones(3)}, p), "It is of another network"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (
            lambda p: torch.save({k: v for k, v in theirs().items() if v.ndim < 2}, p),
            "none of its 7 tensors fits as a kernel",
        ),
        (lambda p: torch.save({"epoch": 3}, p), "'epoch' is no tensor"),
        (lambda p: torch.save([1, 2], p), "holds no tensors by name"),
    ],
)
def test_bad_files_are_refused_by_name_and_nothing_is_half_loaded(tmp_path, capsys, make, message):
    path = tmp_path / "bad.pth"
    make(path)
    network = Small()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(MedexpError, match=message) as refused:
        weights.load_weights(network, str(path))
    assert "bad.pth" in str(refused.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert "ran" not in capsys.readouterr().out


def test_a_damaged_safetensors_file(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"12345678{}")
    with pytest.raises(MedexpError, match=r"w\.safetensors: cannot be read"):
        weights.load_weights(Small(), str(tmp_path / "w.safetensors"))


class Registry:
    """torchvision's entry of one network: a file:// address instead of the network's."""

    def __init__(self, url):
        self.url = url

    def get_state_dict(self, progress, check_hash):
        return torch.hub.load_state_dict_from_url(
            self.url, progress=progress, check_hash=check_hash, weights_only=True
        )


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A published file, named by its digest, and an empty cache."""
    torch.save(theirs(), tmp_path / "x.pth")
    digest = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()[:8]
    published = tmp_path / "site" / f"small-{digest}.pth"
    published.parent.mkdir()
    (tmp_path / "x.pth").rename(published)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    entry = Registry(published.as_uri())
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: entry)
    return published, tmp_path / "hub" / "checkpoints" / published.name


def test_imagenet_is_fetched_once_and_kept(registry):
    published, cached = registry
    network = Small()
    report = weights.load_weights(network, "imagenet")
    assert torch.equal(network.features[0].weight, theirs()["body.0.weight"])
    assert cached.exists() and report.source == str(cached)
    published.unlink()
    weights.load_weights(Small(), "imagenet")


def test_offline_names_file_address_and_folder(registry):
    published, cached = registry
    published.unlink()
    with pytest.raises(MedexpError) as refused:
        weights.load_weights(Small(), "imagenet")
    for part in (published.name, published.as_uri(), str(cached.parent)):
        assert part in str(refused.value)


def test_a_damaged_cached_file_is_refused_by_name(registry):
    published, cached = registry
    cached.parent.mkdir(parents=True)
    cached.write_bytes(published.read_bytes()[:-1] + b"x")
    with pytest.raises(MedexpError, match="damaged: its SHA-256 does not begin with") as refused:
        weights.load_weights(Small(), "imagenet")
    assert str(cached) in str(refused.value)


def test_a_network_without_imagenet_weights():
    with pytest.raises(ConfigError, match="torchvision has none for Linear.*alexnet, vgg16"):
        weights.load_weights(nn.Linear(2, 2), "imagenet")


@pytest.mark.parametrize("channels", [1, 3])
def test_imagenet_normalisation(channels):
    network, plain = Small(channels).eval(), Small(channels).eval()
    plain.load_state_dict(network.state_dict())
    keys = list(network.state_dict())
    weights.normalise_input(network, channels)
    assert list(network.state_dict()) == keys
    x = torch.rand(2, channels, 8, 8)
    if channels == 3:
        want = torchvision.transforms.functional.normalize(x, *IMAGENET_STATISTICS)
    else:
        mean, std = (sum(values) / 3 for values in IMAGENET_STATISTICS)
        want = (x - mean) / std
    torch.testing.assert_close(network(x), plain(want))
    compiled = torch.compile(network, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(x), plain(want))


def test_normalising_twice_is_normalising_once():
    network = Small().eval()
    x = torch.rand(2, 3, 8, 8)
    weights.normalise_input(network, 3)
    once = network(x)
    weights.normalise_input(network, 3)
    assert torch.equal(network(x), once)


def test_imagenet_normalisation_of_other_channels_is_refused():
    with pytest.raises(ConfigError, match="the images have 5 channels, ImageNet's have 3"):
        weights.normalise_input(Small(5), 5)
