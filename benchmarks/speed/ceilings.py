"""What the device can do at most, measured: the rate of a large matrix product and of a copy.

Beside them, what training one image takes by count (`medexp.models.summary`), so that a speed can
be told as a share of what the machine has.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from medexp.models.summary import Layer
from medexp.train.device import wait_for

# Edge of the square matrices, and bytes copied: more than any cache holds, a fraction of a second.
MATRIX = {"cuda": 8192, "cpu": 2048, "mps": 4096}
COPY = {"cuda": 2**30, "cpu": 2**28, "mps": 2**28}


def ceilings(
    device: torch.device, dtype: torch.dtype, matrix: int | None = None, copy: int | None = None
) -> dict[str, float]:
    """flops: operations a second of a matrix product in `dtype`; bytes: read plus written a second.

    matrix, copy: edge of the matrices and bytes to copy, for a quick look.
    """
    edge, size = matrix or MATRIX[device.type], copy or COPY[device.type]
    a, b = (torch.rand(edge, edge, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    out = torch.empty_like(a)
    return {
        "flops": 2 * edge**3 / fastest(lambda: torch.matmul(a, b, out=out), device),
        "bytes": 2 * size / fastest(lambda: target.copy_(source), device),
    }


def fastest(work: Callable[[], Tensor], device: torch.device, seconds: float = 0.5) -> float:
    """The shortest of the runs that fit in so many seconds: a ceiling is what was once reached."""
    work()
    wait_for(device)
    best, runs, until = float("inf"), 0, time.perf_counter() + seconds
    while runs < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        wait_for(device)
        best, runs = min(best, time.perf_counter() - began), runs + 1
    return best


def training_counts(layers: Sequence[Layer]) -> dict[str, Any]:
    """Of training one image: multiply_adds of forward and backward; activations and parameters.

    The backward pass of a layer costs its forward twice: for the gradient of its weights and for
    that of its input. The first layer's input is the image, which needs no gradient.
    """
    working = [layer.multiply_adds for layer in layers if layer.multiply_adds]
    return {
        "multiply_adds": 3 * sum(working) - (working[0] if working else 0),
        "activations": sum(layer.activations for layer in layers),
        "parameters": sum(layer.parameters for layer in layers),
    }
