"""From settings to objects: the network, its weights, the machine, the record."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medexp.config.compose import compose, compose_node
from medexp.config.groups import options
from medexp.config.settings import ModelNode
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError
from medexp.jobs import build
from medexp.train import device as devices


def data(**facts):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    split = Split(images, np.array([0, 1, 2, 0]), np.arange(4).astype(str))
    return Dataset("toy", ("a", "b", "c"), split, split, split, **facts)


def test_what_a_target_returns_is_checked():
    node = {"_target_": "medexp.train.losses.cross_entropy", "_partial_": True}
    with pytest.raises(ConfigError, match=r"model\._target_=.*returned .*, not a torch"):
        build.build_network(ModelNode(node), data())


def test_a_network_gets_channels_classes_and_size_of_the_data():
    for name in options("model"):
        if name.startswith("native"):
            node = compose_node("model", name)
            network = build.build_network(ModelNode(node), data())
            assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("changes", "normalised"),
    [
        ({}, False),
        ({"weights": "imagenet"}, True),
        ({"weights": "imagenet", "normalise": False}, False),
        ({"weights": "file.pth"}, False),
        ({"weights": "file.pth", "normalise": True}, True),
    ],
)
def test_normalisation_comes_with_the_weights_or_by_name(changes, normalised):
    node = compose_node("model", "resnet50") | changes
    network = build.build_network(ModelNode(node), data())
    assert hasattr(network, "input_mean") == normalised
    assert not [key for key in network.state_dict() if "input_" in key]


def test_parameters_are_counted_as_keras_does():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert build.parameter_counts(network) == {"trainable": 112 + 8, "total": 112 + 16}
    network[0].requires_grad_(False)
    assert build.parameter_counts(network) == {"trainable": 8, "total": 112 + 16}


def test_threads_of_one_job_are_not_the_next_ones():
    trainer = replace(compose([]).trainer, device="cpu")
    before = torch.get_num_threads()
    try:
        build.set_machine(replace(trainer, threads=2))
        assert torch.get_num_threads() == 2
        build.set_machine(trainer)
        assert torch.get_num_threads() == devices.THREADS
    finally:
        torch.set_num_threads(before)
