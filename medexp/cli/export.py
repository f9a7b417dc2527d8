"""`medexp export`: the network of a finished run as a file for other programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexp.errors import ConfigError, nearest, one_of

EXPORT_HELP = """\
usage: medexp export run=DIR [format=onnx] [int8=true] [out=FILE]

Write the network of a run so that other programs can use it. It takes images
as the run's reader makes them, (N, H, W, C), scales and normalises them in
itself, and gives the probabilities of the classes; batches have any size. The
file is held against the run on its test images, and is not written where it
differs. How a picture becomes such an image stands in the file's metadata, and
beside it in FILE.json.

  medexp export run=outputs/pcam-native3/TIME     DIR/export/pcam-native3.onnx
  medexp export run=DIR format=torch_export       for torch.export.load
  medexp export run=DIR format=safetensors        the weights alone; they can be
                     loaded again: medexp train model.weights=FILE.safetensors
  medexp export run=DIR out=there/cells.onnx
  medexp export run=DIR int8=true                 ONNX of 8 bits; its cost in
                     accuracy and its speed, on the run's own images, are told

  onnx needs pip install "medexp[onnx]"
"""

KEYS = ("run", "format", "int8", "out")
FORMATS = ("onnx", "torch_export", "safetensors")


def completions(word: str) -> list[str]:
    """What the word may become: a key, a run's folder, a format."""
    from medexp.config.saved import complete_folders

    key, equals, value = word.partition("=")
    if not equals:
        return [f"{name}=" for name in KEYS if name.startswith(word)]
    if key == "run":
        return complete_folders(word)
    return [f"{key}={name}" for name in FORMATS if key == "format" and name.startswith(value)]


def export(words: list[str]) -> int:
    """Export one run."""
    if "-h" in words or "--help" in words:
        print(EXPORT_HELP, end="")
        return 0
    from medexp.config.line import folders_of, read_line

    line = read_line(words)
    for one in line.overrides:
        if one.key_or_group not in (*KEYS, "debug"):
            raise ConfigError(
                f"{one.key_or_group}: not a key of export. {nearest(one.key_or_group, KEYS)}"
            )
    folders = folders_of(line.text("run"))
    if not folders:
        raise ConfigError("run: missing. Give the run directory: medexp export run=outputs/...")
    if len(folders) > 1 or line.multirun:
        raise ConfigError("run: one at a time is exported")
    kind = line.text("format") or "onnx"
    one_of("format", kind, FORMATS)
    from medexp.cli.data import size_of
    from medexp.cli.terminal import wrapped
    from medexp.jobs.export import export as work
    from medexp.jobs.export import export_int8

    out = line.text("out")
    target = Path(out).expanduser() if out else None
    if line.value("int8") is True:
        if kind != "onnx":
            raise ConfigError(f"int8=true: of format=onnx, not of {kind}")
        made, paid = export_int8(folders[0], target)
        print(wrapped(of_int8(made.bytes, paid), hanging=2))
        print(made.file)
        return 0
    made = work(folders[0], kind, target)
    on = "of the run's test images" if made.real else "images of noise: the run's are not here"
    said = f"{size_of(made.bytes)}; its probabilities differ by at most {made.difference:.1e} "
    print(wrapped(f"{said}from the run's, on {made.tried} {on}", hanging=2))
    for mark, reason in made.marks.items():
        print(wrapped(f"{mark} (the run): {reason}", hanging=2))
    print(made.file)
    return 0


def of_int8(size: int, paid: Mapping[str, Any]) -> str:
    """What 8 bits cost, in words."""
    from medexp.cli.data import size_of

    return (
        f"{size_of(size)}; accuracy {paid['accuracy int8']:.4f} on {paid['images']:,} test images, "
        f"{paid['accuracy float32']:.4f} with 32 bits; {paid['other class']:.1%} get another "
        f"class; {paid['images/s int8']:,.0f} images/s here, "
        f"{paid['images/s float32']:,.0f} with 32 bits"
    )
