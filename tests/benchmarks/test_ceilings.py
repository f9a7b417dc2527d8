"""Ceilings are measured on the CPU too; what an image costs is held against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import ceilings
from medexp.config.compose import compose, instantiate
from medexp.models import summary
from medexp.train.losses import cross_entropy

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ceilings_of_this_machine(dtype):
    found = ceilings.ceilings(CPU, dtype, matrix=128, copy=2**20)
    assert set(found) == {"flops", "bytes"}
    assert 1e6 < found["flops"] < 1e16 and 1e6 < found["bytes"] < 1e13


def test_the_fastest_of_at_least_three():
    calls = []

    def work():
        calls.append(1)
        return torch.zeros(())

    assert ceilings.fastest(work, CPU, seconds=0) > 0
    assert len(calls) == 4, "one to warm up"


@pytest.mark.parametrize("model", ["native3", "native2_counted", "cervixnet1"])
def test_counted_as_torch_counts(model):
    """Forward and backward of one image; torch counts two operations a multiply-add."""
    node = compose([f"model={model}"]).model
    channels, *size = node["about"]["input"]
    supplied = {"num_classes": 2, "in_channels": channels, "image_size": tuple(size)}
    with torch.device("meta"):
        layers = summary.layers(instantiate("model", node, **supplied), (channels, *size))
    counts = ceilings.training_counts(layers)

    network = instantiate("model", node, **supplied)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(network(torch.rand(1, channels, *size)), torch.tensor([1])).backward()
    assert 2 * counts["multiply_adds"] == counter.get_total_flops()
    assert counts["parameters"] == sum(p.numel() for p in network.parameters())
    assert counts["activations"] > 0


def test_a_network_without_arithmetic():
    assert ceilings.training_counts([])["multiply_adds"] == 0
