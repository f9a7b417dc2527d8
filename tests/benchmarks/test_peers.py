"""The peers do the same work as medexp: the same files, augmentation, network, reports."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import json

import numpy as np
import pytest
import torch

from benchmarks.speed import keras_peer, prepare, torch_peers
from medexp.config.compose import compose, instantiate
from medexp.config.settings import Settings
from medexp.config.tree import build, plain
from medexp.data.load import load_data

FLIPS_TURNS = {"horizontal": True, "vertical": True, "turns": True}


@pytest.fixture
def job(workplace):
    """A job on 64 random patches, as the command writes it, files and facts included."""
    settings = compose([f"dataset.root={workplace / 'files'}", "trainer.device=cpu"])
    work = {"settings": plain(settings), "data": str(workplace / "files")}
    facts = prepare.prepare({**work, "patches": 64})
    keys = ("images", "shape", "dtype", "classes", "device")
    return {
        **work,
        **{key: facts[key] for key in keys},
        "augment": FLIPS_TURNS,
        "epochs": 2,
        "workers": 0,
        "precision": "float32",
        "own_precision": "float32",
    }


def test_files_are_read_alike_by_all(job):
    data = load_data(build(Settings, job["settings"]))
    assert job["images"] == {"train": 64, "val": 8, "test": 8}
    assert (job["shape"], job["dtype"], job["classes"]) == ([96, 96, 3], "uint8", 2)
    for part, split in (("train", data.train), ("valid", data.val)):
        own = torch_peers.Patches(job["data"], part, lambda image: image)
        images, labels = keras_peer.read(job["data"], part)
        assert np.array_equal(images, split.images[:])
        assert np.array_equal(labels, split.labels)
        assert own.labels == split.labels.tolist()
        assert np.array_equal(own[3][0].movedim(0, -1).numpy(), split.images[3])
    assert len(np.unique(images)) == 256


def test_the_users_own_images_go_to_the_peers_as_medexp_decodes_them(workplace):
    settings = compose(["dataset=cervix", "source=phantom", "source.size=24", "trainer.amp=off"])
    facts = prepare.prepare(
        {"settings": plain(settings), "data": str(workplace / "x"), "patches": None}
    )
    data = load_data(settings)
    own = torch_peers.Patches(workplace / "x", "train", lambda image: image)
    assert facts["images"]["train"] == len(own) == len(data.train)
    assert np.array_equal(own.images.numpy(), data.train.images[:])
    assert own.labels == data.train.labels.tolist()
    assert facts["classes"] == len(data.classes) and facts["precision"] == "float32"


def symmetries(image):
    """The eight images that flips and right-angle turns make of a square one (H, W, C)."""
    return [np.rot90(i, k) for i in (image, image[:, ::-1]) for k in range(4)]


def test_augmentation_makes_the_eight_symmetries_and_nothing_else():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    known = [i.astype(np.float32) / 255 for i in symmetries(image)]
    change = torch_peers.transforms(FLIPS_TURNS, scale=True)
    seen = set()
    for _ in range(200):
        got = change(torch.from_numpy(image).movedim(-1, 0)).movedim(0, -1).numpy()
        (which,) = [i for i, one in enumerate(known) if np.allclose(got, one)]
        seen.add(which)
    assert seen == set(range(8))
    plain = torch_peers.transforms({}, scale=False)
    assert torch.equal(plain(torch.full((1, 2, 2), 7.5)), torch.full((1, 2, 2), 7.5))


@pytest.mark.parametrize("model", ["native1", "native2_counted", "native3", "native4"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_keras_network_is_the_same(model, classes):
    keras = pytest.importorskip("keras")
    node = compose([f"model={model}", "model.batch_norm=[false,true,false]"]).model
    ours = instantiate(
        "model", node, num_classes=classes, in_channels=3, image_size=(96, 96)
    ).eval()
    theirs = keras_peer.build(keras, node, (96, 96, 3), classes)
    weights = [w for w in ours.state_dict().values() if w.is_floating_point()]
    theirs.set_weights([w.permute(*order(w)).numpy() for w in weights])
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    expected, got = ours(x), theirs(x.movedim(1, -1), training=False)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def order(weight):
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[weight.ndim]


@pytest.mark.parametrize("peer", ["bare", "loop", "lightning"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_torch_peers_report(job, peer, precision, monkeypatch):
    if peer == "lightning":
        pytest.importorskip("lightning")
    quick = torch_peers.ceilings
    monkeypatch.setattr(torch_peers, "ceilings", lambda *a: quick(*a, matrix=64, copy=4096))
    job |= {"precision": precision, "own_precision": precision}
    report = json.loads(json.dumps(torch_peers.PEERS[peer](job)))
    check(report, precision)
    assert "torch" in report["versions"]
    if peer == "bare":
        assert report["extra"]["step"] == "eager" and report["extra"]["ceilings"]["flops"] > 0
        assert report["epoch_seconds"] == report["train_seconds"] and report["memory"] > 1e8


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_keras_on_torch_reports(job, precision):
    keras = pytest.importorskip("keras")
    before = keras.config.dtype_policy()
    try:
        check(keras_peer.train(job | {"precision": precision}, "torch"), precision)
    finally:
        keras.config.set_dtype_policy(before)


def check(report, precision):
    assert report["images"] == 64 and report["precision"] == precision
    assert len(report["epoch_seconds"]) == len(report["train_seconds"]) == 2
    for whole, part in zip(report["epoch_seconds"], report["train_seconds"], strict=True):
        assert 0 < part <= whole
    assert report["first_step"] > 1.7e9 and report["device_memory"] is None
    for score in report["extra"].get("auc", []):
        assert 0 <= score <= 1
