"""From a data set's node to three splits: the settings, what cannot be read, what is refused."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from medexp.config.settings import DatasetNode, Names, Source, SplitSettings
from medexp.config.tree import build
from medexp.data import load as sources
from medexp.data.base import Dataset, Pool, Split
from medexp.errors import ConfigError, MedexpError

BROKEN = {3, 8}


def image(row: int) -> np.ndarray:
    return np.full((4, 4, 1), row, np.uint8)


def pool(root: str, *, n: int = 40, broken: bool = False, patients: bool = False) -> Pool:
    def decode(row):
        if broken and row in BROKEN:
            raise MedexpError(f"{root}/{row}.png cannot be decoded")
        return image(row), {"size": [4, 4]}

    return Pool(
        name="mine",
        classes=("a", "b"),
        labels=np.arange(n) % 2,
        ids=np.array([f"i{row}" for row in range(n)]),
        files=[f"{root}/{row}.png" for row in range(n)],
        shape=(4, 4, 1),
        dtype=np.uint8,
        decode=decode,
        settings={"broken": broken},
        groups=np.array([f"p{row // 4}" for row in range(n)]) if patients else None,
        public=50,
    )


def split_already(root: str, *, shared: bool = False) -> Dataset:
    def part(name, first):
        groups = np.array(["same" if shared else name] * 4)
        ids = np.array([f"{name}{i}" for i in range(4)])
        return Split(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1]), ids, groups)

    marks = {"ITS OWN": "a mark that its function sets"} if shared else {}
    parts = (part("train", 0), part("val", 4), part("test", 8))
    return Dataset("done", ("a", "b"), *parts, marks=marks)


def returns_a_list(root: str) -> list[int]:
    return [1]


def settings(target="pool", source=None, **node):
    return SimpleNamespace(
        names=Names("mine", "x"),
        dataset=DatasetNode({"_target_": f"{__name__}.{target}", "root": "r", **node}),
        source=build(Source, source or {}, "source."),
    )


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path))


def test_a_pool_is_split_and_decoded():
    data = sources.load_data(settings(test_share=0.25, val_share=0.25))
    assert [len(s) for s in data.splits().values()] == [20, 10, 10]
    for split in data.splits().values():
        rows = [int(key[1:]) for key in split.ids]
        assert np.array_equal(split.images[:], np.stack([image(row) for row in rows]))
        assert np.array_equal(split.labels, np.array(rows) % 2)
    assert data.facts["i7"] == {"size": [4, 4]}
    assert data.partial == ("40 of 50 images",)
    assert sources.load_data(settings(n=50)).partial == ()
    assert any("patients unknown" in note for note in data.notes)
    assert any("stratified by label, seed 0, 25% test and 25% validation" in n for n in data.notes)


def test_unreadable_images_stop_a_run_or_are_named(caplog):
    with pytest.raises(MedexpError, match="2 of 40 images cannot be read. The first: r/3.png") as e:
        sources.load_data(settings(broken=True))
    assert "dataset.on_error=skip leaves them out" in str(e.value)
    with caplog.at_level(logging.WARNING):
        data = sources.load_data(settings(broken=True, on_error="skip"))
    assert data.skipped == {f"i{row}": f"r/{row}.png cannot be decoded" for row in BROKEN}
    assert "2 of 40 images cannot be read" in caplog.text
    assert any("are left out (listed in metrics.json)" in note for note in data.notes)
    whole = sources.load_data(settings())
    for name, split in data.splits().items():
        # The others stay where they were.
        expected = [key for key in whole.splits()[name].ids if key not in ("i3", "i8")]
        assert split.ids.tolist() == expected


def test_copies_under_another_name_are_noted(tmp_path):
    data = sources.load_data(settings())
    train, test = (int(data.splits()[part].ids[0][1:]) for part in ("train", "test"))
    for row in range(40):
        (tmp_path / f"{row}.png").write_bytes(bytes([train if row == test else row]))
    noted = sources.load_data(settings(root=str(tmp_path)))
    text = "1 test images (12.5%) are copies of training images, byte for byte"
    assert text in noted.notes and text not in data.notes


def test_examine_goes_past_what_stops_a_run():
    leaky = settings(broken=True, patients=True, split="stratified")
    with pytest.raises(MedexpError, match="patients or slides stand on both sides"):
        sources.load_data(leaky)
    data = sources.load_data(leaky, examine=True)
    assert set(data.skipped) == {"i3", "i8"} and "LEAKY" in data.marks


def test_a_data_set_that_is_split_already():
    assert sources.load_data(settings("split_already")).marks == {}
    with pytest.raises(MedexpError, match="100.0% of the test images are of 1 patients"):
        sources.load_data(settings("split_already", shared=True))
    lenient = {"shared": True, "allow_leak": True, "on_error": "skip"}
    marked = sources.load_data(settings("split_already", **lenient))
    assert "100.0% of the test images" in marked.marks["LEAKY"]
    assert marked.marks["ITS OWN"] == "a mark that its function sets"
    with pytest.raises(ConfigError, match=r"dataset.folds=5: done comes split from its own funct"):
        sources.load_data(settings("split_already", folds=5, fold=0))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"on_error": "skp"}, r"dataset.on_error=skp: no such choice. Did you mean 'skip'\?"),
        ({"test_share": "much"}, "dataset.test_share='much': must be float, not str"),
        ({"allow_leak": 1}, "dataset.allow_leak=1: must be bool"),
        ({"test_share": 1.0}, "dataset.test_share=1.0: must be 0 or more, and below 1"),
        ({"val_share": -0.1}, "dataset.val_share=-0.1: must be 0 or more, and below 1"),
        ({"split_seed": -1}, "dataset.split_seed=-1: must be 0 or more"),
        ({"folds": 1, "fold": 0}, "dataset.folds=1: must be 2 or more"),
        ({"folds": 3, "fold": -1}, "dataset.fold=-1: must be 0 or more"),
        ({"split": "patient"}, r"dataset.split=patient: no such choice. Did you mean 'patients'\?"),
        ({"max_trian": 3}, r"dataset.max_trian: not an argument .* Did you mean 'max_train'\?"),
    ],
)
def test_misspelt_keys_of_the_split(node, message):
    with pytest.raises(ConfigError, match=message):
        sources.load_data(settings(**node))


def test_what_a_target_returns_is_checked():
    with pytest.raises(ConfigError, match="returned list. It must return a medexp.data.Pool, or"):
        sources.load_data(settings("returns_a_list"))


def test_phantoms_are_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="dataset=mine has no phantoms"):
        sources.load_data(settings(source={"kind": "phantom", "size": 64, "seed": 0}))


def test_phantoms_have_a_size_of_their_own():
    made = []

    def write(folder, *, size=24, seed=0):
        made.append((size, seed))

    sys.modules[__name__].write = write
    for size in (None, None, 30):
        source = {"kind": "phantom", "size": size, "seed": 2}
        sources.load_data(settings(source=source, phantom=f"{__name__}.write"))
    assert made == [(24, 2), (30, 2)]
    with pytest.raises(ConfigError, match=r"source.size=3: must be 16 or more"):
        source = {"kind": "phantom", "size": 3, "seed": 2}
        sources.load_data(settings(source=source, phantom=f"{__name__}.write"))


def test_the_split_of_a_node_has_the_schemas_defaults():
    assert DatasetNode({}).split == SplitSettings()
    node = DatasetNode({"fold": 1, "folds": 3, "root": "x"})
    assert node.split == SplitSettings(fold=1, folds=3)
