"""The page of `medexp data check`: one HTML file that needs no network and runs no script.

Plain values in, text out. Every id, path and class name is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medexp.data.near import to_bytes
from medexp.report.page.markup import rendered, templates
from medexp.runs.files import write_text

SIDE = 160  # pixels of a picture on the page, at most
LISTED = 200  # rows of a long table
DASHES = {"train": "", "val": "6 4", "test": "2 3"}
SPLITS = {"train": "training", "val": "validation", "test": "test"}

Bytes = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """An image to be shown: (H, W, 3 or 1) uint8, its id, and a line about it."""

    pixels: Bytes
    id: str
    text: str


def displayed(image: npt.NDArray[np.generic], low: float, high: float) -> Bytes:
    """A stored image as (H, W, 3 or 1) uint8; of a volume its middle slice.

    low, high: what is shown black and white in images of float.
    """
    if image.ndim == 4:
        image = image[len(image) // 2]
    shown: Bytes = np.asarray(
        image if image.dtype == np.uint8 else to_bytes(image, low, high), np.uint8
    )
    if shown.shape[-1] not in (1, 3):
        shown = shown.mean(axis=-1, keepdims=True).astype(np.uint8)
    return shown


def write_page(
    path: Path,
    found: Mapping[str, Any],
    samples: Mapping[str, Sequence[Picture]],
    copies: Sequence[Sequence[Picture]],
    alike: Sequence[Sequence[Picture]],
) -> None:
    """Write the page of what `check` or `check_list` found.

    samples: class -> pictures; copies: groups of equal images; alike: pairs of near duplicates.
    """
    write_text(path, page(found, samples, copies, alike))


def page(
    found: Mapping[str, Any],
    samples: Mapping[str, Sequence[Picture]],
    copies: Sequence[Sequence[Picture]],
    alike: Sequence[Sequence[Picture]],
) -> str:
    shape = (
        f"{'x'.join(map(str, found['image_shape']))} {found['dtype']}"
        if found["image_shape"]
        else "a list of files, without pixels"
    )
    near = found.get("near_duplicates")
    alike_notes = [
        f"{one['bits']} bits, correlation {one['correlation']:.3f}"
        for one in (near["examples"] if near else ())
    ]
    templates().filters["data_uri"] = data_uri
    return rendered(
        "datapage.html.j2",
        title=f"{found['dataset']}: data check",
        styles=("page.css", "datapage.css"),
        found={"folds": None, "patients": None, "made": None, **found},
        names=SPLITS,
        shape=shape,
        splits=split_rows(found),
        across=pair_rows(found),
        folds=fold_rows(found),
        in_two_folds=in_two_folds(found),
        samples=samples,
        copies=[("", group) for group in copies],
        copies_text=copies_text(found),
        copies_table=copy_rows(found),
        alike=list(zip(alike_notes, alike, strict=bool(near))),
        alike_text=alike_text(found, len(alike)),
        curves=curves(found.get("histogram")),
        intensities=intensity_rows(found),
        files=file_rows(found),
        unreadable=table(
            ["image", "why"],
            [list(pair) for pair in (found.get("unreadable") or {}).items()],
            LISTED,
        ),
        patients=patient_rows(found),
        digests=table(
            ["split", "blake2b of pixels and labels"],
            [
                [SPLITS[part], split["blake2b"]]
                for part, split in found["splits"].items()
                if "blake2b" in split
            ],
        ),
    )


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None
) -> dict[str, Any]:
    """What the template's table prints: columns with something in them, `most` rows.

    more: how many rows were left out.
    """
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return {
        "header": [header[i] for i in kept],
        "rows": [[row[i] for i in kept] for row in rows[:most]],
        "more": len(rows[most:]) if most else 0,
    }


# ---------------------------------------------------------------- tables


def split_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for part, split in found["splits"].items():
        each = split["images_per_group"]
        rows.append(
            [
                SPLITS[part],
                f"{split['images']:,}",
                *(f"{count:,}" for count in split["per_class"].values()),
                "" if split["groups"] is None else f"{split['groups']:,}",
                "" if each is None else f"{each['min']:,} / {each['median']:g} / {each['max']:,}",
                f"{found['duplicates_within'][part]:,}",
                f"{split['blank']:,}" if "blank" in split else "",
            ]
        )
    header = ["split", "images", *found["classes"], "patients or slides", "images of each: least / "
              "median / most", "copies in it", "blank"]  # fmt: skip
    return table(header, rows)


def pair_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    parts = list(found["splits"])
    near = found.get("near_duplicates")
    rows = []
    for first, second in combinations(parts, 2):
        pair, images = f"{first}/{second}", f"images_of_{second}"
        shared = (found["shared_groups"] or {}).get(pair)
        rows.append(
            [
                f"{SPLITS[first]} and {SPLITS[second]}",
                f"{found['duplicates_across'].get(pair, {}).get('contents', 0):,}",
                "" if near is None else f"{near['across'].get(pair, {}).get(images, 0):,}",
                "unknown" if shared is None else f"{shared['groups']:,}",
                "" if shared is None else f"{shared[f'share_of_{second}']:.1%}",
            ]
        )
    header = ["", "equal images", "nearly equal images of the second", "patients or slides in both",
              "share of the second's images"]  # fmt: skip
    return table(header, rows)


def fold_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [
            fold,
            f"{one['images']:,}",
            *(f"{count:,}" for count in one["per_class"].values()),
            "" if one["groups"] is None else f"{one['groups']:,}",
        ]
        for fold, one in ((found.get("folds") or {}).get("folds") or {}).items()
    ]
    return table(["fold", "images", *found["classes"], "patients or slides"], rows)


def in_two_folds(found: Mapping[str, Any]) -> list[str]:
    """What two folds share, in a sentence each."""
    about = found.get("folds") or {}
    texts = []
    for key, what in (("shared_groups", "Patients or slides"), ("shared_copies", "Equal files")):
        if about.get(key) is not None:
            pairs = ", ".join(f"{pair}: {count:,}" for pair, count in about[key].items())
            texts.append(f"{what} in two folds: {pairs}.")
    return texts


def copies_text(found: Mapping[str, Any]) -> str:
    count = found["duplicate_groups"]
    text = f"{count:,} {'image stands' if count == 1 else 'images stand'} more than once"
    if found["conflicting_labels"]:
        text += f", {found['conflicting_labels']:,} of them under different labels"
    return f"{text}. {the_first(len(found['duplicates']), count)}"


def copy_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [str(number), one["id"], SPLITS[one["split"]], one["class"]]
        for number, group in enumerate(found["duplicates"], 1)
        for one in group
    ]
    return table(["", "file", "split", "class"], rows)


def alike_text(found: Mapping[str, Any], shown: int) -> str:
    """How near duplicates were looked for; empty where they were not."""
    near = found.get("near_duplicates")
    if near is None:
        return ""
    text = (
        f"{near['pairs']:,} pairs. Of {near['compared']:,} images (copies once, blank ones not), "
        f"pairs whose perceptual hashes differ in at most {near['bits']} of 64 bits and whose "
        f"thumbnails correlate by {near['correlation']} or more. Mirrored and turned copies are "
        "not found."
    )
    if not near["complete"]:
        text += " So many look alike that not every pair was compared."
    return f"{text} {the_first(shown, near['pairs'])}"


def the_first(shown: int, count: int) -> str:
    return f"The first {shown:,}:" if shown < count else ""


def intensity_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [SPLITS[part], *(f"{split['intensity'][key]:.4g}" for key in ("min", "max", "mean", "std"))]
        for part, split in found["splits"].items()
        if split.get("intensity")
    ]
    return table(["split", "least", "greatest", "mean", "standard deviation"], rows)


def curves(histogram: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The histograms of the splits as lines over one axis, each as shares of its own values."""
    if histogram is None:
        return None
    width, height = 640, 180
    edges = histogram["edges"]
    shares = {p: np.array(c) / max(sum(c), 1) for p, c in histogram["counts"].items()}
    top = max(float(share.max()) for share in shares.values()) or 1
    lines = []
    for part, share in shares.items():
        step = width / len(share)
        points = " ".join(
            f"{(i + side) * step:.1f},{height - 10 - (height - 20) * value / top:.1f}"
            for i, value in enumerate(share)
            for side in (0, 1)
        )
        lines.append({"part": part, "points": points, "dashes": DASHES[part]})
    axis = [f"{number:.4g}" for number in (edges[0], (edges[0] + edges[-1]) / 2, edges[-1])]
    return {"width": width, "height": height, "lines": lines, "axis": axis}


def file_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for key, one in (found.get("files") or {}).items():
        spread = f"{_spell(one['min'])} to {_spell(one['max'])}" if "min" in one else ""
        common = ", ".join(f"{_spell(value)} ({count:,})" for value, count in one["commonest"])
        more = one["distinct"] - len(one["commonest"])
        rows.append(
            [key, f"{one['known']:,}", f"{one['distinct']:,}", spread,
             common + (f", {more:,} more" if more > 0 else "")]
        )  # fmt: skip
    return table(["", "files", "distinct", "range", "commonest"], rows)


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " x ".join(map(_spell, value)) if isinstance(value, list) else str(value)


def patient_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    parts = list(found["splits"])
    rows = [
        [
            name,
            f"{one['images']:,}",
            *(f"{count:,}" for count in one["per_class"].values()),
            *(f"{one[part]:,}" for part in parts),
        ]
        for name, one in sorted(
            (found.get("patients") or {}).items(), key=lambda item: -item[1]["images"]
        )
    ]
    header = ["patient or slide", "images", *found["classes"], *(SPLITS[part] for part in parts)]
    return table(header, rows, LISTED)


def data_uri(pixels: Bytes) -> str:
    """A PNG inside the page, at most SIDE pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
