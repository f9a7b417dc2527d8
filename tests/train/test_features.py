"""Kept features: the same numbers as without, and kept only where every epoch finds the same."""

import logging
import os
import shutil
import signal
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from medexp import augment
from medexp.config.settings import Stage
from medexp.data.base import Dataset, Rows, Split
from medexp.errors import ConfigError, Interrupted
from medexp.models.standard import resnet50
from medexp.models.tbt import ViPTT
from medexp.models.weights import normalise_input
from medexp.train import features
from tests.train import kit

FROZEN = {"first": Stage(frozen=True, l2=0.01), "second": Stage(frozen=True)}
ADAM = partial(torch.optim.Adam, lr=0.01)


class Net(nn.Module):
    """Two leading stages, then pooling and dropout; counts the images that go through them."""

    leading = ("first", "second")

    def __init__(self, draws=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.second = nn.Dropout(0.5) if draws else nn.ReLU()
        self.head = nn.Sequential(
            nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 8), nn.BatchNorm1d(8),
            nn.ReLU(), nn.Linear(8, 1),
        )  # fmt: skip
        self.seen = 0

    def forward(self, x):
        return self.classify(self.encode(x))

    def encode(self, x):
        self.seen += len(x)
        return self.second(self.first(x))

    def classify(self, maps):
        return self.head(maps)


class Whole(nn.Module):
    """The same without saying how it divides."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Flatten(), nn.Linear(108, 1)
        self.second = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.head(self.first(x))


def data(n=38, shape=(6, 6, 3), mapped=None):
    """38 training and 19 other images; mapped: the folder that they are mapped from."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * n, *shape)).astype(np.uint8)
    if mapped:
        mapped.mkdir(exist_ok=True)
        np.save(mapped / "images.npy", images)
        images = np.load(mapped / "images.npy", mmap_mode="r")

    def split(rows):
        own = Rows(images, rows) if mapped else images[rows]
        return Split(own, rows % 2, rows.astype(str))

    order = rng.permutation(2 * n)
    parts = (order[:n], order[n : n + n // 2], order[n + n // 2 :])
    return Dataset("toy", ("a", "b"), *map(split, parts))


def network(**changes):
    torch.manual_seed(0)
    net = Net(**changes)
    net.first[1].running_var.uniform_(0.5, 2)
    return net


def fit(folder, choice, net=None, **changes):
    net = net or network()
    settings = {"optimizer": ADAM, "eval_batch_size": 10, "monitor": "val_loss", "stages": FROZEN}
    settings |= {"dataset": data(), "cache_features": choice, **changes}
    return net, kit.fit(folder, net, settings.pop("dataset"), **settings)


def rows_of(folder):
    """history.csv without its times."""
    return [row.split(",")[:-2] for row in (folder / "history.csv").read_text().splitlines()]


def assert_same(net, other):
    for (name, ours), theirs in zip(
        net.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


RECIPES = {
    "plain": {},
    "everything": {
        "ema": 0.9,
        "accumulate": 2,
        "clip_norm": 0.5,
        "switch_at": 4,
        "switch_to": ["head"],
        "max_steps": 8,
    },
    "bf16": {"precision": torch.bfloat16},
    "contiguous": {"channels_last": False, "data": "device"},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_kept_features_give_the_same_run_to_the_bit(tmp_path, recipe):
    settings = RECIPES[recipe] | {"dataset": data(mapped=tmp_path / "files")}
    plain, before = fit(tmp_path / "off", "off", **settings)
    net, fitted = fit(tmp_path / "on", "auto", **settings)
    assert rows_of(tmp_path / "on") == rows_of(tmp_path / "off")
    assert_same(net, plain)
    assert fitted.best_epoch == before.best_epoch
    # A first batch on trial, then each image once; without, each in every epoch (an average's
    # network is a copy, so what it validates is not counted).
    assert net.seen == 16 + 38 + 19
    assert plain.seen == (38 + 38 + 32 if recipe == "everything" else 3 * (38 + 19))
    assert not (tmp_path / "on" / "features").exists()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_viptt_on_volumes_to_the_bit(tmp_path, cell, precision):
    def viptt():
        torch.manual_seed(0)
        return ViPTT(
            num_classes=2, in_channels=1, image_size=(3, 32, 32), cell=cell,
            recurrent_units=8, dense=12, chunk=4,
        )  # fmt: skip

    x = torch.rand(2, 1, 3, 32, 32)
    net = viptt()
    assert torch.equal(net(x), net.classify(net.encode(x)))
    settings = {
        "dataset": data(6, (3, 32, 32, 1)),
        "stages": {name: Stage(frozen=True) for name in ("colour", "features")},
        "epochs": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "precision": precision,
    }
    plain, _ = fit(tmp_path / "off", "off", viptt(), **settings)
    net, _ = fit(tmp_path / "on", "on", viptt(), **settings)
    assert rows_of(tmp_path / "on") == rows_of(tmp_path / "off")
    assert_same(net, plain)


def test_a_torchvision_backbone_to_the_bit(tmp_path):
    def resnet():
        torch.manual_seed(0)
        return resnet50(num_classes=2, in_channels=3, image_size=(32, 32))

    settings = {
        "dataset": data(6, (32, 32, 3)),
        "stages": {"features": Stage(frozen=True)},
        "epochs": 2,
        "batch_size": 3,
        "eval_batch_size": 3,
    }
    plain, _ = fit(tmp_path / "off", "off", resnet(), **settings)
    net, _ = fit(tmp_path / "on", "on", resnet(), **settings)
    assert rows_of(tmp_path / "on") == rows_of(tmp_path / "off")
    assert_same(net, plain)


def test_the_input_is_normalised_as_on_the_way_through_the_network(tmp_path):
    nets = [network(), network()]
    for net in nets:
        normalise_input(net, 3)
    plain, _ = fit(tmp_path / "off", "off", nets[0])
    net, _ = fit(tmp_path / "on", "on", nets[1])
    assert rows_of(tmp_path / "on") == rows_of(tmp_path / "off") and net.seen < plain.seen
    fit(tmp_path / "other", "on")
    assert rows_of(tmp_path / "other") != rows_of(tmp_path / "on")


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    class Stopping(torch.optim.Adam):
        steps = 0

        def step(self, *arguments):
            super().step(*arguments)
            Stopping.steps += 1
            if Stopping.steps == 5:
                os.kill(os.getpid(), signal.SIGINT)

    whole, _ = fit(tmp_path / "whole", "on")
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", "on", optimizer=partial(Stopping, lr=0.01))
    assert not (tmp_path / "cut" / "features").exists()
    # What a session that was killed left, and other weights to be replaced by the checkpoint's.
    (tmp_path / "cut" / "features").mkdir()
    (tmp_path / "cut" / "features" / "train.npy").write_bytes(b"half")
    torch.manual_seed(5)
    again, _ = fit(tmp_path / "cut", "on", Net(), resume=True)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert_same(again, whole)


def test_of_one_epoch_that_is_left_nothing_is_kept_and_keeping_counts_as_seconds(
    tmp_path, monkeypatch
):
    plans = []
    real = features.shown

    @contextmanager
    def watched(*arguments, epochs, **options):
        plans.append(epochs)
        with real(*arguments, epochs=epochs, **options) as images:
            yield images._replace(seconds=1000.0)

    monkeypatch.setattr(features, "shown", watched)
    _, first = fit(tmp_path, "auto", epochs=2)
    _, second = fit(tmp_path, "auto", epochs=3, resume=True)
    assert plans == [2, 1]
    assert 1000 < first.seconds < 2000 < second.seconds < 3000


def shown(folder, choice="on", net=None, stages=FROZEN, later=FROZEN, **changes):
    return features.shown(
        kit.settings_of(cache_features=choice, eval_batch_size=10),
        net or network(),
        data(),
        folder,
        **{
            "frozen": features.Frozen(stages, later),
            "augment": augment.Identity(),
            "epochs": 2,
            "autocast": partial(torch.autocast, "cpu", enabled=False),
            **changes,
        },
    )


def test_features_lie_on_the_disk_while_they_serve(tmp_path):
    net, own = network(), data()
    with shown(tmp_path / "run" / "features", net=net) as given:
        assert sorted(p.name for p in (tmp_path / "run/features").iterdir()) == [
            "train.npy", "val.npy",
        ]  # fmt: skip
        for split, images in ((given.train, own.train), (given.val, own.val)):
            assert isinstance(split.images.base, np.memmap) or isinstance(split.images, np.memmap)
            assert split.images.shape == (len(images), 1, 1, 4 * 4 * 4)
            assert np.array_equal(split.labels, images.labels)
            x = torch.from_numpy(images.images).permute(0, 3, 1, 2) / 255
            with torch.no_grad():
                expected = net.eval().encode(x).flatten(1).numpy()
            np.testing.assert_allclose(split.images[:, 0, 0], expected, atol=1e-6)
        assert given.seconds > 0
    assert not (tmp_path / "run" / "features").exists()


REASONS = {
    "divides": ({"net": Whole()}, "Whole does not say how it divides (leading, encode, classify)"),
    "trains": (
        {"stages": {"first": Stage(frozen=True)}},
        "second trains, and it is of the leading part (first, second)",
    ),
    "switch": (
        {"later": FROZEN | {"first": Stage()}},
        "first trains, and it is of the leading part (first, second)",
    ),
    "augment": (
        {"augment": augment.FlipsTurns()},
        "the images are augmented anew in every epoch. Take augment=none",
    ),
    "statistics": (
        {"stages": FROZEN | {"first": Stage(frozen=True, fixed_statistics=False)}},
        "BatchNorm's statistics change (model.stages.first.fixed_statistics=false)",
    ),
    "draws": (
        {"net": network(draws=True)},
        "the frozen part draws at random in training (dropout)",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_changes_from_epoch_to_epoch_is_not_kept(tmp_path, caplog, case):
    caplog.set_level(logging.INFO)
    changes, reason = REASONS[case]
    changes = {"later": changes.get("stages", FROZEN)} | changes
    with shown(tmp_path / "features", "auto", **changes) as given:
        net = network()
        assert given.of(net) is net and given.train.images.shape == (38, 6, 6, 3)
    assert caplog.messages == [f"The frozen stages are computed anew in every epoch: {reason}"]
    with pytest.raises(ConfigError) as error, shown(tmp_path / "features", "on", **changes):
        pass
    assert str(error.value) == f"trainer.cache_features=on: {reason}"
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("choice", "changes"),
    [("off", {}), ("auto", {"epochs": 1}), ("auto", {"stages": {}, "later": {}})],
)
def test_where_nothing_is_to_gain_nothing_is_said(tmp_path, caplog, choice, changes):
    caplog.set_level(logging.INFO)
    net = network()
    with shown(tmp_path / "features", choice, net, **changes) as given:
        assert given.of(net) is net and given.seconds == 0
    assert not caplog.messages and net.seen == 0


def test_a_full_disk_is_no_place_for_them(tmp_path, monkeypatch):
    need = 4 * 64 * (38 + 19)  # float32 of 4 channels of 4x4, for each image
    for free, fits in ((2 * need + 1, True), (2 * need - 1, False)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free)
        )
        with shown(tmp_path / "features", "auto") as given:
            assert (given.seconds > 0) == fits
    with pytest.raises(ConfigError, match="its features take 0.0 GB, and the disk has 0.0 GB"):
        shown(tmp_path / "features", "on").__enter__()


def test_by_its_key(medexp, toy):
    run = toy("trainer.cache_features=off")
    assert (run / "metrics.json").is_file()
    toy("trainer.cache_features=maybe", code=2)
    assert "trainer.cache_features=maybe: no such choice" in medexp.err
    toy("trainer.cache_features=on", code=2)
    assert "trainer.cache_features=on: Net does not say how it divides" in medexp.err
