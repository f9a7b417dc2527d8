"""The page of `medexp data check`: one HTML file that needs no network and runs no script.

Plain values in, text out. Every id, path and class name is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medexp.data.near import to_bytes
from medexp.report.page.markup import banners, bullets, document, escaped, section
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
    title = f"{found['dataset']}: data check"
    shape = (
        f"{'x'.join(map(str, found['image_shape']))} {found['dtype']}"
        if found["image_shape"]
        else "a list of files, without pixels"
    )
    body = [
        f"<h1>{escaped(found['dataset'])} <small>{escaped(shape)}</small></h1>",
        _marks(found),
        _verdict(found),
        section("Splits", _splits(found) + _class_bars(found)),
        section("Across the splits", _across(found)),
        section("Folds that the data set comes with", _folds(found)),
        section("Samples of the training split", _samples(samples)),
        section("Copies", _copies(found, copies)),
        section("Near duplicates", _alike(found, alike)),
        section("Intensities", _intensities(found)),
        section("What the files say", _files(found)),
        section("Images that cannot be read", _unreadable(found)),
        section("Patients or slides", _patients(found)),
        section("Notes", _notes(found)),
    ]
    return document(title, "\n".join(part for part in body if part), style=STYLE)


# ---------------------------------------------------------------- sections


def _marks(found: Mapping[str, Any]) -> str:
    partial = {"PARTIAL": "; ".join(found["partial"])} if found["partial"] else {}
    return banners(found["marks"]) + banners(partial)


def _verdict(found: Mapping[str, Any]) -> str:
    faults, warnings = found["faults"], found["warnings"]
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        text = (
            f'<div class="verdict bad"><h2>{count}: what would falsify or stop a run</h2>'
            f"{bullets(faults)}</div>"
        )
    else:
        text = '<div class="verdict good"><h2>Nothing found that would falsify a result</h2></div>'
    if warnings:
        text += f'<div class="verdict look"><h2>To be looked at</h2>{bullets(warnings)}</div>'
    return text


def _splits(found: Mapping[str, Any]) -> str:
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
    return _table(header, rows)


def _class_bars(found: Mapping[str, Any]) -> str:
    text = '<div class="bars">'
    for part, split in found["splits"].items():
        text += f"<h3>{SPLITS[part]}</h3>"
        largest = max(split["share_of_class"].values())
        for number, (name, share) in enumerate(split["share_of_class"].items()):
            width = 100 * share / largest if largest else 0
            text += (
                f'<div class="bar"><span>{escaped(name)}</span><span class="track">'
                f'<i class="c{number % 8}" style="width:{width:.1f}%"></i></span>'
                f"<b>{split['per_class'][name]:,} ({share:.1%})</b></div>"
            )
    return text + "</div>"


def _across(found: Mapping[str, Any]) -> str:
    parts = list(found["splits"])
    near = found.get("near_duplicates")
    rows = []
    for i, first in enumerate(parts):
        for second in parts[i + 1 :]:
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
    return _table(header, rows)


def _folds(found: Mapping[str, Any]) -> str:
    about = found.get("folds")
    if not about:
        return ""
    rows = [
        [
            fold,
            f"{one['images']:,}",
            *(f"{count:,}" for count in one["per_class"].values()),
            "" if one["groups"] is None else f"{one['groups']:,}",
        ]
        for fold, one in about["folds"].items()
    ]
    text = _table(["fold", "images", *found["classes"], "patients or slides"], rows)
    for key, what in (("shared_groups", "patients or slides"), ("shared_copies", "equal files")):
        if about[key] is not None:
            pairs = ", ".join(f"{pair}: {count:,}" for pair, count in about[key].items())
            text += f"<p>{what.capitalize()} in two folds: {escaped(pairs)}.</p>"
    return text


def _samples(samples: Mapping[str, Sequence[Picture]]) -> str:
    return "".join(
        f"<h3>{escaped(name)}</h3>{_gallery(pictures)}" for name, pictures in samples.items()
    )


def _copies(found: Mapping[str, Any], copies: Sequence[Sequence[Picture]]) -> str:
    count = found["duplicate_groups"]
    if not count:
        return ""
    stand = "image stands" if count == 1 else "images stand"
    text = f"<p>{count:,} {stand} more than once"
    if found["conflicting_labels"]:
        text += f", {found['conflicting_labels']:,} of them under different labels"
    text += f". {_first(len(found['duplicates']), count)}</p>"
    if copies:
        return text + _groups([_group(group, "") for group in copies])
    rows = [
        [str(number), one["id"], SPLITS[one["split"]], one["class"]]
        for number, group in enumerate(found["duplicates"], 1)
        for one in group
    ]
    return text + _table(["", "file", "split", "class"], rows)


def _alike(found: Mapping[str, Any], alike: Sequence[Sequence[Picture]]) -> str:
    near = found.get("near_duplicates")
    if near is None:
        return ""
    rule = (
        f"Of {near['compared']:,} images (copies once, blank ones not), pairs whose perceptual "
        f"hashes differ in at most {near['bits']} of 64 bits and whose thumbnails correlate by "
        f"{near['correlation']} or more. Mirrored and turned copies are not found."
    )
    if not near["complete"]:
        rule += " So many look alike that not every pair was compared."
    text = f"<p>{near['pairs']:,} pairs. {rule} {_first(len(alike), near['pairs'])}</p>"
    return text + _groups(
        [
            _group(group, f"{one['bits']} bits, correlation {one['correlation']:.3f}")
            for one, group in zip(near["examples"], alike, strict=True)
        ]
    )


def _first(shown: int, count: int) -> str:
    return f"The first {shown:,}:" if shown < count else ""


def _intensities(found: Mapping[str, Any]) -> str:
    histogram = found.get("histogram")
    if histogram is None:
        return ""
    rows = [
        [SPLITS[part], *(f"{split['intensity'][key]:.4g}" for key in ("min", "max", "mean", "std"))]
        for part, split in found["splits"].items()
        if split["intensity"]
    ]
    table = _table(["split", "least", "greatest", "mean", "standard deviation"], rows)
    return _curves(histogram) + table


def _curves(histogram: Mapping[str, Any]) -> str:
    """The histograms of the splits as lines over one axis, each as shares of its own values."""
    width, height = 640, 180
    edges = histogram["edges"]
    shares = {p: np.array(c) / max(sum(c), 1) for p, c in histogram["counts"].items()}
    top = max(float(share.max()) for share in shares.values()) or 1
    lines, legend = "", ""
    for number, (part, share) in enumerate(shares.items()):
        step = width / len(share)
        points = " ".join(
            f"{(i + side) * step:.1f},{height - 10 - (height - 20) * value / top:.1f}"
            for i, value in enumerate(share)
            for side in (0, 1)
        )
        style = f'class="l{number}" stroke-dasharray="{DASHES[part]}"'
        lines += f'<polyline {style} points="{points}"/>'
        legend += (
            '<span><svg viewBox="0 0 30 8" width="30" height="8"><line x1="0" x2="30" y1="4" '
            f'y2="4" {style}/></svg> {SPLITS[part]}</span> '
        )
    middle = (edges[0] + edges[-1]) / 2
    axis = "".join(f"<span>{number:.4g}</span>" for number in (edges[0], middle, edges[-1]))
    return (
        f'<figure><svg class="curves" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="histogram of intensities">{lines}</svg><div class="axis">{axis}</div>'
        f"<figcaption>Share of the stored values. {legend}</figcaption></figure>"
    )


def _files(found: Mapping[str, Any]) -> str:
    rows = []
    for key, one in (found.get("files") or {}).items():
        spread = f"{_spell(one['min'])} to {_spell(one['max'])}" if "min" in one else ""
        common = ", ".join(f"{_spell(value)} ({count:,})" for value, count in one["commonest"])
        more = one["distinct"] - len(one["commonest"])
        rows.append(
            [key, f"{one['known']:,}", f"{one['distinct']:,}", spread,
             common + (f", {more:,} more" if more > 0 else "")]
        )  # fmt: skip
    return _table(["", "files", "distinct", "range", "commonest"], rows) if rows else ""


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " x ".join(map(_spell, value)) if isinstance(value, list) else str(value)


def _unreadable(found: Mapping[str, Any]) -> str:
    skipped = list((found.get("unreadable") or {}).items())
    if not skipped:
        return ""
    text = _table(["image", "why"], [list(pair) for pair in skipped[:LISTED]])
    more = len(skipped) - LISTED
    return text + (f"<p>{more:,} more in fingerprint.json.</p>" if more > 0 else "")


def _patients(found: Mapping[str, Any]) -> str:
    patients = found.get("patients")
    if not patients:
        return ""
    parts = list(found["splits"])
    rows = [
        [
            name,
            f"{one['images']:,}",
            *(f"{count:,}" for count in one["per_class"].values()),
            *(f"{one[part]:,}" for part in parts),
        ]
        for name, one in sorted(patients.items(), key=lambda item: -item[1]["images"])
    ]
    header = ["patient or slide", "images", *found["classes"], *(SPLITS[part] for part in parts)]
    more = f"<p>{len(rows) - LISTED:,} more in fingerprint.json.</p>" if len(rows) > LISTED else ""
    table = _table(header, rows[:LISTED])
    return f"<details><summary>{len(rows):,} in all</summary>{table}{more}</details>"


def _notes(found: Mapping[str, Any]) -> str:
    rows = [
        [SPLITS[part], split["blake2b"]]
        for part, split in found["splits"].items()
        if "blake2b" in split
    ]
    digests = _table(["split", "blake2b of pixels and labels"], rows) if rows else ""
    made = found.get("made") or {}
    lines = "".join(
        f"<p>{escaped(key)}: <code>{escaped(value)}</code></p>" for key, value in made.items()
    )
    return bullets(found["notes"]) + digests + lines


# ---------------------------------------------------------------- pieces


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that are empty in every row are left out; numbers stand flush right."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    head = "".join(f"<th>{escaped(header[i])}</th>" for i in kept)
    lines = ""
    for row in rows:
        cells = "".join(f"<td{_number(row[i])}>{escaped(row[i])}</td>" for i in kept)
        lines += f"<tr>{cells}</tr>"
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _number(cell: str) -> str:
    return ' class="n"' if cell[:1].isdigit() or cell[:1] == "-" else ""


def _gallery(pictures: Sequence[Picture]) -> str:
    return f'<div class="gallery">{"".join(map(_figure, pictures))}</div>'


def _groups(groups: Sequence[str]) -> str:
    return f'<div class="groups">{"".join(groups)}</div>' if groups else ""


def _group(pictures: Sequence[Picture], text: str) -> str:
    note = f"<p>{escaped(text)}</p>" if text else ""
    return f'<div class="group">{note}{_gallery(pictures)}</div>'


def _figure(picture: Picture) -> str:
    text = f"<br><em>{escaped(picture.text)}</em>" if picture.text else ""
    return (
        f'<figure><img src="{data_uri(picture.pixels)}" alt="{escaped(picture.id)}" loading="lazy">'
        f"<figcaption>{escaped(picture.id)}{text}</figcaption></figure>"
    )


def data_uri(pixels: Bytes) -> str:
    """A PNG inside the page, at most SIDE pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


STYLE = """
.bar { display: grid; grid-template-columns: minmax(4rem, 9rem) 1fr 7.5rem; gap: .6rem;
  align-items: center; font-size: .9rem }
.bar span { overflow-wrap: anywhere }
.bar b { font-weight: normal; font-variant-numeric: tabular-nums }
.track { background: var(--tint); height: .9rem }
.track i { display: block; height: 100% }
.c0 { background: var(--c0) } .c1 { background: var(--c1) } .c2 { background: var(--c2) }
.c3 { background: var(--c3) } .c4 { background: var(--c4) } .c5 { background: var(--c5) }
.c6 { background: var(--c6) } .c7 { background: var(--c7) }
.curves { display: block; width: 100%; height: auto; background: var(--tint) }
polyline, line { fill: none; stroke-width: 2 }
.l0 { stroke: var(--c0) } .l1 { stroke: var(--c1) } .l2 { stroke: var(--c2) }
.axis { display: flex; justify-content: space-between; font-size: .8rem; color: var(--soft) }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .8rem }
.gallery img { width: 100%; max-width: 10rem; image-rendering: pixelated; display: block;
  background: var(--tint) }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .8rem }
.group { padding: .6rem; border: 1px solid var(--line) }
.group p { margin: 0 0 .4rem; font-size: .9rem }
"""
