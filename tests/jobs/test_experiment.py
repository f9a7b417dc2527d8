"""From plain settings to a run: what is refused, and what is marked."""

import numpy as np
import pytest
import torch

from medexp.config import compose
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError
from medexp.jobs import experiment


def data(**facts):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    split = Split(images, np.array([0, 1, 2, 0]), np.arange(4).astype(str))
    return Dataset("toy", ("a", "b", "c"), split, split, split, **facts)


def settings(**changes):
    return {
        "names": {"dataset": "toy", "model": "toynet"},
        "dataset": {},
        "source": {"kind": "disk", "size": 64, "seed": 0},
        "paper": {"epochs": 100, "rows": [{"models": ["toynet"]}]},
    } | changes


def test_marks_say_why_a_number_is_not_the_papers():
    assert experiment.marks(settings(), data(), 100) == {}
    assert experiment.marks(settings(paper=None), data(), 1) == {}
    other = {"dataset": "toy", "model": "of no paper"}
    assert experiment.marks(settings(names=other), data(), 1) == {}
    assert experiment.marks(settings(), data(partial=("5 of 9 patches",)), 10) == {
        "PARTIAL": "10 of 100 epochs; 5 of 9 patches"
    }
    phantom = {"kind": "phantom", "size": 64, "seed": 3}
    found = experiment.marks(settings(source=phantom), data(partial=("5 of 9",)), 100)
    assert found == {"PHANTOM": "4 synthetic training images (seed 3)"}
    leaky = data(marks={"LEAKY": "all of them"})
    assert experiment.marks(settings(), leaky, 100) == {"LEAKY": "all of them"}


def test_what_a_target_returns_is_checked():
    node = {"_target_": "medexp.train.losses.cross_entropy", "_partial_": True}
    with pytest.raises(ConfigError, match=r"model\._target_=.*returned .*, not a torch"):
        experiment.build_network(node, data())


def test_a_network_gets_channels_classes_and_size_of_the_data():
    for name in compose.options("model"):
        if name.startswith("native"):
            node = compose.compose([f"model={name}"])["model"]
            network = experiment.build_network(node, data())
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
    node = compose.compose(["model=resnet50"])["model"] | changes
    network = experiment.build_network(node, data())
    assert hasattr(network, "input_mean") == normalised
    assert not [key for key in network.state_dict() if "input_" in key]


def test_parameters_are_counted_as_keras_does():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert experiment.parameter_counts(network) == {"trainable": 112 + 8, "total": 112 + 16}
    network[0].requires_grad_(False)
    assert experiment.parameter_counts(network) == {"trainable": 8, "total": 112 + 16}


def test_threads_of_one_job_are_not_the_next_ones():
    trainer = compose.compose([])["trainer"] | {"device": "cpu"}
    before = torch.get_num_threads()
    try:
        experiment.set_machine(trainer | {"threads": 2})
        assert torch.get_num_threads() == 2
        experiment.set_machine(trainer)
        assert torch.get_num_threads() == experiment.devices.THREADS
        with pytest.raises(ConfigError, match="trainer.threads=0: must be 1 or more"):
            experiment.set_machine(trainer | {"threads": 0})
    finally:
        torch.set_num_threads(before)
