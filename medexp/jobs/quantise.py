"""An ONNX file of 8 bits in weights and activations, and what that costs on the run's images."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medexp.data.base import Dataset, Split
from medexp.score import metrics

CALIBRATION = 64  # training images by which the ranges of the activations are found
BLOCK = 32  # images at a time
SECONDS = 1.0  # of each measurement of speed

Call = Callable[[np.ndarray], np.ndarray]


def quantise(float_file: Path, file: Path, data: Dataset, metadata: dict[str, str]) -> None:
    """Write the 8-bit file of an ONNX file, calibrated on training images."""
    import onnx
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.blocks = blocks_of(data.train, CALIBRATION)

        def get_next(self) -> dict[str, np.ndarray] | None:
            block = next(self.blocks, None)
            return None if block is None else {"images": block}

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises to optimise the graph first, which the exporter did
    try:
        quantization.quantize_static(
            str(float_file),
            str(file),
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        root.setLevel(before)
    model = onnx.load(file)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, file)


def blocks_of(split: Split, most: int | None = None) -> Iterator[np.ndarray]:
    """The images of a split, a block at a time."""
    count = len(split) if most is None else min(most, len(split))
    for start in range(0, count, BLOCK):
        yield np.ascontiguousarray(split.images[start : min(start + BLOCK, count)])


def cost(whole: Call, small: Call, test: Split) -> dict[str, Any]:
    """Accuracy and speed of the file of 32 bits and of the one of 8, on a split."""
    p = [np.concatenate([call(block) for block in blocks_of(test)]) for call in (whole, small)]
    guesses = [metrics.predict(one.astype(np.float64)) for one in p]
    right = [float(np.mean(guess == test.labels)) for guess in guesses]
    block = next(blocks_of(test))
    speed = [images_per_second(call, block) for call in (whole, small)]
    return {
        "images": len(test),
        "accuracy float32": right[0],
        "accuracy int8": right[1],
        "other class": float(np.mean(guesses[0] != guesses[1])),
        "largest difference": float(np.abs(p[0] - p[1]).max()),
        "images/s float32": round(speed[0], 1),
        "images/s int8": round(speed[1], 1),
    }


def images_per_second(call: Call, block: np.ndarray) -> float:
    call(block)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        call(block)
        count += len(block)
    return count / (time.perf_counter() - began)
