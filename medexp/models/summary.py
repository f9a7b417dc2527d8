"""A network layer by layer, as Keras' `model.summary()` shows it, with its arithmetic and memory.

The papers print Keras' summaries, so shapes are channels-last here and parameters split as Keras
splits them. One forward on the meta device, where tensors have shapes and no memory, so that a
network of any size is counted at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn

# Layers whose output already has its channels last.
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase)
_COUNTED = (nn.modules.conv._ConvNd, nn.Linear, nn.LSTM, nn.GRU)
_NAME_WIDTH = 42


@dataclass
class Layer:
    """One row of the summary, at batch 1.

    name, kind: dotted path in the network ("" if it is the network itself) and class name.
    output_shape: without the batch, channels last; None for a layer that this forward left out (an
        auxiliary head). Slices that a network folds into the batch come first, as in Keras'
        TimeDistributed. Of a layer used several times, its last output.
    parameters: trained weights of the layer itself; `other`: its frozen ones, and the statistics of
        BatchNorm. A weight that layers share is counted in the first.
    multiply_adds: in one forward, over all its calls.
    activations: elements of its outputs that have memory of their own.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    other: int
    multiply_adds: int = 0
    activations: int = 0


def layers(network: nn.Module, input_shape: tuple[int, ...]) -> list[Layer]:
    """The layers in the order in which one forward in evaluation mode ended their first calls.

    A layer is a module without children, or one with weights or arithmetic of its own. Those that
    did not run but have weights follow at the end, so the sums are those of the whole network.

    Args:
        network: on the meta device; its mode is left as it was.
        input_shape: (C, H, W) or (C, D, H, W).
    """
    paths = _layer_paths(network)
    weights = _weights(paths)
    rows: dict[nn.Module, Layer] = {}
    folded: dict[nn.Module, int] = {}
    # Tensors whose last axis are the channels; held, so that no id is given twice.
    channels_last: dict[int, Tensor] = {}

    def row(module: nn.Module, shape: tuple[int, ...] | None) -> Layer:
        return Layer(paths[module], type(module).__name__, shape, *weights[module])

    def note(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        output, x = _first_tensor(outputs), _first_tensor(inputs)
        if output is None or x is None:
            return
        layer = rows.setdefault(module, row(module, None))
        if isinstance(module, _CHANNELS_LAST) or (
            id(x) in channels_last and output.shape == x.shape
        ):
            channels_last[id(output)] = output
        shape = tuple(output.shape[1:])
        if len(shape) > 2 and id(output) not in channels_last:
            shape = shape[1:] + shape[:1]
        # The batch is 1, so more are slices, in one call or in chunks.
        if len(output) > 1 or module in folded:
            folded[module] = folded.get(module, 0) + len(output)
            shape = (folded[module], *shape)
        layer.output_shape = shape
        layer.multiply_adds += multiply_adds(module, x, output)
        layer.activations += _own_elements(module, x, output)

    handles = [module.register_forward_hook(note) for module in paths]
    training = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(torch.empty(1, *input_shape, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    left_out = [module for module in paths if module not in rows and any(weights[module])]
    return [*rows.values(), *(row(module, None) for module in left_out)]


def multiply_adds(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiply-adds of one call: of convolutions, Linear, LSTM and GRU, without their biases.

    A module that computes by itself can say its own as `multiply_adds(x) -> int`. All else counts
    as none: elementwise work, pooling, normalisation, and also matrix products outside these
    modules, such as attention's.
    """
    multiply_adds = getattr(module, "multiply_adds", None)
    if callable(multiply_adds):
        return int(multiply_adds(x))
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return x.numel() * module.weight[0].numel()
    if isinstance(module, nn.modules.conv._ConvNd):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, (nn.LSTM, nn.GRU)):
        steps = x.numel() // x.shape[-1]
        return steps * sum(w.numel() for w in module.parameters() if w.ndim == 2)
    return 0


def totals(rows: Sequence[Layer]) -> dict[str, int]:
    """Sums over the layers, at batch 1: trainable, total, multiply_adds, activation_bytes.

    activation_bytes: float32 outputs of all layers, which a training step keeps for its backward.
    An output in the memory of its input (in-place, a view) is not counted again. An estimate: what
    is computed between layers (sums, concatenations, padding), a dropout's mask, an LSTM's inner
    states and a library's workspace are not in it.
    """
    trainable = sum(row.parameters for row in rows)
    return {
        "trainable": trainable,
        "total": trainable + sum(row.other for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "activation_bytes": 4 * sum(row.activations for row in rows),
    }


def layer_table(rows: Sequence[Layer], title: str | None = None) -> Table:
    """The summary as Keras prints it, within 80 columns, its totals below."""
    table = Table(
        title=title,
        title_justify="left",
        caption=_totals_text(totals(rows)),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("Layer (kind)", no_wrap=True)
    table.add_column("Output shape", no_wrap=True)
    table.add_column("Param #", justify="right", no_wrap=True)
    for row in rows:
        shape = "not run" if row.output_shape is None else ", ".join(map(str, row.output_shape))
        kind = f" ({_shorten(row.kind, 20)})"
        name = _shorten(row.name, _NAME_WIDTH - len(kind))
        # Names are not markup: a path may hold square brackets.
        table.add_row(f"{name}{kind}".replace("[", r"\["), shape, f"{row.parameters + row.other:,}")
    return table


def _totals_text(sums: dict[str, int]) -> str:
    return (
        f"Parameters: {sums['total']:,} ({4 * sums['total'] / 2**20:,.2f} MiB)\n"
        f"Trainable: {sums['trainable']:,}\n"
        f"Others: {sums['total'] - sums['trainable']:,}\n"
        f"An image forward: {sums['multiply_adds'] / 1e6:,.1f} million multiply-adds\n"
        f"An image in training: {sums['activation_bytes'] / 2**20:,.2f} MiB of activations"
    )


def _shorten(text: str, width: int) -> str:
    """The text with its middle left out if it is too long: both ends of a path say most."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _layer_paths(network: nn.Module) -> dict[nn.Module, str]:
    """The modules that get a row, with their dotted paths."""
    paths: dict[nn.Module, str] = {}
    inside: set[nn.Module] = set()  # of modules that count for all that they are made of
    for path, module in network.named_modules():
        if module in inside:
            continue
        if hasattr(module, "multiply_adds"):
            inside.update(module.modules())
        if (
            module in inside
            or isinstance(module, _COUNTED)
            or not list(module.children())
            or [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        ):
            paths[module] = path
    return paths


def _weights(modules: Iterable[nn.Module]) -> dict[nn.Module, tuple[int, int]]:
    """Of each module: its trained elements and its others, shared weights only once."""
    seen: set[int] = set()
    counts = {}
    for module in modules:
        trained = other = 0
        whole = hasattr(module, "multiply_adds")
        for weight in (*module.parameters(whole), *module.buffers(whole)):
            if id(weight) in seen or not weight.is_floating_point():
                continue
            seen.add(id(weight))
            if weight.requires_grad:
                trained += weight.numel()
            else:
                other += weight.numel()
        counts[module] = (trained, other)
    return counts


def _first_tensor(value: Any) -> Tensor | None:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def _own_elements(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Elements of the output that are not the input's memory nor that of a layer inside."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        # In evaluation it hands on its input, in training it does not.
        return 0 if module.inplace or module.p == 0 else output.numel()
    same = output.untyped_storage()._cdata == x.untyped_storage()._cdata
    inside = list(module.children()) and not hasattr(module, "multiply_adds")
    return 0 if same or inside else output.numel()
