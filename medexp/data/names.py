"""What names say of images: classes that may be one, patients by file name, masks beside images."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from medexp.errors import ConfigError

# How tables write that a value is missing; none is a likely name of a class or a patient.
MISSING = {
    "",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "nil",
    "none",
    "null",
    "missing",
    "-",
    "?",
    "nat",
    "<na>",
}
MASK = re.compile(
    r"(.+?)[ _.-](?:masks?|seg|segmentation|gt|groundtruth|ground_truth)(?:[ _-]?\d+)?"
)
MASK_FOLDERS = {
    "mask",
    "masks",
    "segmentation",
    "segmentations",
    "ground_truth",
    "groundtruth",
    "gt",
}
SEPARATOR = re.compile(r"[\s_.()\[\]-]+")
NUMBER = ("number in the file name", "numbers in file names")
BEGINNING = ("beginning of the file name", "beginnings of file names")
EXAMPLES = 4  # named of each kind


# ---------------------------------------------------------------- names that may be one


def bare(name: str) -> str:
    """A name without case, blanks, leading zeros and the `.0` of a number read as float."""
    text = re.sub(r"\s+", "", name).casefold()
    text = re.sub(r"(\d)\.0+$", r"\1", text) if re.fullmatch(r"-?\d+\.0+", text) else text
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that are equal but for case, blanks or leading zeros, those of each kind together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        kinds[bare(name)].append(name)
    return [same for same in kinds.values() if len(same) > 1]


def doubtful(what: str, names: Iterable[str], remedy: str) -> list[str]:
    """What is to be said of the names of classes or patients (`what`), with examples."""
    known = sorted(set(names))
    texts = []
    if same := alike(known):
        shown = ", ".join(" and ".join(map(repr, one[:EXAMPLES])) for one in same[:EXAMPLES])
        more = f", and {len(same) - EXAMPLES:,} more" if len(same) > EXAMPLES else ""
        texts.append(
            f"{what} whose names differ in case, blanks or leading zeros only, so that they may "
            f"be one: {shown}{more}. {remedy}"
        )
    if missing := [name for name in known if name.strip().casefold() in MISSING]:
        shown = ", ".join(map(repr, missing))
        texts.append(f"{what} named {shown}, as tables write a missing value. {remedy}")
    return texts


def doubtful_classes(names: Iterable[str]) -> list[str]:
    return doubtful("classes", names, "Correct the labels, or name the classes: dataset.classes=")


def doubtful_patients(names: Iterable[str]) -> list[str]:
    return doubtful("patients or slides", names, "Write each in one way, or it may cross a split")


# ---------------------------------------------------------------- patients by folder or file name


@dataclass(frozen=True)
class Source:
    """What images have in common by their names, as those of one patient or one picture have.

    one, many: in words; keys: of each image; rule: the value of dataset.patient that groups by it.
    """

    one: str
    many: str
    keys: list[str]
    rule: str


def patients_by(rule: str, names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The patient of each image: the first of its folders, or what a rule finds in its name.

    rule: `folder`, or a regular expression that is searched in the path below the root; its first
    group is the patient, without one all that it matches. folders: "" for an image that lies in
    none of its own. Raises ConfigError for what is no regular expression, and for images of
    which the rule does not say whose they are.
    """
    if rule == "folder":
        found: list[str | None] = [folder.partition("/")[0] or None for folder in folders]
    else:
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise ConfigError(
                f"dataset.patient={rule}: no regular expression ({error}), and neither `folder` "
                "nor a column of the table"
            ) from None
        matches = [pattern.search(name) for name in names]
        found = [(match[pattern.groups and 1] or None) if match else None for match in matches]
    unknown = [name for name, patient in zip(names, found, strict=True) if patient is None]
    if unknown:
        lies = "lies in no folder of a patient" if rule == "folder" else "is not matched by it"
        raise ConfigError(
            f"dataset.patient={rule}: {len(unknown):,} of {len(names):,} images have no patient, "
            f"as {unknown[0]} {lies}. Give a regular expression that finds one in every path"
        )
    return [str(patient) for patient in found]


def sources(names: Sequence[str]) -> list[Source]:
    """What images share by folder, and by the start of their file names, where that says anything.

    names: paths. Several images must have a key in common, and a third of them must not, as they
    have `IMG` of `IMG_001`.
    """
    found = []
    stems = [pieces(PurePosixPath(name).name) for name in names]
    folders = [name.partition("/")[0] for name in names]
    if telling(folders):
        found.append(Source("sub-folder", "sub-folders", folders, "folder"))
    for length in range(1, 5):
        lasts = [stem[:length][-1] for stem in stems]
        keys = ["_".join(stem[:length]) for stem in stems]
        # A word alone is a kind of image; who it is of has a number in nearly every archive.
        if not telling(keys) or most(lasts, r".*\d") < 0.9:
            continue
        piece, sign = r"[^/_.() -]+", "[_.() -]+"
        before = f"(?:{piece}{sign}){{{length - 1}}}" if length > 1 else ""
        if length > 1 and most(lasts, r".*\d{5}") >= 0.9 and telling(lasts):
            # A long number is an identity by itself, whatever kind stands before it.
            found.append(Source(*NUMBER, lasts, f"{before}({piece})[^/]*$"))
        else:
            found.append(Source(*BEGINNING, keys, f"({before}{piece})[^/]*$"))
        break
    return found


def pieces(file: str) -> list[str]:
    """A file's stem, cut at blanks, brackets, `_`, `-` and dots."""
    stem = file.rpartition(".")[0] or file
    return [piece for piece in SEPARATOR.split(stem) if piece] or [stem]


def most(texts: Sequence[str], pattern: str) -> float:
    """The share of texts that match."""
    return sum(re.match(pattern, text) is not None for text in texts) / max(len(texts), 1)


def telling(keys: Sequence[str]) -> bool:
    """Whether most images share a key with some others, and not with most of them."""
    times = Counter(keys)
    shared = sum(count for count in times.values() if count > 1)
    return len(times) >= 5 and 2 * shared >= len(keys) and 3 * max(times.values()) <= len(keys)


def suggestion(names: Sequence[str]) -> list[str]:
    """The note that folders or file names may say whose an image is."""
    return [
        f"images share {one.many}, {len(set(one.keys)):,} of them, such as "
        f"{Counter(one.keys).most_common(1)[0][0]!r}: if each is of one patient or picture, keep "
        f"its images on one side with {setting(one)}"
        for one in sources(names)[:1]
    ]


def setting(source: Source) -> str:
    """dataset.patient= as a shell takes it."""
    if source.rule == "folder":
        return "dataset.patient=folder"
    return f"""'dataset.patient="{source.rule}"'"""


# ---------------------------------------------------------------- masks


def masks(names: Sequence[str]) -> dict[str, str]:
    """Path of a mask -> the image that it is of: X_mask beside X, or masks/X and masks/X_mask."""
    by_stem: dict[tuple[str, str], str] = {}
    for name in names:
        place = PurePosixPath(name)
        by_stem.setdefault((place.parent.as_posix(), place.stem.casefold()), name)
    found: dict[str, str] = {}
    for name in names:
        place = PurePosixPath(name)
        stem, parent = place.stem.casefold(), place.parent
        match = MASK.fullmatch(stem)
        stems = [match[1]] if match else []
        homes = [parent.as_posix()]
        if parent.name.casefold() in MASK_FOLDERS:
            stems.append(stem)
            homes = [parent.parent.as_posix(), *(
                (parent.parent / beside).as_posix() for beside in ("images", "image", "img")
            )]  # fmt: skip
        for home in homes:
            for one in stems:
                image = by_stem.get((home, one))
                if image is not None and image != name:
                    found.setdefault(name, image)
    return found
