"""The images of a run: split.csv says which part each was in, seen.csv what came before the run.

By these files a later command knows an image again: by its id, or under another name by its pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medexp.runs.files import csv_rows, write_csv

SPLIT, SEEN = "split.csv", "seen.csv"


@dataclass(frozen=True)
class Listed:
    """Images as a file of a run lists them: ids, patients or slides, digests of the pixels.

    A group or digest is empty where it is not known.
    """

    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: "Listed") -> "Listed":
        return Listed(self.ids + other.ids, self.groups + other.groups, self.pixels + other.pixels)

    def known_pixels(self) -> dict[str, str]:
        """Id -> digest, of the images whose digest is known."""
        return {key: pixels for key, pixels in zip(self.ids, self.pixels, strict=True) if pixels}

    def less(self, ids: Iterable[str]) -> "Listed":
        """Those with other ids."""
        left = set(ids)
        rows = zip(self.ids, self.groups, self.pixels, strict=True)
        return _of_rows(row for row in rows if row[0] not in left)


@dataclass(frozen=True)
class Images:
    """parts: split -> its images. seen: images that the weights it began with had been trained on.

    An image of validation that is the test split too stands in both parts.
    """

    parts: Mapping[str, Listed]
    seen: Listed = Listed()

    @property
    def trained(self) -> Listed:
        """All images that the run's weights were trained on, by the run or before it."""
        return self.parts.get("train", Listed()) + self.seen


def _of_rows(rows: Iterable[tuple[str, str, str]]) -> Listed:
    columns = list(zip(*rows, strict=True))
    return Listed(*map(tuple, columns)) if columns else Listed()


def read_images(folder: Path) -> Images | None:
    """The images of a run; None where its folder has no split.csv.

    Raises MedexpError where a file is no such list.
    """
    if not (folder / SPLIT).is_file():
        return None
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for _, cells in csv_rows(folder / SPLIT, ("id", "split")):
        rows.setdefault(cells["split"], []).append(_row(cells))
    seen = csv_rows(folder / SEEN, ("id",)) if (folder / SEEN).is_file() else ()
    return Images(
        {part: _of_rows(listed) for part, listed in rows.items()},
        _of_rows(_row(cells) for _, cells in seen),
    )


def _row(cells: Mapping[str, str]) -> tuple[str, str, str]:
    return cells["id"], cells.get("group") or "", cells.get("pixels") or ""


def write_images(
    folder: Path,
    images: Images,
    labels: Mapping[str, Iterable[int]],
) -> None:
    """split.csv (id, split, label, group, pixels), and seen.csv where there is anything to say.

    labels: split -> the label of each of its images. split.csv can be replayed in another run by
    dataset.split_file.
    """
    write_csv(
        folder / SPLIT,
        [
            {"id": key, "split": part, "label": label, "group": group, "pixels": pixels}
            for part, listed in images.parts.items()
            for key, group, pixels, label in zip(
                listed.ids, listed.groups, listed.pixels, labels[part], strict=True
            )
        ],
    )
    if len(images.seen):
        seen = zip(images.seen.ids, images.seen.groups, images.seen.pixels, strict=True)
        rows = [{"id": key, "group": group, "pixels": pixels} for key, group, pixels in seen]
        write_csv(folder / SEEN, rows)
