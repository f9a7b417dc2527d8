"""`medexp export`: the network of a finished run in a file that others can use, held against it.

What goes in are images as the run's reader makes them, (N, H, W, C) or (N, D, H, W, C); scaling,
normalisation and the form of the output are inside. How a file becomes such an image, the classes
and the marks of the run stand in the file's own metadata, and beside it as JSON.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medexp.errors import ConfigError, MedexpError
from medexp.jobs import binding, quantise
from medexp.jobs.apply import marks_of, network_of
from medexp.runs.files import SCHEMA, read_json, versions, write_json
from medexp.score.predict import class_logits, to_input

log = logging.getLogger(__name__)

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
IMAGES = 64  # of the run's test split that an export is held against
MOST = 1e-4  # difference of a probability above which a file is no export of the run
SIZES = (1, 3)  # of batches tried beside the whole: the size of a batch is open


@dataclass(frozen=True)
class Exported:
    """A file, its size, and the largest difference of a probability from PyTorch's.

    tried: how many images that was measured on; real: whether they are the run's own test images.
    """

    file: Path
    bytes: int
    difference: float
    tried: int
    real: bool
    marks: Mapping[str, str]


def export_int8(folder: str, out: Path | None) -> tuple[Exported, dict[str, Any]]:
    """The ONNX file of a run with 8 bits, and what it costs on the run's test images.

    Raises as `export` does, and MedexpError where the run's images are not here: the ranges of the
    activations and the cost are found on them.
    """
    run = binding.read_run("run", Path(folder))
    names = run.settings.names
    file = out or run.folder / "export" / f"{names.dataset}-{names.model}-int8.onnx"
    check_target(file, "onnx")
    data = binding.load_as(run.settings, run, ("train", "test"))
    whole = file.with_name(f".{file.stem}.float.onnx")
    temporary = file.with_name(f".{file.stem}.tmp.onnx")
    try:
        made = export(folder, "onnx", whole)
        facts = read_json(beside(whole))
        quantise.quantise(whole, temporary, data, as_text(facts | {"format": "onnx, int8"}))
        paid = quantise.cost(read_onnx(whole, run), read_onnx(temporary, run), data.test)
        temporary.replace(file)
    finally:
        for left in (whole, beside(whole), temporary):
            left.unlink(missing_ok=True)
    size = file.stat().st_size
    more = {"format": "onnx, int8", "file": file.name, "bytes": size, "bytes float32": made.bytes}
    write_json(beside(file), facts | more | {"int8": paid})
    return replace(made, file=file, bytes=size), paid


class Deployed(nn.Module):
    """A network from stored images to the probabilities of the classes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) or (N, D, H, W, C), uint8 or float -> (N, classes) float32."""
        return class_logits(self.network(to_input(images, channels_last=False))).softmax(1)


def export(folder: str, kind: str, out: Path | None) -> Exported:
    """Write the network of a run in a format, and beside it the JSON of what it is.

    Raises ConfigError for a format or file name that cannot be, MedexpError where the network
    cannot be written so, or the file does not give what the run gives: then none is left.
    """
    run = binding.read_run("run", Path(folder))
    names = run.settings.names
    file = out or run.folder / "export" / f"{names.dataset}-{names.model}{FORMATS[kind]}"
    check_target(file, kind)
    network = network_of(run, torch.device("cpu"))
    images, real = images_of(run)
    model = Deployed(network.to(memory_format=torch.contiguous_format)).eval()
    facts = facts_of(run, kind, images)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.stem}.tmp{file.suffix}")
    try:
        WRITERS[kind](model, images, temporary, as_text(facts))
        difference = largest_difference(model, READERS[kind](temporary, run), images)
        if not difference <= MOST:
            raise MedexpError(
                f"format={kind}: on {len(images)} images its probabilities differ by up to "
                f"{difference:.2g} from the run's, so it is no export of it. Take another format"
            )
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    size = file.stat().st_size
    measured = {"images": len(images), "of": "test images" if real else "noise"}
    facts["verified"] = {"largest difference": difference, "batches": [*SIZES, len(images)]}
    facts["verified"] |= measured
    write_json(beside(file), facts | {"file": file.name, "bytes": size})
    return Exported(file, size, difference, len(images), real, facts["marks"])


def check_target(file: Path, kind: str) -> None:
    """Raise ConfigError for a name that cannot be, MedexpError where a package is missing."""
    if file.suffix != FORMATS[kind]:
        raise ConfigError(f"out={file}: a file of format={kind} ends in {FORMATS[kind]}")
    for there in (file, beside(file)):
        if there.exists():
            raise ConfigError(f"out={there}: is there already. Choose another name with out=")
    needed(kind)


def beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def needed(kind: str) -> None:
    """Raise MedexpError where a package that a format needs is missing."""
    packages = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}
    for name in packages.get(kind, ()):
        try:
            __import__(name)
        except ImportError:
            raise MedexpError(f'format={kind} needs {name}: pip install "medexp[{kind}]"') from None


def images_of(run: binding.Run) -> tuple[np.ndarray, bool]:
    """Images to hold an export against, and whether they are the run's own test images.

    Where those are not here any more it is noise, which shows an error of the export as well.
    """
    try:
        split = binding.load_as(run.settings, run, ("test",)).test
        return np.ascontiguousarray(split.images[: min(IMAGES, len(split))]), True
    except MedexpError as error:
        log.warning("The test images of %s are not here: %s", run.name, str(error).split("\n")[0])
    assert run.record is not None
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (8, *run.record.image_shape)).astype(np.uint8), False


def facts_of(run: binding.Run, kind: str, images: np.ndarray) -> dict[str, Any]:
    """What a user of the file must know."""
    shape = [*images.shape[1:]]
    axes = "N, D, H, W, C" if len(shape) == 4 else "N, H, W, C"
    scale = "0..255, divided by 255 inside" if images.dtype == np.uint8 else "as the reader's"
    return {
        "schema": SCHEMA,
        "format": kind,
        "input": {
            "name": "images",
            "axes": axes,
            "shape": ["N", *shape],
            "dtype": str(images.dtype),
            "values": scale,
            "colours": {1: "grey", 3: "RGB"}.get(shape[-1], "channels"),
        },
        "output": {"name": "probabilities", "axes": "N, classes", "dtype": "float32"},
        "classes": list(run.classes),
        "reader": run.settings.dataset.arguments(),
        "model": run.settings.names.model,
        "network": run.settings.model.arguments(),
        "normalised as ImageNet inside": bool(run.record and run.record.normalised),
        "run": run.name,
        "marks": marks_of([run]),
        "versions": versions(),
        "command": os.environ.get("MEDEXP_COMMAND"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def as_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as the metadata of a file: text under `medexp.<name>`, JSON where it is no text."""
    return {
        f"medexp.{key}": value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in facts.items()
    }


def largest_difference(
    model: nn.Module, exported: Callable[[np.ndarray], np.ndarray], images: np.ndarray
) -> float:
    """Of a probability, over all images and over batches of other sizes."""
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = 0.0
    for size in (*SIZES, len(images)):
        got = exported(images[:size])
        found = max(found, float(np.abs(got - expected[:size]).max()))
    return found


# ---------------------------------------------------------------- the formats


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporters tell of their own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def traced(model: nn.Module, images: np.ndarray) -> Any:
    """The program of a model for batches of any size; MedexpError where it has none."""
    example = torch.from_numpy(np.ascontiguousarray(np.resize(images[:2], (2, *images.shape[1:]))))
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        raise MedexpError(
            f"{type(model.network).__name__} cannot be traced for batches of any size "
            f"({str(error).strip().splitlines()[0]}). Take format=safetensors, which holds its "
            "weights"
        ) from error


def write_onnx(model: nn.Module, images: np.ndarray, file: Path, metadata: dict[str, str]) -> None:
    program = traced(model, images)
    try:
        with quiet():
            made = torch.onnx.export(
                program, input_names=["images"], output_names=["probabilities"], verbose=False
            )
    except Exception as error:
        raise MedexpError(
            f"format=onnx: {str(error).strip().splitlines()[0]}. Take format=torch_export"
        ) from error
    assert made is not None
    made.model.metadata_props.update(metadata)
    made.save(str(file), external_data=False)


def read_onnx(file: Path, run: binding.Run) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["probabilities"], {"images": images})[0])


def write_program(
    model: nn.Module, images: np.ndarray, file: Path, metadata: dict[str, str]
) -> None:
    torch.export.save(traced(model, images), file, extra_files=metadata)


def read_program(file: Path, run: binding.Run) -> Callable[[np.ndarray], np.ndarray]:
    module = torch.export.load(file).module()

    def call(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)).numpy())

    return call


def write_safetensors(
    model: nn.Module, images: np.ndarray, file: Path, metadata: dict[str, str]
) -> None:
    from safetensors.torch import save_file

    network = model.network
    assert isinstance(network, nn.Module)
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(state, file, metadata)
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)  # it makes files that only their owner may read


def read_safetensors(file: Path, run: binding.Run) -> Callable[[np.ndarray], np.ndarray]:
    """The weights of the file in a network that is built anew."""
    from safetensors.torch import load_file

    network = network_of(run, torch.device("cpu"), weights=False)
    network.load_state_dict(load_file(file))
    model = Deployed(network).eval()

    def call(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    return call


WRITERS: dict[str, Callable[[nn.Module, np.ndarray, Path, dict[str, str]], None]] = {
    "onnx": write_onnx,
    "torch_export": write_program,
    "safetensors": write_safetensors,
}
READERS: dict[str, Callable[[Path, binding.Run], Callable[[np.ndarray], np.ndarray]]] = {
    "onnx": read_onnx,
    "torch_export": read_program,
    "safetensors": read_safetensors,
}
